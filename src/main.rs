//! The command line program: parse, run, print the error with its cause and the next step.

use std::process::ExitCode;

fn main() -> ExitCode {
    quiet_device_layer();
    scalediff::cli::main(std::env::args_os())
}

/// Mesa's device-selection layer reorders adapters, which we do ourselves, and prints an error where
/// there is no desktop session.
fn quiet_device_layer() {
    if std::env::var_os("XDG_RUNTIME_DIR").is_none() {
        // SAFETY: the program has one thread yet.
        unsafe { std::env::set_var("NODEVICE_SELECT", "1") };
    }
}

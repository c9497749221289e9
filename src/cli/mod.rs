//! The command line. Nothing else in the crate prints.
//!
//! Exit codes: 0 done; 1 failed (for `verify` and `bench`: a case is out of tolerance); 2 a case or model that
//! cannot be read (`verify` only); 64 a command line that cannot be carried out; 130 stopped by Ctrl-C.

/// Prints a line; a reader that went away must not end the work with a panic.
macro_rules! outln {
    ($($arg:tt)*) => {{
        use std::io::Write;
        let _ = writeln!(std::io::stdout(), $($arg)*);
    }};
}

/// The same on standard error.
macro_rules! errln {
    ($($arg:tt)*) => {{
        use std::io::Write;
        let _ = writeln!(std::io::stderr(), $($arg)*);
    }};
}

mod args;
mod bench;
mod bench_args;
mod devices;
mod generate;
mod log;
mod metadata;
mod output;
mod plan;
mod progress;
mod startup;
mod tune;
mod verify;
mod watch;

use std::error::Error as _;
use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;

use crate::error::{Error, ErrorKind};
use args::{Args, Command};

/// Exit code for requests that cannot be carried out, after BSD's `EX_USAGE`.
const EXIT_USAGE: u8 = 64;

/// Exit code of work that Ctrl-C ended, as shells have it: 128 and SIGINT.
const EXIT_CANCELLED: u8 = 130;

/// Runs the program on `words`, the first of which names it.
pub fn main(words: impl Iterator<Item = OsString>) -> ExitCode {
    let args = match Args::try_parse_from(words) {
        Ok(args) => args,
        Err(error) => {
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() { EXIT_USAGE } else { 0 });
        }
    };
    log::init(args.verbose);
    let result = match args.command {
        Command::Generate(args) => generate::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Plan(args) => plan::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Metadata(args) => metadata::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Bench(args) => bench::run(&args),
        Command::Devices => devices::run().map(|()| ExitCode::SUCCESS),
        Command::Tune(args) => tune::run(&args),
        Command::Verify(args) => verify::run(&args),
    };
    result.unwrap_or_else(|error| {
        print_error(&error);
        ExitCode::from(match error.kind() {
            ErrorKind::Usage => EXIT_USAGE,
            ErrorKind::Cancelled => EXIT_CANCELLED,
            _ => 1,
        })
    })
}

/// The message, the chain of causes, the hint.
fn print_error(error: &Error) {
    errln!("error: {error}");
    let mut source = error.source();
    while let Some(cause) = source {
        errln!("  cause: {cause}");
        source = cause.source();
    }
    if let Some(hint) = error.hint() {
        errln!("  hint: {hint}");
    }
}

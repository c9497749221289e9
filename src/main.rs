//! The command line program: parse, run, print the error with its cause and the next step.

use std::process::ExitCode;

fn main() -> ExitCode {
    scalediff::cli::main()
}

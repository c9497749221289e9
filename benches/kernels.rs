//! `cargo bench -- [FILTER] [OPTIONS]` is `scalediff bench [FILTER] [OPTIONS]`.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Cargo adds a flag of its own.
    let words = std::env::args_os().skip(1).filter(|word| word != "--bench");
    scalediff::cli::main(["scalediff".into(), "bench".into()].into_iter().chain(words))
}

//! `scalediff verify`.

use std::process::ExitCode;

use super::args::VerifyArgs;
use super::{generate, print_error};
use crate::error::Result;
use crate::gpu::Engine;
use crate::verify::verify_folder;

/// Prints a line per output; 0 when all pass, 1 when one fails, 2 when one cannot be read.
pub fn run(args: &VerifyArgs) -> Result<ExitCode> {
    let engine = Engine::open(args.device.gpu_options(false)?)?;
    generate::print_device(&engine);
    let (mut passed, mut failed, mut unreadable) = (0, 0, 0);
    for folder in &args.folders {
        let outcome = verify_folder(&engine, folder, args.device.precision(), &mut |outcome| {
            match &outcome.result {
                Ok(outputs) => {
                    for c in outputs {
                        let verdict = if c.passed() { "ok  " } else { "FAIL" };
                        outln!(
                            "{verdict} {:<20} {:<24} {:<14} error {:.2e} of {:.0e}",
                            outcome.name,
                            outcome.component,
                            c.output,
                            c.error,
                            c.tolerance
                        );
                    }
                }
                Err(error) => {
                    outln!("UNREADABLE {} {}", outcome.name, outcome.component);
                    print_error(error);
                }
            }
            match (outcome.unreadable(), outcome.passed()) {
                (true, _) => unreadable += 1,
                (false, true) => passed += 1,
                (false, false) => failed += 1,
            }
        });
        if let Err(error) = outcome {
            print_error(&error);
            unreadable += 1;
        }
    }
    outln!("{passed} cases passed, {failed} failed, {unreadable} unreadable");
    Ok(ExitCode::from(match (unreadable, failed) {
        (0, 0) => 0,
        (0, _) => 1,
        _ => 2,
    }))
}

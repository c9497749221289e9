//! `scalediff bench`.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use super::args::BenchArgs;
use crate::bench::{
    Earlier, Options, Outcome, Peak, Ratios, Report, open, run as run_cases, select,
};
use crate::error::{Error, Result};

/// Prints a line for every case as soon as it is known; exit code 1 when one is wrong.
pub fn run(args: &BenchArgs) -> Result<ExitCode> {
    let cases = select(&args.filter)?;
    if args.list {
        cases.iter().for_each(|c| outln!("{}", c.id()));
        return Ok(ExitCode::SUCCESS);
    }
    let earlier = args.compare.as_deref().map(read).transpose()?;
    let dtype = args.device.precision().dtype();
    let options = Options { dtype, seconds: args.seconds, max_seconds: args.max_seconds };
    let gpu = open(&args.device.gpu_options(true))?;
    let mut json = args.json.as_deref().map(create).transpose()?;
    let peak = Peak::measure(&gpu)?;
    let report = Report::new(&gpu, peak, dtype, earlier.clone());
    outln!("{}", report.head());
    let mut ratios = Ratios::default();
    let mut failed = false;
    run_cases(&gpu, &cases, peak, &options, &mut |outcome| {
        outln!("{}", report.line(&outcome));
        match (&outcome, &earlier) {
            (Outcome::Measured(m), Some(e)) => e.speedup(m).into_iter().for_each(|r| ratios.add(r)),
            (Outcome::Failed { .. }, _) => failed = true,
            _ => {}
        }
        let Some((path, file)) = &mut json else { return Ok(()) };
        writeln!(file, "{}", report.json(&outcome)).map_err(|e| cannot("write", path, e))
    })?;
    if let Some(summary) = ratios.summary() {
        outln!("\n{summary}");
    }
    Ok(ExitCode::from(u8::from(failed)))
}

fn read(path: &Path) -> Result<Earlier> {
    let text = std::fs::read_to_string(path).map_err(|e| cannot("read", path, e))?;
    Earlier::parse(&text).map_err(|e| e.at(path.display()))
}

fn create(path: &Path) -> Result<(&Path, File)> {
    let file = File::create(path).map_err(|e| cannot("write", path, e))?;
    Ok((path, file))
}

fn cannot(what: &str, path: &Path, source: std::io::Error) -> Error {
    Error::io(format!("cannot {what} {}", path.display()), source)
}

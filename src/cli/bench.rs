//! `scalediff bench`.

use std::fs::File;
use std::io::Write;
use std::path::Path;
use std::process::ExitCode;

use super::bench_args::{BenchArgs, BenchCascadeArgs, BenchCommand};
use super::generate::{open_model, print_device};
use super::progress::Progress;
use super::{startup, watch};
use crate::bench::{
    CascadeTime, Earlier, Options, Outcome, Peak, Ratios, Report, open, run as run_cases, select,
    speed, time_cascade,
};
use crate::error::{Error, Result};
use crate::gpu::{Engine, GpuOptions};
use crate::pipeline::{LoadOptions, Pipeline, Request};
use crate::scalediff::StageAttention;
use crate::shader::Sources;

/// Prints a line for every case as soon as it is known; exit code 1 when one is wrong.
pub fn run(args: &BenchArgs) -> Result<ExitCode> {
    match &args.whole {
        Some(BenchCommand::Cascade(args)) => return cascade(args).map(|()| ExitCode::SUCCESS),
        Some(BenchCommand::Startup(args)) => return startup::run(args).map(|()| ExitCode::SUCCESS),
        None => {}
    }
    let cases = select(&args.filter)?;
    if args.list {
        cases.iter().for_each(|c| outln!("{}", c.id()));
        return Ok(ExitCode::SUCCESS);
    }
    let earlier = args.compare.as_deref().map(read).transpose()?;
    let dtype = args.device.precision().dtype();
    let options = Options { dtype, seconds: args.seconds, max_seconds: args.max_seconds };
    let mut sources = vec![Sources::default()];
    for folder in &args.against {
        sources.push(Sources::with_folder(folder)?);
    }
    let gpu_options = args.device.gpu_options(true)?;
    let open = |sources| open(&GpuOptions { sources, ..gpu_options.clone() });
    let gpus = sources.into_iter().map(open).collect::<Result<Vec<_>>>()?;
    let mut json = args.json.as_deref().map(create).transpose()?;
    let peak = Peak::measure(&gpus[0])?;
    let names: Vec<String> = args.against.iter().map(|f| f.display().to_string()).collect();
    let report = Report::new(&gpus[0], peak, dtype, earlier.clone(), names.clone());
    outln!("{}", report.head());
    let mut ratios = Ratios::default();
    let mut against = vec![Ratios::default(); names.len()];
    let mut failed = false;
    run_cases(&gpus, &cases, peak, &options, &mut |outcomes| {
        let [outcome, others @ ..] = outcomes else { return Ok(()) };
        outln!("{}", report.line(outcome, others));
        failed |= outcomes.iter().any(|o| matches!(o, Outcome::Failed { .. }));
        if let Outcome::Measured(m) = outcome {
            earlier.iter().filter_map(|e| e.speedup(m)).for_each(|r| ratios.add(r));
            for (ratios, other) in against.iter_mut().zip(others) {
                speed(m, other).into_iter().for_each(|r| ratios.add(r));
            }
        }
        let Some((path, file)) = &mut json else { return Ok(()) };
        writeln!(file, "{}", report.json(outcome, others)).map_err(|e| cannot("write", path, e))
    })?;
    if let Some(summary) = ratios.summary() {
        outln!("\n{summary}");
    }
    for (name, ratios) in names.iter().zip(&against) {
        if let Some(summary) = ratios.summary() {
            outln!("\n{name}: {summary}");
        }
    }
    Ok(ExitCode::from(u8::from(failed)))
}

/// A picture with each kind of attention, the same in all else.
fn cascade(args: &BenchCascadeArgs) -> Result<()> {
    let kinds = match args.request.attention {
        Some(kind) => vec![kind.into()],
        None => vec![StageAttention::Patches, StageAttention::Windows, StageAttention::Full],
    };
    let base = Request { prompt: "a red house on grass".into(), ..Request::default() };
    let request = args.request.request(base);
    let files = open_model(&args.request, None)?;
    watch::listen();
    let engine = Engine::open(args.device.gpu_options(false)?)?;
    print_device(&engine);
    let load = LoadOptions { precision: args.device.precision(), keep_loaded: true };
    let mut pipeline = Pipeline::load(&engine, &files, load)?;
    let mut json = args.json.as_deref().map(create).transpose()?;
    outln!("{}", CascadeTime::head());
    let mut times: Vec<CascadeTime> = Vec::new();
    for attention in kinds {
        let request = Request { attention, ..request.clone() };
        let mut progress = Progress::new();
        let time = time_cascade(&mut pipeline, &request, &mut |event| {
            progress.show(event);
            watch::check()
        })?;
        progress.finish();
        let npa = times.first().filter(|t| t.attention == StageAttention::Patches);
        time.lines(npa).iter().for_each(|line| outln!("{line}"));
        if let Some((path, file)) = &mut json {
            writeln!(file, "{}", time.json()).map_err(|e| cannot("write", path, e))?;
        }
        times.push(time);
    }
    Ok(())
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

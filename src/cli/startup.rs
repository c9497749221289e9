//! `scalediff bench startup`: from the start of the process to its first results.

use std::env;
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use serde_json::json;

use super::bench_args::BenchStartupArgs;
use super::generate::open_model;
use super::watch;
use crate::error::{Error, Result};
use crate::gpu::Engine;
use crate::pipeline::{LoadOptions, Pipeline, Request};
use crate::scalediff::Event;

/// What a run has reached, in order.
const MARKS: [&str; 5] =
    ["device open", "model open", "first work done", "first step done", "second step done"];

/// Where Mesa's drivers and NVIDIA's keep compiled shaders.
const CACHES: [&str; 2] = ["MESA_SHADER_CACHE_DIR", "__GL_SHADER_DISK_CACHE_PATH"];

/// Starts this program twice, with the driver's cache of shaders in a new folder, and tells when each reached what; or, as
/// such a start, says what it reaches.
pub fn run(args: &BenchStartupArgs) -> Result<()> {
    if args.marks {
        return reach(args);
    }
    let folder = env::temp_dir().join(format!("scalediff-startup-{}", std::process::id()));
    std::fs::create_dir_all(&folder)
        .map_err(|e| Error::io(format!("cannot create {}", folder.display()), e))?;
    let times = time(&folder).and_then(|empty| Ok([empty, time(&folder)?]));
    let _ = std::fs::remove_dir_all(&folder);
    let [empty, filled] = times?;
    if args.json {
        for (cache, seconds) in [("empty", &empty), ("filled", &filled)] {
            outln!("{}", json!({"cache": cache, "seconds": seconds}));
        }
    } else {
        outln!("seconds from the start of the process, with the driver's cache of shaders");
        outln!("{:<18} {:>8} {:>8}", "", "empty", "filled");
        for (mark, (empty, filled)) in MARKS.iter().zip(empty.iter().zip(&filled)) {
            outln!("{mark:<18} {empty:>8.3} {filled:>8.3}");
        }
    }
    Ok(())
}

/// Seconds from the start of a process to each of [`MARKS`].
fn time(caches: &Path) -> Result<Vec<f64>> {
    let cannot = |e| Error::io("cannot start this program again", e);
    let program = env::current_exe().map_err(cannot)?;
    let mut command = Command::new(program);
    command.args(env::args_os().skip(1)).arg("--marks").stdout(Stdio::piped());
    for name in CACHES {
        command.env(name, caches);
    }
    let start = Instant::now();
    let mut child = command.spawn().map_err(cannot)?;
    let seconds = marks(&mut child, start);
    let status = child.wait().map_err(cannot)?;
    if !status.success() || seconds.len() != MARKS.len() {
        return Err(Error::usage(format!("the timed run ended with {status}")));
    }
    Ok(seconds)
}

fn marks(child: &mut Child, start: Instant) -> Vec<f64> {
    let lines = child.stdout.take().into_iter().flat_map(|out| BufReader::new(out).lines());
    lines.map_while(|line| line.ok().map(|_| start.elapsed().as_secs_f64())).collect()
}

/// Prints a line for each of [`MARKS`] when it is reached.
fn reach(args: &BenchStartupArgs) -> Result<()> {
    let mut left = MARKS.iter();
    let mut mark = || {
        if let Some(mark) = left.next() {
            outln!("{mark}");
            let _ = std::io::stdout().flush();
        }
    };
    let base = Request { prompt: "a red house on grass".into(), ..Request::default() };
    let request = Request { steps: Some(2), stages: Some(0), ..args.request.request(base) };
    let files = open_model(&args.request, None)?;
    let engine = Engine::open(args.device.gpu_options(false)?)?;
    mark();
    let load = LoadOptions { precision: args.device.precision(), keep_loaded: false };
    let mut pipeline = Pipeline::load(&engine, &files, load)?;
    mark();
    let mut steps = 0;
    let mut dispatched = false;
    let mut progress = |event: Event| {
        match event {
            Event::Prompt(share) if share > 0.0 && !dispatched => {
                dispatched = true;
                mark();
            }
            // Shares of whole steps arrive at their end.
            Event::Sampling(share) if (2.0 * share + 1e-6) as u32 > steps => {
                steps += 1;
                mark();
            }
            _ => {}
        }
        if steps == 2 { Err(Error::cancelled()) } else { watch::check() }
    };
    match pipeline.generate(&request, &mut progress) {
        Err(_) if steps == 2 => Ok(()),
        result => result.map(|_| ()),
    }
}

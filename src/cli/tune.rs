//! `scalediff tune`, and where its file lies.

use std::env;
use std::path::PathBuf;
use std::process::ExitCode;

use super::args::DeviceArgs;
use super::bench_args::TuneArgs;
use super::generate::print_device;
use crate::bench::{Options, Outcome, Peak, Trial, open, tune};
use crate::error::{Error, Result};
use crate::files;
use crate::gpu::{TileKind, Tuning};

/// What `--tuning` takes for the kernels' own choice.
const NONE: &str = "none";

/// Tries every tile, a line each, and keeps the fastest in the tuning file; exit code 1 when one is wrong.
pub fn run(args: &TuneArgs) -> Result<ExitCode> {
    if args.device.precision.is_some() || args.device.limits.is_some() || args.device.shader_checks
    {
        return Err(Error::usage(
            "tiles are measured in f16, on the whole device and without checks",
        )
        .with_hint("leave out --precision, --limits and --shader-checks"));
    }
    let mut kept = Kept::open(&args.device.tuning)?;
    let untuned = DeviceArgs { tuning: Some(NONE.into()), ..args.device.clone() };
    let gpu = open(&untuned.gpu_options(true)?)?;
    print_device(&gpu);
    let dtype = args.device.precision().dtype();
    let options = Options { dtype, seconds: args.seconds, max_seconds: args.max_seconds };
    let peak = Peak::measure(&gpu)?;
    outln!("{:<34} {:<18} {:>12} {:>9}", "case", "tile", "median ms", "speed");
    let mut own = None;
    let mut failed = false;
    let tiles = tune(&gpu, peak, &options, &mut |trial| {
        if trial.tile.is_none() {
            own = trial.seconds();
        }
        failed |= matches!(trial.outcome, Outcome::Failed { .. });
        outln!("{}", line(trial, own));
        Ok(())
    })?;
    let faster: Vec<String> = TileKind::ALL
        .into_iter()
        .filter_map(|kind| tiles.get(kind).map(|t| format!("{kind} {}", numbers(&t))))
        .collect();
    match faster.as_slice() {
        [] => outln!("\nnothing is faster than what the kernels choose"),
        faster => outln!("\nfaster: {}", faster.join("; ")),
    }
    kept.tuning.set(gpu.facts(), tiles);
    if let Some(file) = &kept.file {
        kept.tuning.write(file)?;
        outln!("written to {}", file.display());
    }
    Ok(ExitCode::from(u8::from(failed)))
}

/// What is known before, and where it goes.
struct Kept {
    file: Option<PathBuf>,
    tuning: Tuning,
}

impl Kept {
    /// Finds out before anything is measured whether the file can be written.
    fn open(named: &Option<PathBuf>) -> Result<Self> {
        let file = match named {
            Some(path) if path.as_os_str() == NONE => {
                return Ok(Self { file: None, tuning: Tuning::default() });
            }
            Some(path) => path.clone(),
            None => default_file()?,
        };
        if let (None, Some(folder)) = (named, file.parent()) {
            std::fs::create_dir_all(folder).map_err(|e| {
                Error::io(format!("cannot create {}", folder.display()), e)
                    .with_hint("say where the file shall lie with --tuning FILE")
            })?;
        }
        files::check_place(&file)?;
        let tuning = match (named, file.exists()) {
            (_, false) => Tuning::default(),
            (Some(_), true) => Tuning::read(&file)?,
            // Ours to replace.
            (None, true) => Tuning::read(&file).unwrap_or_default(),
        };
        Ok(Self { file: Some(file), tuning })
    }
}

fn line(trial: &Trial, own: Option<f64>) -> String {
    let tile = trial.tile.map_or_else(|| "as the kernels do".into(), |t| numbers(&t));
    match (&trial.outcome, trial.seconds()) {
        (_, Some(seconds)) => {
            let speed = own.map_or(f64::NAN, |own| own / seconds);
            format!("{:<34} {tile:<18} {:>12.3} {speed:>8.2}x", trial.id, 1e3 * seconds)
        }
        (Outcome::Failed { why, .. } | Outcome::Skipped { why, .. }, _) => {
            format!("{:<34} {tile:<18} {why}", trial.id)
        }
        _ => String::new(),
    }
}

/// Numbers of a tile, without the unused ones.
fn numbers(tile: &[u8]) -> String {
    let used: Vec<String> = tile.iter().filter(|n| **n > 0).map(u8::to_string).collect();
    used.join(",")
}

/// What `--tuning` asks for.
///
/// # Errors
/// A file that is named and cannot be read. The default one only brings a warning: pictures do not depend on it.
pub fn load(args: &DeviceArgs) -> Result<Tuning> {
    match &args.tuning {
        Some(path) if path.as_os_str() == NONE => Ok(Tuning::default()),
        Some(path) => Tuning::read(path),
        None => Ok(default_file().ok().filter(|path| path.exists()).map_or_else(
            Tuning::default,
            |path| {
                Tuning::read(&path).unwrap_or_else(|e| {
                    log::warn!("measured tiles are not used: {e}");
                    Tuning::default()
                })
            },
        )),
    }
}

/// `scalediff/tuning.json` in the user's folder for caches.
fn default_file() -> Result<PathBuf> {
    let set = |name: &str| env::var_os(name).filter(|v| !v.is_empty()).map(PathBuf::from);
    let home = |below: &str| env::home_dir().map(|home| home.join(below));
    let cache = match env::consts::OS {
        "windows" => set("LOCALAPPDATA"),
        "macos" => home("Library/Caches"),
        _ => set("XDG_CACHE_HOME").or_else(|| home(".cache")),
    };
    cache.map(|cache| cache.join("scalediff").join("tuning.json")).ok_or_else(|| {
        Error::usage("no folder for caches is known").with_hint("name a file with --tuning FILE")
    })
}

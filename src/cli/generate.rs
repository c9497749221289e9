//! `scalediff generate`.

use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::time::Instant;

use super::args::{AttentionArg, GenerateArgs};
use super::progress::Progress;
use crate::error::{Error, Result};
use crate::gpu::Gpu;
use crate::pipeline::{Image, Request, SdxlPipeline};
use crate::weights::ModelFiles;

/// Makes one picture and writes it.
pub fn run(args: &GenerateArgs) -> Result<()> {
    let start = Instant::now();
    let seed = u64::try_from(args.seed).unwrap_or_else(|_| u64::from(random_seed()));
    // Found out now rather than after minutes of work.
    check_output(&args.output)?;
    let files = match &args.model {
        Some(folder) => ModelFiles::open(folder)?,
        None => embedded_model()?,
    };
    let gpu = Gpu::open(&args.device.gpu_options(args.profile))?;
    print_device(&gpu);
    errln!("model {}, seed {seed}", files.name());

    let request = Request {
        prompt: args.prompt.clone(),
        negative_prompt: args.negative_prompt.clone(),
        width: args.width,
        height: args.height,
        steps: args.steps,
        cfg_scale: args.cfg_scale,
        seed,
        stages: args.stages,
        restart_ratio: args.restart_ratio,
        scale_factor: args.scale_factor,
        full_attention: args.attention == AttentionArg::Full,
        no_frequency_mixing: args.no_lfm,
        no_structure_guidance: args.no_sg,
        jitter: args.jitter,
    };
    let pipeline = SdxlPipeline::new(&gpu, files, args.device.precision.into())?;
    let mut progress = Progress::new();
    let mut keep = |stage: u32, image: Image| {
        if args.save_stages { image.save_png(&stage_path(&args.output, stage)) } else { Ok(()) }
    };
    let image = pipeline.generate(
        &request,
        &mut |event| {
            progress.show(event);
            Ok(())
        },
        &mut keep,
    )?;
    progress.finish();
    image.save_png(&args.output)?;
    errln!(
        "{} ({}×{}) in {:.1} s, {:.0} GFLOP",
        args.output.display(),
        image.width,
        image.height,
        start.elapsed().as_secs_f64(),
        gpu.flops_done() as f64 / 1e9
    );
    if let Some(profile) = gpu.profile_report() {
        errln!("{profile}");
    }
    Ok(())
}

/// One line: which device computes, and with what.
pub fn print_device(gpu: &Gpu) {
    let facts = gpu.facts();
    let tier = facts.caps.tiers().last().map_or_else(String::new, ToString::to_string);
    errln!("{} ({}, {}), tier {tier}", facts.name, facts.backend, facts.driver);
}

#[cfg(feature = "embedded")]
fn embedded_model() -> Result<ModelFiles> {
    Ok(crate::embedded::tiny_sdxl())
}

#[cfg(not(feature = "embedded"))]
fn embedded_model() -> Result<ModelFiles> {
    Err(Error::usage("this build has no embedded model").with_hint("name a model folder with -m"))
}

/// `picture.png` to `picture-stage0.png`.
fn stage_path(output: &Path, stage: u32) -> PathBuf {
    let stem = output.file_stem().map_or_else(String::new, |s| s.to_string_lossy().into_owned());
    output.with_file_name(format!("{stem}-stage{stage}.png"))
}

/// Refuses a place that cannot be written before the work, not after it.
fn check_output(output: &Path) -> Result<()> {
    let folder = match output.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    if !folder.is_dir() {
        return Err(Error::usage(format!("the folder {} does not exist", folder.display()))
            .with_hint("create it, or choose another file with -o"));
    }
    if output.is_dir() || output.file_name().is_none() {
        return Err(Error::usage(format!("{} is a folder", output.display()))
            .with_hint("give a file name with -o"));
    }
    if output.extension().is_some_and(|e| !e.eq_ignore_ascii_case("png")) {
        return Err(Error::usage(format!("{}: only PNG can be written", output.display()))
            .with_hint("give a name that ends in .png"));
    }
    Image::check_place(output)
}

/// The standard library's own randomness, which it draws from the system.
fn random_seed() -> u32 {
    RandomState::new().hash_one(0u8) as u32
}

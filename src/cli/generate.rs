//! `scalediff generate`.

use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::time::Instant;

use super::args::{GenerateArgs, RequestArgs};
use super::output;
use super::progress::Progress;
use crate::error::Result;
use crate::gpu::{Engine, Gpu};
use crate::pipeline::{LoadOptions, Picture, Pipeline, Request};
use crate::scalediff::{self, Event, StageResult};
use crate::weights::ModelFiles;

/// Makes the pictures and writes each as soon as it is done.
pub fn run(args: &GenerateArgs) -> Result<()> {
    let seed = u64::try_from(args.seed).unwrap_or_else(|_| u64::from(random_seed()));
    let outputs = output::names(&args.output, args.batch_count);
    // Found out now rather than after minutes of work.
    for path in &outputs {
        output::check(path)?;
    }
    let files = open_model(&args.request)?;
    let engine = Engine::open(args.device.gpu_options(args.profile))?;
    print_device(&engine);
    let load =
        LoadOptions { precision: args.device.precision.into(), keep_loaded: args.batch_count > 1 };
    let mut pipeline = Pipeline::load(&engine, &files, load)?;
    for (seed, path) in (seed..).zip(&outputs) {
        errln!("model {}, seed {seed}", files.name());
        let (start, flops) = (Instant::now(), engine.flops_done());
        let mut watch = Watch { progress: Progress::new(), save_stages: args.save_stages, path };
        let image = pipeline.generate(&request(args, seed), &mut watch)?.image();
        watch.progress.finish();
        image.save_png(path)?;
        errln!(
            "{} ({}×{}) in {:.1} s, {:.0} GFLOP",
            path.display(),
            image.width,
            image.height,
            start.elapsed().as_secs_f64(),
            (engine.flops_done() - flops) as f64 / 1e9
        );
    }
    if let Some(profile) = engine.profile_report() {
        errln!("{profile}");
    }
    Ok(())
}

/// What the flags ask for.
fn request(args: &GenerateArgs, seed: u64) -> Request {
    Request {
        prompt: args.prompt.clone(),
        negative_prompt: args.negative_prompt.clone(),
        seed,
        rng: args.rng,
        ..args.request.request()
    }
}

/// Shows how one picture comes on, and keeps what was asked to be kept on the way.
struct Watch<'a> {
    progress: Progress,
    save_stages: bool,
    path: &'a Path,
}

impl scalediff::Progress for Watch<'_> {
    fn event(&mut self, event: Event) -> Result<()> {
        self.progress.show(event);
        Ok(())
    }

    fn stage(&mut self, result: &StageResult) -> Result<()> {
        if !self.save_stages {
            return Ok(());
        }
        Picture::of(result).image().save_png(&output::stage_name(self.path, result.stage))
    }
}

/// One line: which device computes, and with what.
pub fn print_device(gpu: &Gpu) {
    let facts = gpu.facts();
    let tier = facts.caps.tiers().last().map_or_else(String::new, ToString::to_string);
    errln!("{} ({}, {}), tier {tier}", facts.name, facts.backend, facts.driver);
}

/// The model folder that is named, or the model inside the program.
pub fn open_model(args: &RequestArgs) -> Result<ModelFiles> {
    match &args.model {
        Some(folder) => ModelFiles::open(folder),
        None => embedded_model(),
    }
}

#[cfg(feature = "embedded")]
fn embedded_model() -> Result<ModelFiles> {
    Ok(crate::embedded::tiny_sdxl())
}

#[cfg(not(feature = "embedded"))]
fn embedded_model() -> Result<ModelFiles> {
    Err(crate::error::Error::usage("this build has no embedded model")
        .with_hint("name a model folder with -m"))
}

/// The standard library's own randomness, which it draws from the system.
fn random_seed() -> u32 {
    RandomState::new().hash_one(0u8) as u32
}

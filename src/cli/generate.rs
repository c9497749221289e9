//! `scalediff generate`.

use std::hash::{BuildHasher, RandomState};
use std::path::Path;
use std::time::Instant;

use super::args::{GenerateArgs, RequestArgs};
use super::output;
use super::progress::Progress;
use crate::error::{Error, Result};
use crate::gpu::{Engine, Gpu};
use crate::pipeline::{LoadOptions, Metadata, Picture, Pipeline, Request};
use crate::scalediff::{self, Event, StageResult};
use crate::weights::ModelFiles;

/// Makes the pictures and writes each as soon as it is done.
pub fn run(args: &GenerateArgs) -> Result<()> {
    let outputs = output::names(&args.output, args.batch_count);
    // Found out now rather than after minutes of work.
    for path in &outputs {
        output::check(path)?;
    }
    let recorded = args.config_from_metadata.as_deref().map(Metadata::read_png).transpose()?;
    let files = open_model(&args.request)?;
    if let Some(recorded) = &recorded {
        same_model(recorded, &files, args.request.model.is_some())?;
    }
    let engine = Engine::open(args.device.gpu_options(args.profile))?;
    print_device(&engine);
    let precision = match (args.device.precision, &recorded) {
        (None, Some(recorded)) => recorded.precision,
        _ => args.device.precision(),
    };
    let load = LoadOptions { precision, keep_loaded: args.batch_count > 1 };
    let mut pipeline = Pipeline::load(&engine, &files, load)?;
    let first = request(args, recorded.map(|recorded| recorded.request));
    for (i, path) in (0..).zip(&outputs) {
        let request = Request { seed: first.seed.wrapping_add(i), ..first.clone() };
        errln!("model {}, seed {}", files.name(), request.seed);
        let metadata = match args.disable_image_metadata {
            true => None,
            false => Some(pipeline.describe(&request)?),
        };
        let (start, flops) = (Instant::now(), engine.flops_done());
        let mut watch = Watch {
            progress: Progress::new(),
            save_stages: args.save_stages,
            path,
            metadata: metadata.as_ref(),
        };
        let image = pipeline.generate(&request, &mut watch)?.image();
        watch.progress.finish();
        image.save_png(path, metadata.as_ref())?;
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

/// What the flags ask for, over what a file recorded.
fn request(args: &GenerateArgs, recorded: Option<Request>) -> Request {
    let seed = match (args.seed, &recorded) {
        (None, Some(recorded)) => recorded.seed,
        (seed, _) => {
            let given = seed.and_then(|seed| u64::try_from(seed).ok());
            given.unwrap_or_else(|| u64::from(random_seed()))
        }
    };
    let base = recorded.unwrap_or_default();
    Request {
        prompt: args.prompt.clone().unwrap_or_else(|| base.prompt.clone()),
        negative_prompt: args.negative_prompt.clone().or_else(|| base.negative_prompt.clone()),
        seed,
        rng: args.rng.unwrap_or(base.rng),
        ..args.request.request(base)
    }
}

/// Files record the name of a model's folder, not its place.
fn same_model(recorded: &Metadata, files: &ModelFiles, named: bool) -> Result<()> {
    let (then, now) = (&recorded.model, files.name());
    if *then != now && !named {
        return Err(Error::usage(format!("the recorded picture was made with the model {then:?}"))
            .with_hint("name that model's folder with -m"));
    }
    if *then != now {
        log::warn!("the recorded picture was made with the model {then:?}, this one is {now:?}");
    }
    Ok(())
}

/// Shows how one picture comes on, and keeps what was asked to be kept on the way.
struct Watch<'a> {
    progress: Progress,
    save_stages: bool,
    path: &'a Path,
    metadata: Option<&'a Metadata>,
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
        let image = Picture::of(result).image();
        let metadata = self.metadata.map(|m| m.of_stage(result.stage, image.width, image.height));
        image.save_png(&output::stage_name(self.path, result.stage), metadata.as_ref())
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
    Err(Error::usage("this build has no embedded model").with_hint("name a model folder with -m"))
}

/// The standard library's own randomness, which it draws from the system.
fn random_seed() -> u32 {
    RandomState::new().hash_one(0u8) as u32
}

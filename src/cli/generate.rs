//! `scalediff generate`.

use std::hash::{BuildHasher, RandomState};
use std::path::PathBuf;
use std::time::Instant;

use super::args::{GenerateArgs, RequestArgs};
use super::output;
use super::watch::{self, Watch};
use crate::error::{Error, Result};
use crate::files;
use crate::gpu::{Engine, Gpu, TileKind};
use crate::kernels::tiles;
use crate::pipeline::{LoadOptions, Metadata, Pipeline, Reached, Request};
use crate::weights::ModelFiles;

/// Makes the pictures and writes each as soon as it is done.
pub fn run(args: &GenerateArgs) -> Result<()> {
    let outputs = output::names(&args.output, args.batch_count);
    // Found out now rather than after minutes of work.
    for path in &outputs {
        output::check(path)?;
    }
    let kept = args.save_latent.as_ref().or(args.resume.as_ref());
    let kept = kept.map(|path| output::names(path, args.batch_count)).unwrap_or_default();
    for path in &kept {
        files::check_place(path)?;
        if outputs.iter().any(|output| files::is_same(output, path)) {
            let shown = path.display();
            return Err(Error::usage(format!(
                "{shown} would hold both the picture and its latents"
            ))
            .with_hint("give --save-latent or --resume another name than --output"));
        }
    }
    let mut reached = reached(args)?;
    let recorded = match &args.config_from_metadata {
        Some(png) => Some(Metadata::read_png(png)?),
        None => recorded_by(&reached),
    };
    if recorded.is_none() && args.prompt.is_none() {
        let places: Vec<String> = kept.iter().map(|path| path.display().to_string()).collect();
        let places = places.join(", ");
        return Err(Error::usage(format!("there is nothing to resume in {places}, and no prompt"))
            .with_hint("give --prompt to start anew"));
    }
    let files = open_model(&args.request, recorded.as_ref())?;
    if let Some(recorded) = &recorded {
        same_model(recorded, &files, args.request.model.is_some())?;
    }
    watch::listen();
    let engine = Engine::open(args.device.gpu_options(args.profile)?)?;
    print_device(&engine);
    let precision = match (args.device.precision, &recorded) {
        (None, Some(recorded)) => recorded.precision,
        _ => args.device.precision(),
    };
    let load = LoadOptions { precision, keep_loaded: args.batch_count > 1 };
    let mut pipeline = Pipeline::load(&engine, &files, load)?;
    let first = request(args, recorded.map(|recorded| recorded.request));
    for (i, path) in outputs.iter().enumerate() {
        let request = Request { seed: first.seed.wrapping_add(i as u64), ..first.clone() };
        errln!("model {}, seed {}", files.name(), request.seed);
        let (start, flops) = (Instant::now(), engine.flops_done());
        let metadata = pipeline.describe(&request)?;
        let reached = reached[i].take();
        let mut watch = Watch::new(path, metadata);
        watch.save_stages = args.save_stages;
        watch.write_metadata = !args.disable_image_metadata;
        if let Some(file) = kept.get(i) {
            watch.keep_in(file, reached.as_ref());
        }
        let made = match &reached {
            Some(reached) => pipeline.resume(&request, reached, &mut watch),
            None => pipeline.generate(&request, &mut watch),
        };
        let image = watch.finish(made)?.image();
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

/// For each picture what --resume finds, where a stage is finished.
fn reached(args: &GenerateArgs) -> Result<Vec<Option<Reached>>> {
    let Some(file) = &args.resume else { return Ok(vec![None; args.batch_count as usize]) };
    let read = |file: &PathBuf| match Reached::read(file)? {
        Some(reached) if reached.last()?.is_some() => Ok(Some(reached)),
        _ => Ok(None),
    };
    output::names(file, args.batch_count).iter().map(read).collect()
}

/// How the first picture was asked for, as the first file that there is says: each has a seed of its own.
fn recorded_by(reached: &[Option<Reached>]) -> Option<Metadata> {
    let i = reached.iter().position(Option::is_some)?;
    let mut metadata = reached[i].as_ref()?.metadata().clone();
    metadata.request.seed = metadata.request.seed.wrapping_sub(i as u64);
    Some(metadata)
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

/// One line: which device computes, and with what.
pub fn print_device(gpu: &Gpu) {
    let facts = gpu.facts();
    let tier = facts.caps.tiers().last().map_or_else(String::new, ToString::to_string);
    let applies = |kind: TileKind| {
        facts.caps.tiles.get(kind).is_some_and(|tile| tiles(&facts.caps, kind).contains(&tile))
    };
    let tuned = if TileKind::ALL.into_iter().any(applies) { ", tuned" } else { "" };
    errln!("{} ({}, {}), tier {tier}{tuned}", facts.name, facts.backend, facts.driver);
}

/// The model that is named: a folder, or one inside the program; without a name the one that was `recorded`, if it is
/// inside the program, or else the first of those.
pub fn open_model(args: &RequestArgs, recorded: Option<&Metadata>) -> Result<ModelFiles> {
    let Some(named) = &args.model else {
        let recorded = recorded.and_then(|recorded| embedded(&recorded.model));
        return recorded.or_else(|| embedded("tiny-sdxl")).ok_or_else(|| {
            Error::usage("this build has no embedded model")
                .with_hint("name a model folder with -m")
        });
    };
    match named.to_str().and_then(embedded) {
        Some(files) if !named.exists() => Ok(files),
        _ if named.exists() => ModelFiles::open(named),
        _ => ModelFiles::open(named).map_err(|e| {
            e.with_hint(
                "give a folder in diffusers layout, or a model inside: tiny-sdxl, tiny-flux",
            )
        }),
    }
}

#[cfg(feature = "embedded")]
fn embedded(name: &str) -> Option<ModelFiles> {
    crate::embedded::by_name(name)
}

#[cfg(not(feature = "embedded"))]
fn embedded(_: &str) -> Option<ModelFiles> {
    None
}

/// The standard library's own randomness, which it draws from the system.
fn random_seed() -> u32 {
    RandomState::new().hash_one(0u8) as u32
}

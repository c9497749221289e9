//! The whole cascade, on given noise.

use serde::Deserialize;

use super::{Outputs, one, picture, to_planes, to_rows};
use crate::error::{Error, Result};
use crate::pipeline::{Flux, Model, PromptIds, Sdxl, VaeCodec, embed, flux_text};
use crate::sampling::{Noise, SamplerChoice};
use crate::scalediff::{
    Cascade, CascadeOptions, Denoiser, Event, Filter, Progress, SizePlan, StageAttention,
    StageResult,
};
use crate::tensor::Shape;
use crate::verify::Case;

pub fn pipeline(model: &Model, case: &Case) -> Result<Outputs> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Params {
        height: u32,
        width: u32,
        steps: usize,
        /// Of SDXL.
        guidance_scale: Option<f32>,
        /// Of FLUX.
        guidance: Option<f32>,
        jitter: Option<bool>,
        stages: u32,
        restart_ratio: f64,
        scale_factor: f64,
        encode: String,
    }
    let p: Params = case.params()?;
    if p.encode != "mean" {
        return Err(Error::model(format!("encode is {:?}, expected \"mean\"", p.encode)));
    }
    if p.jitter == Some(true) {
        return Err(Error::model("jitter is true, which a case does not record"));
    }
    if p.stages > 6 {
        return Err(Error::model(format!("{} stages are too many", p.stages)));
    }
    let mut noises = Vec::new();
    for stage in 0..=p.stages {
        let (dims, values) = case.input::<4>(&format!("noise.{stage}"))?;
        noises.push(to_rows(values, picture(dims)?));
    }
    let factor = model.vae_config()?.factor();
    let size =
        SizePlan::new(p.width << p.stages, p.height << p.stages, p.width, factor, Some(p.stages))?;
    let options = CascadeOptions {
        steps: p.steps,
        restart_ratio: p.restart_ratio,
        filter: Filter::Resample { scale_factor: p.scale_factor },
        attention: StageAttention::Patches,
        frequency_mixing: true,
        structure_guidance: true,
        guidance_start: 0.0,
        guidance_stop: 1.0,
        jitter: None,
    };
    let schedule = model.scheduler(SamplerChoice::default())?.schedule(p.steps)?;
    if schedule.sampler.adds_noise() {
        return Err(Error::model("a case has no noise for the steps of an ancestral sampler"));
    }
    let mut codec = VaeCodec::load(model)?;
    let is_flux = model.files.exists("transformer/config.json");
    let denoiser = match (is_flux, p.guidance_scale, p.guidance) {
        (false, Some(scale), None) => sdxl(model, case, scale, &size)?,
        (true, None, Some(scale)) => flux(model, case, scale)?,
        (true, None, None) if !model.flux_config()?.guidance => flux(model, case, 0.0)?,
        _ => {
            return Err(Error::model(
                "a case of SDXL has guidance_scale, one of FLUX guidance where the model takes it",
            ));
        }
    };
    let gpu = model.engine()?;
    let cascade = Cascade { gpu, denoiser, reload: None, codec: &mut codec, schedule, options };
    let mut stages = Stages::default();
    let mut noise = |noise: Noise, _: u32, _: u32| match noise {
        Noise::Stage(stage) => noises[stage as usize].clone(),
        Noise::Step { .. } => Vec::new(),
    };
    cascade.run(&size, None, &mut noise, &mut stages)?;
    Ok(stages.0)
}

fn ids(case: &Case, name: &str) -> Result<Vec<u32>> {
    Ok(case.ids(name)?.into_iter().next().unwrap_or_default())
}

fn sdxl(model: &Model, case: &Case, scale: f32, size: &SizePlan) -> Result<Box<dyn Denoiser>> {
    let prompts = [
        PromptIds { first: ids(case, "negative_ids")?, second: ids(case, "negative_ids_2")? },
        PromptIds { first: ids(case, "prompt_ids")?, second: ids(case, "prompt_ids_2")? },
    ];
    let used = if scale > 1.0 { &prompts[..] } else { &prompts[1..] };
    let embeddings = embed(model, used, &mut |_| Ok(()))?;
    Ok(Box::new(Sdxl::open(model.clone(), false)?.denoiser_of(embeddings, scale, size)?))
}

fn flux(model: &Model, case: &Case, guidance: f32) -> Result<Box<dyn Denoiser>> {
    let (clip, t5) = (ids(case, "prompt_ids")?, ids(case, "prompt_ids_2")?);
    let text = flux_text(model, [&clip, &t5], &mut |_| Ok(()))?;
    Ok(Box::new(Flux::open(model.clone(), false)?.denoiser_of(text, guidance)?))
}

/// Collects what every stage makes.
#[derive(Default)]
struct Stages(Outputs);

impl Progress for Stages {
    fn event(&mut self, _: Event) -> Result<()> {
        Ok(())
    }

    fn stage(&mut self, result: &StageResult) -> Result<()> {
        let StageResult { stage, latents, image, width, height, .. } = result;
        let (dims, planes) = to_planes(&latents.values, latents.shape());
        self.0.append(&mut one(&format!("latents.{stage}"), dims, planes));
        let (dims, planes) = to_planes(image, Shape::new(1, *height, *width, 3));
        self.0.append(&mut one(&format!("image.{stage}"), dims, planes));
        Ok(())
    }
}

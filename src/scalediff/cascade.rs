//! The SDEdit cascade: generate at the base size, then double, re-noise and denoise again.

use super::denoiser::{Attention, Codec, Denoiser};
use super::filters::Filter;
use super::progress::{Event, Progress, StageResult};
use super::sampler::{Coefficients, Latents, StepPlan, restart};
use super::size::SizePlan;
use crate::error::{Error, ErrorKind, Result};
use crate::gpu::Gpu;
use crate::sampling::{Schedule, restart_step, stream_seed};

/// The method's settings.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CascadeOptions {
    /// Steps of the first stage; later ones skip the share 1 - `restart_ratio` of them.
    pub steps: usize,
    /// Share of the steps that each later stage runs, 0 to 1.
    pub restart_ratio: f64,
    /// The low-pass of frequency mixing and of structure guidance.
    pub filter: Filter,
    /// Self-attention in neighborhood patches, after the first stage.
    pub patches: bool,
    /// Latent frequency mixing; without it the encoded picture alone is the reference.
    pub frequency_mixing: bool,
    /// Structure guidance.
    pub structure_guidance: bool,
    /// Shift the patches, anew in every layer and step, by streams named after this seed.
    pub jitter: Option<u64>,
}

impl CascadeOptions {
    /// # Errors
    /// A setting out of its range.
    pub fn check(&self) -> Result<()> {
        if !(self.restart_ratio > 0.0 && self.restart_ratio <= 1.0) {
            return Err(Error::usage(format!(
                "the restart ratio is {}, expected above 0 and at most 1",
                self.restart_ratio
            )));
        }
        self.filter.check()?;
        if restart_step(self.steps, self.restart_ratio) >= self.steps {
            return Err(Error::usage(format!(
                "{} steps with a restart ratio of {} leave later stages no step to run",
                self.steps, self.restart_ratio
            ))
            .with_hint("use more --steps or a larger --restart-ratio"));
        }
        Ok(())
    }
}

/// The method, ready to run on a model.
pub struct Cascade<'a> {
    pub gpu: &'a Gpu,
    /// Dropped before the last picture is decoded, so that its weights make room.
    pub denoiser: Box<dyn Denoiser + 'a>,
    pub codec: &'a mut dyn Codec,
    pub options: CascadeOptions,
}

/// Where a stage's sampling begins.
struct Start {
    latents: Latents,
    /// The low band of the reference, for structure guidance.
    low: Option<Vec<f32>>,
    step: usize,
}

impl Cascade<'_> {
    /// Runs all stages; returns what the last one made. `noise` gives unit normals for a stage's
    /// latents of a height and a width, channels last.
    ///
    /// # Errors
    /// Options out of range, the device's limits, a stage that ends in NaN or in one flat colour, or
    /// what `progress` returned.
    pub fn run(
        self,
        size: &SizePlan,
        noise: &mut dyn FnMut(u32, u32, u32) -> Vec<f32>,
        progress: &mut dyn Progress,
    ) -> Result<StageResult> {
        let Self { gpu, denoiser, codec, options } = self;
        options.check()?;
        let schedule = denoiser.schedule(options.steps)?;
        let factor = codec.factor();
        let mut denoiser = Some(denoiser);
        let mut previous: Option<StageResult> = None;
        for stage in 0..=size.stages {
            let Some(model) = &denoiser else { break };
            let (width, height) = size.stage_size(stage);
            let (h, w) = (height / factor, width / factor);
            let noise = noise(stage, h, w);
            let start = match previous.take() {
                None => {
                    let sigma = schedule.init_noise_sigma;
                    let values = noise.iter().map(|v| v * sigma).collect();
                    let channels = model.latent_channels();
                    let latents = Latents { height: h, width: w, channels, values };
                    Start { latents, low: None, step: 0 }
                }
                Some(last) => {
                    let encoded = codec.encode_doubled(
                        &last.image,
                        last.height,
                        last.width,
                        &mut |share| progress.event(Event::Encoding(share)),
                    )?;
                    let step = restart_step(options.steps, options.restart_ratio);
                    let made = restart(
                        gpu,
                        &last.latents,
                        &encoded,
                        &noise,
                        schedule.sigmas[step],
                        options.filter,
                        options.frequency_mixing,
                    )?;
                    let low = options.structure_guidance.then_some(made.low);
                    Start { latents: made.latents, low, step }
                }
            };
            let steps = options.steps - start.step;
            progress.event(Event::Stage { stage, width, height, steps })?;
            let base = (size.base_height / factor, size.base_width / factor);
            let latents =
                sample(gpu, model.as_ref(), &schedule, &options, stage, base, start, progress)?;
            check(&latents.values, stage, "latents")?;
            progress.latents(stage, &latents)?;
            if stage == size.stages {
                denoiser = None;
            }

            let image = codec.decode(&latents.values, h, w, &mut |share| {
                progress.event(Event::Decoding(share))
            })?;
            check(&image, stage, "picture")?;
            let cropped = size.cropped_size(stage);
            let result =
                StageResult { stage, stages: size.stages, latents, image, width, height, cropped };
            progress.stage(&result)?;
            previous = Some(result);
        }
        previous.ok_or_else(|| Error::internal("the cascade has no stage"))
    }
}

/// Runs the sampler's steps of one stage. `base`: height and width of the first stage's latents.
#[allow(clippy::too_many_arguments)]
fn sample(
    gpu: &Gpu,
    denoiser: &dyn Denoiser,
    schedule: &Schedule,
    o: &CascadeOptions,
    stage: u32,
    base: (u32, u32),
    start: Start,
    progress: &mut dyn Progress,
) -> Result<Latents> {
    let Start { mut latents, low, step: first } = start;
    let attention = |step: usize| match (stage > 0 && o.patches, o.jitter) {
        (false, _) => Attention::Full,
        (true, seed) => Attention::Patches {
            base_height: base.0,
            base_width: base.1,
            jitter: seed.map(|s| stream_seed(s, &format!("jitter.{stage}.{step}"))),
        },
    };
    let reference = low.as_deref().map(|values| (o.filter, values));
    let shape = latents.shape();
    let compile = |step: usize| StepPlan::compile(gpu, denoiser, shape, attention(step), reference);
    let mut plan = compile(first)?;
    plan.start(&latents.values)?;
    let cfg = denoiser.guidance();
    let steps = o.steps - first;
    for i in first..o.steps {
        if i > first && o.jitter.is_some() && stage > 0 {
            // Other patches, other windows: recorded anew.
            let reached = plan.finish()?;
            plan = compile(i)?;
            plan.start(&reached)?;
        }
        let weight = schedule.sg_weight(i, first);
        let coefficients = Coefficients::step(schedule, i, cfg, weight);
        plan.run(coefficients, schedule.timesteps[i], &mut |share| {
            progress.event(Event::Sampling(((i - first) as f64 + share) / steps as f64))
        })?;
    }
    latents.values = plan.finish()?;
    Ok(latents)
}

/// Stops on NaN, infinity, or a stage that made one flat value.
fn check(values: &[f32], stage: u32, what: &str) -> Result<()> {
    let bad = values.iter().filter(|v| !v.is_finite()).count();
    let flat = values.len() > 16 && values.iter().all(|v| *v == values[0]);
    let problem = if bad > 0 {
        format!("{bad} of {} values are NaN or infinite", values.len())
    } else if flat {
        "all values are equal".to_string()
    } else {
        return Ok(());
    };
    Err(Error::new(ErrorKind::Numeric, format!("the {what} of stage {stage}: {problem}"))
        .with_hint("try --precision f32; if that helps, the model overflows f16"))
}

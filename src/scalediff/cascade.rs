//! The SDEdit cascade: generate at the base size, then double, re-noise and denoise again.

use super::denoiser::{Attention, Codec, Denoiser};
use super::filters::Filter;
use super::progress::{Event, Progress, StageResult};
use super::sampler::{Coefficients, Latents, State, StepGraph, StepInputs, StepPlan, restart};
use super::size::SizePlan;
use super::stage_attention::StageAttention;
use crate::error::{Error, ErrorKind, Result};
use crate::gpu::Gpu;
use crate::sampling::{Noise, Schedule, restart_step, stream_seed};
use crate::tensor::Shape;

/// The method's settings.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CascadeOptions {
    /// Steps of the first stage; later ones skip the share 1 - `restart_ratio` of them.
    pub steps: usize,
    /// Share of the steps that each later stage runs, 0 to 1.
    pub restart_ratio: f64,
    /// The low-pass of frequency mixing and of structure guidance.
    pub filter: Filter,
    /// What the stages after the first see.
    pub attention: StageAttention,
    /// Latent frequency mixing; without it the encoded picture alone is the reference.
    pub frequency_mixing: bool,
    /// Structure guidance.
    pub structure_guidance: bool,
    /// Classifier-free guidance works from this share of the steps up to `guidance_stop`, both 0 to 1;
    /// outside only the positive branch is computed. Steps count from the first stage's first.
    pub guidance_start: f64,
    pub guidance_stop: f64,
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
        let (start, stop) = (self.guidance_start, self.guidance_stop);
        if !(0.0 <= start && start <= stop && stop <= 1.0) {
            return Err(Error::usage(format!(
                "guidance from {start} to {stop} of the steps, expected a range between 0 and 1"
            )));
        }
        if self.steps == 0 {
            return Err(Error::usage("0 steps, expected at least 1"));
        }
        if restart_step(self.steps, self.restart_ratio) >= self.steps {
            return Err(Error::usage(format!(
                "{} steps with a restart ratio of {} leave later stages no step to run",
                self.steps, self.restart_ratio
            ))
            .with_hint("use more --steps or a larger --restart-ratio"));
        }
        Ok(())
    }

    /// Whether a step is within the guidance's range, whose ends are truncated to whole steps.
    pub fn is_guided(&self, step: usize) -> bool {
        let at = |share: f64| (share * self.steps as f64) as usize;
        (at(self.guidance_start)..at(self.guidance_stop)).contains(&step)
    }
}

/// Gives unit normals: for what, height, width.
pub type NoiseSource<'a> = &'a mut dyn FnMut(Noise, u32, u32) -> Vec<f32>;

/// Loads the denoiser again.
pub type Reload<'a> = &'a mut dyn FnMut(&mut dyn Progress) -> Result<Box<dyn Denoiser + 'a>>;

/// The method, ready to run on a model.
pub struct Cascade<'a> {
    pub gpu: &'a Gpu,
    /// Dropped before the last picture is decoded, so that its weights make room.
    pub denoiser: Box<dyn Denoiser + 'a>,
    /// Where given, the denoiser also makes room for [large](Codec::is_large) pictures between the stages.
    pub reload: Option<Reload<'a>>,
    pub codec: &'a mut dyn Codec,
    /// Noise levels of all stages, for as many steps as the options say.
    pub schedule: Schedule,
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
    /// Runs all stages, or those after `reached`, a finished stage and its latents; returns what the last
    /// one made. `noise` gives unit normals for latents of a height and a width, channels last.
    ///
    /// # Errors
    /// Options out of range, the device's limits, a stage that ends in NaN or in one flat colour, or
    /// what `progress` returned.
    pub fn run(
        self,
        size: &SizePlan,
        reached: Option<(u32, Latents)>,
        noise: NoiseSource,
        progress: &mut dyn Progress,
    ) -> Result<StageResult> {
        let Self { gpu, denoiser, mut reload, codec, schedule, options } = self;
        let mut denoiser = Some(denoiser);
        options.check()?;
        let factor = codec.factor();
        let mut previous = match reached {
            Some((stage, latents)) => Some(resume_stage(codec, size, stage, latents, progress)?),
            None => None,
        };
        for stage in previous.as_ref().map_or(0, |p| p.stage + 1)..=size.stages {
            let (width, height) = size.stage_size(stage);
            let (h, w) = (height / factor, width / factor);
            let makes_room = reload.is_some() && codec.is_large(h, w);
            let fresh = noise(Noise::Stage(stage), h, w);
            let start = match previous.take() {
                None => {
                    let sigma = schedule.init_noise_sigma;
                    let values = fresh.iter().map(|v| v * sigma).collect();
                    let channels = codec.channels();
                    let latents = Latents { height: h, width: w, channels, values };
                    Start { latents, low: None, step: 0 }
                }
                Some(last) => {
                    denoiser = denoiser.filter(|_| !makes_room);
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
                        &fresh,
                        schedule.mix(step),
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
            let loaded = match (denoiser.take(), &mut reload) {
                (Some(denoiser), _) => denoiser,
                (None, Some(reload)) => reload(progress)?,
                (None, None) => return Err(Error::internal("the denoiser is gone")),
            };
            let windows = options.attention.windows(loaded.as_ref(), stage, base, (h, w));
            let model = windows.as_ref().map_or(loaded.as_ref(), |d| d as &dyn Denoiser);
            let sampling =
                Sampling { gpu, denoiser: model, schedule: &schedule, options, stage, base };
            let latents = sampling.run(start, noise, progress)?;
            check(&latents.values, stage, "latents")?;
            progress.latents(stage, &latents)?;
            if stage == size.stages {
                drop(loaded);
                return finish_stage(codec, size, stage, latents, progress);
            }
            denoiser = Some(loaded).filter(|_| !makes_room);
            previous = Some(finish_stage(codec, size, stage, latents, progress)?);
        }
        previous.ok_or_else(|| Error::internal("the cascade has no stage"))
    }
}

/// Decodes the latents of a stage.
fn finish_stage(
    codec: &mut dyn Codec,
    size: &SizePlan,
    stage: u32,
    latents: Latents,
    progress: &mut dyn Progress,
) -> Result<StageResult> {
    let Latents { height: h, width: w, .. } = latents;
    let image =
        codec.decode(&latents.values, h, w, &mut |share| progress.event(Event::Decoding(share)))?;
    check(&image, stage, "picture")?;
    let (width, height) = size.stage_size(stage);
    let cropped = size.cropped_size(stage);
    let result = StageResult { stage, stages: size.stages, latents, image, width, height, cropped };
    progress.stage(&result)?;
    Ok(result)
}

/// Decodes the latents of a stage that an earlier run has sampled.
///
/// # Errors
/// Latents of another size, or with NaN.
pub fn resume_stage(
    codec: &mut dyn Codec,
    size: &SizePlan,
    stage: u32,
    latents: Latents,
    progress: &mut dyn Progress,
) -> Result<StageResult> {
    if stage > size.stages {
        return Err(Error::usage(format!(
            "stage {stage} is reached, but {} is the last",
            size.stages
        )));
    }
    let (width, height) = size.stage_size(stage);
    let expected = Shape::new(1, height / codec.factor(), width / codec.factor(), codec.channels());
    let shape = latents.shape();
    if shape != expected || latents.values.len() as u64 != shape.elems() {
        return Err(Error::usage(format!(
            "the latents of stage {stage} are {}×{} with {} channels, expected {}×{} with {}",
            shape.width,
            shape.height,
            shape.channels,
            expected.width,
            expected.height,
            expected.channels
        )));
    }
    check(&latents.values, stage, "latents")?;
    progress.event(Event::Stage { stage, width, height, steps: 0 })?;
    finish_stage(codec, size, stage, latents, progress)
}

/// The sampler's steps of one stage.
struct Sampling<'a> {
    gpu: &'a Gpu,
    denoiser: &'a dyn Denoiser,
    schedule: &'a Schedule,
    options: CascadeOptions,
    stage: u32,
    /// Height and width of the first stage's latents.
    base: (u32, u32),
}

impl<'a> Sampling<'a> {
    fn run(
        &self,
        start: Start,
        noise: NoiseSource,
        progress: &mut dyn Progress,
    ) -> Result<Latents> {
        let (o, schedule, stage) = (&self.options, self.schedule, self.stage);
        let Start { mut latents, low, step: first } = start;
        let (shape, steps) = (latents.shape(), o.steps - first);
        let compile = |step: usize| self.compile(step, shape, low.as_deref());
        let mut plan = compile(first)?;
        plan.start(&State { x: std::mem::take(&mut latents.values), previous: None })?;
        for i in first..o.steps {
            if i > first && self.changes(i) {
                let reached = plan.finish()?;
                drop(plan);
                plan = compile(i)?;
                plan.start(&reached)?;
            }
            let guidance = schedule.sg_weight(i, first);
            let cfg = self.denoiser.guidance();
            let adds_noise = schedule.step(i, first).noise > 0.0;
            let inputs = StepInputs {
                coefficients: Coefficients::step(schedule, i, first, cfg, guidance),
                guidance,
                timestep: schedule.timesteps[i],
                noise: adds_noise
                    .then(|| noise(Noise::Step { stage, step: i }, shape.height, shape.width)),
            };
            plan.run(&inputs, &mut |share| {
                progress.event(Event::Sampling(((i - first) as f64 + share) / steps as f64))
            })?;
        }
        latents.values = plan.finish()?.x;
        Ok(latents)
    }

    /// The plan for a step and those after it that do not differ ([`Sampling::changes`]).
    fn compile(&self, step: usize, latents: Shape, low: Option<&[f32]>) -> Result<StepPlan<'a>> {
        let recorded = StepGraph::record(
            self.gpu.caps(),
            self.denoiser,
            latents,
            self.attention(step),
            low.map(|values| (self.options.filter, values)),
            self.schedule.sampler,
            self.branches(step),
        )?;
        StepPlan::compile(self.gpu, self.denoiser, recorded)
    }

    /// Whether a step sees other windows or other branches than the one before it.
    fn changes(&self, step: usize) -> bool {
        self.attention(step) != self.attention(step - 1)
            || self.branches(step) != self.branches(step - 1)
    }

    fn attention(&self, step: usize) -> Attention {
        let jitter =
            self.options.jitter.map(|s| stream_seed(s, &format!("jitter.{}.{step}", self.stage)));
        self.options.attention.scope(self.stage, self.base, jitter)
    }

    fn branches(&self, step: usize) -> u32 {
        if self.options.is_guided(step) { self.denoiser.branches() } else { 1 }
    }
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

//! The SDEdit cascade: generate at the base size, then double, re-noise and denoise again.

use super::denoiser::{Attention, Codec, Denoiser};
use super::sampler::{Coefficients, Latents, StepPlan, restart};
use super::size::SizePlan;
use crate::error::{Error, ErrorKind, Result};
use crate::gpu::Gpu;
use crate::sampling::{restart_step, stream_seed};

/// The method's settings.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct CascadeOptions {
    /// Steps of the first stage; later ones skip the share 1 - `restart_ratio` of them.
    pub steps: usize,
    /// Share of the steps that each later stage runs, 0 to 1.
    pub restart_ratio: f64,
    /// Side of the low band as a share of the latents' side, above 0 and at most 1.
    pub scale_factor: f64,
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
        let share = |name: &str, value: f64| {
            if value > 0.0 && value <= 1.0 {
                return Ok(());
            }
            Err(Error::usage(format!("{name} is {value}, expected above 0 and at most 1")))
        };
        share("the restart ratio", self.restart_ratio)?;
        share("the scale factor", self.scale_factor)?;
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

/// What happens, for whoever watches.
#[derive(Debug, Clone, Copy)]
pub enum Event {
    /// A stage begins: 0 is the base. `steps` sampler steps, `width × height` pixels.
    Stage { stage: u32, width: u32, height: u32, steps: usize },
    /// A share of the stage's sampling is done.
    Sampling(f64),
    /// A share of turning latents into the picture is done.
    Decoding(f64),
    /// A share of turning the doubled picture into latents is done.
    Encoding(f64),
}

/// Watches; an error (of kind `Cancelled`, say) stops the work at the next submission.
pub type Observer<'a> = &'a mut dyn FnMut(Event) -> Result<()>;

/// What a stage made.
#[derive(Debug, Clone)]
pub struct StageResult {
    pub latents: Latents,
    /// `[H, W, 3]`, about -1…1, neither clamped nor rounded.
    pub image: Vec<f32>,
    pub width: u32,
    pub height: u32,
}

/// The method, ready to run on a model.
pub struct Cascade<'a> {
    pub gpu: &'a Gpu,
    pub denoiser: &'a dyn Denoiser,
    pub codec: &'a mut dyn Codec,
    pub options: CascadeOptions,
}

impl Cascade<'_> {
    /// Runs all stages. `noise` gives unit normals for a stage, channels last; `keep` takes each result.
    ///
    /// # Errors
    /// Options out of range, the device's limits, a stage that ends in NaN or in one flat colour.
    pub fn run(
        &mut self,
        size: &SizePlan,
        noise: &mut dyn FnMut(u32, u32, u32) -> Vec<f32>,
        keep: &mut dyn FnMut(u32, &StageResult) -> Result<()>,
        observer: Observer,
    ) -> Result<()> {
        let o = self.options;
        o.check()?;
        let schedule = self.denoiser.schedule(o.steps)?;
        let restart_at = restart_step(o.steps, o.restart_ratio);
        let factor = self.codec.factor();
        let (base_h, base_w) = (size.base_height / factor, size.base_width / factor);
        let cfg = self.denoiser.guidance();

        let mut previous: Option<StageResult> = None;
        for stage in 0..=size.stages {
            let (width, height) = size.stage_size(stage);
            let (h, w) = (height / factor, width / factor);
            let mut start = noise(stage, h, w);
            let mut low = None;
            let mut first_step = 0;
            match &previous {
                None => start.iter_mut().for_each(|v| *v *= schedule.init_noise_sigma),
                Some(last) => {
                    let encoded = self.codec.encode_doubled(
                        &last.image,
                        last.height,
                        last.width,
                        &mut |share| observer(Event::Encoding(share)),
                    )?;
                    let sigma = schedule.sigmas[restart_at];
                    let made = restart(
                        self.gpu,
                        &last.latents,
                        &encoded,
                        &start,
                        sigma,
                        o.scale_factor,
                        o.frequency_mixing,
                    )?;
                    start = made.latents.values;
                    low = o.structure_guidance.then_some(made.low);
                    first_step = restart_at;
                }
            }

            let channels = self.denoiser.latent_channels();
            let mut latents = Latents { height: h, width: w, channels, values: start };
            let attention = |step: usize| match (stage > 0 && o.patches, o.jitter) {
                (false, _) => Attention::Full,
                (true, seed) => Attention::Patches {
                    base_height: base_h,
                    base_width: base_w,
                    jitter: seed.map(|s| stream_seed(s, &format!("jitter.{stage}.{step}"))),
                },
            };
            let reference = low.as_deref().map(|values| (o.scale_factor, values));
            let compile = |step: usize| {
                StepPlan::compile(
                    self.gpu,
                    self.denoiser,
                    latents.shape(),
                    attention(step),
                    reference,
                )
            };
            let mut plan = compile(first_step)?;
            let steps = o.steps - first_step;
            observer(Event::Stage { stage, width, height, steps })?;
            plan.start(&latents.values)?;
            for i in first_step..o.steps {
                if i > first_step && o.jitter.is_some() && stage > 0 {
                    // Other patches, other windows: recorded anew.
                    let reached = plan.finish()?;
                    plan = compile(i)?;
                    plan.start(&reached)?;
                }
                let weight = schedule.sg_weight(i, first_step);
                let coefficients = Coefficients::step(&schedule, i, cfg, weight);
                plan.run(coefficients, schedule.timesteps[i], &mut |share| {
                    observer(Event::Sampling(((i - first_step) as f64 + share) / steps as f64))
                })?;
            }
            latents.values = plan.finish()?;
            drop(plan);
            check(&latents.values, stage, "latents")?;

            let image = self
                .codec
                .decode(&latents.values, h, w, &mut |share| observer(Event::Decoding(share)))?;
            check(&image, stage, "picture")?;
            let result = StageResult { latents, image, width, height };
            keep(stage, &result)?;
            previous = Some(result);
        }
        Ok(())
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

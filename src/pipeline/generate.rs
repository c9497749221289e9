//! The pipeline: a model folder on a device, and pictures from it.

use super::codec::VaeCodec;
use super::family::{self, Family, Prompts};
use super::layout::channels_last;
use super::metadata::{Metadata, StageSize};
use super::model::{Model, Precision};
use super::picture::{DevicePicture, Picture};
use super::reached::Reached;
use super::request::{Defaults, Request};
use crate::error::{Error, Result};
use crate::gpu::{DeviceTensor, Engine};
use crate::models::vae::VaeConfig;
use crate::sampling::{Noise, Schedule, restart_step};
use crate::scalediff::{
    Cascade, CascadeOptions, Event, Latents, Progress, Reload, SizePlan, StageResult, resume_stage,
};
use crate::tensor::DType;
use crate::weights::ModelFiles;

/// How a model is loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct LoadOptions {
    /// Storage of weights and activations. Default: f16.
    pub precision: Precision,
    /// Keep the denoiser and the autoencoder on the device from one picture to the next. Default: each
    /// is loaded when its turn comes and released as soon as nothing needs it, so that the last picture is
    /// decoded without the denoiser beside it.
    pub keep_loaded: bool,
}

/// A model, ready to make pictures on an engine's device.
///
/// Text encoders are released before the denoiser is loaded. The embeddings of the last prompt are kept, so
/// that more pictures of it go without the encoders.
pub struct Pipeline {
    engine: Engine,
    model: Model,
    defaults: Defaults,
    family: Box<dyn Family>,
    codec: Option<VaeCodec>,
    keep_loaded: bool,
}

/// A request that can be carried out.
struct Job {
    guidance: f32,
    length: u32,
    options: CascadeOptions,
    schedule: Schedule,
    vae: VaeConfig,
    size: SizePlan,
}

impl Pipeline {
    /// Opens a model folder of any supported family, as its `model_index.json` says. Configs are read and
    /// checked now, weights when they are first needed.
    ///
    /// # Errors
    /// A file that is missing or not what it should be, or a family that is not supported.
    pub fn load(engine: &Engine, files: &ModelFiles, options: LoadOptions) -> Result<Self> {
        let model = Model::new(engine.clone(), files.clone(), options.precision);
        let family = family::open(&model, options.keep_loaded)?;
        Ok(Self {
            defaults: family.defaults().of(files)?,
            family,
            codec: None,
            keep_loaded: options.keep_loaded,
            engine: engine.clone(),
            model,
        })
    }

    /// The engine that it runs on.
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// What fields of a request that are `None` stand for.
    pub fn defaults(&self) -> &Defaults {
        &self.defaults
    }

    /// What pictures of this request say about themselves: the request with the defaults filled in, the
    /// stages, the model and the device.
    ///
    /// # Errors
    /// A request out of range.
    pub fn describe(&self, request: &Request) -> Result<Metadata> {
        let Job { options, schedule, size, .. } = self.job(request)?;
        let later = options.steps - restart_step(options.steps, options.restart_ratio);
        let stage = |stage: u32| {
            let (width, height) = size.stage_size(stage);
            StageSize { width, height, steps: if stage == 0 { options.steps } else { later } }
        };
        Ok(Metadata {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            model: self.model.files.name(),
            precision: self.model.precision,
            device: self.engine.facts().name.clone(),
            sampler: schedule.sampler,
            karras: schedule.karras,
            stages: (0..=size.stages).map(stage).collect(),
            request: self.defaults.resolve(request, &size)?,
        })
    }

    /// Makes a picture.
    ///
    /// The same request makes the same values on the same device.
    ///
    /// # Errors
    /// A request out of range, a broken model, the device's limits, NaN in a stage, or what `progress`
    /// returned.
    pub fn generate(&mut self, request: &Request, progress: &mut dyn Progress) -> Result<Picture> {
        self.run(request, None, false, progress).map(|(last, _)| Picture::of(&last))
    }

    /// Makes a picture from the last stage on that an earlier run of the same request has finished; its values
    /// are those of an uninterrupted run. `progress` sees that stage's picture, and what follows.
    ///
    /// # Errors
    /// As [`Pipeline::generate`], and where `reached` is of another request.
    pub fn resume(
        &mut self,
        request: &Request,
        reached: &Reached,
        progress: &mut dyn Progress,
    ) -> Result<Picture> {
        reached.check(&self.describe(request)?)?;
        self.run(request, reached.last()?, false, progress).map(|(last, _)| Picture::of(&last))
    }

    /// Makes a picture and leaves it in the device's memory, for hosts that draw it themselves.
    ///
    /// # Errors
    /// As [`Pipeline::generate`].
    pub fn generate_on_device(
        &mut self,
        request: &Request,
        progress: &mut dyn Progress,
    ) -> Result<DevicePicture> {
        let (last, codec) = self.run(request, None, true, progress)?;
        let tensor = codec.filter(|tensor| tensor.dtype == DType::F32);
        tensor
            .map(|tensor| DevicePicture::of(&last, tensor))
            .ok_or_else(|| Error::internal("the decoder left no f32 picture on the device"))
    }

    /// Checks a request and settles what it leaves open.
    fn job(&self, request: &Request) -> Result<Job> {
        let guidance = self.defaults.cfg_scale(request)?;
        let options = self.defaults.options(request)?;
        options.check()?;
        let schedule = self.family.schedule(request.sampler_choice(), options.steps)?;
        let vae = self.model.vae_config()?;
        let unit = vae.factor() * self.family.patch();
        let size = self.defaults.size(request, self.family.native_size(), unit)?;
        let length = self.defaults.length(request)?.unwrap_or(0);
        Ok(Job { guidance, length, options, schedule, vae, size })
    }

    fn run(
        &mut self,
        request: &Request,
        reached: Option<(u32, Latents)>,
        keep_picture: bool,
        progress: &mut dyn Progress,
    ) -> Result<(StageResult, Option<DeviceTensor>)> {
        let Job { guidance, length, options, schedule, vae, size } = self.job(request)?;
        let negative = request.negative_prompt.as_deref();
        let in_part = options.guidance_start > 0.0 || options.guidance_stop < 1.0;
        let prompts = Prompts { positive: &request.prompt, negative, guidance, length, in_part };
        // Nothing is left to denoise when the last stage is reached.
        let denoiser = match &reached {
            Some((stage, _)) if *stage == size.stages => None,
            _ => Some(self.family.denoiser(&prompts, &size, progress)?),
        };
        let mut codec = match self.codec.take() {
            Some(codec) => codec,
            None => {
                progress.event(Event::Loading("autoencoder"))?;
                VaeCodec::load(&self.model)?
            }
        };
        codec.keep_picture = keep_picture;

        let channels = vae.latent_channels as usize;
        let mut noise = |noise: Noise, h: u32, w: u32| {
            let count = channels * h as usize * w as usize;
            channels_last(&request.rng.randn(noise.seed(request.seed), count), channels)
        };
        let gpu = &self.engine;
        let made = match (denoiser, reached) {
            (None, Some((stage, latents))) => {
                resume_stage(&mut codec, &size, stage, latents, progress)
            }
            (None, None) => Err(Error::internal("a run without a denoiser")),
            (Some(denoiser), reached) => {
                let family = &mut self.family;
                let mut reload =
                    |progress: &mut dyn Progress| family.denoiser(&prompts, &size, progress);
                let reload = (!self.keep_loaded).then_some(&mut reload as Reload);
                let codec = &mut codec;
                let cascade = Cascade { gpu, denoiser, reload, codec, schedule, options };
                cascade.run(&size, reached, &mut noise, progress)
            }
        };
        let picture = codec.picture.take();
        // Kept after an error too: the next picture may do without loading.
        self.codec = self.keep_loaded.then_some(codec);
        Ok((made?, picture))
    }
}

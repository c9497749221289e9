//! Opening the components of a model folder.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::error::{Error, Result};
use crate::gpu::{Engine, Limits, Slabs};
use crate::models::config::Config;
use crate::models::flux::{Flux, FluxConfig};
use crate::models::sdxl_unet::{Unet, UnetConfig};
use crate::models::text::{ClipConfig, ClipEncoder, T5Config, T5Encoder};
use crate::models::vae::{Decoder, Encoder, VaeConfig};
use crate::sampling::{FlowMatch, PredictionType, SamplerChoice, Schedule, Scheduler};
use crate::tensor::DType;
use crate::weights::{Checkpoint, Loader, ModelFiles, Weights};

/// What matrices and activations are stored in. Arithmetic is f32 in both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Precision {
    /// f16 weights; f16 activations in the denoiser.
    #[default]
    F16,
    /// f32 everywhere.
    F32,
}

impl Precision {
    /// The element type of weights and of the denoiser's activations.
    pub fn dtype(self) -> DType {
        match self {
            Precision::F16 => DType::F16,
            Precision::F32 => DType::F32,
        }
    }
}

/// A network and its weights on the device.
pub struct Loaded<M> {
    /// The network, whose weights refer to `slabs`.
    pub net: M,
    /// Its weights.
    pub slabs: Slabs,
}

/// What networks are built on.
#[derive(Clone)]
enum Target {
    /// With their weights, ready to run.
    Device(Engine),
    /// Without: for plans, from configs alone.
    Shapes(Limits),
}

/// A model folder, opened component by component; clones are cheap.
#[derive(Clone)]
pub struct Model {
    target: Target,
    /// Where it comes from.
    pub files: ModelFiles,
    /// What it is stored in.
    pub precision: Precision,
}

impl Model {
    /// `files` in diffusers layout.
    pub fn new(engine: Engine, files: ModelFiles, precision: Precision) -> Self {
        Self { target: Target::Device(engine), files, precision }
    }

    /// `files` without their weights, which need not be there: networks that can be recorded and laid
    /// out under `limits`, but not run.
    pub fn of_shapes(limits: Limits, files: ModelFiles, precision: Precision) -> Self {
        Self { target: Target::Shapes(limits), files, precision }
    }

    /// Where it runs.
    ///
    /// # Errors
    /// A model made by [`Model::of_shapes`] runs nowhere.
    pub fn engine(&self) -> Result<&Engine> {
        match &self.target {
            Target::Device(engine) => Ok(engine),
            Target::Shapes(_) => Err(Error::internal("a model without weights cannot run")),
        }
    }

    fn config(&self, file: &str) -> Result<Config> {
        Ok(Config::new(file, self.files.read_json::<Value>(file)?))
    }

    /// Opens a checkpoint, builds a network from it and uploads the weights; or from shapes alone.
    fn load<M>(
        &self,
        folder: &str,
        stem: &str,
        build: impl FnOnce(&Weights) -> Result<M>,
    ) -> Result<Loaded<M>> {
        let dtype = self.precision.dtype();
        let finish = |loader: Loader| {
            let net = build(&loader.root())?;
            Ok(Loaded { net, slabs: loader.finish()? })
        };
        match &self.target {
            Target::Device(engine) => {
                let checkpoint = Checkpoint::open(&self.files, folder, stem)?;
                finish(Loader::new(engine, &checkpoint, folder, dtype))
            }
            Target::Shapes(limits) => finish(Loader::of_shapes(limits, folder, dtype)),
        }
    }

    /// `unet/config.json`.
    pub fn unet_config(&self) -> Result<UnetConfig> {
        UnetConfig::new(&self.config("unet/config.json")?)
    }

    /// `unet/`.
    pub fn unet(&self) -> Result<Loaded<Unet>> {
        let config = self.unet_config()?;
        self.load("unet", "diffusion_pytorch_model", |w| Unet::load(w, config))
    }

    /// `transformer/config.json`.
    pub fn flux_config(&self) -> Result<FluxConfig> {
        FluxConfig::new(&self.config("transformer/config.json")?)
    }

    /// `transformer/`.
    pub fn flux(&self) -> Result<Loaded<Flux>> {
        let config = self.flux_config()?;
        self.load("transformer", "diffusion_pytorch_model", |w| Flux::load(w, config))
    }

    /// The T5 encoder in a folder.
    pub fn t5(&self, folder: &str) -> Result<Loaded<T5Encoder>> {
        let config = T5Config::new(&self.config(&format!("{folder}/config.json"))?)?;
        self.load(folder, "model", |w| T5Encoder::load(w, config))
    }

    /// The config in a text encoder's folder.
    pub fn clip_config(&self, folder: &str) -> Result<ClipConfig> {
        ClipConfig::new(&self.config(&format!("{folder}/config.json"))?)
    }

    /// A text encoder's folder.
    pub fn clip(&self, folder: &str) -> Result<Loaded<ClipEncoder>> {
        let config = self.clip_config(folder)?;
        self.load(folder, "model", |w| ClipEncoder::load(w, config))
    }

    /// `vae/config.json`.
    pub fn vae_config(&self) -> Result<VaeConfig> {
        VaeConfig::new(&self.config("vae/config.json")?)
    }

    /// The encoder of `vae/`.
    pub fn vae_encoder(&self) -> Result<Loaded<Encoder>> {
        let config = self.vae_config()?;
        self.load("vae", "diffusion_pytorch_model", |w| Encoder::load(w, &config))
    }

    /// The decoder of `vae/`.
    pub fn vae_decoder(&self) -> Result<Loaded<Decoder>> {
        let config = self.vae_config()?;
        self.load("vae", "diffusion_pytorch_model", |w| Decoder::load(w, &config))
    }

    /// The schedule of a run of `steps` steps, which must be of the kind that the denoiser was trained with.
    ///
    /// # Errors
    /// A broken config, a number of steps that it cannot have, or noise of another kind.
    pub fn schedule(&self, choice: SamplerChoice, steps: usize, flow: bool) -> Result<Schedule> {
        let schedule = self.scheduler(choice)?.schedule(steps)?;
        if (schedule.prediction == PredictionType::Flow) == flow {
            return Ok(schedule);
        }
        let expected = if flow { FlowMatch::CLASS } else { "a scheduler of diffusion" };
        Err(Error::model(format!("the scheduler does not fit the model, expected {expected}"))
            .at("scheduler/scheduler_config.json"))
    }

    /// `scheduler/scheduler_config.json`, with the request's say on the sampler.
    pub fn scheduler(&self, choice: SamplerChoice) -> Result<Scheduler> {
        let file = "scheduler/scheduler_config.json";
        Scheduler::from_config(&self.files.read_json::<Value>(file)?, choice)
            .map_err(|e| e.at(file))
    }
}

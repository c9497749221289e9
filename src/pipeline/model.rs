//! Opening the components of a model folder.

use serde_json::Value;

use crate::error::Result;
use crate::gpu::{Engine, Slabs};
use crate::models::config::Config;
use crate::models::sdxl_unet::{Unet, UnetConfig};
use crate::models::text::{ClipConfig, ClipEncoder};
use crate::models::vae::{Decoder, Encoder, VaeConfig};
use crate::sampling::EulerDiscrete;
use crate::tensor::DType;
use crate::weights::{Checkpoint, Loader, ModelFiles, Weights};

/// What matrices and activations are stored in. Arithmetic is f32 in both.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
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

/// A model folder, opened component by component; clones are cheap.
#[derive(Clone)]
pub struct Model {
    /// Where it runs.
    pub engine: Engine,
    /// Where it comes from.
    pub files: ModelFiles,
    /// What it is stored in.
    pub precision: Precision,
}

impl Model {
    /// `files` in diffusers layout.
    pub fn new(engine: Engine, files: ModelFiles, precision: Precision) -> Self {
        Self { engine, files, precision }
    }

    fn config(&self, file: &str) -> Result<Config> {
        Ok(Config::new(file, self.files.read_json::<Value>(file)?))
    }

    /// Opens a checkpoint, builds a network from it and uploads the weights.
    fn load<M>(
        &self,
        folder: &str,
        stem: &str,
        build: impl FnOnce(&Weights) -> Result<M>,
    ) -> Result<Loaded<M>> {
        let checkpoint = Checkpoint::open(&self.files, folder, stem)?;
        let loader = Loader::new(&self.engine, &checkpoint, folder, self.precision.dtype());
        let net = build(&loader.root())?;
        Ok(Loaded { net, slabs: loader.finish()? })
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

    /// A text encoder's folder.
    pub fn clip(&self, folder: &str) -> Result<Loaded<ClipEncoder>> {
        let config = ClipConfig::new(&self.config(&format!("{folder}/config.json"))?)?;
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

    /// `scheduler/scheduler_config.json`.
    pub fn scheduler(&self) -> Result<EulerDiscrete> {
        let file = "scheduler/scheduler_config.json";
        EulerDiscrete::from_config(&self.files.read_json::<Value>(file)?).map_err(|e| e.at(file))
    }
}

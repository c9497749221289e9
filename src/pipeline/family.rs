//! The seam between the pipeline and the families of models.

use serde_json::Value;

use super::flux::Flux;
use super::model::Model;
use super::request::Defaults;
use super::sdxl::Sdxl;
use crate::error::{Error, Result};
use crate::gpu::Caps;
use crate::graph::Graph;
use crate::sampling::{SamplerChoice, Schedule};
use crate::scalediff::{Denoiser, Progress, SizePlan};

/// What the pipeline asks of a family: everything before the cascade and the autoencoder.
pub(super) trait Family: Send {
    /// Side of the pictures it was trained on, in pixels.
    fn native_size(&self) -> u32;

    /// What its published models are run with.
    fn defaults(&self) -> Defaults;

    /// Latents to the side of a token: sides of latents are multiples of it.
    fn patch(&self) -> u32;

    /// The schedule for a number of steps; also tells whether that number can be run.
    fn schedule(&self, choice: SamplerChoice, steps: usize) -> Result<Schedule>;

    /// Encodes the prompts, releases the encoders, then loads the denoiser.
    fn denoiser(
        &mut self,
        prompts: &Prompts,
        size: &SizePlan,
        progress: &mut dyn Progress,
    ) -> Result<Box<dyn Denoiser>>;

    /// For plans: the text encoders as graphs, in the order they run.
    fn encoder_graphs(&self, caps: &Caps, prompts: &Prompts) -> Result<Vec<Encoder>>;

    /// For plans: the denoiser with blank conditioning.
    fn blank_denoiser(&mut self, prompts: &Prompts, size: &SizePlan) -> Result<Box<dyn Denoiser>>;
}

/// A text encoder as a graph.
pub(super) struct Encoder {
    pub name: String,
    pub graph: Graph,
    pub weight_bytes: u64,
}

/// What guides a picture.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Prompts<'a> {
    pub positive: &'a str,
    pub negative: Option<&'a str>,
    /// Scale between them; at most 1 means that the positive prompt alone counts.
    pub guidance: f32,
    /// Tokens of the long text encoder, for families that have one.
    pub length: u32,
    /// Whether guidance works in some of the steps only.
    pub in_part: bool,
}

/// Picks the family by the class that `model_index.json` names. `keep_loaded`: see
/// [`LoadOptions`](super::LoadOptions).
pub(super) fn open(model: &Model, keep_loaded: bool) -> Result<Box<dyn Family>> {
    let index: Value = model.files.read_json("model_index.json")?;
    match index.get("_class_name").and_then(Value::as_str).unwrap_or("model without _class_name") {
        "StableDiffusionXLPipeline" | "StableDiffusionXLImg2ImgPipeline" => {
            Ok(Box::new(Sdxl::open(model.clone(), keep_loaded)?))
        }
        "FluxPipeline" | "FluxImg2ImgPipeline" => {
            Ok(Box::new(Flux::open(model.clone(), keep_loaded)?))
        }
        class => Err(Error::model(format!("model_index.json: a {class} is not supported"))
            .with_hint(
                "supported: StableDiffusionXLPipeline and FluxPipeline in diffusers layout",
            )),
    }
}

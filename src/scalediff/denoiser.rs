//! The two seams between the method and the models.

use std::ops::Range;

use crate::error::Result;
use crate::gpu::Slabs;
use crate::graph::{Graph, Pulse};
use crate::tensor::Tensor;

/// How self-attention sees the picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Attention {
    /// The whole grid.
    Full,
    /// Neighborhood patches, with windows as large as the base grid (in latents, at the finest level).
    /// Shifted by whole numbers drawn from the named stream where a seed is given. Isolated patches
    /// see no further than their own block of queries.
    Patches { base_height: u32, base_width: u32, isolated: bool, jitter: Option<u64> },
}

/// What [`Denoiser::predict`] recorded.
pub struct Prediction {
    /// The model's output, items as in the input.
    pub output: Tensor,
    /// Inputs whose values change with the step, in the order of [`Denoiser::step_values`]; one batch
    /// item for each of the input.
    pub step: Vec<Tensor>,
    /// Inputs to write once.
    pub fixed: Vec<(Tensor, Vec<f32>)>,
}

/// A model that predicts, with its conditioning inside.
pub trait Denoiser {
    /// Channels of the latents.
    fn latent_channels(&self) -> u32;
    /// Latents to the side of a token: sides of what it predicts are multiples of it.
    fn patch(&self) -> u32 {
        1
    }
    /// Branches of a guided prediction: 2 under classifier-free guidance (negative first), else 1.
    fn branches(&self) -> u32;
    /// Guidance scale between the branches.
    fn guidance(&self) -> f32;
    /// Element type that the model takes its input in.
    fn input_dtype(&self) -> crate::tensor::DType;
    /// Records predictions of some `branches` for `input [n × branches, h, w, latent_channels]`: n pictures of the first
    /// of them, then n of the second.
    fn predict(
        &self,
        g: &mut Graph,
        input: Tensor,
        branches: Range<u32>,
        attention: Attention,
    ) -> Result<Prediction>;
    /// Values of [`Prediction::step`] at a timestep, for one batch item.
    fn step_values(&self, timestep: f32) -> Vec<Vec<f32>>;
    /// The weights of what `predict` records.
    fn slabs(&self) -> &Slabs;
}

/// An autoencoder between pictures `[1, H, W, 3]` in about -1…1 and latents `[1, h, w, c]` in the
/// model's scaled space, both channels last.
pub trait Codec {
    /// Pixels per latent along each axis.
    fn factor(&self) -> u32;
    /// Values per latent.
    fn channels(&self) -> u32;
    /// Whether a picture of `height × width` latents takes so much memory that the denoiser should make room.
    fn is_large(&self, height: u32, width: u32) -> bool {
        let _ = (height, width);
        false
    }
    /// Latents to a picture of `factor` times their size; neither clamped nor rounded.
    fn decode(
        &mut self,
        latents: &[f32],
        height: u32,
        width: u32,
        pulse: Pulse,
    ) -> Result<Vec<f32>>;
    /// A picture, doubled by bicubic interpolation, to latents.
    fn encode_doubled(
        &mut self,
        image: &[f32],
        height: u32,
        width: u32,
        pulse: Pulse,
    ) -> Result<Vec<f32>>;
}

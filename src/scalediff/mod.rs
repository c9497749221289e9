//! ScaleDiff (NeurIPS 2025): the cascade from the training size upwards.
//!
//! Nothing here knows which family of model it drives: a [`Denoiser`] predicts, a [`Codec`] turns
//! latents into pixels and back.

mod cascade;
mod denoiser;
mod filters;
mod multidiffusion;
mod progress;
mod sampler;
mod size;
mod spectrum;
mod stage_attention;

pub use cascade::{Cascade, CascadeOptions, NoiseSource, Reload, resume_stage};
pub use denoiser::{Attention, Codec, Denoiser, Prediction};
pub use filters::{Filter, LowPass, antialiased_taps, bicubic_taps, upsample_bicubic};
pub use multidiffusion::MultiDiffusion;
pub use progress::{Event, Progress, StageResult};
pub use sampler::{Coefficients, Latents, StepGraph};
pub use size::{MAX_STAGES, SizePlan};
pub use spectrum::Mask;
pub use stage_attention::StageAttention;

//! The transformer of FLUX.1 (diffusers `FluxTransformer2DModel`): dev, with guidance embedded, and schnell.
//!
//! Text and picture are two streams of tokens from end to end: where the reference joins them into one sequence,
//! both go through the same weights, and attention sees both. Residual streams are f32.

mod blocks;
mod config;
mod transformer;

pub use config::FluxConfig;
pub use transformer::{Conditioning, Flux, SINUSOIDS};

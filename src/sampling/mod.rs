//! Host mathematics of sampling: samplers, schedules and noise.
//!
//! Everything is written for x = x₀ + sigma·noise, the "variance exploding" scale; samplers that diffusers
//! writes for sqrt(abar)·x₀ + sqrt(1 - abar)·noise (DDIM, DPM++) are brought to it.

mod config;
mod noise;
mod philox;
mod sampler;
mod schedule;

pub use noise::{Noise, Rng, TorchRng, stream_seed};
pub use philox::Philox;
pub use sampler::{Sampler, SamplerChoice, Step};
pub use schedule::{PredictionType, Schedule, Scheduler, restart_step};

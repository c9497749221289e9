//! Host mathematics of sampling: samplers, schedules and noise.
//!
//! Diffusion is written for x = x₀ + sigma·noise, the "variance exploding" scale; samplers that diffusers
//! writes for sqrt(abar)·x₀ + sqrt(1 - abar)·noise (DDIM, DPM++) are brought to it. Flow matching has
//! x = (1 - sigma)·x₀ + sigma·noise; its Euler step is the same.

mod config;
mod flow;
mod noise;
mod philox;
mod sampler;
mod schedule;

pub use flow::FlowMatch;
pub use noise::{Noise, Rng, TorchRng, stream_seed};
pub use philox::Philox;
pub use sampler::{Sampler, SamplerChoice, Step};
pub use schedule::{Diffusion, PredictionType, Schedule, Scheduler, restart_step};

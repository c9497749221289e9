//! Host mathematics of sampling: schedules and noise.

mod noise;
mod schedule;

pub use noise::{TorchRng, stream_seed};
pub use schedule::{EulerDiscrete, PredictionType, Schedule, restart_step};

//! Measuring kernels: for those who write them.
//!
//! A [`Call`](call::Call) is one call of a kernel as data: it makes its inputs, records itself and knows what
//! must come out. The kernel tests run small ones with odd extents; [`CASES`] are those that are timed, at
//! layer shapes of the small models, SDXL and FLUX.1. `scalediff bench` and `cargo bench` are the same program,
//! which runs [`run`]: every case is verified on sampled outputs before it is timed, by the device's own clock
//! where it has one that agrees with the host's, and set against the device's own [`Peak`].

pub mod call;
mod cascade;
mod cases;
mod compare;
pub mod inputs;
mod oracle;
mod peak;
mod record;
mod report;
pub mod rng;
mod run;
mod timer;
mod tune;

pub use cascade::{CascadeTime, StageTime, time_cascade};
pub use cases::{CASES, Case};
pub use compare::{Earlier, Ratios};
pub use peak::Peak;
pub use report::{Measured, Outcome, Report, speed};
pub use run::{Options, open, run, select};
pub use timer::{Source, Times};
pub use tune::{Trial, tune};

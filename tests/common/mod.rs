//! Shared by the kernel tests and the benches: kernel calls as data, their inputs, their reference.

pub mod call;
pub mod inputs;
mod oracle;
pub mod rng;

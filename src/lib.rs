//! scalediff
pub mod error;
pub mod gpu;
pub mod graph;
pub mod kernels;
pub mod models;
pub mod nn;
pub mod pipeline;
pub mod sampling;
pub mod scalediff;
pub mod shader;
pub mod tensor;
pub mod verify;
pub mod weights;

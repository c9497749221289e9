//! Checkpoints: files, tensors, and their way to the device. Nothing else opens a checkpoint.

mod header;
mod json;
mod loader;
mod rows;
mod source;
mod tensors;

pub use loader::{Loader, Weights};
pub use rows::Rows;
pub use source::{Bytes, Checkpoint, Dtype, ModelFiles, Overflow, TensorView, to_f16};
pub use tensors::TensorFile;

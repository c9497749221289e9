//! Checkpoints: files, tensors, and their way to the device. Nothing else opens a checkpoint.

mod header;
mod json;
mod loader;
mod narrow;
mod rows;
mod source;
mod tensors;

pub use loader::{Loader, Weights};
pub use narrow::{Overflow, to_f16};
pub use rows::Rows;
pub use source::{Bytes, Checkpoint, Dtype, ModelFiles, TensorView};
pub use tensors::TensorFile;

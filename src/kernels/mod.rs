//! The kernels: for each its parameters, the choice of a variant, and how it is recorded.

pub mod attention;
pub mod conv2d;
mod engine;
pub mod fft;
pub mod group_norm;
mod lanes;
pub mod latent;
pub mod layer_norm;
pub mod matmul;
pub mod patchify;
pub mod rotary;
pub mod silu;
pub mod window_mean;
pub mod windows;

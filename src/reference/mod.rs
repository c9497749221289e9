//! The test oracle: every kernel again as naive loops on the CPU with f64 sums, written from the
//! definition and sharing nothing with the shader. Values are plain slices, channels last, without
//! padding. Tests, benches and tools read this; the engine does not.

pub mod attention;
pub mod conv2d;
pub mod fft;
pub mod group_norm;
pub mod joint;
pub mod latent;
pub mod layer_norm;
pub mod matmul;
pub mod patchify;
pub mod rotary;
pub mod silu;
pub mod window_mean;
pub mod windows;

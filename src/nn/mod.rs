//! Layers: weights with the ops they record. A layer's output has the element type of its input
//! unless its caller says otherwise.

mod attention;
mod conv;
mod linear;
mod norm;
mod resnet;

pub use attention::{CrossAttention, ProjectionNames, SelfAttention};
pub use conv::Conv2d;
pub use linear::{GatedLinear, Linear};
pub use norm::{GroupNorm, LayerNorm, RmsNorm, modulated_norm};
pub use resnet::ResnetBlock;

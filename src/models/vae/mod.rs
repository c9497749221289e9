//! The autoencoder (diffusers `AutoencoderKL`): pixels to latents and back.
//!
//! Exact at every size: group norms see the whole picture, attention in the middle sees all of it;
//! there are no tiles. Pictures of any size are made in bands with those of a [streamed](Graph::stream) graph, and what is too
//! large to be kept is computed again for each use. Activations in f16 are stored times [`HALF_SCALE`], since those of SDXL
//! exceed f16: group norms take it back, what reads them directly keeps it.

mod config;
mod decoder;
mod encoder;

pub use config::VaeConfig;
pub use decoder::Decoder;
pub use encoder::Encoder;

use crate::error::Result;
use crate::graph::Graph;
use crate::kernels::attention::AttentionScope;

use crate::nn::{GroupNorm, ProjectionNames, ResnetBlock, SelfAttention};
use crate::tensor::{DType, Tensor};
use crate::weights::Weights;

/// The epsilon of every norm in the autoencoder.
const EPS: f32 = 1e-6;

/// Activations between two norms are stored in f16 times this, so that they may reach a million. Smaller yet would make
/// more of the convolutions' weights subnormal.
const HALF_SCALE: f32 = 1.0 / 16.0;

/// What activations of weights stored as `dtype` are stored times.
fn scale_of(dtype: DType) -> f32 {
    match dtype {
        DType::F32 => 1.0,
        DType::F16 => HALF_SCALE,
    }
}

/// A norm of activations.
fn norm(w: &Weights, channels: u32, groups: u32) -> Result<GroupNorm> {
    GroupNorm::load(w, channels, groups, EPS * scale_of(w.dtype()).powi(2))
}

/// Residual block, attention over the whole picture with one head, residual block.
struct Mid {
    first: ResnetBlock,
    attention: Option<(GroupNorm, SelfAttention)>,
    second: ResnetBlock,
}

impl Mid {
    fn load(w: &Weights, width: u32, c: &VaeConfig) -> Result<Self> {
        let scale = scale_of(w.dtype());
        let resnet = |i: u32| {
            let w = w.at("resnets").at(i);
            ResnetBlock::load(&w, (width, width), None, c.groups, EPS, scale)
        };
        let a = w.at("attentions.0");
        let attention = if c.mid_attention {
            Some((
                norm(&a.at("group_norm"), width, c.groups)?,
                SelfAttention::load_scaled(&a, &ProjectionNames::DIFFUSERS, width, 1, true, scale)?,
            ))
        } else {
            None
        };
        Ok(Self { first: resnet(0)?, attention, second: resnet(1)? })
    }

    fn forward(&self, g: &mut Graph, x: Tensor) -> Result<Tensor> {
        let mut x = g.scope("resnets.0", |g| self.first.forward(g, x, None, None))?;
        if let Some((norm, attention)) = &self.attention {
            x = g.scope("attentions.0", |g| {
                let h = norm.forward(g, x)?;
                attention.forward(g, h, AttentionScope::Full, x)
            })?;
        }
        g.scope("resnets.1", |g| self.second.forward(g, x, None, None))
    }
}

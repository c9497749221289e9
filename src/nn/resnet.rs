//! The residual block that U-Nets and autoencoders share.

use super::{Conv2d, GroupNorm, Linear};
use crate::error::Result;
use crate::graph::Graph;
use crate::tensor::{DType, Tensor};
use crate::weights::Weights;

/// `shortcut(x) + conv2(silu(norm2(conv1(silu(norm1(x))) + time)))`, with or without a time embedding.
pub struct ResnetBlock {
    norm1: GroupNorm,
    conv1: Conv2d,
    time_emb_proj: Option<Linear>,
    norm2: GroupNorm,
    conv2: Conv2d,
    conv_shortcut: Option<Conv2d>,
}

impl ResnetBlock {
    /// `time` is the width of the time embedding, `None` in a VAE. Input, output and what lies between are stored times
    /// `scale`, which the norms take back.
    pub fn load(
        w: &Weights,
        (c_in, c_out): (u32, u32),
        time: Option<u32>,
        groups: u32,
        eps: f32,
        scale: f32,
    ) -> Result<Self> {
        let time_emb_proj = time
            .map(|t| Linear::load(&w.at("time_emb_proj").times(scale), c_out, t))
            .transpose()?;
        let eps = eps * scale * scale;
        let conv =
            |name: &str, c_in: u32| Conv2d::load_scaled(&w.at(name), c_out, c_in, 3, (1.0, scale));
        let shortcut = w.at("conv_shortcut");
        Ok(Self {
            norm1: GroupNorm::load(&w.at("norm1"), c_in, groups, eps)?,
            conv1: conv("conv1", c_in)?,
            time_emb_proj,
            norm2: GroupNorm::load(&w.at("norm2"), c_out, groups, eps)?,
            conv2: conv("conv2", c_out)?,
            conv_shortcut: if c_in == c_out {
                None
            } else {
                Some(Conv2d::load_scaled(&shortcut, c_out, c_in, 1, (scale, scale))?)
            },
        })
    }

    /// `x` may come in two parts, joined on channels; `time` is `[batch, time]`, already through SiLU.
    pub fn forward(
        &self,
        g: &mut Graph,
        x: Tensor,
        skip: Option<Tensor>,
        time: Option<Tensor>,
    ) -> Result<Tensor> {
        let h = g.scope("norm1", |g| self.norm1.forward_silu(g, x, skip))?;
        let vector = match (&self.time_emb_proj, time) {
            (Some(proj), Some(time)) => {
                Some(g.scope("time_emb_proj", |g| proj.forward_as(g, time, DType::F32))?)
            }
            _ => None,
        };
        let h = g.scope("conv1", |g| self.conv1.forward_add_vector(g, h, vector))?;
        let h = g.scope("norm2", |g| self.norm2.forward_silu(g, h, None))?;
        let shortcut = match &self.conv_shortcut {
            Some(conv) => g.scope("conv_shortcut", |g| conv.forward_joined(g, x, skip))?,
            None => x,
        };
        g.scope("conv2", |g| self.conv2.forward_add(g, h, shortcut))
    }

    /// The same, alone and without a time embedding, for pictures of any size: `x` is recorded anew for each use, which
    /// lets it be computed again instead of kept, and so is the block's own hidden tensor if it exceeds `most` bytes.
    pub fn forward_again(
        &self,
        g: &mut Graph,
        x: &dyn Fn(&mut Graph) -> Result<Tensor>,
        most: u64,
    ) -> Result<Tensor> {
        let outer = x(g)?;
        let statistics = g.scope("norm1", |g| self.norm1.statistics(g, outer))?;
        let hidden = |g: &mut Graph| {
            let h = x(g)?;
            let h = g.scope("norm1", |g| self.norm1.apply_silu(g, h, statistics))?;
            g.scope("conv1", |g| self.conv1.forward(g, h))
        };
        let h = hidden(g)?;
        let statistics = g.scope("norm2", |g| self.norm2.statistics(g, h))?;
        let h = if h.bytes() > most { hidden(g)? } else { h };
        let h = g.scope("norm2", |g| self.norm2.apply_silu(g, h, statistics))?;
        let outer = x(g)?;
        let shortcut = match &self.conv_shortcut {
            Some(conv) => g.scope("conv_shortcut", |g| conv.forward(g, outer))?,
            None => outer,
        };
        g.scope("conv2", |g| self.conv2.forward_add(g, h, shortcut))
    }
}

//! Residual and transformer blocks.

use super::windows::Windows;
use crate::error::Result;
use crate::graph::Graph;
use crate::kernels::attention::AttentionScope;
use crate::nn::{
    Conv2d, CrossAttention, GatedLinear, GroupNorm, LayerNorm, Linear, ProjectionNames,
    SelfAttention,
};
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
    /// `time` is the width of the time embedding, `None` in a VAE.
    pub fn load(
        w: &Weights,
        c_in: u32,
        c_out: u32,
        time: Option<u32>,
        groups: u32,
        eps: f32,
    ) -> Result<Self> {
        let time_emb_proj =
            time.map(|t| Linear::load(&w.at("time_emb_proj"), c_out, t)).transpose()?;
        let shortcut = w.at("conv_shortcut");
        Ok(Self {
            norm1: GroupNorm::load(&w.at("norm1"), c_in, groups, eps)?,
            conv1: Conv2d::load(&w.at("conv1"), c_out, c_in, 3)?,
            time_emb_proj,
            norm2: GroupNorm::load(&w.at("norm2"), c_out, groups, eps)?,
            conv2: Conv2d::load(&w.at("conv2"), c_out, c_out, 3)?,
            conv_shortcut: if c_in == c_out {
                None
            } else {
                Some(Conv2d::load(&shortcut, c_out, c_in, 1)?)
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
}

/// Transformer2D with linear projections: tokens are pixels, so nothing is rearranged.
pub struct Transformer {
    norm: GroupNorm,
    proj_in: Linear,
    blocks: Vec<TransformerBlock>,
    proj_out: Linear,
}

impl Transformer {
    pub fn load(
        w: &Weights,
        width: u32,
        heads: u32,
        depth: u32,
        context: u32,
        groups: u32,
    ) -> Result<Self> {
        let blocks = w.at("transformer_blocks");
        Ok(Self {
            norm: GroupNorm::load(&w.at("norm"), width, groups, 1e-6)?,
            proj_in: Linear::load(&w.at("proj_in"), width, width)?,
            blocks: (0..depth)
                .map(|i| TransformerBlock::load(&blocks.at(i), width, heads, context))
                .collect::<Result<_>>()?,
            proj_out: Linear::load(&w.at("proj_out"), width, width)?,
        })
    }

    pub fn forward(
        &self,
        g: &mut Graph,
        x: Tensor,
        context: Tensor,
        level: usize,
        windows: &mut Windows,
    ) -> Result<Tensor> {
        let h = g.scope("norm", |g| self.norm.forward(g, x))?;
        let mut h = g.scope("proj_in", |g| self.proj_in.forward(g, h))?;
        for (i, block) in self.blocks.iter().enumerate() {
            h = g.scope(format!("transformer_blocks.{i}"), |g| {
                let scope = windows.scope(level, x.shape);
                block.forward(g, h, context, scope)
            })?;
        }
        g.scope("proj_out", |g| self.proj_out.forward_add(g, h, x))
    }
}

/// Self-attention, cross-attention, gated feed-forward; each after a layer norm, each added.
struct TransformerBlock {
    norm1: LayerNorm,
    attn1: SelfAttention,
    norm2: LayerNorm,
    attn2: CrossAttention,
    norm3: LayerNorm,
    ff_in: GatedLinear,
    ff_out: Linear,
}

impl TransformerBlock {
    fn load(w: &Weights, width: u32, heads: u32, context: u32) -> Result<Self> {
        Ok(Self {
            norm1: LayerNorm::load(&w.at("norm1"), width, 1e-5)?,
            attn1: SelfAttention::load(
                &w.at("attn1"),
                &ProjectionNames::DIFFUSERS,
                width,
                heads,
                false,
            )?,
            norm2: LayerNorm::load(&w.at("norm2"), width, 1e-5)?,
            attn2: CrossAttention::load(&w.at("attn2"), width, heads, context)?,
            norm3: LayerNorm::load(&w.at("norm3"), width, 1e-5)?,
            ff_in: GatedLinear::load(&w.at("ff.net.0.proj"), 4 * width, width)?,
            ff_out: Linear::load(&w.at("ff.net.2"), width, 4 * width)?,
        })
    }

    fn forward(
        &self,
        g: &mut Graph,
        x: Tensor,
        context: Tensor,
        scope: AttentionScope,
    ) -> Result<Tensor> {
        let h = g.scope("norm1", |g| self.norm1.forward(g, x))?;
        let x = g.scope("attn1", |g| self.attn1.forward(g, h, scope, x))?;
        let h = g.scope("norm2", |g| self.norm2.forward(g, x))?;
        let x = g.scope("attn2", |g| self.attn2.forward(g, h, context, x))?;
        let h = g.scope("norm3", |g| self.norm3.forward(g, x))?;
        let h = g.scope("ff.net.0", |g| self.ff_in.forward(g, h))?;
        g.scope("ff.net.2", |g| self.ff_out.forward_add(g, h, x))
    }
}

//! Transformer blocks.

use crate::error::Result;
use crate::graph::Graph;
use crate::kernels::attention::AttentionScope;
use crate::models::windows::Windows;
use crate::nn::{
    CrossAttention, GatedLinear, GroupNorm, LayerNorm, Linear, ProjectionNames, SelfAttention,
};
use crate::tensor::Tensor;
use crate::weights::Weights;

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

//! Attention layers: projections around the one attention kernel.

use super::Linear;
use crate::error::Result;
use crate::graph::Graph;
use crate::kernels::attention::{self, Attention, AttentionScope, Heads, Slice};
use crate::tensor::Tensor;
use crate::weights::Weights;

/// Names of the four projections, which differ between text encoders, VAEs and denoisers.
pub struct ProjectionNames {
    pub q: &'static [&'static str],
    pub k: &'static [&'static str],
    pub v: &'static [&'static str],
    pub out: &'static [&'static str],
}

impl ProjectionNames {
    /// U-Net and VAE; old VAE files say query, key, value, proj_attn.
    pub const DIFFUSERS: Self = Self {
        q: &["to_q", "query"],
        k: &["to_k", "key"],
        v: &["to_v", "value"],
        out: &["to_out.0", "proj_attn"],
    };
    /// CLIP.
    pub const CLIP: Self =
        Self { q: &["q_proj"], k: &["k_proj"], v: &["v_proj"], out: &["out_proj"] };
}

/// Queries, keys and values of the same tokens: one product makes all three.
pub struct SelfAttention {
    qkv: Linear,
    out: Linear,
    heads: Heads,
    width: u32,
}

impl SelfAttention {
    /// `heads` heads over `width` channels; `bias` says whether the projections have one.
    pub fn load(
        w: &Weights,
        names: &ProjectionNames,
        width: u32,
        heads: u32,
        bias: bool,
    ) -> Result<Self> {
        Self::load_scaled(w, names, width, heads, bias, 1.0)
    }

    /// The same beside a residual that is stored times `scale`.
    pub fn load_scaled(
        w: &Weights,
        names: &ProjectionNames,
        width: u32,
        heads: u32,
        bias: bool,
        scale: f32,
    ) -> Result<Self> {
        let heads = heads_of(w, width, heads)?;
        let parts = [w.at_any(names.q), w.at_any(names.k), w.at_any(names.v)];
        Ok(Self {
            qkv: Linear::load_joined(&parts, width, width, bias)?,
            out: Linear::load(&w.at_any(names.out).times(scale), width, width)?,
            heads,
            width,
        })
    }

    /// `attention(x) + residual`.
    pub fn forward(
        &self,
        g: &mut Graph,
        x: Tensor,
        scope: AttentionScope,
        residual: Tensor,
    ) -> Result<Tensor> {
        let qkv = self.qkv.forward(g, x)?;
        let part = |i: u32| Slice { tensor: qkv, column: i * self.width };
        let heads = Attention::new(part(0), part(1), part(2), self.heads, scope);
        let mixed = attention::record(g, heads, x.dtype)?;
        self.out.forward_add(g, mixed, residual)
    }
}

/// Queries of the picture, keys and values of the text.
pub struct CrossAttention {
    q: Linear,
    kv: Linear,
    out: Linear,
    heads: Heads,
    width: u32,
}

impl CrossAttention {
    /// `heads` heads over `width` channels, attending to `context` channels.
    pub fn load(w: &Weights, width: u32, heads: u32, context: u32) -> Result<Self> {
        let heads = heads_of(w, width, heads)?;
        Ok(Self {
            q: Linear::load_without_bias(&w.at("to_q"), width, width)?,
            kv: Linear::load_joined(&[w.at("to_k"), w.at("to_v")], width, context, false)?,
            out: Linear::load(&w.at("to_out.0"), width, width)?,
            heads,
            width,
        })
    }

    /// `attention(x, context) + residual`.
    pub fn forward(
        &self,
        g: &mut Graph,
        x: Tensor,
        context: Tensor,
        residual: Tensor,
    ) -> Result<Tensor> {
        let q = Slice { tensor: self.q.forward(g, x)?, column: 0 };
        let kv = self.kv.forward_as(g, context, x.dtype)?;
        let part = |i: u32| Slice { tensor: kv, column: i * self.width };
        let heads = Attention::new(q, part(0), part(1), self.heads, AttentionScope::Full);
        let mixed = attention::record(g, heads, x.dtype)?;
        self.out.forward_add(g, mixed, residual)
    }
}

fn heads_of(w: &Weights, width: u32, count: u32) -> Result<Heads> {
    if count == 0 || !width.is_multiple_of(count) {
        return Err(w.error(format!("{width} channels do not divide into {count} heads")));
    }
    Ok(Heads { count, dim: width / count })
}

//! Group and layer normalisation.

use crate::error::Result;
use crate::graph::{Graph, WeightRef};
use crate::kernels::group_norm;
use crate::kernels::layer_norm::{self, Affine, Modulation};
use crate::tensor::{DType, Tensor};
use crate::weights::Weights;

/// Group normalisation with affine weight and bias.
pub struct GroupNorm {
    weight: WeightRef,
    bias: WeightRef,
    groups: u32,
    eps: f32,
}

impl GroupNorm {
    /// `weight` and `bias` of `channels` values.
    pub fn load(w: &Weights, channels: u32, groups: u32, eps: f32) -> Result<Self> {
        if groups == 0 || !channels.is_multiple_of(groups) {
            return Err(w.error(format!("{channels} channels do not divide into {groups} groups")));
        }
        Ok(Self {
            weight: w.at("weight").vector(channels, channels)?,
            bias: w.at("bias").vector(channels, channels)?,
            groups,
            eps,
        })
    }

    /// Normalises.
    pub fn forward(&self, g: &mut Graph, x: Tensor) -> Result<Tensor> {
        self.record(g, x, None, false)
    }

    /// Normalises `[x | x2]` and applies SiLU.
    pub fn forward_silu(&self, g: &mut Graph, x: Tensor, x2: Option<Tensor>) -> Result<Tensor> {
        self.record(g, x, x2, true)
    }

    /// The statistics alone, for [`GroupNorm::apply_silu`].
    pub fn statistics(&self, g: &mut Graph, x: Tensor) -> Result<Tensor> {
        let norm = self.operands(g, true);
        group_norm::record_statistics(g, x, None, norm)
    }

    /// Normalises by the statistics of a tensor equal to `x`, and applies SiLU.
    pub fn apply_silu(&self, g: &mut Graph, x: Tensor, statistics: Tensor) -> Result<Tensor> {
        let norm = self.operands(g, true);
        group_norm::record_apply(g, x, None, statistics, norm, x.dtype)
    }

    fn record(&self, g: &mut Graph, x: Tensor, x2: Option<Tensor>, silu: bool) -> Result<Tensor> {
        let norm = self.operands(g, silu);
        group_norm::record(g, x, x2, norm, x.dtype)
    }

    fn operands(&self, g: &mut Graph, silu: bool) -> group_norm::GroupNorm {
        let (weight, bias) = (g.weight(self.weight), g.weight(self.bias));
        group_norm::GroupNorm { weight, bias, groups: self.groups, eps: self.eps, silu }
    }
}

/// Layer normalisation with affine weight and bias.
pub struct LayerNorm {
    weight: WeightRef,
    bias: WeightRef,
    eps: f32,
}

impl LayerNorm {
    /// `weight` and `bias` of `channels` values.
    pub fn load(w: &Weights, channels: u32, eps: f32) -> Result<Self> {
        Ok(Self {
            weight: w.at("weight").vector(channels, channels)?,
            bias: w.at("bias").vector(channels, channels)?,
            eps,
        })
    }

    /// Normalises every row.
    pub fn forward(&self, g: &mut Graph, x: Tensor) -> Result<Tensor> {
        let weight = g.weight(self.weight);
        let bias = g.weight(self.bias);
        layer_norm::record(g, x, Affine::WeightBias(weight, bias), self.eps, x.dtype)
    }
}

/// RMS normalisation with a weight (transformers' `T5LayerNorm`).
pub struct RmsNorm {
    weight: WeightRef,
    eps: f32,
}

impl RmsNorm {
    /// `weight` of `channels` values.
    pub fn load(w: &Weights, channels: u32, eps: f32) -> Result<Self> {
        Ok(Self { weight: w.at("weight").vector(channels, channels)?, eps })
    }

    /// Normalises every row.
    pub fn forward(&self, g: &mut Graph, x: Tensor) -> Result<Tensor> {
        let weight = g.weight(self.weight);
        layer_norm::record(g, x, Affine::Weight(weight), self.eps, x.dtype)
    }
}

/// `norm(x) · (1 + scale) + shift`, without weights of its own, stored as `out`.
pub fn modulated_norm(
    g: &mut Graph,
    x: Tensor,
    modulation: Modulation,
    eps: f32,
    out: DType,
) -> Result<Tensor> {
    layer_norm::record(g, x, Affine::Modulation(modulation), eps, out)
}

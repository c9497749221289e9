//! Linear layers.

use crate::error::Result;
use crate::graph::{Graph, WeightRef};
use crate::kernels::matmul::{self, Activation, Epilogue, Gate};
use crate::tensor::{DType, Tensor};
use crate::weights::Weights;

/// `y = x · Wᵀ + b`.
pub struct Linear {
    weight: WeightRef,
    bias: Option<WeightRef>,
    n: u32,
}

impl Linear {
    /// `weight [n, k]` and `bias [n]`.
    pub fn load(w: &Weights, n: u32, k: u32) -> Result<Self> {
        let bias = Some(w.at("bias").vector(n, n)?);
        Ok(Self { weight: w.matrix(n, k)?, bias, n })
    }

    /// `weight [n, k]` without a bias.
    pub fn load_without_bias(w: &Weights, n: u32, k: u32) -> Result<Self> {
        Ok(Self { weight: w.matrix(n, k)?, bias: None, n })
    }

    /// Several layers `[n, k]` with the same input as one: their outputs side by side.
    pub fn load_joined(parts: &[Weights], n: u32, k: u32, bias: bool) -> Result<Self> {
        let first = &parts[0];
        let weight = first.joined(parts, n, k)?;
        let biases: Vec<Weights> = parts.iter().map(|p| p.at("bias")).collect();
        let bias = if bias { Some(biases[0].joined_vector(&biases, n)?) } else { None };
        Ok(Self { weight, bias, n: n * parts.len() as u32 })
    }

    /// The part of a layer `[n, of]` that sees columns `from ..` of its input, `k` of them; with its bias or
    /// without.
    pub fn load_columns(
        w: &Weights,
        n: u32,
        of: u32,
        (from, k): (u32, u32),
        bias: bool,
    ) -> Result<Self> {
        let bias = if bias { Some(w.at("bias").vector(n, n)?) } else { None };
        Ok(Self { weight: w.columns(n, of, from, k)?, bias, n })
    }

    /// The plain product.
    pub fn forward(&self, g: &mut Graph, x: Tensor) -> Result<Tensor> {
        self.record(g, x, Epilogue { out: x.dtype, ..Epilogue::default() })
    }

    /// The product through an activation.
    pub fn forward_act(&self, g: &mut Graph, x: Tensor, activation: Activation) -> Result<Tensor> {
        self.record(g, x, Epilogue { activation, out: x.dtype, ..Epilogue::default() })
    }

    /// The product plus `residual`, which also gives the element type.
    pub fn forward_add(&self, g: &mut Graph, x: Tensor, residual: Tensor) -> Result<Tensor> {
        let residual = Some(residual);
        self.record(
            g,
            x,
            Epilogue {
                residual,
                out: residual.map_or(x.dtype, |r| r.dtype),
                ..Epilogue::default()
            },
        )
    }

    /// `residual + gate · product`, with a gate per batch item; stored like the residual.
    pub fn forward_gated(
        &self,
        g: &mut Graph,
        x: Tensor,
        gate: Gate,
        residual: Tensor,
    ) -> Result<Tensor> {
        let (gate, out) = (Some(gate), residual.dtype);
        let residual = Some(residual);
        self.record(g, x, Epilogue { gate, residual, out, ..Epilogue::default() })
    }

    /// The product stored as `out`.
    pub fn forward_as(&self, g: &mut Graph, x: Tensor, out: DType) -> Result<Tensor> {
        self.record(g, x, Epilogue { out, ..Epilogue::default() })
    }

    fn record(&self, g: &mut Graph, x: Tensor, epilogue: Epilogue) -> Result<Tensor> {
        let weight = g.weight(self.weight);
        let bias = self.bias.map(|b| g.weight(b));
        matmul::record(g, x, weight, self.n, Epilogue { bias, ..epilogue })
    }
}

/// `y = value · gelu(gate)` with `[value | gate] = x · Wᵀ + b` (GEGLU), or of two layers without bias (T5).
pub struct GatedLinear {
    weight: WeightRef,
    bias: Option<WeightRef>,
    activation: Activation,
    n: u32,
}

impl GatedLinear {
    /// `weight [2n, k]` and `bias [2n]`, values first.
    pub fn load(w: &Weights, n: u32, k: u32) -> Result<Self> {
        let bias = Some(w.at("bias").gated_vector(n)?);
        Ok(Self { weight: w.gated(n, k)?, bias, activation: Activation::Geglu, n })
    }

    /// Two layers `weight [n, k]` without bias, the gate through the tanh form of gelu.
    pub fn load_parts(values: &Weights, gates: &Weights, n: u32, k: u32) -> Result<Self> {
        let weight = Weights::gated_parts(values, gates, n, k)?;
        Ok(Self { weight, bias: None, activation: Activation::GegluTanh, n })
    }

    /// `[rows, k]` to `[rows, n]`.
    pub fn forward(&self, g: &mut Graph, x: Tensor) -> Result<Tensor> {
        let weight = g.weight(self.weight);
        let bias = self.bias.map(|b| g.weight(b));
        let activation = self.activation;
        let epilogue = Epilogue { bias, activation, out: x.dtype, ..Epilogue::default() };
        matmul::record(g, x, weight, self.n, epilogue)
    }
}

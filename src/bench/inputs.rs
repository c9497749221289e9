//! Seeded inputs in the layouts that the engine stores.

use half::f16;

use crate::graph::Graph;
use crate::kernels::latent::StepCoefficients;
use crate::kernels::matmul::{Epilogue, Gate};
use crate::tensor::{DType, Shape, Tensor};

use super::call::{STEP, Tail, Types, times};
use super::rng::Rng;

/// Makes inputs while a call is recorded.
pub struct Maker {
    rng: Rng,
    /// Mean and standard deviation of activations.
    fill: (f64, f64),
    /// Leave the values out: for a look at shapes alone.
    without_values: bool,
    pub(super) inputs: Vec<(&'static str, Tensor, Vec<f32>)>,
}

impl Maker {
    /// Inputs of their own for every `name`; activations have the mean and standard deviation `fill`.
    pub fn new(name: &str, fill: (f64, f64)) -> Self {
        Self { rng: Rng::new(name), fill, without_values: false, inputs: Vec::new() }
    }

    /// Inputs without values, which take no time or memory whatever their size.
    pub fn shapes_only() -> Self {
        Self { without_values: true, ..Self::new("", (0.0, 1.0)) }
    }

    fn values(&mut self, len: u64, mut value: impl FnMut(&mut Rng, u32) -> f32) -> Vec<f32> {
        let len = if self.without_values { 0 } else { len as u32 };
        (0..len).map(|i| value(&mut self.rng, i)).collect()
    }

    pub(super) fn x(
        &mut self,
        g: &mut Graph,
        name: &'static str,
        shape: Shape,
        dtype: DType,
    ) -> Tensor {
        self.random(g, name, shape, dtype, self.fill)
    }

    pub(super) fn random(
        &mut self,
        g: &mut Graph,
        name: &'static str,
        shape: Shape,
        dtype: DType,
        (mean, std): (f64, f64),
    ) -> Tensor {
        let values = self.values(shape.elems(), |rng, _| rng.value(mean, std));
        self.given(g, name, shape, dtype, values)
    }

    pub(super) fn given(
        &mut self,
        g: &mut Graph,
        name: &'static str,
        shape: Shape,
        dtype: DType,
        mut values: Vec<f32>,
    ) -> Tensor {
        if dtype == DType::F16 {
            values.iter_mut().for_each(|v| *v = f16::from_f32(*v).to_f32());
        }
        let tensor = g.input(name, shape, dtype);
        self.inputs.push((name, tensor, values));
        tensor
    }

    /// `[1, n]` in f32, padded with zeros to whole vec4s as weights are.
    pub(super) fn vector(
        &mut self,
        g: &mut Graph,
        name: &'static str,
        n: u32,
        mean: f64,
    ) -> Tensor {
        self.padded_vector(g, name, (n, 1), mean)
    }

    /// `[1, n]`, or value and gate `[1, 2n]` in alternating blocks of four.
    pub(super) fn padded_vector(
        &mut self,
        g: &mut Graph,
        name: &'static str,
        (n, times): (u32, u32),
        mean: f64,
    ) -> Tensor {
        let len = times * n.next_multiple_of(4);
        let values = self.values(u64::from(len), |rng, i| {
            if column_of(i, times) < n { rng.value(mean, 0.2) } else { 0.0 }
        });
        self.given(g, name, Shape::matrix(1, len), DType::F32, values)
    }

    /// `[n][taps][c]` with channels and rows padded with zeros to multiples of four; with `times` 2
    /// value and gate rows in alternating blocks of four.
    pub(super) fn weight(
        &mut self,
        g: &mut Graph,
        (n, times): (u32, u32),
        (taps, c): (u32, u32),
        dtype: DType,
    ) -> Tensor {
        let std = 1.0 / f64::from(taps * c).sqrt();
        let (rows, c4) = (times * n.next_multiple_of(4), c.next_multiple_of(4));
        let values = self.values(u64::from(rows) * u64::from(taps * c4), |rng, i| {
            let (row, i) = (i / (taps * c4), i % (taps * c4));
            let used = column_of(row, times) < n && i % c4 < c;
            if used { rng.value(0.0, std) } else { 0.0 }
        });
        self.given(g, "w", Shape::matrix(rows, taps * c4), dtype, values)
    }

    pub(super) fn tail(&mut self, g: &mut Graph, y: Shape, tail: Tail, types: Types) -> Epilogue {
        let size = (y.channels, times(tail));
        Epilogue {
            bias: tail.bias.then(|| self.padded_vector(g, "bias", size, 0.0)),
            row_vector: tail.row_vector.then(|| {
                self.random(g, "vector", Shape::matrix(y.batch, y.channels), DType::F32, (0.0, 1.0))
            }),
            gate: tail.gate.then(|| {
                let columns = GATE_COLUMN + y.channels;
                let shape = Shape::matrix(y.batch, columns);
                let table = self.random(g, "gate", shape, DType::F32, (0.0, 1.0));
                Gate { table, column: GATE_COLUMN }
            }),
            activation: tail.activation,
            residual: tail.residual.then(|| self.x(g, "res", y, types.residual)),
            out: types.act,
        }
    }

    pub(super) fn step(&mut self, g: &mut Graph) -> Tensor {
        self.given(g, "step", StepCoefficients::SHAPE, DType::F32, STEP.values().to_vec())
    }
}

/// Where the gate begins in its table.
pub(super) const GATE_COLUMN: u32 = 8;

/// The output column that weight row `row` serves.
fn column_of(row: u32, times: u32) -> u32 {
    row / (4 * times) * 4 + row % 4
}

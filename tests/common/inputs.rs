//! Seeded inputs in the layouts that the engine stores.

use half::f16;
use scalediff::graph::Graph;
use scalediff::kernels::latent::StepCoefficients;
use scalediff::kernels::matmul::Epilogue;
use scalediff::tensor::{DType, Shape, Tensor};

use super::call::{STEP, Tail, Types, times};
use super::rng::Rng;

/// Makes inputs while a call is recorded.
pub struct Maker {
    rng: Rng,
    /// Mean and standard deviation of activations.
    fill: (f64, f64),
    pub(super) inputs: Vec<(&'static str, Tensor, Vec<f32>)>,
}

impl Maker {
    pub fn new(name: &str, fill: (f64, f64)) -> Self {
        Self { rng: Rng::new(name), fill, inputs: Vec::new() }
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
        let values = (0..shape.elems()).map(|_| self.rng.value(mean, std)).collect();
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
        let values = (0..len)
            .map(|i| if column_of(i, times) < n { self.rng.value(mean, 0.2) } else { 0.0 })
            .collect();
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
        let mut values = Vec::with_capacity((rows * taps * c4) as usize);
        for row in 0..rows {
            for i in 0..taps * c4 {
                let used = column_of(row, times) < n && i % c4 < c;
                values.push(if used { self.rng.value(0.0, std) } else { 0.0 });
            }
        }
        self.given(g, "w", Shape::matrix(rows, taps * c4), dtype, values)
    }

    pub(super) fn tail(&mut self, g: &mut Graph, y: Shape, tail: Tail, types: Types) -> Epilogue {
        let size = (y.channels, times(tail));
        Epilogue {
            bias: tail.bias.then(|| self.padded_vector(g, "bias", size, 0.0)),
            row_vector: tail.row_vector.then(|| {
                self.random(g, "vector", Shape::matrix(y.batch, y.channels), DType::F32, (0.0, 1.0))
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

/// The output column that weight row `row` serves.
fn column_of(row: u32, times: u32) -> u32 {
    row / (4 * times) * 4 + row % 4
}

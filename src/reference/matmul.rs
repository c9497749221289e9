//! Matrix products and their epilogue by naive loops with f64 sums.

use crate::kernels::matmul::Activation;

/// The operands of an epilogue: `gate · activation(acc + bias + row_vector) + residual`.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tail<'a> {
    /// `[n]`, or `[2n]` values first when gated.
    pub bias: Option<&'a [f32]>,
    /// `[items, n]`.
    pub row_vector: Option<&'a [f32]>,
    /// `[items, n]`.
    pub gate: Option<&'a [f32]>,
    pub activation: Activation,
    /// `[rows, n]`.
    pub residual: Option<&'a [f32]>,
}

/// `[rows, k] · [n, k]ᵀ` through the epilogue, `[rows, n]`. A gated weight is `[2n, k]`, values first.
pub fn matmul(
    x: &[f32],
    w: &[f32],
    (items, rows, n, k): (usize, usize, usize, usize),
    tail: Tail,
) -> Vec<f32> {
    let product = |row: usize, column: usize| {
        let terms = x[row * k..(row + 1) * k].iter().zip(&w[column * k..(column + 1) * k]);
        terms.map(|(a, b)| f64::from(*a) * f64::from(*b)).sum::<f64>()
    };
    finish((items, rows, n), tail, product)
}

/// Applies the epilogue to sums given by row and weight row.
pub(super) fn finish(
    (items, rows, n): (usize, usize, usize),
    tail: Tail,
    sum: impl Fn(usize, usize) -> f64,
) -> Vec<f32> {
    let biased = |row: usize, column: usize| {
        sum(row, column) + tail.bias.map_or(0.0, |b| f64::from(b[column]))
    };
    let mut y = Vec::with_capacity(rows * n);
    for row in 0..rows {
        for column in 0..n {
            let mut v = biased(row, column);
            if let Some(vector) = tail.row_vector {
                v += f64::from(vector[row / (rows / items) * n + column]);
            }
            v = match tail.activation {
                Activation::None => v,
                Activation::Silu => super::silu::one(v),
                Activation::GeluErf => gelu(v),
                Activation::GeluTanh => gelu_tanh(v),
                Activation::QuickGelu => v / (1.0 + (-1.702 * v).exp()),
                Activation::Geglu => v * gelu(biased(row, n + column)),
                Activation::GegluTanh => v * gelu_tanh(biased(row, n + column)),
            };
            if let Some(gate) = tail.gate {
                v *= f64::from(gate[row / (rows / items) * n + column]);
            }
            if let Some(residual) = tail.residual {
                v += f64::from(residual[row * n + column]);
            }
            y.push(v as f32);
        }
    }
    y
}

fn gelu_tanh(v: f64) -> f64 {
    let cubic = v + 0.044715 * v.powi(3);
    0.5 * v * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * cubic).tanh())
}

fn gelu(v: f64) -> f64 {
    0.5 * v * erfc(-v / std::f64::consts::SQRT_2)
}

/// `1 - erf(x)`: Taylor's series near zero, a continued fraction in the tails; about 1e-13.
fn erfc(x: f64) -> f64 {
    if x < 0.0 {
        return 2.0 - erfc(-x);
    }
    if x < 2.5 {
        let mut term = x;
        let mut sum = x;
        for n in 1..80 {
            let n = f64::from(n);
            term *= -x * x / n;
            sum += term / (2.0 * n + 1.0);
        }
        return 1.0 - 2.0 / std::f64::consts::PI.sqrt() * sum;
    }
    let tail = (1..120).rev().fold(x, |below, n| x + f64::from(n) / 2.0 / below);
    (-x * x).exp() / std::f64::consts::PI.sqrt() / tail
}

#[cfg(test)]
mod tests {
    use super::erfc;

    #[test]
    fn erfc_has_its_known_values() {
        for (x, want) in [
            (0.0, 1.0),
            (0.5, 0.479500122186953),
            (1.0, 0.157299207050285),
            (3.0, 2.20904969985854e-5),
            (-2.0, 1.99532226501895),
        ] {
            let got = erfc(x);
            assert!((got - want).abs() < 1e-13, "erfc({x}) = {got}, expected {want}");
        }
    }
}

//! The latent kernels in f64. Resampling is written in two dimensions and straight from the
//! definitions, without tables of taps and without separating the axes.

use crate::kernels::latent::StepCoefficients;
use crate::tensor::Shape;

/// `x · c_in`, once per guidance branch.
pub fn model_input(x: &[f32], step: &StepCoefficients, branches: usize) -> Vec<f32> {
    let scaled = x.iter().map(|v| (f64::from(*v) * f64::from(step.c_in)) as f32);
    (0..branches).flat_map(|_| scaled.clone()).collect()
}

/// `c_x · x + c_out · out`, where `out` is the model's only branch, or is guided from the negative
/// branch towards the positive one when `model` holds both.
pub fn predict_x0(x: &[f32], model: &[f32], step: &StepCoefficients) -> Vec<f32> {
    let guided = model.len() == 2 * x.len();
    let one = |i: usize| {
        let mut out = f64::from(model[i]);
        if guided {
            out += f64::from(step.cfg) * (f64::from(model[x.len() + i]) - out);
        }
        (f64::from(step.c_x) * f64::from(x[i]) + f64::from(step.c_out) * out) as f32
    };
    (0..x.len()).map(one).collect()
}

/// `a · x + b · x2 + c · x3 + g · U(low)` at size `shape`; absent operands are empty.
pub fn lift(
    shape: Shape,
    [x, x2, x3]: [&[f32]; 3],
    (low, low_shape): (&[f32], Shape),
    step: &StepCoefficients,
) -> Vec<f32> {
    let raised = match low {
        [] => Vec::new(),
        _ => resample(low, low_shape, (shape.height, shape.width), bilinear_weight),
    };
    let part = |v: &[f32], k: f32, i: usize| v.get(i).map_or(0.0, |v| f64::from(k) * f64::from(*v));
    (0..shape.elems() as usize)
        .map(|i| {
            let sum = part(x, step.a, i) + part(x2, step.b, i) + part(x3, step.c, i);
            (sum + raised.get(i).map_or(0.0, |v| f64::from(step.g) * v)) as f32
        })
        .collect()
}

/// Bicubic enlargement (Keys, A = -0.75): no antialiasing, indices clamped at the border.
pub fn bicubic(x: &[f32], shape: Shape, size: (u32, u32)) -> Vec<f64> {
    resample(x, shape, size, bicubic_weight)
}

/// Antialiased bilinear reduction: triangles cut at the border and normalised.
pub fn antialiased(x: &[f32], shape: Shape, size: (u32, u32)) -> Vec<f64> {
    resample(x, shape, size, antialiased_weight)
}

/// The weight of input `j` in output `i`, along one axis of `n` inputs and `m` outputs.
type Weight = fn(i: i64, j: i64, n: i64, m: i64) -> f64;

/// The sum over all taps that fall on input `j` when indices are clamped to the axis.
fn clamped(j: i64, n: i64, taps: impl Iterator<Item = (i64, f64)>) -> f64 {
    taps.filter(|(at, _)| (*at).clamp(0, n - 1) == j).map(|(_, w)| w).sum()
}

fn bicubic_weight(i: i64, j: i64, n: i64, m: i64) -> f64 {
    const A: f64 = -0.75;
    let at = (i as f64 + 0.5) * n as f64 / m as f64 - 0.5;
    let first = at.floor() as i64 - 1;
    let kernel = |d: f64| match d.abs() {
        d if d <= 1.0 => (A + 2.0) * d.powi(3) - (A + 3.0) * d.powi(2) + 1.0,
        d if d < 2.0 => A * (d.powi(3) - 5.0 * d.powi(2) + 8.0 * d - 4.0),
        _ => 0.0,
    };
    clamped(j, n, (first..first + 4).map(|t| (t, kernel(at - t as f64))))
}

fn bilinear_weight(i: i64, j: i64, n: i64, m: i64) -> f64 {
    let at = ((i as f64 + 0.5) * n as f64 / m as f64 - 0.5).max(0.0);
    let first = at.floor();
    let taps = [(first as i64, 1.0 - (at - first)), (first as i64 + 1, at - first)];
    clamped(j, n, taps.into_iter())
}

fn antialiased_weight(i: i64, j: i64, n: i64, m: i64) -> f64 {
    let scale = n as f64 / m as f64;
    let centre = scale * (i as f64 + 0.5);
    let triangle = |j: i64| (1.0 - ((j as f64 - centre + 0.5) / scale).abs()).max(0.0);
    triangle(j) / (0..n).map(triangle).sum::<f64>()
}

/// Both axes at once: every output is a sum over all pixels of its item.
fn resample(x: &[f32], shape: Shape, (out_h, out_w): (u32, u32), weight: Weight) -> Vec<f64> {
    let (h, w) = (i64::from(shape.height), i64::from(shape.width));
    let channels = shape.channels as usize;
    let per_item = shape.rows_per_item() as usize * channels;
    let mut y = Vec::new();
    for item in x.chunks_exact(per_item) {
        for i in 0..i64::from(out_h) {
            for k in 0..i64::from(out_w) {
                let mut sums = vec![0.0; channels];
                for jy in 0..h {
                    let wy = weight(i, jy, h, i64::from(out_h));
                    if wy == 0.0 {
                        continue;
                    }
                    for jx in 0..w {
                        let weight = wy * weight(k, jx, w, i64::from(out_w));
                        let pixel = (jy * w + jx) as usize * channels;
                        for (sum, v) in sums.iter_mut().zip(&item[pixel..pixel + channels]) {
                            *sum += weight * f64::from(*v);
                        }
                    }
                }
                y.extend(sums);
            }
        }
    }
    y
}

//! The discrete Fourier transform from its definition, in f64, every output a sum over its whole line.

use std::f64::consts::TAU;

use crate::tensor::Shape;

/// Real and imaginary part.
type Complex = [f64; 2];

fn times(a: Complex, b: Complex) -> Complex {
    [a[0] * b[0] - a[1] * b[1], a[0] * b[1] + a[1] * b[0]]
}

/// The transform over height and width of pairs of channels (real, imaginary), not normalised.
pub fn fft(x: &[f32], shape: Shape, inverse: bool) -> Vec<f32> {
    let pairs = shape.channels as usize / 2;
    let mut y = vec![0.0; x.len()];
    for (item, pair) in planes(shape, pairs) {
        let at =
            |pixel: usize| 2 * ((item * shape.rows_per_item() as usize + pixel) * pairs + pair);
        let plane = |pixel| [x[at(pixel)], x[at(pixel) + 1]].map(f64::from);
        let plane = (0..shape.rows_per_item() as usize).map(plane).collect();
        for (pixel, z) in dft(plane, shape, inverse).into_iter().enumerate() {
            y[at(pixel)] = z[0] as f32;
            y[at(pixel) + 1] = z[1] as f32;
        }
    }
    y
}

/// Every channel on its own through the transform, `mask` of the radial frequency in cycles per pixel,
/// and back; the imaginary part, zero but for rounding, is dropped.
pub fn filter(x: &[f32], shape: Shape, mask: impl Fn(f64) -> f64) -> Vec<f64> {
    let (h, w, c) = (shape.height as usize, shape.width as usize, shape.channels as usize);
    let mut y = vec![0.0; x.len()];
    for (item, channel) in planes(shape, c) {
        let at = |pixel: usize| (item * h * w + pixel) * c + channel;
        let plane = (0..h * w).map(|pixel| [f64::from(x[at(pixel)]), 0.0]).collect();
        let mut spectrum = dft(plane, shape, false);
        for (i, z) in spectrum.iter_mut().enumerate() {
            let f = frequency(i / w, h).hypot(frequency(i % w, w));
            *z = z.map(|part| part * mask(f) / (h * w) as f64);
        }
        for (pixel, z) in dft(spectrum, shape, true).into_iter().enumerate() {
            y[at(pixel)] = z[0];
        }
    }
    y
}

/// All items with each of `count` planes.
fn planes(shape: Shape, count: usize) -> impl Iterator<Item = (usize, usize)> {
    (0..shape.batch as usize).flat_map(move |item| (0..count).map(move |plane| (item, plane)))
}

/// Cycles per pixel of bin `k` of `n`: the upper half are negative frequencies.
fn frequency(k: usize, n: usize) -> f64 {
    let cycles = if 2 * k > n { k as f64 - n as f64 } else { k as f64 };
    cycles / n as f64
}

/// One plane over its width, then over its height.
fn dft(plane: Vec<Complex>, shape: Shape, inverse: bool) -> Vec<Complex> {
    let (h, w) = (shape.height as usize, shape.width as usize);
    let roots = |n: usize| -> Vec<Complex> {
        let sign = if inverse { 1.0 } else { -1.0 };
        let root = |k| sign * TAU * k as f64 / n as f64;
        (0..n).map(|k| [root(k).cos(), root(k).sin()]).collect()
    };
    let sum = |terms: &mut dyn Iterator<Item = Complex>| {
        terms.fold([0.0; 2], |sum, t| [sum[0] + t[0], sum[1] + t[1]])
    };
    let (along_w, along_h) = (roots(w), roots(h));
    let wide: Vec<Complex> = (0..h * w)
        .map(|i| {
            let line = &plane[i / w * w..][..w];
            sum(&mut line.iter().enumerate().map(|(j, z)| times(*z, along_w[i % w * j % w])))
        })
        .collect();
    (0..h * w)
        .map(|i| {
            let column = wide[i % w..].iter().step_by(w).enumerate();
            sum(&mut column.map(|(j, z)| times(*z, along_h[i / w * j % h])))
        })
        .collect()
}

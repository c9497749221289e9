//! The low-pass that the method rests on: resampling (an antialiased bilinear reduction D followed by a
//! plain bilinear enlargement U, as separable tables of taps made in f64) or a mask over the spectrum.

use super::spectrum::{Mask, MaskedSpectrum};
use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::kernels::latent::{Axis, ResampleExtras, TapTable, resample};
use crate::tensor::{DType, Shape, Tensor};

/// Bicubic taps (Keys, A = -0.75; no antialiasing, borders clamped), as torch's `interpolate` has them.
pub fn bicubic_taps(input: u32, output: u32) -> TapTable {
    const A: f64 = -0.75;
    let near = |t: f64| ((A + 2.0) * t - (A + 3.0)) * t * t + 1.0;
    let far = |t: f64| ((A * t - 5.0 * A) * t + 8.0 * A) * t - 4.0 * A;
    let scale = f64::from(input) / f64::from(output);
    table(input, output, |i| {
        let at = (f64::from(i) + 0.5) * scale - 0.5;
        let t = at - at.floor();
        let weights = [far(1.0 + t), near(t), near(1.0 - t), far(2.0 - t)];
        (at.floor() as i64 - 1, weights.to_vec())
    })
}

/// Antialiased bilinear reduction: triangles as wide as the reduction, cut at the border and normalised.
pub fn antialiased_taps(input: u32, output: u32) -> TapTable {
    let scale = f64::from(input) / f64::from(output);
    let support = scale.max(1.0);
    table(input, output, |i| {
        let centre = scale * (f64::from(i) + 0.5);
        let from = (centre - support + 0.5).max(0.0) as i64;
        let to = ((centre + support + 0.5) as i64).min(i64::from(input));
        let weight = |j: i64| (1.0 - ((j as f64 - centre + 0.5) / support).abs()).max(0.0);
        let sum: f64 = (from..to).map(weight).sum();
        (from, (from..to).map(|j| weight(j) / sum).collect())
    })
}

/// Collects one row per output; taps beyond the border fall on the border pixel.
fn table(input: u32, output: u32, row: impl Fn(u32) -> (i64, Vec<f64>)) -> TapTable {
    let last = i64::from(input) - 1;
    let rows: Vec<(i64, Vec<f64>)> = (0..output)
        .map(|i| {
            let (first, weights) = row(i);
            let start = first.clamp(0, last);
            let end = (first + weights.len() as i64 - 1).clamp(start, last);
            let mut folded = vec![0.0; (end - start + 1) as usize];
            for (k, w) in weights.iter().enumerate() {
                folded[((first + k as i64).clamp(start, end) - start) as usize] += w;
            }
            (start, folded)
        })
        .collect();
    let taps = rows.iter().map(|(_, w)| w.len()).max().unwrap_or(1);
    let mut values = Vec::with_capacity(rows.len() * (taps + 1));
    for (first, weights) in rows {
        values.push(first as f32);
        values.extend(weights.iter().map(|w| *w as f32));
        values.extend(std::iter::repeat_n(0.0, taps - weights.len()));
    }
    TapTable { out: output, taps: taps as u32, values }
}

/// Records a table as an input and lists it among `fixed`, the inputs to write once.
fn table_input(
    g: &mut Graph,
    table: TapTable,
    fixed: &mut Vec<(Tensor, Vec<f32>)>,
) -> (Tensor, (u32, u32)) {
    let tensor = g.input("taps", Shape::matrix(1, table.values.len() as u32), DType::F32);
    fixed.push((tensor, table.values));
    (tensor, (table.out, table.taps))
}

/// Records bicubic enlargement of `x` to `height × width`.
pub fn upsample_bicubic(
    g: &mut Graph,
    x: Tensor,
    height: u32,
    width: u32,
    fixed: &mut Vec<(Tensor, Vec<f32>)>,
) -> Result<Tensor> {
    let (rows, row_size) = table_input(g, bicubic_taps(x.shape.height, height), fixed);
    let (columns, column_size) = table_input(g, bicubic_taps(x.shape.width, width), fixed);
    let x = resample(g, x, Axis::Height, rows, row_size, ResampleExtras::default())?;
    resample(g, x, Axis::Width, columns, column_size, ResampleExtras::default())
}

/// Which low-pass latent frequency mixing and structure guidance use.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Filter {
    /// Reduction to `scale_factor` (above 0, at most 1) of each side, and enlargement: the paper's.
    Resample { scale_factor: f64 },
    /// A mask over the Fourier transform, with its cutoff in cycles per latent (above 0, at most 1).
    Fft { mask: Mask, cutoff: f64 },
}

impl Filter {
    /// # Errors
    /// A scale factor or a cutoff out of its range.
    pub fn check(&self) -> Result<()> {
        let (name, value) = match *self {
            Filter::Resample { scale_factor } => ("scale factor", scale_factor),
            Filter::Fft { cutoff, .. } => ("filter cutoff", cutoff),
        };
        if value > 0.0 && value <= 1.0 {
            return Ok(());
        }
        Err(Error::usage(format!("the {name} is {value}, expected above 0 and at most 1")))
    }
}

/// A [`Filter`] for latents of one size, in two halves: [`LowPass::reduce`] makes the low band, and the
/// kernel `lift` brings it to full size. What a mask leaves has full size already, where `lift` copies.
pub struct LowPass(Low);

enum Low {
    Resampled { rows: (Tensor, (u32, u32)), columns: (Tensor, (u32, u32)) },
    Masked(MaskedSpectrum),
}

impl LowPass {
    /// For latents of `height × width`; a resampled low band has at least one pixel.
    pub fn new(
        g: &mut Graph,
        height: u32,
        width: u32,
        filter: Filter,
        fixed: &mut Vec<(Tensor, Vec<f32>)>,
    ) -> Self {
        Self(match filter {
            Filter::Resample { scale_factor } => {
                let (low_h, low_w) =
                    (low_side(height, scale_factor), low_side(width, scale_factor));
                Low::Resampled {
                    rows: table_input(g, antialiased_taps(height, low_h), fixed),
                    columns: table_input(g, antialiased_taps(width, low_w), fixed),
                }
            }
            Filter::Fft { mask, cutoff } => {
                Low::Masked(MaskedSpectrum::new(g, height, width, mask, cutoff, fixed))
            }
        })
    }

    /// The low band's shape.
    pub fn low_shape(&self, full: Shape) -> Shape {
        match &self.0 {
            Low::Resampled { rows, columns } => {
                Shape { height: rows.1.0, width: columns.1.0, ..full }
            }
            Low::Masked(_) => full,
        }
    }

    /// Records the low band of x - minus, or base less that of x.
    pub fn reduce(&self, g: &mut Graph, x: Tensor, extras: ResampleExtras) -> Result<Tensor> {
        match &self.0 {
            Low::Resampled { rows, columns } => {
                let first = ResampleExtras { minus: extras.minus, base: None };
                let second = ResampleExtras { minus: None, base: extras.base };
                let x = resample(g, x, Axis::Height, rows.0, rows.1, first)?;
                resample(g, x, Axis::Width, columns.0, columns.1, second)
            }
            Low::Masked(spectrum) => spectrum.filter(g, x, extras),
        }
    }
}

/// A side times the scale factor, truncated as the reference does.
fn low_side(side: u32, scale_factor: f64) -> u32 {
    ((f64::from(side) * scale_factor) as u32).clamp(1, side)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubling_has_the_two_known_phases() {
        let t = bicubic_taps(16, 32);
        let row = &t.values[16 * 5..17 * 5];
        assert_eq!(row, [6.0, -0.03515625, 0.26171875, 0.87890625, -0.10546875]);
        let row = &t.values[17 * 5..18 * 5];
        assert_eq!(row, [7.0, -0.10546875, 0.87890625, 0.26171875, -0.03515625]);
    }

    #[test]
    fn the_reduction_by_eight_has_sixteen_taps_and_sums_to_one() {
        let t = antialiased_taps(64, 8);
        assert_eq!((t.out, t.taps), (8, 16));
        let row = &t.values[17 * 3..17 * 4];
        assert_eq!(row[0], 20.0);
        assert!((row[1] - 0.0078125).abs() < 1e-7 && (row[8] - 15.0 * 0.0078125).abs() < 1e-7);
        for row in t.values.chunks(17) {
            assert!((row[1..].iter().sum::<f32>() - 1.0).abs() < 1e-6);
            assert!(row[0] + 15.0 < 64.0 || row[16] == 0.0);
        }
    }
}

//! A low-pass as a mask over the Fourier transform, made in f64.
//!
//! The transform takes the latents as periodic: what leaves at one border enters at the other. The
//! high-pass of a mask M is 1 - M, that is the input less what the low-pass leaves.

use serde::{Deserialize, Serialize};

use crate::error::Result;
use crate::graph::Graph;
use crate::kernels::fft::{self, Direction, FftExtras};
use crate::kernels::latent::{Axis, ResampleExtras};
use crate::tensor::{DType, Shape, Tensor};

/// The share of a frequency's amplitude that a low-pass of cutoff C leaves, with f = √(fx² + fy²) the
/// radial frequency in cycles per latent: fx = kx / width, fy = ky / height, k from -n/2 to n/2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Mask {
    /// 1 where f ≤ C, else 0.
    Ideal,
    /// exp(-f² / 2C²): C is the standard deviation.
    Gaussian,
    /// 1 / (1 + (f/C)⁸), order 4: half at C.
    Butterworth,
}

impl Mask {
    /// The value at frequency `f`.
    fn at(self, f: f64, cutoff: f64) -> f64 {
        match self {
            Mask::Ideal => f64::from(u8::from(f <= cutoff)),
            Mask::Gaussian => (-0.5 * (f / cutoff).powi(2)).exp(),
            Mask::Butterworth => 1.0 / (1.0 + (f / cutoff).powi(8)),
        }
    }

    /// The values at all frequencies in the order of the transform, over `height·width`, which
    /// normalises the way there and back.
    fn values(self, height: u32, width: u32, cutoff: f64) -> Vec<f32> {
        let squares = |n: u32| -> Vec<f64> {
            (0..n).map(|k| (f64::from(k.min(n - k)) / f64::from(n)).powi(2)).collect()
        };
        let (fy2, fx2) = (squares(height), squares(width));
        let count = f64::from(height) * f64::from(width);
        let value = |y2: &f64, x2: &f64| (self.at((y2 + x2).sqrt(), cutoff) / count) as f32;
        fy2.iter().flat_map(|y2| fx2.iter().map(move |x2| value(y2, x2))).collect()
    }
}

/// A mask with the tables of the transforms, for latents of one size.
pub(super) struct MaskedSpectrum {
    rows: Tensor,
    columns: Tensor,
    mask: Tensor,
}

impl MaskedSpectrum {
    /// Records the tables as inputs and lists them among `fixed`, the inputs to write once.
    pub(super) fn new(
        g: &mut Graph,
        height: u32,
        width: u32,
        mask: Mask,
        cutoff: f64,
        fixed: &mut Vec<(Tensor, Vec<f32>)>,
    ) -> Self {
        let mut table = |name, shape, values| {
            let tensor = g.input(name, shape, DType::F32);
            fixed.push((tensor, values));
            tensor
        };
        let values = mask.values(height, width, cutoff);
        Self {
            rows: table("roots", fft::roots_shape(height), fft::roots(height)),
            columns: table("roots", fft::roots_shape(width), fft::roots(width)),
            mask: table("mask", Shape::matrix(1, height * width), values),
        }
    }

    /// Records LP(x - minus), or base - LP(x).
    pub(super) fn filter(
        &self,
        g: &mut Graph,
        x: Tensor,
        ResampleExtras { minus, base }: ResampleExtras,
    ) -> Result<Tensor> {
        use Direction::{Forward, Inverse};
        let channels = x.shape.channels;
        let pairs = channels.next_multiple_of(2);
        let none = FftExtras::default();
        let first = FftExtras { minus, ..none };
        let masked = FftExtras { mask: Some(self.mask), ..none };
        let last = FftExtras { base, ..none };
        let z = fft::record(g, x, Axis::Width, Forward, self.columns, pairs, first)?;
        let z = fft::record(g, z, Axis::Height, Forward, self.rows, pairs, masked)?;
        let z = fft::record(g, z, Axis::Height, Inverse, self.rows, pairs, none)?;
        fft::record(g, z, Axis::Width, Inverse, self.columns, channels, last)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn masks_have_their_known_values() {
        // 8 × 16, cutoff 1/8: bins (0, 2) and (1, 0) lie at the cutoff, (1, 2) beyond.
        let at = |mask: Mask, y: usize, x: usize| mask.values(8, 16, 0.125)[16 * y + x] * 128.0;
        for mask in [Mask::Ideal, Mask::Gaussian, Mask::Butterworth] {
            assert_eq!(at(mask, 0, 0), 1.0);
            let edge = match mask {
                Mask::Ideal => 1.0,
                Mask::Gaussian => (-0.5f32).exp(),
                Mask::Butterworth => 0.5,
            };
            // A frequency and its opposite are treated alike, or pairs of channels would mix.
            for (y, x) in [(0, 2), (0, 14), (1, 0), (7, 0)] {
                assert!((at(mask, y, x) - edge).abs() < 1e-6);
            }
        }
        assert_eq!(at(Mask::Ideal, 1, 2), 0.0);
        assert!((at(Mask::Butterworth, 1, 2) - 1.0 / 17.0).abs() < 1e-6);
    }
}

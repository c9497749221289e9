//! The discrete Fourier transform along one axis, of any length: one launch of the kernel `fft` for
//! each factor of the length (Stockham's order, so that nothing is ever permuted).
//!
//! Complex values are pairs of channels. For a filter whose mask is real and the same for a frequency
//! and its opposite, two real channels are just such a pair: the filter treats both parts alike, so
//! filtering `a + i·b` filters a and b, with no spectrum of double size and nothing to take apart.
//!
//! Along the height a launch reads its whole item, so one item must fit a binding: with WebGPU's
//! 128 MiB and 4 channels that is 2896 × 2896 pixels, with 16 channels 1448 × 1448.

use std::f64::consts::TAU;

use bytemuck::NoUninit;

use super::lanes::{WG, check_lanes, fits, groups_for};
use super::latent::Axis;
use crate::error::Result;
use crate::gpu::Caps;
use crate::graph::{Graph, Launch, Window};
use crate::shader::{KernelSpec, Variant};
use crate::tensor::{DType, Shape, Tensor};

/// `fft`.
pub const FFT: KernelSpec = KernelSpec { name: "fft", file: "fft/fft.wgsl" };

/// Factors up to this are taken in one pass: fewer passes, and a pass costs as much as its factor.
const MAX_RADIX: u32 = 8;

/// Parameters of `fft`.
#[repr(C)]
#[derive(Debug, Clone, Copy, NoUninit)]
pub struct Params {
    pub first_group: u32,
    pub lanes: u32,
    pub row0: u32,
    pub x_row0: u32,
    pub channels: u32,
    pub pixels: u32,
    pub n: u32,
    pub stride: u32,
    pub radix: u32,
    pub hop: u32,
    pub turn: f32,
}

/// The way a transform goes: exp(-2πi·jk/n) forward, exp(2πi·jk/n) back; neither is normalised.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    Forward,
    Inverse,
}

/// What a transform reads beside its input.
#[derive(Debug, Clone, Copy, Default)]
pub struct FftExtras {
    /// Subtracted from the input, of the same shape.
    pub minus: Option<Tensor>,
    /// Multiplies the result: `[1, height·width]`, for every item and channel.
    pub mask: Option<Tensor>,
    /// The result, after the mask, is subtracted from this; of the output's shape.
    pub base: Option<Tensor>,
}

/// The factors that a transform of `n` values goes through; a prime costs as much as its size.
///
/// The largest divisors up to 8 come first, then the primes that are left.
pub fn radices(n: u32) -> Vec<u32> {
    let mut left = n.max(1);
    let mut factors = Vec::new();
    while left > 1 {
        let small = (2..=MAX_RADIX).rev().find(|r| left.is_multiple_of(*r));
        let prime =
            || (MAX_RADIX + 1..).take_while(|p| *p <= left / p).find(|p| left.is_multiple_of(*p));
        let radix = small.or_else(prime).unwrap_or(left);
        factors.push(radix);
        left /= radix;
    }
    // A single value is copied.
    if factors.is_empty() { vec![1] } else { factors }
}

/// The table `roots` for an axis of `n` values: real and imaginary part of exp(-2πi·k/n) for k < n.
pub fn roots(n: u32) -> Vec<f32> {
    (0..n)
        .flat_map(|k| {
            let (sin, cos) = (TAU * f64::from(k) / f64::from(n)).sin_cos();
            [cos as f32, -sin as f32]
        })
        .collect()
}

/// The shape of the tensor that holds [`roots`].
pub const fn roots_shape(n: u32) -> Shape {
    Shape::matrix(1, 2 * n)
}

/// Variant of one pass.
pub fn choose(caps: &Caps, extras: FftExtras) -> Variant {
    let (f32_in, f32) = (caps.elem_in(DType::F32), caps.elem(DType::F32));
    Variant::new()
        .num("WG", WG)
        .flag("HAS_MINUS", extras.minus.is_some())
        .flag("HAS_MASK", extras.mask.is_some())
        .flag("HAS_BASE", extras.base.is_some())
        .elem("x", f32_in)
        .elem("minus", f32_in)
        .elem("base", f32_in)
        .elem("y", f32)
}

/// Records the transform of `x` along `axis`, with the table that [`roots`] makes for that axis.
///
/// The result has `channels`: x's own, or one more where an odd last channel lacks an imaginary part.
///
/// # Errors
/// Operands whose shapes do not fit together.
pub fn record(
    g: &mut Graph,
    x: Tensor,
    axis: Axis,
    direction: Direction,
    roots: Tensor,
    channels: u32,
    extras: FftExtras,
) -> Result<Tensor> {
    let (n, stride) = match axis {
        Axis::Height => (x.shape.height, x.shape.width),
        Axis::Width => (x.shape.width, 1),
    };
    let shape = x.shape.with_channels(channels);
    fits(g, "the table of roots", roots.shape, roots_shape(n))?;
    fits(g, "the result", Shape::matrix(shape.stride4(), 1), Shape::matrix(x.shape.stride4(), 1))?;
    for (what, tensor, want) in [
        ("the subtracted input", extras.minus, x.shape),
        ("the mask", extras.mask, Shape::matrix(1, x.shape.rows_per_item())),
        ("the base", extras.base, shape),
    ] {
        tensor.map_or(Ok(()), |t| fits(g, what, t.shape, want))?;
    }
    let radices = radices(n);
    let mut hop = n;
    let mut y = x;
    for (pass, radix) in radices.iter().enumerate() {
        hop /= radix;
        let last = pass + 1 == radices.len();
        let extras = FftExtras {
            minus: extras.minus.filter(|_| pass == 0),
            mask: extras.mask.filter(|_| last),
            base: extras.base.filter(|_| last),
        };
        // Between the passes every value is complex.
        let channels = if last { channels } else { channels.next_multiple_of(2) };
        y = one_pass(
            g,
            y,
            roots,
            extras,
            Pass { n, stride, radix: *radix, hop, channels, direction },
        )?;
    }
    Ok(y)
}

#[derive(Clone, Copy)]
struct Pass {
    n: u32,
    stride: u32,
    radix: u32,
    hop: u32,
    channels: u32,
    direction: Direction,
}

fn one_pass(g: &mut Graph, x: Tensor, roots: Tensor, extras: FftExtras, p: Pass) -> Result<Tensor> {
    let shape = x.shape.with_channels(p.channels);
    let y = g.tensor(shape, DType::F32);
    check_lanes(g, y)?;
    // Whole lines along the width, whole items along the height.
    let span = p.n * p.stride;
    let window = || {
        Window::Map(Box::new(move |rows| rows.start / span * span..rows.end.next_multiple_of(span)))
    };
    let c4 = shape.stride4();
    let lanes = u64::from(shape.rows()) * u64::from(c4);
    let variant = choose(g.caps(), extras);
    g.op(&FFT, variant)
        .read(x, window())
        .read_opt(extras.minus, window())
        .read_opt(extras.base, Window::Rows)
        .read(roots, Window::Whole)
        .read_opt(extras.mask, Window::Whole)
        .write(y, Window::Rows)
        .over(shape.rows(), 0)
        .flops(16 * u64::from(p.radix) * lanes)
        .launch(move |chunk| {
            let lanes = chunk.row_count() * c4;
            let params = Params {
                first_group: 0,
                lanes,
                row0: chunk.rows.start,
                x_row0: chunk.first(0),
                channels: p.channels,
                pixels: shape.rows_per_item(),
                n: p.n,
                stride: p.stride,
                radix: p.radix,
                hop: p.hop,
                turn: if p.direction == Direction::Forward { 1.0 } else { -1.0 },
            };
            Launch::new(&params, groups_for(lanes))
        });
    Ok(y)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;
    use crate::gpu::Limits;
    use crate::graph::split;

    /// The chunks of each pass over both axes of a square, at the floor's limits.
    fn chunks(side: u32, channels: u32) -> Result<Vec<usize>> {
        let mut g = Graph::new(Caps::FLOOR);
        let x = g.input("x", Shape::new(1, side, side, channels), DType::F32);
        let table = g.input("roots", roots_shape(side), DType::F32);
        for axis in [Axis::Width, Axis::Height] {
            record(&mut g, x, axis, Direction::Forward, table, channels, FftExtras::default())?;
        }
        g.ops().iter().map(|op| Ok(split(&g, op, &Limits::WEBGPU)?.len())).collect()
    }

    #[test]
    fn an_item_must_fit_the_floors_binding() {
        // The latents of the largest picture, 16384 pixels a side.
        assert!(chunks(2048, 4).unwrap().iter().all(|count| *count == 1));
        assert!(chunks(1448, 16).is_ok());
        assert_eq!(chunks(1449, 16).unwrap_err().kind(), ErrorKind::OutOfMemory);
    }

    #[test]
    fn every_length_is_the_product_of_its_radices() {
        for n in 1..3000 {
            let radices = radices(n);
            assert_eq!(radices.iter().product::<u32>(), n);
            assert!(radices.iter().all(|r| *r > 1 || n == 1));
        }
        assert_eq!(radices(512), [8, 8, 8]);
        assert_eq!(radices(254), [2, 127]);
        assert_eq!(radices(2 * 11 * 13), [2, 11, 13]);
        assert_eq!(radices(0), [1]);
    }

    #[test]
    fn the_roots_close_their_circle() {
        for n in [1, 2, 7, 64, 254] {
            let table = roots(n);
            let sums = [0, 1].map(|part| table.iter().skip(part).step_by(2).sum::<f32>());
            let wanted = if n == 1 { 1.0 } else { 0.0 };
            assert!((sums[0] - wanted).abs() < 1e-5 && sums[1].abs() < 1e-5, "{n}: {sums:?}");
        }
    }
}

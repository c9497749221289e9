//! RMS norm of heads and rotary position embedding: queries and keys of a diffusion transformer.

use bytemuck::NoUninit;

use super::attention::{Heads, Slice, Turn};
use super::lanes::{WG, check_lanes, fits, groups_for};
use crate::error::Result;
use crate::gpu::Caps;
use crate::graph::{Graph, Launch, Window};
use crate::shader::{KernelSpec, Variant};
use crate::tensor::{DType, Shape, Tensor};

/// `rotary`.
pub const SPEC: KernelSpec = KernelSpec { name: "rotary", file: "attention/rotary.wgsl" };

/// Parameters of `rotary`.
#[repr(C)]
#[derive(Debug, Clone, Copy, NoUninit)]
pub struct Params {
    pub first_group: u32,
    pub lanes: u32,
    pub heads: u32,
    pub x4: u32,
    pub column4: u32,
    pub row0: u32,
    pub height: u32,
    pub width: u32,
    pub eps: f32,
}

/// Variant of `rotary`.
pub fn choose(caps: &Caps, x: DType, heads: Heads, turn: Option<Turn>, out: DType) -> Variant {
    Variant::new()
        .num("WG", WG)
        .num("HEAD_DIM", heads.dim)
        .num("X_PAIR", turn.map_or(0, |t| t.x_pair))
        .slot("table", if turn.is_some() { "turn" } else { "none" })
        .elem("x", caps.elem_in(x))
        .elem("weight", caps.elem_in(DType::F32))
        .elem("turn", caps.elem_in(DType::F32))
        .elem("y", caps.elem(out))
}

/// Records heads normalised by their own RMS, times `weight [dim]`, and turned by their place on the
/// grid of `x` where there is a `turn`; `[.., heads × dim]`.
///
/// # Errors
/// Heads that are not whole vec4s, or operands that do not fit.
pub fn record(
    g: &mut Graph,
    x: Slice,
    weight: Tensor,
    heads: Heads,
    turn: Option<Turn>,
    eps: f32,
    out: DType,
) -> Result<Tensor> {
    let width = heads.count * heads.dim;
    let shape = x.tensor.shape;
    if !(heads.dim | x.column).is_multiple_of(4) || x.column + width > shape.channels {
        return Err(g.error(format!(
            "{} heads of {} channels from column {} of {shape}, expected multiples of 4",
            heads.count, heads.dim, x.column
        )));
    }
    fits(g, "the weight", weight.shape, Shape::matrix(1, heads.dim))?;
    if let Some(turn) = turn {
        let longest = shape.height.max(shape.width);
        let rows = turn.table.shape.rows().max(longest);
        fits(g, "the rotary table", turn.table.shape, Shape::matrix(rows, heads.dim))?;
    }
    let y = g.tensor(shape.with_channels(width), out);
    check_lanes(g, y)?;
    let variant = choose(g.caps(), x.tensor.dtype, heads, turn, out);
    let mut op = g.op(&SPEC, variant).read(x.tensor, Window::Rows).read(weight, Window::Whole);
    if let Some(turn) = turn {
        op = op.read(turn.table, Window::Whole);
    }
    op.write(y, Window::Rows).over(shape.rows(), 0).launch(move |chunk| {
        let lanes = chunk.row_count() * heads.count;
        let params = Params {
            first_group: 0,
            lanes,
            heads: heads.count,
            x4: shape.stride4(),
            column4: x.column / 4,
            row0: chunk.rows.start,
            height: shape.height,
            width: shape.width,
            eps,
        };
        Launch::new(&params, groups_for(lanes))
    });
    Ok(y)
}

/// Values of [`Turn::table`] for `positions` places: cos and sin of place × theta^(-2i/dim) for pair i of
/// each of the axes of `dims` channels. Pairs of the first axis, along which pictures do not extend, are not
/// turned. Computed in f64.
pub fn table(dims: [u32; 3], theta: f64, positions: u32) -> Vec<f32> {
    let mut values = Vec::new();
    for place in 0..positions {
        for (axis, dim) in dims.into_iter().enumerate() {
            for i in 0..dim / 2 {
                let speed = theta.powf(-2.0 * f64::from(i) / f64::from(dim));
                let angle = if axis == 0 { 0.0 } else { f64::from(place) * speed };
                values.extend([angle.cos() as f32, angle.sin() as f32]);
            }
        }
    }
    values
}

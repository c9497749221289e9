//! The mean of what a text's queries see in the windows of a picture.

use std::ops::Range;

use bytemuck::NoUninit;

use super::lanes::{WG, check_lanes, fits, groups_for};
use crate::error::Result;
use crate::gpu::Caps;
use crate::graph::{Graph, Launch, Window};
use crate::shader::{KernelSpec, Variant};
use crate::tensor::{DType, Shape, Tensor};

/// `window_mean`.
pub const SPEC: KernelSpec = KernelSpec { name: "window_mean", file: "attention/window_mean.wgsl" };

/// Parameters of `window_mean`.
#[repr(C)]
#[derive(Debug, Clone, Copy, NoUninit)]
pub struct Params {
    pub first_group: u32,
    pub lanes: u32,
    pub window4: u32,
    pub from_x4: u32,
    pub first: u32,
    pub end: u32,
}

/// Variant of `window_mean`.
pub fn choose(caps: &Caps, x: DType, before: bool, out: DType) -> Variant {
    Variant::new()
        .num("WG", WG)
        .flag("HAS_BEFORE", before)
        .elem("x", caps.elem_in(x))
        .elem("weight", caps.elem_in(DType::F32))
        .elem("before", caps.elem_in(DType::F32))
        .elem("y", caps.elem(out))
}

/// Records `before + sum_n weight[n] · x[n]` over the windows `part`, which `x [windows · items, 1, tokens, c]` holds,
/// windows outermost; `weight [1, all windows]` and `before` f32. `[items, 1, tokens, c]`.
///
/// # Errors
/// Operands that do not fit.
pub fn record(
    g: &mut Graph,
    x: Tensor,
    weight: Tensor,
    part: Range<u32>,
    before: Option<Tensor>,
    out: DType,
) -> Result<Tensor> {
    let windows = part.end.saturating_sub(part.start).max(1);
    if part.end > weight.shape.channels || !x.shape.batch.is_multiple_of(windows) {
        return Err(g.error(format!("{} does not hold the windows {part:?}", x.shape)));
    }
    let shape = Shape { batch: x.shape.batch / windows, ..x.shape };
    if let Some(before) = before {
        fits(g, "the sum so far", before.shape, shape)?;
    }
    check_lanes(g, x)?;
    let y = g.tensor(shape, out);
    let variant = choose(g.caps(), x.dtype, before.is_some(), out);
    g.op(&SPEC, variant)
        .read(x, Window::Whole)
        .read(weight, Window::Whole)
        .read_opt(before, Window::Rows)
        .write(y, Window::Rows)
        .over(shape.rows(), 0)
        .launch(move |chunk| {
            let c4 = shape.stride4();
            let lanes = chunk.row_count() * c4;
            let params = Params {
                first_group: 0,
                lanes,
                window4: shape.rows() * c4,
                from_x4: chunk.rows.start * c4,
                first: part.start,
                end: part.end,
            };
            Launch::new(&params, groups_for(lanes))
        });
    Ok(y)
}

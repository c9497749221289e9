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
        .elem("x", caps.elem(x))
        .elem("weight", caps.elem(DType::F32))
        .elem("before", caps.elem(DType::F32))
        .elem("y", caps.elem(out))
}

/// Records `sum_n weight[n] · x[n]` of `x [windows · items, 1, tokens, c]`, windows outermost, and
/// `weight [1, windows]` f32; `[items, 1, tokens, c]`. As many windows at a time as a binding holds.
///
/// # Errors
/// A batch that is no multiple of the windows.
pub fn record(g: &mut Graph, x: Tensor, weight: Tensor, out: DType) -> Result<Tensor> {
    let windows = weight.shape.channels;
    fits(g, "the weights of windows", weight.shape, Shape::matrix(1, windows))?;
    if windows == 0 || !x.shape.batch.is_multiple_of(windows) {
        return Err(g.error(format!("{} does not hold {windows} windows", x.shape)));
    }
    check_lanes(g, x)?;
    let shape = Shape { batch: x.shape.batch / windows, ..x.shape };
    let limits = g.caps().limits;
    let window_bytes = (u64::from(shape.rows()) * x.row_bytes()).max(1);
    // A binding starts up to 64 rows early, where it is aligned.
    let room = limits.binding_bytes.min(limits.buffer_bytes).saturating_sub(64 * x.row_bytes());
    let most = (room / window_bytes).clamp(1, u64::from(windows)) as u32;
    let mut sum = None;
    for first in (0..windows).step_by(most as usize) {
        let part = first..(first + most).min(windows);
        let out = if part.end == windows { out } else { DType::F32 };
        sum = Some(record_part(g, x, weight, sum, part, shape, out));
    }
    sum.ok_or_else(|| g.error("no windows"))
}

fn record_part(
    g: &mut Graph,
    x: Tensor,
    weight: Tensor,
    before: Option<Tensor>,
    part: Range<u32>,
    shape: Shape,
    out: DType,
) -> Tensor {
    let y = g.tensor(shape, out);
    let variant = choose(g.caps(), x.dtype, before.is_some(), out);
    let rows = shape.rows();
    let bound = part.start * rows..part.end * rows;
    g.op(&SPEC, variant)
        .read(x, Window::Map(Box::new(move |_| bound.clone())))
        .read(weight, Window::Whole)
        .read_opt(before, Window::Rows)
        .write(y, Window::Rows)
        .over(rows, 0)
        .launch(move |chunk| {
            let c4 = shape.stride4();
            let lanes = chunk.row_count() * c4;
            let params = Params {
                first_group: 0,
                lanes,
                window4: rows * c4,
                from_x4: (part.start * rows + chunk.rows.start - chunk.first(0)) * c4,
                first: part.start,
                end: part.end,
            };
            Launch::new(&params, groups_for(lanes))
        });
    y
}

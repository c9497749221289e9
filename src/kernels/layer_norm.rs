//! Layer normalisation over channels, with affine weight and bias.

use bytemuck::NoUninit;

use crate::error::Result;
use crate::gpu::{Caps, DeviceClass};
use crate::graph::{Graph, Launch, Window};
use crate::shader::{KernelSpec, Variant};
use crate::tensor::{DType, Tensor};

/// `layer_norm`.
pub const SPEC: KernelSpec = KernelSpec { name: "layer_norm", file: "norm/layer_norm.wgsl" };

/// Parameters of `layer_norm`.
#[repr(C)]
#[derive(Debug, Clone, Copy, NoUninit)]
pub struct Params {
    pub first_group: u32,
    pub rows: u32,
    pub channels: u32,
    pub eps: f32,
}

/// Rows that the lanes of `reduce` take, and whether a lane takes two vec4s at a time.
fn tiling(caps: &Caps, channels: u32) -> (u32, bool) {
    match caps.class {
        DeviceClass::Cpu => (4, channels.is_multiple_of(8)),
        _ => (1, false),
    }
}

/// Variant of `layer_norm`.
pub fn choose(caps: &Caps, x: Tensor, out: DType) -> Variant {
    let (each, paired) = tiling(caps, x.shape.channels);
    let elem = |dtype| if paired { caps.elem_pairs(dtype) } else { caps.elem(dtype) };
    Variant::new()
        .num("WG", 64)
        .num("EACH", each)
        .flag("PAIRED", paired)
        .slot("reduce", caps.reduce().0)
        .elem("x", elem(x.dtype))
        .elem("weight", caps.elem(DType::F32))
        .elem("bias", caps.elem(DType::F32))
        .elem("y", elem(out))
}

/// Records `y = layer_norm(x) · weight + bias`, weight and bias `[channels]` f32.
pub fn record(
    g: &mut Graph,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    eps: f32,
    out: DType,
) -> Result<Tensor> {
    let channels = x.shape.channels;
    let caps = g.caps().clone();
    let rows_per_group = 64 / caps.reduce().1 * tiling(&caps, channels).0;
    let y = g.tensor(x.shape, out);
    g.op(&SPEC, choose(&caps, x, out))
        .read(x, Window::Rows)
        .read(weight, Window::Whole)
        .read(bias, Window::Whole)
        .write(y, Window::Rows)
        .over(x.shape.rows(), 0)
        .launch(move |chunk| {
            let rows = chunk.row_count();
            let params = Params { first_group: 0, rows, channels, eps };
            Launch::new(&params, rows.div_ceil(rows_per_group))
        });
    Ok(y)
}

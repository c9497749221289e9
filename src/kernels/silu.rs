//! SiLU, elementwise.

use bytemuck::NoUninit;

use super::lanes::{WG, check_lanes, groups_for};
use crate::error::Result;
use crate::gpu::Caps;
use crate::graph::{Graph, Launch, Window};
use crate::shader::{KernelSpec, Variant};
use crate::tensor::{DType, Tensor};

/// `silu`.
pub const SPEC: KernelSpec = KernelSpec { name: "silu", file: "point/silu.wgsl" };

/// Parameters of `silu`.
#[repr(C)]
#[derive(Debug, Clone, Copy, NoUninit)]
pub struct Params {
    pub first_group: u32,
    pub lanes: u32,
}

/// Variant of `silu`.
pub fn choose(caps: &Caps, x: DType, out: DType) -> Variant {
    Variant::new().num("WG", WG).elem("x", caps.elem_in(x)).elem("y", caps.elem(out))
}

/// Records `y = x / (1 + exp(-x))`.
pub fn record(g: &mut Graph, x: Tensor, out: DType) -> Result<Tensor> {
    let y = g.tensor(x.shape, out);
    check_lanes(g, y)?;
    let c4 = x.shape.stride4();
    let variant = choose(g.caps(), x.dtype, out);
    g.op(&SPEC, variant)
        .read(x, Window::Rows)
        .write(y, Window::Rows)
        .over(x.shape.rows(), 0)
        .launch(move |chunk| {
            let lanes = chunk.row_count() * c4;
            Launch::new(&Params { first_group: 0, lanes }, groups_for(lanes))
        });
    Ok(y)
}

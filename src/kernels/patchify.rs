//! Latents to the tokens of a diffusion transformer, and back.

use bytemuck::NoUninit;

use super::lanes::{WG, check_lanes, groups_for};
use crate::error::Result;
use crate::gpu::Caps;
use crate::graph::{Graph, Launch, Window};
use crate::shader::{KernelSpec, Variant};
use crate::tensor::{DType, Shape, Tensor};

/// `patchify`.
pub const SPEC: KernelSpec = KernelSpec { name: "patchify", file: "latent/patchify.wgsl" };

/// Parameters of `patchify`.
#[repr(C)]
#[derive(Debug, Clone, Copy, NoUninit)]
pub struct Params {
    pub first_group: u32,
    pub lanes: u32,
    pub row0: u32,
    pub x_row0: u32,
    pub width: u32,
    pub channels: u32,
}

/// Variant of `patchify`.
pub fn choose(caps: &Caps, x: DType, pack: bool, out: DType) -> Variant {
    let (x, y) = (caps.elem_in(x), caps.elem(out));
    Variant::new().num("WG", WG).flag("PACK", pack).elem("x", x).elem("y", y)
}

/// `[b, 2h, 2w, c]` to `[b, h, w, 4c]`: features by channel, then row, then column of a patch.
///
/// # Errors
/// A side that is odd.
pub fn pack(g: &mut Graph, x: Tensor, out: DType) -> Result<Tensor> {
    let Shape { batch, height, width, channels } = x.shape;
    if !(height | width).is_multiple_of(2) {
        return Err(g.error(format!("latents {} do not divide into patches of 2 × 2", x.shape)));
    }
    let shape = Shape::new(batch, height / 2, width / 2, 4 * channels);
    record(g, x, true, (width / 2, channels), shape, out)
}

/// The reverse of [`pack`].
///
/// # Errors
/// Channels that are not a multiple of 4.
pub fn unpack(g: &mut Graph, x: Tensor, out: DType) -> Result<Tensor> {
    let Shape { batch, height, width, channels } = x.shape;
    if !channels.is_multiple_of(4) {
        return Err(g.error(format!("tokens {} do not hold patches of 2 × 2", x.shape)));
    }
    let shape = Shape::new(batch, 2 * height, 2 * width, channels / 4);
    record(g, x, false, (width, channels / 4), shape, out)
}

fn record(
    g: &mut Graph,
    x: Tensor,
    packs: bool,
    (width, channels): (u32, u32),
    shape: Shape,
    out: DType,
) -> Result<Tensor> {
    let y = g.tensor(shape, out);
    check_lanes(g, y)?;
    check_lanes(g, x)?;
    // Rows to a line of tokens, in the result and in what is read.
    let (line, x_line) = if packs { (width, 4 * width) } else { (4 * width, width) };
    let lines = move |rows: &std::ops::Range<u32>| {
        rows.start / line * x_line..rows.end.div_ceil(line) * x_line
    };
    let variant = choose(g.caps(), x.dtype, packs, out);
    g.op(&SPEC, variant)
        .read(x, Window::Map(Box::new(lines)))
        .write(y, Window::Rows)
        .over(shape.rows(), 0)
        .launch(move |chunk| {
            let lanes = chunk.row_count() * shape.stride4();
            let (row0, x_row0) = (chunk.rows.start, chunk.first(0));
            let params = Params { first_group: 0, lanes, row0, x_row0, width, channels };
            Launch::new(&params, groups_for(lanes))
        });
    Ok(y)
}

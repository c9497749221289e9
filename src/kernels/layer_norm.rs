//! Normalisation of rows over their channels: layer norm and RMS norm, with weights of their own or
//! modulated by batch item as in diffusion transformers.

use bytemuck::NoUninit;

use super::lanes::fits;
use crate::error::Result;
use crate::gpu::{Caps, DeviceClass};
use crate::graph::{Graph, Launch, Window};
use crate::shader::{KernelSpec, Variant};
use crate::tensor::{DType, Shape, Tensor};

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
    pub row0: u32,
    pub rows_per_item: u32,
    pub table4: u32,
    pub scale4: u32,
    pub shift4: u32,
}

/// What a row is multiplied by, and what is added, after it is normalised.
#[derive(Debug, Clone, Copy)]
pub enum Affine {
    /// Weight and bias `[channels]` f32: a layer norm.
    WeightBias(Tensor, Tensor),
    /// Weight `[channels]` f32, and the mean is not taken off: an RMS norm.
    Weight(Tensor),
    /// `1 + scale` and `shift` from a row for each batch item: a layer norm without weights.
    Modulation(Modulation),
}

/// A table `[batch, ..]` f32, with scale and shift from these columns on, multiples of 4.
#[derive(Debug, Clone, Copy)]
pub struct Modulation {
    pub table: Tensor,
    pub scale: u32,
    pub shift: u32,
}

/// Rows that the lanes of `reduce` take, and whether a lane takes two vec4s at a time.
fn tiling(caps: &Caps, channels: u32) -> (u32, bool) {
    match caps.class {
        DeviceClass::Cpu => (4, channels.is_multiple_of(8)),
        _ => (1, false),
    }
}

/// Variant of `layer_norm`.
pub fn choose(caps: &Caps, x: Tensor, affine: &Affine, out: DType) -> Variant {
    let (each, paired) = tiling(caps, x.shape.channels);
    Variant::new()
        .num("WG", 64)
        .num("EACH", each)
        .flag("PAIRED", paired)
        .flag("CENTRED", !matches!(affine, Affine::Weight(_)))
        .slot(
            "affine",
            match affine {
                Affine::WeightBias(..) => "weight_bias",
                Affine::Weight(_) => "weight",
                Affine::Modulation(_) => "modulation",
            },
        )
        .slot("reduce", caps.reduce().0)
        .elem("x", caps.elem_in_paired(x.dtype, paired))
        .elem("weight", caps.elem_in(DType::F32))
        .elem("bias", caps.elem_in(DType::F32))
        .elem("table", caps.elem_in(DType::F32))
        .elem("y", caps.elem_paired(out, paired))
}

/// Records `y = norm(x) · gain + offset`.
///
/// # Errors
/// Weights or a table that do not fit `x`.
pub fn record(g: &mut Graph, x: Tensor, affine: Affine, eps: f32, out: DType) -> Result<Tensor> {
    let channels = x.shape.channels;
    let padded = Shape::matrix(1, channels.next_multiple_of(4));
    let caps = g.caps().clone();
    let rows_per_group = 64 / caps.reduce().1 * tiling(&caps, channels).0;
    let mut params = Params {
        first_group: 0,
        rows: 0,
        channels,
        eps,
        row0: 0,
        rows_per_item: x.shape.rows_per_item(),
        table4: 0,
        scale4: 0,
        shift4: 0,
    };
    let operands = match affine {
        Affine::WeightBias(weight, bias) => vec![weight, bias],
        Affine::Weight(weight) => vec![weight],
        Affine::Modulation(Modulation { table, scale, shift }) => {
            let shape = Shape::matrix(x.shape.batch, table.shape.channels);
            fits(g, "the modulation", table.shape, shape)?;
            let end = scale.max(shift) + channels;
            if end > table.shape.channels || !(scale | shift).is_multiple_of(4) {
                return Err(g.error(format!("columns {scale} and {shift} of {}", table.shape)));
            }
            params.table4 = table.shape.stride4();
            (params.scale4, params.shift4) = (scale / 4, shift / 4);
            vec![table]
        }
    };
    if !matches!(affine, Affine::Modulation(_)) {
        for tensor in &operands {
            fits(g, "the weight", tensor.shape.with_channels(padded.channels), padded)?;
        }
    }
    let y = g.tensor(x.shape, out);
    let mut op = g.op(&SPEC, choose(&caps, x, &affine, out)).read(x, Window::Rows);
    for tensor in operands {
        op = op.read(tensor, Window::Whole);
    }
    op.write(y, Window::Rows).over(x.shape.rows(), 0).launch(move |chunk| {
        let rows = chunk.row_count();
        let params = Params { rows, row0: chunk.rows.start, ..params };
        Launch::new(&params, rows.div_ceil(rows_per_group))
    });
    Ok(y)
}

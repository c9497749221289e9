//! Kernels on latents: the sampler's scaling, the clean prediction, resampling, and the update that
//! latent frequency mixing and structure guidance share.
//!
//! What changes from step to step lies in one small tensor, [`StepCoefficients`], so that a plan is
//! replayed unchanged. All latents are f32.

use bytemuck::NoUninit;

use super::lanes::{WG, check_lanes, fits, groups_for};
use crate::error::Result;
use crate::gpu::Caps;
use crate::graph::{Graph, Launch, Window};
use crate::shader::{KernelSpec, Variant};
use crate::tensor::{DType, Shape, Tensor};

/// `model_input`.
pub const MODEL_INPUT: KernelSpec =
    KernelSpec { name: "model_input", file: "latent/model_input.wgsl" };
/// `predict_x0`.
pub const PREDICT_X0: KernelSpec =
    KernelSpec { name: "predict_x0", file: "latent/predict_x0.wgsl" };
/// `resample`.
pub const RESAMPLE: KernelSpec = KernelSpec { name: "resample", file: "latent/resample.wgsl" };
/// `lift`.
pub const LIFT: KernelSpec = KernelSpec { name: "lift", file: "latent/lift.wgsl" };

/// The numbers of one sampler step, as the kernels read them.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct StepCoefficients {
    /// Model input = `c_in` · x.
    pub c_in: f32,
    /// x0 = `c_x` · x + `c_out` · model output.
    pub c_x: f32,
    pub c_out: f32,
    /// Guidance scale.
    pub cfg: f32,
    /// `lift`: y = `a` · x + `b` · x2 + `c` · x3 + `g` · U(low).
    pub a: f32,
    pub b: f32,
    pub c: f32,
    pub g: f32,
}

impl StepCoefficients {
    /// The tensor that holds them.
    pub const SHAPE: Shape = Shape::matrix(1, 8);

    /// The values of that tensor.
    pub fn values(&self) -> [f32; 8] {
        [self.c_in, self.c_x, self.c_out, self.cfg, self.a, self.b, self.g, self.c]
    }
}

/// Parameters of `model_input`.
#[repr(C)]
#[derive(Debug, Clone, Copy, NoUninit)]
pub struct ModelInputParams {
    pub first_group: u32,
    pub lanes: u32,
    pub per_item: u32,
}

/// Parameters of `predict_x0`.
#[repr(C)]
#[derive(Debug, Clone, Copy, NoUninit)]
pub struct PredictParams {
    pub first_group: u32,
    pub lanes: u32,
}

/// Parameters of `resample`.
#[repr(C)]
#[derive(Debug, Clone, Copy, NoUninit)]
pub struct ResampleParams {
    pub first_group: u32,
    pub lanes: u32,
    pub row0: u32,
    pub x_row0: u32,
    pub channels: u32,
    pub in_h: u32,
    pub in_w: u32,
    pub out_h: u32,
    pub out_w: u32,
    pub tap_count: u32,
}

/// Parameters of `lift`.
#[repr(C)]
#[derive(Debug, Clone, Copy, NoUninit)]
pub struct LiftParams {
    pub first_group: u32,
    pub lanes: u32,
    pub row0: u32,
    pub channels: u32,
    pub h: u32,
    pub w: u32,
    pub low_h: u32,
    pub low_w: u32,
}

/// Variant of `model_input`.
pub fn choose_model_input(caps: &Caps, out: DType) -> Variant {
    Variant::new()
        .num("WG", WG)
        .elem("x", caps.elem_in(DType::F32))
        .elem("step", caps.elem_in(DType::F32))
        .elem("y", caps.elem(out))
}

/// Records the model input: `x · c_in`, once per guidance branch.
pub fn model_input(
    g: &mut Graph,
    x: Tensor,
    step: Tensor,
    branches: u32,
    out: DType,
) -> Result<Tensor> {
    let y = g.tensor(Shape { batch: branches * x.shape.batch, ..x.shape }, out);
    check_lanes(g, y)?;
    let per_item = x.shape.rows() * x.shape.stride4();
    let variant = choose_model_input(g.caps(), out);
    g.op(&MODEL_INPUT, variant)
        .read(x, Window::Whole)
        .read(step, Window::Whole)
        .write(y, Window::Whole)
        .over(1, 0)
        .launch(move |_| {
            let lanes = branches * per_item;
            Launch::new(&ModelInputParams { first_group: 0, lanes, per_item }, groups_for(lanes))
        });
    Ok(y)
}

/// What a model predicted.
#[derive(Debug, Clone, Copy)]
pub enum Branches {
    /// One branch, or the negative and the positive one as items of one tensor.
    Joined(Tensor),
    /// The negative and the positive one.
    Apart(Tensor, Tensor),
}

/// Variant of `predict_x0`.
pub fn choose_predict_x0(caps: &Caps, model: DType, guided: bool, apart: bool) -> Variant {
    Variant::new()
        .num("WG", WG)
        .flag("GUIDED", guided)
        .flag("APART", apart)
        .elem("x", caps.elem_in(DType::F32))
        .elem("model", caps.elem_in(model))
        .elem("positive", caps.elem_in(model))
        .elem("step", caps.elem_in(DType::F32))
        .elem("x0", caps.elem(DType::F32))
}

/// Records guidance and the clean prediction.
pub fn predict_x0(g: &mut Graph, x: Tensor, model: Branches, step: Tensor) -> Result<Tensor> {
    let (model, positive) = match model {
        Branches::Joined(model) => (model, None),
        Branches::Apart(negative, positive) => (negative, Some(positive)),
    };
    let joined = positive.is_none() && model.shape.batch == 2 * x.shape.batch;
    let items = if joined { 2 * x.shape.batch } else { x.shape.batch };
    fits(g, "the model output", model.shape, Shape { batch: items, ..x.shape })?;
    if let Some(positive) = positive {
        fits(g, "the positive branch", positive.shape, x.shape)?;
        if positive.dtype != model.dtype {
            return Err(g.error("branches of two element types"));
        }
    }
    let x0 = g.tensor(x.shape, DType::F32);
    let lanes = x.shape.rows() * x.shape.stride4();
    let apart = positive.is_some();
    let variant = choose_predict_x0(g.caps(), model.dtype, joined || apart, apart);
    g.op(&PREDICT_X0, variant)
        .read(x, Window::Whole)
        .read(model, Window::Whole)
        .read_opt(positive, Window::Whole)
        .read(step, Window::Whole)
        .write(x0, Window::Whole)
        .over(1, 0)
        .launch(move |_| Launch::new(&PredictParams { first_group: 0, lanes }, groups_for(lanes)));
    Ok(x0)
}

/// A table of taps for one axis: `out` outputs of `taps` weights each.
///
/// Values are `[first, weight, weight, …]` per output, the layout that the kernel reads.
#[derive(Debug, Clone, PartialEq)]
pub struct TapTable {
    pub out: u32,
    pub taps: u32,
    pub values: Vec<f32>,
}

/// The axis that a resampling runs along.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Axis {
    Height,
    Width,
}

/// What `resample` reads beside its input.
#[derive(Debug, Clone, Copy, Default)]
pub struct ResampleExtras {
    /// Subtracted from the input, of the same shape.
    pub minus: Option<Tensor>,
    /// The result is subtracted from this, of the output's shape.
    pub base: Option<Tensor>,
}

/// Variant of `resample`.
pub fn choose_resample(caps: &Caps, axis: Axis, extras: ResampleExtras) -> Variant {
    let (f32_in, f32) = (caps.elem_in(DType::F32), caps.elem(DType::F32));
    Variant::new()
        .num("WG", WG)
        .flag("ALONG_X", axis == Axis::Width)
        .flag("HAS_MINUS", extras.minus.is_some())
        .flag("HAS_BASE", extras.base.is_some())
        .elem("x", f32_in)
        .elem("minus", f32_in)
        .elem("base", f32_in)
        .elem("y", f32)
}

/// Records resampling along one axis; `table` is the tensor that holds `taps` (see [`TapTable`]).
pub fn resample(
    g: &mut Graph,
    x: Tensor,
    axis: Axis,
    table: Tensor,
    (out, tap_count): (u32, u32),
    extras: ResampleExtras,
) -> Result<Tensor> {
    let shape = match axis {
        Axis::Height => Shape { height: out, ..x.shape },
        Axis::Width => Shape { width: out, ..x.shape },
    };
    let y = g.tensor(shape, DType::F32);
    check_lanes(g, y)?;
    let (input, c4) = (x.shape, x.shape.stride4());
    // Input rows under a range of output rows; taps lie around an output's centre, along the height.
    let input_line = move |row: u32, last: bool| {
        let (item, y) = (row / shape.rows_per_item(), row / shape.width % shape.height);
        let line = match axis {
            Axis::Width => y + u32::from(last),
            Axis::Height => {
                let centre =
                    (2 * u64::from(y) + 1) * u64::from(input.height) / (2 * u64::from(out));
                let centre = centre as u32;
                if last {
                    (centre + tap_count + 1).min(input.height)
                } else {
                    centre.saturating_sub(tap_count)
                }
            }
        };
        item * input.height + line
    };
    let window = move || {
        Window::Map(Box::new(move |rows| {
            let (first, last) = (rows.start, rows.end.max(1) - 1);
            input_line(first, false) * input.width..input_line(last, true) * input.width
        }))
    };
    let variant = choose_resample(g.caps(), axis, extras);
    g.op(&RESAMPLE, variant)
        .read(x, window())
        .read_opt(extras.minus, window())
        .read_opt(extras.base, Window::Rows)
        .read(table, Window::Whole)
        .write(y, Window::Rows)
        .over(shape.rows(), 0)
        .flops(2 * u64::from(tap_count) * shape.elems())
        .launch(move |chunk| {
            let lanes = chunk.row_count() * c4;
            let params = ResampleParams {
                first_group: 0,
                lanes,
                row0: chunk.rows.start,
                x_row0: chunk.first(0),
                channels: input.channels,
                in_h: input.height,
                in_w: input.width,
                out_h: shape.height,
                out_w: shape.width,
                tap_count,
            };
            Launch::new(&params, groups_for(lanes))
        });
    Ok(y)
}

/// Variant of `lift`.
pub fn choose_lift(caps: &Caps, [x, x2, x3]: [bool; 3], low: bool) -> Variant {
    let (f32_in, f32) = (caps.elem_in(DType::F32), caps.elem(DType::F32));
    Variant::new()
        .num("WG", WG)
        .flag("HAS_X", x)
        .flag("HAS_X2", x2)
        .flag("HAS_X3", x3)
        .flag("HAS_LOW", low)
        .elem("x", f32_in)
        .elem("x2", f32_in)
        .elem("x3", f32_in)
        .elem("low", f32_in)
        .elem("step", f32_in)
        .elem("y", f32)
}

/// Records `y = a·x + b·x2 + c·x3 + g·U(low)` at size `shape`; `terms` are x, x2 and x3, `step` holds
/// the [`StepCoefficients`].
pub fn lift(
    g: &mut Graph,
    shape: Shape,
    terms: [Option<Tensor>; 3],
    low: Option<Tensor>,
    step: Tensor,
) -> Result<Tensor> {
    let y = g.tensor(shape, DType::F32);
    check_lanes(g, y)?;
    let (low_h, low_w) = low.map_or((1, 1), |t| (t.shape.height, t.shape.width));
    let [x, x2, x3] = terms;
    let variant = choose_lift(g.caps(), terms.map(|t| t.is_some()), low.is_some());
    g.op(&LIFT, variant)
        .read_opt(x, Window::Rows)
        .read_opt(x2, Window::Rows)
        .read_opt(x3, Window::Rows)
        .read_opt(low, Window::Whole)
        .read(step, Window::Whole)
        .write(y, Window::Rows)
        .over(shape.rows(), 0)
        .launch(move |chunk| {
            let lanes = chunk.row_count() * shape.stride4();
            let params = LiftParams {
                first_group: 0,
                lanes,
                row0: chunk.rows.start,
                channels: shape.channels,
                h: shape.height,
                w: shape.width,
                low_h,
                low_w,
            };
            Launch::new(&params, groups_for(lanes))
        });
    Ok(y)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::Limits;
    use crate::graph::split;

    #[test]
    fn large_pictures_are_resampled_within_the_floors_binding() {
        let mut g = Graph::new(Caps::FLOOR);
        let x = g.input("image", Shape::new(1, 3000, 4000, 3), DType::F32);
        let table = g.input("taps", Shape::matrix(1, 5 * 8000), DType::F32);
        let tall = resample(&mut g, x, Axis::Height, table, (6000, 4), Default::default()).unwrap();
        resample(&mut g, tall, Axis::Width, table, (8000, 4), Default::default()).unwrap();
        for op in g.ops() {
            assert!(split(&g, op, &Limits::WEBGPU).unwrap().len() > 1);
        }
    }
}

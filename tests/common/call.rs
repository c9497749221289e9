//! One call of a kernel as data, and how it is recorded.

use scalediff::error::Result;
use scalediff::graph::Graph;
use scalediff::kernels::attention::{self, AttentionScope, Heads, Slice};
use scalediff::kernels::conv2d::{self, Geometry};
use scalediff::kernels::fft::{self, Direction, FftExtras};
use scalediff::kernels::group_norm::{self, GroupNorm};
use scalediff::kernels::latent::{self, Axis, ResampleExtras, StepCoefficients, TapTable};
use scalediff::kernels::layer_norm;
use scalediff::kernels::matmul::{self, Activation};
use scalediff::kernels::silu;
use scalediff::kernels::windows::{self, WindowGrid};
use scalediff::scalediff::{Filter, LowPass, Mask, bicubic_taps};
use scalediff::tensor::{DType, Shape, Tensor};

use super::inputs::Maker;

/// How operands are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Types {
    /// Activations that are read, and the result.
    pub act: DType,
    pub weight: DType,
    /// The residual.
    pub residual: DType,
}

impl Types {
    pub const F32: Types = Types::all(DType::F32);
    pub const F16: Types = Types::all(DType::F16);
    /// Half precision around a residual stream in full.
    pub const MIXED: Types = Types { residual: DType::F32, ..Types::F16 };

    const fn all(dtype: DType) -> Self {
        Self { act: dtype, weight: dtype, residual: dtype }
    }
}

/// Operands of an epilogue.
#[derive(Debug, Clone, Copy)]
pub struct Tail {
    pub bias: bool,
    pub row_vector: bool,
    pub activation: Activation,
    pub residual: bool,
}

impl Tail {
    pub const NONE: Tail =
        Tail { bias: false, row_vector: false, activation: Activation::None, residual: false };
    pub const BIAS: Tail = Tail { bias: true, ..Tail::NONE };
    pub const RESIDUAL: Tail = Tail { residual: true, ..Tail::BIAS };
    pub const ALL: Tail = Tail { row_vector: true, ..Tail::RESIDUAL };

    pub const fn act(activation: Activation) -> Tail {
        Tail { activation, ..Tail::BIAS }
    }
}

/// The kinds of convolution that the networks have.
#[derive(Debug, Clone, Copy)]
pub enum Taps {
    Same(u32),
    /// Stride 2, with padding 0 or 1 above and left.
    Halved(u32),
    /// Doubled to this height and width.
    Doubled(u32, u32),
}

/// A kernel call. Shapes are `[items, height, width, channels]`; `c2` is a second tensor joined on
/// channels, 0 for none.
#[derive(Debug, Clone, Copy)]
pub enum Call {
    Matmul {
        items: u32,
        rows: u32,
        k: u32,
        n: u32,
        tail: Tail,
    },
    Conv2d {
        x: [u32; 4],
        c2: u32,
        n: u32,
        taps: Taps,
        tail: Tail,
    },
    /// `column` unused channels lie before the heads in q, k and v.
    Attention {
        items: u32,
        lq: u32,
        lk: u32,
        heads: u32,
        dim: u32,
        scope: AttentionScope,
        column: u32,
    },
    GroupNorm {
        x: [u32; 4],
        c2: u32,
        groups: u32,
        eps: f32,
        silu: bool,
    },
    LayerNorm {
        rows: u32,
        channels: u32,
        eps: f32,
    },
    Silu {
        rows: u32,
        channels: u32,
    },
    ModelInput {
        x: [u32; 4],
        branches: u32,
    },
    PredictX0 {
        x: [u32; 4],
        guided: bool,
    },
    /// `terms` are x, x2, x3 and low.
    Lift {
        x: [u32; 4],
        low: [u32; 2],
        terms: [bool; 4],
    },
    Bicubic {
        x: [u32; 4],
        out: [u32; 2],
    },
    Reduce {
        x: [u32; 4],
        factor: f64,
        minus: bool,
        base: bool,
    },
    /// Over height and width, of pairs of channels.
    Fft {
        x: [u32; 4],
        inverse: bool,
    },
    /// A low-pass by a mask; with `base` that of x taken off it.
    Masked {
        x: [u32; 4],
        mask: Mask,
        cutoff: f64,
        minus: bool,
        base: bool,
    },
    /// Windows `part` (first, one after the last) of the picture `x`, half a window or a whole one apart.
    GatherWindows {
        x: [u32; 4],
        window: [u32; 2],
        apart: bool,
        part: [u32; 2],
    },
    /// The same windows, back to the picture.
    AverageWindows {
        x: [u32; 4],
        window: [u32; 2],
        apart: bool,
        part: [u32; 2],
        before: bool,
    },
}

/// A recorded call with the values of its inputs, rounded to what is stored.
pub struct Built {
    pub(super) inputs: Vec<(&'static str, Tensor, Vec<f32>)>,
    pub output: Tensor,
    /// Records the same call once more, over the same inputs.
    pub again: Again,
}

pub type Again = Box<dyn Fn(&mut Graph) -> Result<Tensor>>;

impl Built {
    /// What to write before the first run.
    pub fn inputs(&self) -> impl Iterator<Item = (Tensor, &[f32])> {
        self.inputs.iter().map(|(_, tensor, values)| (*tensor, values.as_slice()))
    }

    pub(super) fn get(&self, name: &str) -> &[f32] {
        self.inputs.iter().find(|(n, ..)| *n == name).map_or(&[], |(.., values)| values)
    }
}

/// Coefficients that are all different, so that swapping any two is seen.
pub(super) const STEP: StepCoefficients = StepCoefficients {
    c_in: 0.3,
    c_x: 0.9,
    c_out: -1.7,
    cfg: 5.5,
    a: 0.7,
    b: -0.4,
    c: -2.1,
    g: 1.3,
};

/// Weight rows per output column.
pub(super) fn times(tail: Tail) -> u32 {
    if tail.activation == Activation::Geglu { 2 } else { 1 }
}

pub(super) fn shape([items, height, width, channels]: [u32; 4]) -> Shape {
    Shape::new(items, height, width, channels)
}

pub(super) fn geometry(x: Shape, taps: Taps) -> Geometry {
    match taps {
        Taps::Same(size) => Geometry::same(x, size),
        Taps::Halved(pad) => Geometry::halved(x, 3, pad),
        Taps::Doubled(height, width) => Geometry::doubled(height, width, 3),
    }
}

impl Call {
    /// The kernel's name, as tests and benches are filtered by.
    pub fn kernel(&self) -> &'static str {
        match self {
            Call::Matmul { .. } => "matmul",
            Call::Conv2d { .. } => "conv2d",
            Call::Attention { .. } => "attention",
            Call::GroupNorm { .. } => "group_norm",
            Call::LayerNorm { .. } => "layer_norm",
            Call::Silu { .. } => "silu",
            Call::ModelInput { .. } => "model_input",
            Call::PredictX0 { .. } => "predict_x0",
            Call::Lift { .. } => "lift",
            Call::Bicubic { .. } | Call::Reduce { .. } => "resample",
            Call::Fft { .. } | Call::Masked { .. } => "fft",
            Call::GatherWindows { .. } => "gather_windows",
            Call::AverageWindows { .. } => "average_windows",
        }
    }

    /// Whether storage types other than f32 exist for it.
    pub fn is_typed(&self) -> bool {
        !matches!(
            self,
            Call::Lift { .. }
                | Call::Bicubic { .. }
                | Call::Reduce { .. }
                | Call::Fft { .. }
                | Call::Masked { .. }
        )
    }

    /// Whether it can have a residual of a type of its own.
    pub fn has_residual(&self) -> bool {
        matches!(self, Call::Matmul { tail, .. } | Call::Conv2d { tail, .. } if tail.residual)
    }

    /// Records the call with inputs of its own.
    pub fn record(&self, g: &mut Graph, types: Types, mut m: Maker) -> Result<Built> {
        let again = self.prepare(g, types, &mut m);
        let output = again(g)?;
        g.output(output);
        Ok(Built { inputs: m.inputs, output, again })
    }

    /// Makes the inputs; the result records the call over them, as often as it is called.
    fn prepare(&self, g: &mut Graph, types: Types, m: &mut Maker) -> Again {
        let act = types.act;
        match *self {
            Call::Matmul { items, rows, k, n, tail } => {
                let xs = Shape::tokens(items, rows, k);
                let x = m.x(g, "x", xs, act);
                let w = m.weight(g, (n, times(tail)), (1, k), types.weight);
                let e = m.tail(g, xs.with_channels(n), tail, types);
                Box::new(move |g| matmul::record(g, x, w, n, e))
            }
            Call::Conv2d { x, c2, n, taps, tail } => {
                let xs = shape(x);
                let x = m.x(g, "x", xs, act);
                let x2 = (c2 > 0).then(|| m.x(g, "x2", xs.with_channels(c2), act));
                let geometry = geometry(xs, taps);
                let kernel = (geometry.size * geometry.size, xs.channels + c2);
                let w = m.weight(g, (n, 1), kernel, types.weight);
                let ys = Shape::new(xs.batch, geometry.out_h, geometry.out_w, n);
                let e = m.tail(g, ys, tail, types);
                Box::new(move |g| conv2d::record(g, x, x2, w, n, geometry, e))
            }
            Call::Attention { items, lq, lk, heads, dim, scope, column } => {
                let width = heads * dim + column;
                let mut slice = |name, len| {
                    let shape = match scope {
                        AttentionScope::Patches(p) => Shape::new(items, p.height, p.width, width),
                        _ => Shape::tokens(items, len, width),
                    };
                    Slice { tensor: m.x(g, name, shape, act), column }
                };
                let (q, k, v) = (slice("q", lq), slice("k", lk), slice("v", lk));
                let heads = Heads { count: heads, dim };
                Box::new(move |g| attention::record(g, q, k, v, heads, scope, act))
            }
            Call::GroupNorm { x, c2, groups, eps, silu } => {
                let xs = shape(x);
                let x = m.x(g, "x", xs, act);
                let x2 = (c2 > 0).then(|| m.x(g, "x2", xs.with_channels(c2), act));
                let weight = m.vector(g, "weight", xs.channels + c2, 1.0);
                let bias = m.vector(g, "bias", xs.channels + c2, 0.0);
                let norm = GroupNorm { weight, bias, groups, eps, silu };
                Box::new(move |g| group_norm::record(g, x, x2, norm, act))
            }
            Call::LayerNorm { rows, channels, eps } => {
                let x = m.x(g, "x", Shape::matrix(rows, channels), act);
                let weight = m.vector(g, "weight", channels, 1.0);
                let bias = m.vector(g, "bias", channels, 0.0);
                Box::new(move |g| layer_norm::record(g, x, weight, bias, eps, act))
            }
            Call::Silu { rows, channels } => {
                let x = m.x(g, "x", Shape::matrix(rows, channels), act);
                Box::new(move |g| silu::record(g, x, act))
            }
            Call::ModelInput { x, branches } => {
                let x = m.x(g, "x", shape(x), DType::F32);
                let step = m.step(g);
                Box::new(move |g| latent::model_input(g, x, step, branches, act))
            }
            Call::PredictX0 { x, guided } => {
                let x = m.x(g, "x", shape(x), DType::F32);
                let branches = if guided { 2 } else { 1 };
                let model = Shape { batch: branches * x.shape.batch, ..x.shape };
                let model = m.x(g, "model", model, act);
                let step = m.step(g);
                Box::new(move |g| latent::predict_x0(g, x, model, step))
            }
            Call::Lift { x, low: [low_h, low_w], terms } => {
                let xs = shape(x);
                let mut term = |i: usize, name| terms[i].then(|| m.x(g, name, xs, DType::F32));
                let sum = [term(0, "x"), term(1, "x2"), term(2, "x3")];
                let low = Shape { height: low_h, width: low_w, ..xs };
                let low = terms[3].then(|| m.x(g, "low", low, DType::F32));
                let step = m.step(g);
                Box::new(move |g| latent::lift(g, xs, sum, low, step))
            }
            Call::Bicubic { x, out: [height, width] } => {
                let x = m.x(g, "x", shape(x), DType::F32);
                let mut table = |taps: TapTable| {
                    let shape = Shape::matrix(1, taps.values.len() as u32);
                    let size = (taps.out, taps.taps);
                    (m.given(g, "taps", shape, DType::F32, taps.values), size)
                };
                let (rows, row_size) = table(bicubic_taps(x.shape.height, height));
                let (columns, column_size) = table(bicubic_taps(x.shape.width, width));
                let none = ResampleExtras::default();
                Box::new(move |g| {
                    let x = latent::resample(g, x, Axis::Height, rows, row_size, none)?;
                    latent::resample(g, x, Axis::Width, columns, column_size, none)
                })
            }
            Call::Reduce { x, factor, minus, base } => {
                let filter = Filter::Resample { scale_factor: factor };
                low_pass(g, m, x, filter, minus, base)
            }
            Call::Fft { x, inverse } => {
                let xs = shape(x);
                let x = m.x(g, "x", xs, DType::F32);
                let mut table =
                    |n| m.given(g, "roots", fft::roots_shape(n), DType::F32, fft::roots(n));
                let (rows, columns) = (table(xs.height), table(xs.width));
                let direction = if inverse { Direction::Inverse } else { Direction::Forward };
                Box::new(move |g| {
                    let (c, none) = (xs.channels, FftExtras::default());
                    let z = fft::record(g, x, Axis::Width, direction, columns, c, none)?;
                    fft::record(g, z, Axis::Height, direction, rows, c, none)
                })
            }
            Call::Masked { x, mask, cutoff, minus, base } => {
                low_pass(g, m, x, Filter::Fft { mask, cutoff }, minus, base)
            }
            Call::GatherWindows { x, window, apart, part: [first, end] } => {
                let x = m.x(g, "x", shape(x), act);
                let grid = WindowGrid::new(x.shape, window.into(), apart);
                Box::new(move |g| windows::gather(g, x, grid, first..end))
            }
            Call::AverageWindows { x, window, apart, part: [first, end], before } => {
                let [height, width] = window;
                let xs = shape(x);
                let grid = WindowGrid::new(xs, (height, width), apart);
                let p = Shape { batch: xs.batch * (end - first), height, width, ..xs };
                let p = m.x(g, "p", p, act);
                let before = before.then(|| m.x(g, "before", xs, act));
                Box::new(move |g| windows::average(g, p, before, grid, first..end))
            }
        }
    }
}

fn low_pass(
    g: &mut Graph,
    m: &mut Maker,
    x: [u32; 4],
    filter: Filter,
    minus: bool,
    base: bool,
) -> Again {
    let xs = shape(x);
    let x = m.x(g, "x", xs, DType::F32);
    let mut fixed = Vec::new();
    let low = LowPass::new(g, xs.height, xs.width, filter, &mut fixed);
    m.inputs.extend(fixed.into_iter().map(|(t, v)| ("table", t, v)));
    let minus = minus.then(|| m.x(g, "minus", xs, DType::F32));
    let base = base.then(|| m.x(g, "base", low.low_shape(xs), DType::F32));
    Box::new(move |g| low.reduce(g, x, ResampleExtras { minus, base }))
}

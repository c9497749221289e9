//! One call of a kernel as data: how it is recorded, what goes in, what must come out.

use half::f16;
use scalediff::error::Result;
use scalediff::graph::Graph;
use scalediff::kernels::attention::{self, AttentionScope, Heads, Slice, patch_origin};
use scalediff::kernels::conv2d::{self, Geometry};
use scalediff::kernels::group_norm::{self, GroupNorm};
use scalediff::kernels::latent::{self, Axis, ResampleExtras, StepCoefficients, TapTable};
use scalediff::kernels::layer_norm;
use scalediff::kernels::matmul::{self, Activation, Epilogue};
use scalediff::kernels::silu;
use scalediff::reference;
use scalediff::reference::conv2d::Picture;
use scalediff::scalediff::{LowPass, bicubic_taps};
use scalediff::tensor::{DType, Shape, Tensor};

use super::rng::Rng;

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
    /// `terms` are x, x2 and low.
    Lift {
        x: [u32; 4],
        low: [u32; 2],
        terms: [bool; 3],
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
}

/// A recorded call with the values of its inputs, rounded to what is stored.
pub struct Built {
    inputs: Vec<(&'static str, Tensor, Vec<f32>)>,
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

    fn get(&self, name: &str) -> &[f32] {
        self.inputs.iter().find(|(n, ..)| *n == name).map_or(&[], |(.., values)| values)
    }
}

/// Makes inputs while a call is recorded.
pub struct Maker {
    rng: Rng,
    /// Mean and standard deviation of activations.
    fill: (f64, f64),
    inputs: Vec<(&'static str, Tensor, Vec<f32>)>,
}

impl Maker {
    pub fn new(name: &str, fill: (f64, f64)) -> Self {
        Self { rng: Rng::new(name), fill, inputs: Vec::new() }
    }

    fn x(&mut self, g: &mut Graph, name: &'static str, shape: Shape, dtype: DType) -> Tensor {
        self.random(g, name, shape, dtype, self.fill)
    }

    fn random(
        &mut self,
        g: &mut Graph,
        name: &'static str,
        shape: Shape,
        dtype: DType,
        (mean, std): (f64, f64),
    ) -> Tensor {
        let values = (0..shape.elems()).map(|_| self.rng.value(mean, std)).collect();
        self.given(g, name, shape, dtype, values)
    }

    fn given(
        &mut self,
        g: &mut Graph,
        name: &'static str,
        shape: Shape,
        dtype: DType,
        mut values: Vec<f32>,
    ) -> Tensor {
        if dtype == DType::F16 {
            values.iter_mut().for_each(|v| *v = f16::from_f32(*v).to_f32());
        }
        let tensor = g.input(name, shape, dtype);
        self.inputs.push((name, tensor, values));
        tensor
    }

    /// `[1, n]` in f32, padded with zeros to whole vec4s as weights are.
    fn vector(&mut self, g: &mut Graph, name: &'static str, n: u32, mean: f64) -> Tensor {
        self.padded_vector(g, name, (n, 1), mean)
    }

    /// `[1, n]`, or value and gate `[1, 2n]` in alternating blocks of four.
    fn padded_vector(
        &mut self,
        g: &mut Graph,
        name: &'static str,
        (n, times): (u32, u32),
        mean: f64,
    ) -> Tensor {
        let len = times * n.next_multiple_of(4);
        let values = (0..len)
            .map(|i| if column_of(i, times) < n { self.rng.value(mean, 0.2) } else { 0.0 })
            .collect();
        self.given(g, name, Shape::matrix(1, len), DType::F32, values)
    }

    /// `[n][taps][c]` with channels and rows padded with zeros to multiples of four; with `times` 2
    /// value and gate rows in alternating blocks of four.
    fn weight(
        &mut self,
        g: &mut Graph,
        (n, times): (u32, u32),
        (taps, c): (u32, u32),
        dtype: DType,
    ) -> Tensor {
        let std = 1.0 / f64::from(taps * c).sqrt();
        let (rows, c4) = (times * n.next_multiple_of(4), c.next_multiple_of(4));
        let mut values = Vec::with_capacity((rows * taps * c4) as usize);
        for row in 0..rows {
            for i in 0..taps * c4 {
                let used = column_of(row, times) < n && i % c4 < c;
                values.push(if used { self.rng.value(0.0, std) } else { 0.0 });
            }
        }
        self.given(g, "w", Shape::matrix(rows, taps * c4), dtype, values)
    }

    fn tail(&mut self, g: &mut Graph, y: Shape, tail: Tail, types: Types) -> Epilogue {
        let size = (y.channels, times(tail));
        Epilogue {
            bias: tail.bias.then(|| self.padded_vector(g, "bias", size, 0.0)),
            row_vector: tail.row_vector.then(|| {
                self.random(g, "vector", Shape::matrix(y.batch, y.channels), DType::F32, (0.0, 1.0))
            }),
            activation: tail.activation,
            residual: tail.residual.then(|| self.x(g, "res", y, types.residual)),
            out: types.act,
        }
    }

    fn step(&mut self, g: &mut Graph) -> Tensor {
        self.given(g, "step", StepCoefficients::SHAPE, DType::F32, STEP.values().to_vec())
    }
}

/// Coefficients that are all different, so that swapping any two is seen.
const STEP: StepCoefficients =
    StepCoefficients { c_in: 0.3, c_x: 0.9, c_out: -1.7, cfg: 5.5, a: 0.7, b: -0.4, g: 1.3 };

/// Weight rows per output column.
fn times(tail: Tail) -> u32 {
    if tail.activation == Activation::Geglu { 2 } else { 1 }
}

/// The output column that weight row `row` serves.
fn column_of(row: u32, times: u32) -> u32 {
    row / (4 * times) * 4 + row % 4
}

fn shape([items, height, width, channels]: [u32; 4]) -> Shape {
    Shape::new(items, height, width, channels)
}

fn geometry(x: Shape, taps: Taps) -> Geometry {
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
        }
    }

    /// Whether storage types other than f32 exist for it.
    pub fn is_typed(&self) -> bool {
        !matches!(self, Call::Lift { .. } | Call::Bicubic { .. } | Call::Reduce { .. })
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
                let x = terms[0].then(|| m.x(g, "x", xs, DType::F32));
                let x2 = terms[1].then(|| m.x(g, "x2", xs, DType::F32));
                let low = Shape { height: low_h, width: low_w, ..xs };
                let low = terms[2].then(|| m.x(g, "low", low, DType::F32));
                let step = m.step(g);
                Box::new(move |g| latent::lift(g, xs, x, x2, low, step))
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
                let xs = shape(x);
                let x = m.x(g, "x", xs, DType::F32);
                let mut fixed = Vec::new();
                let low = LowPass::new(g, xs.height, xs.width, factor, &mut fixed);
                m.inputs.extend(fixed.into_iter().map(|(t, v)| ("taps", t, v)));
                let minus = minus.then(|| m.x(g, "minus", xs, DType::F32));
                let base = base.then(|| m.x(g, "base", low.low_shape(xs), DType::F32));
                Box::new(move |g| low.reduce(g, x, ResampleExtras { minus, base }))
            }
        }
    }

    /// What must come out: all rows, or those of `rows` one after the other.
    pub fn reference(&self, b: &Built, rows: Option<&[usize]>) -> Vec<f32> {
        let every: Vec<usize> = (0..b.output.shape.rows() as usize).collect();
        let wanted = rows.unwrap_or(&every);
        let n = b.output.shape.channels as usize;
        match *self {
            Call::Matmul { items, rows: per_item, k, n, tail } => {
                let w = unpadded(b.get("w"), (n, times(tail)), k);
                let x = pick(b.get("x"), k as usize, rows);
                let tail = Operands::of(b, tail, per_item, rows);
                let items = rows.map_or(items as usize, <[usize]>::len);
                let extents = (items, wanted.len(), n as usize, k as usize);
                reference::matmul::matmul(&x, &w, extents, tail.borrow())
            }
            Call::Conv2d { x, c2, n, taps, tail } => {
                let xs = shape(x);
                let geometry = geometry(xs, taps);
                let w = unpadded(b.get("w"), (n, 1), xs.channels + c2);
                let tail = Operands::of(b, tail, geometry.out_h * geometry.out_w, rows);
                let part = |name, channels| Picture {
                    shape: xs.with_channels(channels),
                    values: b.get(name),
                };
                let (x, x2) = (part("x", xs.channels), (c2 > 0).then(|| part("x2", c2)));
                let n = n as usize;
                let Some(rows) = rows else {
                    return reference::conv2d::conv2d(x, x2, &w, n, geometry, tail.borrow());
                };
                // The pixels under each wanted output, as pictures of one output each.
                let (cut, cut2) =
                    (patches(x, geometry, rows), x2.map(|p| patches(p, geometry, rows)));
                let size = geometry.size;
                let picture = |values, channels| Picture {
                    shape: Shape::new(rows.len() as u32, size, size, channels),
                    values,
                };
                let geometry =
                    Geometry { size, stride: 1, pad: 0, doubled: false, out_h: 1, out_w: 1 };
                let x2 = cut2.as_deref().map(|v| picture(v, c2));
                reference::conv2d::conv2d(
                    picture(&cut, xs.channels),
                    x2,
                    &w,
                    n,
                    geometry,
                    tail.borrow(),
                )
            }
            Call::Attention { items, lq, lk, heads, dim, scope, column } => {
                let channels = (heads * dim + column) as usize;
                let column = column as usize;
                fn slice(
                    values: &[f32],
                    channels: usize,
                    column: usize,
                ) -> reference::attention::Slice<'_> {
                    reference::attention::Slice { values, channels, column }
                }
                let scale = 1.0 / f64::from(dim).sqrt();
                let heads = Heads { count: heads, dim };
                if rows.is_none() {
                    let operands =
                        ["q", "k", "v"].map(|n| slice(b.get(n), channels, column)).into();
                    let extents = (items as usize, lq as usize, lk as usize);
                    return reference::attention::attention(operands, extents, heads, scope, scale);
                }
                let one = |row: &usize| {
                    let q = &b.get("q")[row * channels..(row + 1) * channels];
                    let keys = keys_of(*row as u32 % lq, lk, scope);
                    let item = *row / lq as usize * lk as usize;
                    let gather = |values: &[f32]| -> Vec<f32> {
                        keys.iter()
                            .flat_map(|j| values[(item + j) * channels..][..channels].to_vec())
                            .collect()
                    };
                    let (k, v) = (gather(b.get("k")), gather(b.get("v")));
                    let operands = [q, &k, &v].map(|x| slice(x, channels, column)).into();
                    let full = AttentionScope::Full;
                    reference::attention::attention(
                        operands,
                        (1, 1, keys.len()),
                        heads,
                        full,
                        scale,
                    )
                };
                wanted.iter().flat_map(one).collect()
            }
            Call::GroupNorm { x, c2, groups, eps, silu } => {
                let xs = shape(x);
                let extents = reference::group_norm::Extents {
                    items: xs.batch as usize,
                    rows_per_item: xs.rows_per_item() as usize,
                    c1: xs.channels as usize,
                    c2: c2 as usize,
                };
                let y = reference::group_norm::group_norm(
                    (b.get("x"), b.get("x2")),
                    extents,
                    (b.get("weight"), b.get("bias")),
                    groups as usize,
                    eps,
                    silu,
                );
                pick(&y, n, rows)
            }
            Call::LayerNorm { eps, .. } => {
                let x = pick(b.get("x"), n, rows);
                reference::layer_norm::layer_norm(&x, &b.get("weight")[..n], b.get("bias"), eps)
            }
            Call::Silu { .. } => reference::silu::silu(&pick(b.get("x"), n, rows)),
            Call::ModelInput { branches, .. } => {
                let y = reference::latent::model_input(b.get("x"), &STEP, branches as usize);
                pick(&y, n, rows)
            }
            Call::PredictX0 { .. } => {
                pick(&reference::latent::predict_x0(b.get("x"), b.get("model"), &STEP), n, rows)
            }
            Call::Lift { x, low: [height, width], .. } => {
                let low = Shape { height, width, ..shape(x) };
                let pair = (b.get("x"), b.get("x2"));
                let y = reference::latent::lift(shape(x), pair, (b.get("low"), low), &STEP);
                pick(&y, n, rows)
            }
            Call::Bicubic { x, out: [height, width] } => {
                let y = reference::latent::bicubic(b.get("x"), shape(x), (height, width));
                pick(&y.iter().map(|v| *v as f32).collect::<Vec<_>>(), n, rows)
            }
            Call::Reduce { x, minus, base, .. } => {
                let size = (b.output.shape.height, b.output.shape.width);
                let low = |name| reference::latent::antialiased(b.get(name), shape(x), size);
                let mut y = low("x");
                if minus {
                    y.iter_mut().zip(low("minus")).for_each(|(y, m)| *y -= m);
                }
                if base {
                    y.iter_mut().zip(b.get("base")).for_each(|(y, b)| *y = f64::from(*b) - *y);
                }
                pick(&y.iter().map(|v| *v as f32).collect::<Vec<_>>(), n, rows)
            }
        }
    }
}

/// The rows `rows` of a matrix, or all of it.
fn pick(values: &[f32], channels: usize, rows: Option<&[usize]>) -> Vec<f32> {
    match rows {
        None => values.to_vec(),
        Some(rows) => {
            rows.iter().flat_map(|r| values[r * channels..(r + 1) * channels].to_vec()).collect()
        }
    }
}

/// The keys that query `i` of an item sees.
fn keys_of(i: u32, lk: u32, scope: AttentionScope) -> Vec<usize> {
    match scope {
        AttentionScope::Full => (0..lk as usize).collect(),
        AttentionScope::Causal => (0..=i.min(lk - 1) as usize).collect(),
        AttentionScope::Patches(p) => {
            let y = patch_origin(i / p.width, p.window_h, p.height, p.jitter_h);
            let x = patch_origin(i % p.width, p.window_w, p.width, p.jitter_w);
            let row = |y| (x..x + p.window_w.min(p.width)).map(move |x| (y * p.width + x) as usize);
            (y..y + p.window_h.min(p.height)).flat_map(row).collect()
        }
    }
}

/// Rows of a padded weight in the order of the reference: values first, then gates.
fn unpadded(w: &[f32], (n, times): (u32, u32), channels: u32) -> Vec<f32> {
    let row_len = w.len() / (times * n.next_multiple_of(4)) as usize;
    let stride = channels.next_multiple_of(4) as usize;
    let mut out = Vec::new();
    for part in 0..times {
        for c in 0..n {
            let row = (c / 4 * 4 * times + 4 * part + c % 4) as usize;
            for tap in w[row * row_len..(row + 1) * row_len].chunks_exact(stride) {
                out.extend_from_slice(&tap[..channels as usize]);
            }
        }
    }
    out
}

/// The same for a vector.
fn unpadded_vector(v: &[f32], n: u32, times: u32) -> Vec<f32> {
    let at = |part: u32, c: u32| v[(c / 4 * 4 * times + 4 * part + c % 4) as usize];
    (0..times).flat_map(|part| (0..n).map(move |c| at(part, c))).collect()
}

/// The pixels under each of the outputs `rows`: zero beyond the border.
fn patches(p: Picture, g: Geometry, rows: &[usize]) -> Vec<f32> {
    let [h, w, c] = [p.shape.height, p.shape.width, p.shape.channels].map(|v| v as usize);
    let [out_h, out_w, size] = [g.out_h, g.out_w, g.size].map(|v| v as usize);
    let scale = if g.doubled { 2 } else { 1 };
    let at = |o: usize, tap: usize, len: usize| {
        let i = (o * g.stride as usize + tap).checked_sub(g.pad as usize)? / scale;
        (i < len).then_some(i)
    };
    let mut out = Vec::new();
    for &row in rows {
        let (item, oy, ox) = (row / (out_h * out_w), row / out_w % out_h, row % out_w);
        for tap in 0..size * size {
            match (at(oy, tap / size, h), at(ox, tap % size, w)) {
                (Some(y), Some(x)) => {
                    let pixel = ((item * h + y) * w + x) * c;
                    out.extend_from_slice(&p.values[pixel..pixel + c]);
                }
                _ => out.resize(out.len() + c, 0.0),
            }
        }
    }
    out
}

/// The operands of an epilogue for all rows, or for some.
struct Operands {
    bias: Option<Vec<f32>>,
    row_vector: Option<Vec<f32>>,
    activation: Activation,
    residual: Option<Vec<f32>>,
}

impl Operands {
    fn of(b: &Built, tail: Tail, rows_per_item: u32, rows: Option<&[usize]>) -> Self {
        let n = b.output.shape.channels;
        let items: Option<Vec<usize>> =
            rows.map(|rows| rows.iter().map(|r| r / rows_per_item as usize).collect());
        Self {
            bias: tail.bias.then(|| unpadded_vector(b.get("bias"), n, times(tail))),
            row_vector: tail
                .row_vector
                .then(|| pick(b.get("vector"), n as usize, items.as_deref())),
            activation: tail.activation,
            residual: tail.residual.then(|| pick(b.get("res"), n as usize, rows)),
        }
    }

    fn borrow(&self) -> reference::matmul::Tail<'_> {
        reference::matmul::Tail {
            bias: self.bias.as_deref(),
            row_vector: self.row_vector.as_deref(),
            activation: self.activation,
            residual: self.residual.as_deref(),
        }
    }
}

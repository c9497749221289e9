//! Recording a call, with inputs of its own.

use super::call::{Again, Built, Call, Types, geometry, modulation_scale, shape, times};
use super::inputs::Maker;
use crate::error::Result;
use crate::graph::Graph;
use crate::kernels::attention::{self, Attention, AttentionScope, Heads, Slice, Text, Turn};
use crate::kernels::conv2d;
use crate::kernels::fft::{self, Direction, FftExtras};
use crate::kernels::group_norm::{self, GroupNorm};
use crate::kernels::latent::{self, Axis, Branches, ResampleExtras, TapTable};
use crate::kernels::layer_norm::{self, Affine, Modulation};
use crate::kernels::matmul;
use crate::kernels::patchify;
use crate::kernels::rotary;
use crate::kernels::silu;
use crate::kernels::window_mean;
use crate::kernels::windows::{self, WindowGrid};
use crate::reference::joint::Queries;
use crate::scalediff::{Filter, LowPass, bicubic_taps};
use crate::tensor::{DType, Shape};

impl Call {
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
                let call = Attention::new(q, k, v, heads, scope);
                Box::new(move |g| attention::record(g, call, act))
            }
            Call::Biased { items, lq, lk, heads, dim } => {
                let mut slice = |name, len| {
                    let shape = Shape::tokens(items, len, heads * dim);
                    Slice { tensor: m.x(g, name, shape, act), column: 0 }
                };
                let (q, k, v) = (slice("q", lq), slice("k", lk), slice("v", lk));
                let bias = Shape::matrix(heads, lq + lk - 1);
                let bias = Some(m.x(g, "bias", bias, DType::F32));
                let heads = Heads { count: heads, dim };
                let call = Attention::new(q, k, v, heads, AttentionScope::Full);
                let call = Attention { scaled: false, bias, ..call };
                Box::new(move |g| attention::record(g, call, act))
            }
            Call::Joint { items, text, pixels, heads, dim, x_pair, scope, queries, column } => {
                let [height, width] = pixels;
                let channels = heads * dim + column;
                let picture = Shape::new(items, height, width, channels);
                let tokens = Shape::tokens(items, text, channels);
                let mut slice = |name, shape| Slice { tensor: m.x(g, name, shape, act), column };
                let q = slice("q", if queries == Queries::Picture { picture } else { tokens });
                let (k, v) = (slice("k", picture), slice("v", picture));
                let (text_k, text_v) = (slice("text_k", tokens), slice("text_v", tokens));
                let table = turn_table(g, m, [height, width], dim, x_pair);
                let patched = matches!(scope, AttentionScope::Patches(_));
                let text = Some(Text { k: text_k, v: text_v, turn: patched.then_some(table) });
                let heads = Heads { count: heads, dim };
                let call = Attention { text, ..Attention::new(q, k, v, heads, scope) };
                match queries {
                    Queries::Windows { shifted } => {
                        let AttentionScope::Patches(p) = scope else {
                            return Box::new(|g| Err(g.error("windows need patches")));
                        };
                        let (ys, xs) = p.distinct(shifted);
                        let all = 0..(ys.windows.len() * xs.windows.len()) as u32;
                        Box::new(move |g| {
                            attention::record_windows(g, call, shifted, all.clone(), act)
                        })
                    }
                    _ => Box::new(move |g| attention::record(g, call, act)),
                }
            }
            Call::WindowMean { windows, part: [first, end], before, items, text, channels } => {
                let x = Shape::tokens((end - first) * items, text, channels);
                let x = m.x(g, "x", x, act);
                let before = before
                    .then(|| m.x(g, "before", Shape::tokens(items, text, channels), DType::F32));
                let weight = m.x(g, "weight", Shape::matrix(1, windows), DType::F32);
                Box::new(move |g| window_mean::record(g, x, weight, first..end, before, act))
            }
            Call::Rotary { x, heads, dim, column, x_pair } => {
                let xs = shape(x);
                let x = Slice { tensor: m.x(g, "x", xs, act), column };
                let weight = m.vector(g, "weight", dim, 1.0);
                let turn = x_pair.map(|p| turn_table(g, m, [xs.height, xs.width], dim, p));
                let heads = Heads { count: heads, dim };
                Box::new(move |g| rotary::record(g, x, weight, heads, turn, 1e-6, act))
            }
            Call::Patchify { x, pack } => {
                let x = m.x(g, "x", shape(x), act);
                let record = if pack { patchify::pack } else { patchify::unpack };
                Box::new(move |g| record(g, x, act))
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
                let affine = Affine::WeightBias(weight, bias);
                Box::new(move |g| layer_norm::record(g, x, affine, eps, act))
            }
            Call::RmsNorm { rows, channels, eps } => {
                let x = m.x(g, "x", Shape::matrix(rows, channels), act);
                let weight = Affine::Weight(m.vector(g, "weight", channels, 1.0));
                Box::new(move |g| layer_norm::record(g, x, weight, eps, act))
            }
            Call::ModulatedNorm { items, rows, channels, eps } => {
                let x = m.x(g, "x", Shape::tokens(items, rows, channels), act);
                let (shift, scale) = (4, modulation_scale(channels));
                let table = Shape::matrix(items, scale + channels);
                let table = m.random(g, "table", table, DType::F32, (0.0, 0.3));
                let affine = Affine::Modulation(Modulation { table, scale, shift });
                Box::new(move |g| layer_norm::record(g, x, affine, eps, act))
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
            Call::PredictX0 { x, guided, apart } => {
                let x = m.x(g, "x", shape(x), DType::F32);
                let branches = if guided && !apart { 2 } else { 1 };
                let model = Shape { batch: branches * x.shape.batch, ..x.shape };
                let model = m.x(g, "model", model, act);
                let model = match apart {
                    true => Branches::Apart(model, m.x(g, "positive", x.shape, act)),
                    false => Branches::Joined(model),
                };
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

/// A rotary table for a grid.
fn turn_table(g: &mut Graph, m: &mut Maker, grid: [u32; 2], dim: u32, x_pair: u32) -> Turn {
    let positions = grid[0].max(grid[1]);
    let first = x_pair.min(2) / 2 * 2;
    let dims = [first, 2 * x_pair - first, dim - 2 * x_pair];
    let values = rotary::table(dims, 100.0, positions);
    let table = m.given(g, "turn", Shape::matrix(positions, dim), DType::F32, values);
    Turn { table, x_pair }
}

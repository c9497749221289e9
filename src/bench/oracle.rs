//! What must come out of a call, by the crate's references.

use crate::kernels::attention::{AttentionScope, Heads, patch_origin};
use crate::kernels::conv2d::Geometry;
use crate::kernels::matmul::Activation;
use crate::kernels::windows::WindowGrid;
use crate::reference;
use crate::reference::conv2d::Picture;
use crate::scalediff::Mask;
use crate::tensor::Shape;

use super::call::{Built, Call, STEP, Tail, geometry, modulation_scale, shape, times};
use super::inputs::GATE_COLUMN;

impl Call {
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
                    return reference::attention::attention(
                        operands,
                        extents,
                        heads,
                        scope,
                        scale,
                        &[],
                    );
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
                        &[],
                    )
                };
                wanted.iter().flat_map(one).collect()
            }
            Call::Biased { items, lq, lk, heads, dim } => {
                let slice = |name| reference::attention::Slice {
                    values: b.get(name),
                    channels: n,
                    column: 0,
                };
                let y = reference::attention::attention(
                    (slice("q"), slice("k"), slice("v")),
                    (items as usize, lq as usize, lk as usize),
                    Heads { count: heads, dim },
                    AttentionScope::Full,
                    1.0,
                    b.get("bias"),
                );
                pick(&y, n, rows)
            }
            Call::Joint { items, text, pixels, heads, dim, x_pair, scope, queries, column } => {
                let slice = |name| reference::attention::Slice {
                    values: b.get(name),
                    channels: n + column as usize,
                    column: column as usize,
                };
                let joint = reference::joint::Joint {
                    q: slice("q"),
                    k: slice("k"),
                    v: slice("v"),
                    text_k: slice("text_k"),
                    text_v: slice("text_v"),
                    items: items as usize,
                    text: text as usize,
                    pixels: (pixels[0] * pixels[1]) as usize,
                    heads: Heads { count: heads, dim },
                    scope,
                    queries,
                    table: b.get("turn"),
                    x_pair: x_pair as usize,
                };
                wanted.iter().flat_map(|row| joint.row(*row)).collect()
            }
            Call::WindowMean { part: [first, end], .. } => {
                let weight = &b.get("weight")[first as usize..end as usize];
                let y = reference::window_mean::window_mean(b.get("x"), weight, b.get("before"));
                pick(&y, n, rows)
            }
            Call::Rotary { x, heads, dim, column, x_pair } => {
                let turn = x_pair.map(|pair| (b.get("turn"), pair as usize));
                let heads = Heads { count: heads, dim };
                let column = column as usize;
                let y = reference::rotary::rotary(
                    b.get("x"),
                    shape(x),
                    column,
                    b.get("weight"),
                    heads,
                    turn,
                    1e-6,
                );
                pick(&y, n, rows)
            }
            Call::Patchify { x, pack } => {
                pick(&reference::patchify::patchify(b.get("x"), shape(x), pack), n, rows)
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
            Call::RmsNorm { eps, .. } => {
                let x = pick(b.get("x"), n, rows);
                reference::layer_norm::rms_norm(&x, &b.get("weight")[..n], eps)
            }
            Call::ModulatedNorm { items, channels, eps, .. } => {
                let table = b.get("table");
                let columns = table.len() / items as usize;
                let per_item = b.output.shape.rows_per_item() as usize;
                let scale = modulation_scale(channels) as usize;
                let one = |row: &usize| {
                    let at = &table[row / per_item * columns..][..columns];
                    let gain: Vec<f32> = at[scale..][..n].iter().map(|v| 1.0 + v).collect();
                    let x = &b.get("x")[row * n..][..n];
                    reference::layer_norm::layer_norm(x, &gain, &at[4..], eps)
                };
                wanted.iter().flat_map(one).collect()
            }
            Call::Silu { .. } => reference::silu::silu(&pick(b.get("x"), n, rows)),
            Call::ModelInput { branches, .. } => {
                let y = reference::latent::model_input(b.get("x"), &STEP, branches as usize);
                pick(&y, n, rows)
            }
            Call::PredictX0 { .. } => {
                let model = [b.get("model"), b.get("positive")].concat();
                pick(&reference::latent::predict_x0(b.get("x"), &model, &STEP), n, rows)
            }
            Call::Lift { x, low: [height, width], .. } => {
                let low = Shape { height, width, ..shape(x) };
                let terms = ["x", "x2", "x3"].map(|name| b.get(name));
                let y = reference::latent::lift(shape(x), terms, (b.get("low"), low), &STEP);
                pick(&y, n, rows)
            }
            Call::Bicubic { x, out: [height, width] } => {
                let y = reference::latent::bicubic(b.get("x"), shape(x), (height, width));
                pick(&y.iter().map(|v| *v as f32).collect::<Vec<_>>(), n, rows)
            }
            Call::Reduce { x, minus, base, .. } => {
                let size = (b.output.shape.height, b.output.shape.width);
                let low = |v: &[f32]| reference::latent::antialiased(v, shape(x), size);
                pick(&low_band(b, minus, base, low), n, rows)
            }
            Call::Fft { x, inverse } => {
                pick(&reference::fft::fft(b.get("x"), shape(x), inverse), n, rows)
            }
            Call::Masked { x, mask, cutoff, minus, base } => {
                let share = |f: f64| match mask {
                    Mask::Ideal => f64::from(u8::from(f <= cutoff)),
                    Mask::Gaussian => (-f * f / (2.0 * cutoff * cutoff)).exp(),
                    Mask::Butterworth => 1.0 / (1.0 + (f / cutoff).powf(8.0)),
                };
                let low = |v: &[f32]| reference::fft::filter(v, shape(x), share);
                pick(&low_band(b, minus, base, low), n, rows)
            }
            Call::GatherWindows { x, window, apart, part: [first, end] } => {
                let grid = WindowGrid::new(shape(x), window.into(), apart);
                pick(&reference::windows::gather(b.get("x"), n, grid, first..end), n, rows)
            }
            Call::AverageWindows { x, window, apart, part: [first, end], .. } => {
                let grid = WindowGrid::new(shape(x), window.into(), apart);
                let (p, before) = (b.get("p"), b.get("before"));
                pick(&reference::windows::average(p, before, n, grid, first..end), n, rows)
            }
        }
    }
}

/// The low band of x - minus, or base less that.
fn low_band(b: &Built, minus: bool, base: bool, low: impl Fn(&[f32]) -> Vec<f64>) -> Vec<f32> {
    let mut y = low(b.get("x"));
    if minus {
        y.iter_mut().zip(low(b.get("minus"))).for_each(|(y, m)| *y -= m);
    }
    if base {
        y.iter_mut().zip(b.get("base")).for_each(|(y, b)| *y = f64::from(*b) - *y);
    }
    y.iter().map(|v| *v as f32).collect()
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
            let y = patch_origin(i / p.width, p.window_h, p.height, p.jitter_h, p.isolated);
            let x = patch_origin(i % p.width, p.window_w, p.width, p.jitter_w, p.isolated);
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
    gate: Option<Vec<f32>>,
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
            gate: tail.gate.then(|| {
                let columns = (GATE_COLUMN + n) as usize;
                let rows = pick(b.get("gate"), columns, items.as_deref());
                let gate = |row: &[f32]| row[GATE_COLUMN as usize..].to_vec();
                rows.chunks_exact(columns).flat_map(gate).collect()
            }),
            activation: tail.activation,
            residual: tail.residual.then(|| pick(b.get("res"), n as usize, rows)),
        }
    }

    fn borrow(&self) -> reference::matmul::Tail<'_> {
        reference::matmul::Tail {
            bias: self.bias.as_deref(),
            row_vector: self.row_vector.as_deref(),
            gate: self.gate.as_deref(),
            activation: self.activation,
            residual: self.residual.as_deref(),
        }
    }
}

//! Every variant that a kernel's `choose` can make: operands of all types, all epilogues and flags,
//! and shapes on both sides of every threshold, recorded for one set of device facts.

use scalediff::gpu::Caps;
use scalediff::graph::{Graph, Op};
use scalediff::kernels::attention::{
    self, Attention, AttentionScope, Heads, PatchGeometry, Slice, Text, Turn,
};
use scalediff::kernels::conv2d::{self, Geometry};
use scalediff::kernels::fft::{self, Direction, FftExtras};
use scalediff::kernels::group_norm::{self, GroupNorm};
use scalediff::kernels::latent::{self, Axis, Branches, ResampleExtras};
use scalediff::kernels::layer_norm::{self, Affine, Modulation};
use scalediff::kernels::matmul::{self, Activation, Epilogue, Gate};
use scalediff::kernels::patchify;
use scalediff::kernels::rotary;
use scalediff::kernels::silu;
use scalediff::kernels::window_mean;
use scalediff::kernels::windows::{self, WindowGrid};
use scalediff::tensor::DType::{self, F16, F32};
use scalediff::tensor::{Shape, Tensor};

pub const DTYPES: [DType; 2] = [F32, F16];

/// Records everything of one kernel family.
pub type Family = fn(&mut Graph);

/// The families by name: one test each, so that they run side by side.
pub const FAMILIES: &[(&str, Family)] = &[
    ("matmul", matmul_family),
    ("conv2d", conv2d_family),
    ("attention", attention_family),
    ("joint", joint_family),
    ("norms", norms_family),
    ("pointwise", pointwise_family),
];

/// The ops of a family on a device.
pub fn record(family: Family, caps: &Caps) -> Graph {
    let mut g = Graph::new(caps.clone());
    family(&mut g);
    g
}

/// One op of each kind: what is composed depends on nothing else.
pub fn distinct(ops: &[Op]) -> Vec<&Op> {
    let mut seen = std::collections::HashSet::new();
    ops.iter().filter(|op| seen.insert((op.spec.name, op.variant.clone()))).collect()
}

fn input(g: &mut Graph, shape: Shape, dtype: DType) -> Tensor {
    g.input("x", shape, dtype)
}

/// All combinations of two values in `n` places.
fn dtypes<const N: usize>() -> impl Iterator<Item = [DType; N]> {
    (0..1usize << N).map(|bits| std::array::from_fn(|i| DTYPES[bits >> i & 1]))
}

/// Epilogues over an output of shape `y`: every activation with every set of operands.
fn epilogues(g: &mut Graph, y: Shape, res: DType, out: DType) -> Vec<Epilogue> {
    let padded = y.channels.next_multiple_of(4);
    let biases = [1, 2].map(|times| input(g, Shape::matrix(1, times * padded), F32));
    let row_vector = input(g, Shape::matrix(y.batch, y.channels), F32);
    let residual = input(g, y, res);
    let table = input(g, Shape::matrix(y.batch, y.channels + 4), F32);
    let gate = Some(Gate { table, column: 4 });
    let mut all = Vec::new();
    for activation in [
        Activation::None,
        Activation::Silu,
        Activation::GeluErf,
        Activation::GeluTanh,
        Activation::QuickGelu,
        Activation::Geglu,
        Activation::GegluTanh,
    ] {
        for bits in 0..8 {
            // The gated form has no row vector.
            if bits & 2 != 0 && activation.is_gated() {
                continue;
            }
            all.push(Epilogue {
                bias: (bits & 1 != 0).then_some(biases[usize::from(activation.is_gated())]),
                row_vector: (bits & 2 != 0).then_some(row_vector),
                gate: None,
                activation,
                residual: (bits & 4 != 0).then_some(residual),
                out,
            });
        }
    }
    // Without a row vector a gate; of convolutions only the last of these is left out.
    for bits in 0..4 {
        all.push(Epilogue {
            bias: (bits & 1 != 0).then_some(biases[0]),
            residual: (bits & 2 != 0).then_some(residual),
            gate,
            out,
            ..Epilogue::default()
        });
    }
    all
}

/// With all operands and with none: enough where the types vary.
fn extremes(g: &mut Graph, y: Shape, res: DType, out: DType) -> Vec<Epilogue> {
    let all = epilogues(g, y, res, out);
    [all[0], all[7], all[all.len() - 5], all[all.len() - 1]].to_vec()
}

fn matmul_family(g: &mut Graph) {
    for (rows, k, n) in [
        (1, 4, 4),
        (1, 320, 1280),
        (7, 6, 10),
        (77, 48, 64),
        (256, 64, 64),
        (1000, 320, 320),
        (4096, 640, 2560),
        (4096, 2560, 320),
    ] {
        let shape = Shape::tokens(1, rows, k);
        for [x, w, res, out] in dtypes() {
            let x = input(g, shape, x);
            let (n4, k4) = (u32::next_multiple_of(n, 4), u32::next_multiple_of(k, 4));
            let weights = [1, 2].map(|times| input(g, Shape::matrix(times * n4, k4), w));
            let uniform = [w, res, out].iter().all(|d| *d == x.dtype);
            let make = if uniform { epilogues } else { extremes };
            for e in make(g, shape.with_channels(n), res, out) {
                let gated = usize::from(e.activation.is_gated());
                matmul::record(g, x, weights[gated], n, e).unwrap();
            }
        }
    }
}

fn conv2d_family(g: &mut Graph) {
    let seams = [None, Some((32, 32)), Some((6, 10))];
    for (side, c, n) in [(5, 3, 10), (16, 48, 64), (64, 320, 320), (32, 128, 3)] {
        for [x, x2, w, res, out] in dtypes() {
            // As in attention: one shape for all mixtures of types.
            if side != 16 && [x2, w, res, out].iter().any(|d| *d != x) {
                continue;
            }
            for seam in seams {
                let (c1, c2) = seam.unwrap_or((c, 0));
                let x = input(g, Shape::new(1, side, side, c1), x);
                let x2 = seam.map(|_| input(g, x.shape.with_channels(c2), x2));
                for geometry in [
                    Geometry::same(x.shape, 1),
                    Geometry::same(x.shape, 3),
                    Geometry::halved(x.shape, 3, 0),
                    Geometry::halved(x.shape, 3, 1),
                    Geometry::doubled(2 * side - side % 2, 2 * side, 3),
                ] {
                    let y = Shape::new(1, geometry.out_h, geometry.out_w, n);
                    let taps = geometry.size * geometry.size;
                    let k = taps * (c1 + c2).next_multiple_of(4);
                    let weight = input(g, Shape::matrix(u32::next_multiple_of(n, 4), k), w);
                    for e in extremes(g, y, res, out) {
                        if !e.activation.is_gated() && e.gate.is_none() {
                            conv2d::record(g, x, x2, weight, n, geometry, e).unwrap();
                        }
                    }
                }
            }
        }
    }
}

fn attention_family(g: &mut Graph) {
    for dim in [4, 6, 16, 40, 64, 128, 160, 512] {
        for [q, kv, out] in dtypes() {
            // Types are loaded and stored in one place: one head size for all mixtures of them.
            if dim != 40 && (q != kv || q != out) {
                continue;
            }
            let heads = Heads { count: 2, dim };
            // 64² tokens exceed a lowered binding limit several times, so that keys come in segments.
            for side in [3, 16, 64] {
                let patches =
                    PatchGeometry::new((side, side), (side.div_ceil(2), side.div_ceil(2)), (0, 1));
                let isolated = PatchGeometry { isolated: true, ..patches };
                for scope in [
                    AttentionScope::Full,
                    AttentionScope::Causal,
                    AttentionScope::Patches(patches),
                    AttentionScope::Patches(isolated),
                ] {
                    for column in [0, 2] {
                        let shape = Shape::new(1, side, side, 2 * dim + column);
                        let slice = |tensor| Slice { tensor, column };
                        let q = slice(input(g, shape, q));
                        let (k, v) = (slice(input(g, shape, kv)), slice(input(g, shape, kv)));
                        let call = Attention::new(q, k, v, heads, scope);
                        attention::record(g, call, out).unwrap();
                    }
                }
            }
        }
    }
}

/// Text beside a picture, its own queries, and scores with a bias.
fn joint_family(g: &mut Graph) {
    for dim in [4, 6, 16, 40, 64, 128, 160] {
        for dtype in DTYPES {
            let heads = Heads { count: 2, dim };
            // 64² tokens exceed a lowered binding limit, so that keys come in segments.
            for side in [8, 64] {
                let picture = input(g, Shape::new(1, side, side, 2 * dim), dtype);
                let tokens = input(g, Shape::tokens(1, 19, 2 * dim), dtype);
                let slice = |tensor| Slice { tensor, column: 0 };
                let (k, text) = (slice(picture), slice(tokens));
                let table = input(g, Shape::matrix(side, dim), F32);
                let turn = Some(Turn { table, x_pair: 1 });
                for turn in [None, turn] {
                    let scope = match turn {
                        None => AttentionScope::Full,
                        Some(_) => AttentionScope::Patches(PatchGeometry::new(
                            (side, side),
                            (side / 2, side / 2),
                            (0, 1),
                        )),
                    };
                    let text = Some(Text { k: text, v: text, turn });
                    let call = Attention { text, ..Attention::new(k, k, k, heads, scope) };
                    attention::record(g, call, dtype).unwrap();
                    let call = Attention { q: slice(tokens), ..call };
                    if turn.is_some() {
                        attention::record_windows(g, call, true, 1..3, dtype).unwrap();
                    } else {
                        attention::record(g, call, dtype).unwrap();
                    }
                }
            }
            let x = Slice { tensor: input(g, Shape::tokens(1, 300, 2 * dim), dtype), column: 0 };
            let bias = Some(input(g, Shape::matrix(2, 599), F32));
            let call = Attention::new(x, x, x, heads, AttentionScope::Full);
            attention::record(g, Attention { bias, scaled: false, ..call }, dtype).unwrap();
            if dim % 4 == 0 {
                let weight = input(g, Shape::matrix(1, dim), F32);
                let x = Slice { tensor: input(g, Shape::new(1, 8, 8, 2 * dim), dtype), column: 0 };
                let table = input(g, Shape::matrix(8, dim), F32);
                for turn in [None, Some(Turn { table, x_pair: 1 })] {
                    rotary::record(g, x, weight, heads, turn, 1e-6, dtype).unwrap();
                }
            }
        }
    }
}

fn norms_family(g: &mut Graph) {
    for [x, x2, out] in dtypes() {
        for (c1, c2) in [(32, 0), (48, 0), (6, 0), (32, 32), (6, 10), (320, 640)] {
            let x = input(g, Shape::new(2, 8, 8, c1), x);
            let x2 = (c2 > 0).then(|| input(g, x.shape.with_channels(c2), x2));
            let affine = input(g, Shape::matrix(1, c1 + c2), F32);
            for silu in [false, true] {
                let norm = GroupNorm { weight: affine, bias: affine, groups: 2, eps: 1e-5, silu };
                group_norm::record(g, x, x2, norm, out).unwrap();
            }
            if x2.is_none() {
                let table = input(g, Shape::matrix(2, 2 * (c1 + c2) + 8), F32);
                let (shift, scale) = (0, (c1 + c2).next_multiple_of(4));
                for affine in [
                    Affine::WeightBias(affine, affine),
                    Affine::Weight(affine),
                    Affine::Modulation(Modulation { table, shift, scale }),
                ] {
                    layer_norm::record(g, x, affine, 1e-5, out).unwrap();
                }
            }
        }
    }
}

fn pointwise_family(g: &mut Graph) {
    let shape = Shape::new(1, 8, 8, 4);
    let x = input(g, shape, F32);
    let step = input(g, latent::StepCoefficients::SHAPE, F32);
    let table = input(g, Shape::matrix(1, 5 * 16), F32);
    for [a, b] in dtypes() {
        let x = input(g, shape, a);
        silu::record(g, x, b).unwrap();
    }
    for [a, b] in dtypes() {
        let x = input(g, Shape::new(1, 8, 8, 16), a);
        patchify::pack(g, x, b).unwrap();
        patchify::unpack(g, x, b).unwrap();
        let x = input(g, Shape::tokens(64, 77, 64), a);
        let weight = input(g, Shape::matrix(1, 64), F32);
        for before in [None, Some(input(g, Shape::tokens(1, 77, 64), F32))] {
            window_mean::record(g, x, weight, 0..64, before, b).unwrap();
        }
    }
    for dtype in DTYPES {
        latent::model_input(g, x, step, 2, dtype).unwrap();
        for branches in [1, 2] {
            let model = input(g, Shape { batch: branches, ..shape }, dtype);
            latent::predict_x0(g, x, Branches::Joined(model), step).unwrap();
        }
        let model = input(g, shape, dtype);
        latent::predict_x0(g, x, Branches::Apart(model, model), step).unwrap();
        let x = input(g, shape, dtype);
        let grid = WindowGrid::new(shape, (4, 4), false);
        let p = windows::gather(g, x, grid, 0..9).unwrap();
        for before in [None, Some(x)] {
            windows::average(g, p, before, grid, 0..9).unwrap();
        }
    }
    for bits in 0..16 {
        let pick = |bit: u32| (bits & bit != 0).then_some(x);
        latent::lift(g, shape, [pick(1), pick(2), pick(8)], pick(4), step).unwrap();
    }
    for bits in 0..8 {
        let pick = |bit: u32| (bits & bit != 0).then_some(x);
        let axis = if bits & 4 == 0 { Axis::Height } else { Axis::Width };
        let base = (bits & 2 != 0).then(|| match axis {
            Axis::Height => input(g, Shape { height: 16, ..shape }, F32),
            Axis::Width => input(g, Shape { width: 16, ..shape }, F32),
        });
        let extras = ResampleExtras { minus: pick(1), base };
        latent::resample(g, x, axis, table, (16, 4), extras).unwrap();
    }
    let roots = input(g, fft::roots_shape(8), F32);
    let mask = input(g, Shape::matrix(1, 64), F32);
    for bits in 0..8 {
        let pick = |bit: u32, t: Tensor| (bits & bit != 0).then_some(t);
        let extras = FftExtras { minus: pick(1, x), mask: pick(2, mask), base: pick(4, x) };
        fft::record(g, x, Axis::Width, Direction::Forward, roots, 4, extras).unwrap();
    }
}

//! Cases of what diffusion transformers and T5 need beyond the U-Net: text beside pictures, rotary embeddings,
//! modulation, bias by distance.

use scalediff::bench::call::Call::{self, *};
use scalediff::bench::call::Tail;
use scalediff::kernels::attention::{AttentionScope, PatchGeometry};
use scalediff::kernels::matmul::Activation;
use scalediff::reference::joint::Queries;

use super::latents::POINT;
use super::{ACTIVATED, Case, NORM, SOFTMAX, SUM, case, filled, linear};

const fn gated(activation: Activation) -> Tail {
    Tail { activation, ..Tail::GATE }
}

/// Text beside a grid in patches.
const fn patched(
    p: PatchGeometry,
    (items, text): (u32, u32),
    (heads, dim, x_pair): (u32, u32, u32),
    queries: Queries,
    column: u32,
) -> Call {
    let (pixels, scope) = ([p.height, p.width], AttentionScope::Patches(p));
    Joint { items, text, pixels, heads, dim, x_pair, scope, queries, column }
}

/// 19 text keys.
const fn joint(
    grid: (u32, u32),
    window: (u32, u32),
    jitter: (u32, u32),
    heads: (u32, u32, u32),
    queries: Queries,
) -> Call {
    patched(PatchGeometry::new(grid, window, jitter), (2, 19), heads, queries, 0)
}

const fn whole(pixels: [u32; 2], text: u32, heads: u32, dim: u32, queries: Queries) -> Call {
    let scope = AttentionScope::Full;
    Joint { items: 2, text, pixels, heads, dim, x_pair: dim / 4, scope, queries, column: 0 }
}

/// Patches that see no further than their own block.
const fn isolated(queries: Queries) -> Call {
    let p = PatchGeometry::new((11, 9), (4, 3), (0, 0));
    patched(PatchGeometry { isolated: true, ..p }, (2, 7), (2, 16, 5), queries, 0)
}

/// As many text queries as make a chunk, so that one window at a time is bound.
const fn in_parts(heads: u32, dim: u32, x_pair: u32) -> Call {
    let p = PatchGeometry::new((16, 16), (8, 8), (1, 0));
    patched(p, (1, 64), (heads, dim, x_pair), SHIFTED, 0)
}

/// Heads that start at a column of their own.
const fn beside(column: u32, dim: u32, queries: Queries) -> Call {
    let p = PatchGeometry::new((9, 8), (4, 4), (1, 0));
    patched(p, (2, 7), (2, dim, 3), queries, column)
}

const fn mean(
    windows: u32,
    part: [u32; 2],
    before: bool,
    items: u32,
    text: u32,
    channels: u32,
) -> Call {
    WindowMean { windows, part, before, items, text, channels }
}

const PICTURE: Queries = Queries::Picture;
const WINDOWS: Queries = Queries::Windows { shifted: false };
const SHIFTED: Queries = Queries::Windows { shifted: true };

pub const TOKENS: &[Case] = &[
    // Epilogues.
    case("gate", SUM, linear(65, 48, 66, Tail::GATE)),
    case("gate_three_channels", SUM, linear(65, 3, 3, Tail { bias: false, ..Tail::GATE })),
    case("gate_many_rows", SUM, linear(1500, 48, 96, Tail::GATE)),
    case("gate_without_residual", SUM, linear(64, 48, 48, Tail { residual: false, ..Tail::GATE })),
    case("gate_gelu_tanh", ACTIVATED, linear(65, 48, 48, gated(Activation::GeluTanh))),
    case("geglu_tanh", ACTIVATED, linear(65, 48, 64, Tail::act(Activation::GegluTanh))),
    case("geglu_tanh_odd", ACTIVATED, linear(65, 6, 10, Tail::act(Activation::GegluTanh))),
    // Norms.
    case("rms_of_3", NORM, RmsNorm { rows: 7, channels: 3, eps: 1e-6 }),
    case("rms_of_48", NORM, RmsNorm { rows: 65, channels: 48, eps: 1e-6 }),
    case("rms_of_1283", NORM, RmsNorm { rows: 33, channels: 1283, eps: 1e-6 }),
    filled("rms_keeps_the_mean", NORM, (3.0, 1.0), RmsNorm { rows: 65, channels: 64, eps: 1e-6 }),
    filled("rms_epsilon", NORM, (0.0, 0.1), RmsNorm { rows: 65, channels: 10, eps: 1e-2 }),
    case("modulated_48", NORM, ModulatedNorm { items: 3, rows: 21, channels: 48, eps: 1e-6 }),
    case("modulated_10", NORM, ModulatedNorm { items: 2, rows: 33, channels: 10, eps: 1e-6 }),
    case("modulated_1280", NORM, ModulatedNorm { items: 1, rows: 300, channels: 1280, eps: 1e-6 }),
    // Rotary embeddings.
    case(
        "rotary_16",
        NORM,
        Rotary { x: [2, 5, 7, 48], heads: 3, dim: 16, column: 0, x_pair: Some(5) },
    ),
    case(
        "rotary_of_k",
        NORM,
        Rotary { x: [1, 9, 4, 96], heads: 2, dim: 24, column: 48, x_pair: Some(7) },
    ),
    case(
        "rotary_128",
        NORM,
        Rotary { x: [1, 20, 20, 256], heads: 2, dim: 128, column: 0, x_pair: Some(36) },
    ),
    case(
        "rotary_of_text",
        NORM,
        Rotary { x: [2, 1, 19, 96], heads: 3, dim: 32, column: 0, x_pair: None },
    ),
    case(
        "rotary_4",
        NORM,
        Rotary { x: [1, 40, 33, 4], heads: 1, dim: 4, column: 0, x_pair: Some(1) },
    ),
    // Latents as tokens.
    case("pack_16", POINT, Patchify { x: [2, 6, 10, 16], pack: true }),
    case("pack_odd_channels", POINT, Patchify { x: [1, 4, 6, 3], pack: true }),
    case("pack_large", POINT, Patchify { x: [1, 64, 96, 16], pack: true }),
    case("unpack_16", POINT, Patchify { x: [2, 3, 5, 64], pack: false }),
    case("unpack_odd_channels", POINT, Patchify { x: [1, 2, 3, 12], pack: false }),
    case("unpack_large", POINT, Patchify { x: [1, 32, 48, 64], pack: false }),
    // Bias by distance.
    case("bias_8", SOFTMAX, Biased { items: 2, lq: 33, lk: 33, heads: 6, dim: 8 }),
    case("bias_64", SOFTMAX, Biased { items: 1, lq: 70, lk: 70, heads: 2, dim: 64 }),
    case("bias_6", SOFTMAX, Biased { items: 2, lq: 20, lk: 20, heads: 2, dim: 6 }),
    case("bias_160", SOFTMAX, Biased { items: 1, lq: 20, lk: 37, heads: 1, dim: 160 }),
    case("bias_segments", SOFTMAX, Biased { items: 1, lq: 300, lk: 300, heads: 2, dim: 64 }),
    // Text and picture, all of it.
    case("joint_picture", SOFTMAX, whole([8, 9], 19, 3, 16, PICTURE)),
    case("joint_text", SOFTMAX, whole([8, 9], 19, 3, 16, Queries::Text)),
    case("joint_128", SOFTMAX, whole([8, 8], 33, 1, 128, PICTURE)),
    case("joint_6", SOFTMAX, whole([4, 5], 7, 2, 6, PICTURE)),
    case("joint_segments", SOFTMAX, whole([20, 20], 19, 1, 64, PICTURE)),
    case("joint_text_segments", SOFTMAX, whole([20, 20], 19, 1, 64, Queries::Text)),
    // In patches.
    case("joint_patches", SOFTMAX, joint((16, 24), (8, 8), (0, 0), (3, 16, 5), PICTURE)),
    case("joint_patches_shifted", SOFTMAX, joint((16, 24), (8, 8), (3, 1), (3, 16, 5), PICTURE)),
    case("joint_patches_odd", SOFTMAX, joint((11, 9), (4, 6), (1, 2), (2, 24, 7), PICTURE)),
    case("joint_patches_small", SOFTMAX, joint((5, 6), (8, 8), (2, 0), (2, 32, 10), PICTURE)),
    case("joint_patches_6", SOFTMAX, joint((7, 9), (4, 4), (1, 2), (2, 6, 2), PICTURE)),
    case("joint_patches_128", SOFTMAX, joint((12, 12), (8, 8), (4, 4), (1, 128, 36), PICTURE)),
    case("joint_patches_160", SOFTMAX, joint((6, 6), (4, 4), (0, 1), (1, 160, 40), PICTURE)),
    // The text's own queries, once to a window.
    case("windows", SOFTMAX, joint((16, 24), (8, 8), (0, 0), (3, 16, 5), WINDOWS)),
    case("windows_shifted", SOFTMAX, joint((16, 24), (8, 8), (3, 1), (3, 16, 5), SHIFTED)),
    case("windows_unmoved", SOFTMAX, joint((16, 16), (8, 8), (0, 4), (2, 32, 10), SHIFTED)),
    case("windows_odd", SOFTMAX, joint((11, 9), (4, 6), (1, 2), (2, 24, 7), SHIFTED)),
    case("windows_small", SOFTMAX, joint((5, 6), (8, 8), (0, 0), (2, 32, 10), WINDOWS)),
    case("windows_6", SOFTMAX, joint((7, 9), (4, 4), (1, 2), (2, 6, 2), SHIFTED)),
    case("windows_128", SOFTMAX, joint((12, 12), (8, 8), (4, 4), (1, 128, 36), SHIFTED)),
    case("windows_160", SOFTMAX, joint((6, 6), (4, 4), (0, 1), (1, 160, 40), WINDOWS)),
    // Lines of a window beyond a low binding limit come in parts.
    case("joint_patches_parts", SOFTMAX, joint((16, 16), (8, 8), (0, 0), (3, 64, 18), PICTURE)),
    case("joint_patches_odd_parts", SOFTMAX, joint((13, 16), (6, 7), (1, 2), (3, 64, 18), PICTURE)),
    case("windows_parts", SOFTMAX, in_parts(3, 64, 18)),
    case("windows_parts_240", SOFTMAX, in_parts(1, 240, 72)),
    case("joint_patches_isolated", SOFTMAX, isolated(PICTURE)),
    case("windows_isolated", SOFTMAX, isolated(WINDOWS)),
    case("joint_columns", SOFTMAX, beside(3, 24, PICTURE)),
    case("windows_columns", SOFTMAX, beside(4, 16, SHIFTED)),
    case("mean_of_9", SUM, mean(9, [0, 9], false, 2, 19, 48)),
    case("mean_of_1", SUM, mean(1, [0, 1], false, 1, 5, 10)),
    case("mean_of_the_last", SUM, mean(21, [13, 21], true, 1, 77, 48)),
    case("mean_of_the_middle", SUM, mean(9, [2, 5], true, 2, 19, 10)),
];

//! The cases, as data: at most about 50 MFLOP each, odd extents first, every operand and flag. Here those of the
//! networks; those of latents have a file of their own.

mod latents;
mod tokens;

use scalediff::kernels::attention::{AttentionScope, PatchGeometry};
use scalediff::kernels::matmul::Activation;

use scalediff::bench::call::Call::{self, *};
use scalediff::bench::call::{Tail, Taps};

/// All cases.
pub fn all() -> impl Iterator<Item = &'static Case> {
    NETWORKS.iter().chain(latents::LATENTS).chain(tokens::TOKENS)
}

/// A call with the statistics of its activations and the error that may remain.
pub struct Case {
    pub name: &'static str,
    pub call: Call,
    /// Mean and standard deviation of activations.
    pub fill: (f64, f64),
    /// Most error of an f32 result, relative to |wanted| + the root mean square of all wanted.
    pub tolerance: f64,
}

pub const fn case(name: &'static str, tolerance: f64, call: Call) -> Case {
    filled(name, tolerance, (0.0, 1.0), call)
}

pub const fn filled(name: &'static str, tolerance: f64, fill: (f64, f64), call: Call) -> Case {
    Case { name, call, fill, tolerance }
}

/// f32 sums of k products of random sign: about eps · sqrt(k) ≤ 6e-8 · 54, with room for unlucky tails
/// and another order of the sums.
pub const SUM: f64 = 1e-5;
/// exp, tanh and division of drivers have a few ulp each, and gelu cancels near zero.
pub const ACTIVATED: f64 = 2e-5;
/// exp may have 2 ulp + 2·|x| ulp (WGSL): |x| is up to 10 here.
const EXP: f64 = 6e-6;
/// Statistics in f32 over a few thousand values; rsqrt has 2 ulp.
pub const NORM: f64 = 6e-6;
/// Sums of some tens of values near 500 in f32 round by |mean| · eps · 32 = 1e-3 of the deviation, 1, at
/// worst. A difference of squares would be off by 500² · eps = 1.5e-2 at best.
const SHIFTED: f64 = 1e-3;
/// Softmax: exp2 of a difference of two scores, then a sum of products.
pub const SOFTMAX: f64 = 2e-5;

const fn full(lq: u32, lk: u32, heads: u32, dim: u32) -> Call {
    scoped(lq, lk, heads, dim, AttentionScope::Full)
}

const fn scoped(lq: u32, lk: u32, heads: u32, dim: u32, scope: AttentionScope) -> Call {
    Attention { items: 2, lq, lk, heads, dim, scope, column: 0 }
}

const fn patches(
    grid: (u32, u32),
    window: (u32, u32),
    jitter: (u32, u32),
    heads: u32,
    dim: u32,
) -> Call {
    patches_of(grid, window, jitter, heads, dim, false)
}

const fn isolated(grid: (u32, u32), window: (u32, u32), heads: u32, dim: u32) -> Call {
    patches_of(grid, window, (1, 2), heads, dim, true)
}

const fn patches_of(
    grid: (u32, u32),
    window: (u32, u32),
    jitter: (u32, u32),
    heads: u32,
    dim: u32,
    isolated: bool,
) -> Call {
    let scope = AttentionScope::Patches(PatchGeometry {
        isolated,
        ..PatchGeometry::new(grid, window, jitter)
    });
    scoped(grid.0 * grid.1, grid.0 * grid.1, heads, dim, scope)
}

pub const fn linear(rows: u32, k: u32, n: u32, tail: Tail) -> Call {
    Matmul { items: 2, rows, k, n, tail }
}

const fn conv(x: [u32; 4], c2: u32, n: u32, taps: Taps, tail: Tail) -> Call {
    Conv2d { x, c2, n, taps, tail }
}

const NETWORKS: &[Case] = &[
    // Linear layers: tails of rows, columns and depth; every epilogue.
    case("one_by_one", SUM, linear(1, 1, 1, Tail::NONE)),
    case("odd_everything", SUM, linear(7, 6, 10, Tail::NONE)),
    case("three_channels", SUM, linear(65, 3, 3, Tail::BIAS)),
    case("single_row", SUM, Matmul { items: 1, rows: 1, k: 320, n: 1280, tail: Tail::BIAS }),
    case("row_beyond_a_tile", SUM, linear(65, 48, 66, Tail::ALL)),
    case("whole_tiles", SUM, linear(128, 64, 128, Tail::RESIDUAL)),
    case("deep", SUM, linear(33, 1280, 64, Tail::NONE)),
    case("many_rows", SUM, linear(1500, 48, 96, Tail::ALL)),
    case("many_columns", SUM, linear(40, 64, 1100, Tail::ALL)),
    case("many_tiles", SUM, linear(4100, 16, 130, Tail::BIAS)),
    case("no_bias_but_residual", SUM, linear(65, 10, 48, Tail { bias: false, ..Tail::RESIDUAL })),
    case("vector_alone", SUM, linear(65, 10, 48, Tail { row_vector: true, ..Tail::NONE })),
    case("silu", ACTIVATED, linear(65, 48, 48, Tail::act(Activation::Silu))),
    case("gelu_erf", ACTIVATED, linear(65, 48, 48, Tail::act(Activation::GeluErf))),
    case("gelu_tanh", ACTIVATED, linear(65, 48, 48, Tail::act(Activation::GeluTanh))),
    case("quick_gelu", ACTIVATED, linear(65, 48, 48, Tail::act(Activation::QuickGelu))),
    case("geglu", ACTIVATED, linear(65, 48, 64, Tail::act(Activation::Geglu))),
    case("geglu_odd", ACTIVATED, linear(65, 6, 10, Tail::act(Activation::Geglu))),
    case(
        "geglu_residual",
        ACTIVATED,
        linear(70, 48, 132, Tail { residual: true, ..Tail::act(Activation::Geglu) }),
    ),
    case(
        "silu_with_all",
        ACTIVATED,
        linear(65, 48, 10, Tail { activation: Activation::Silu, ..Tail::ALL }),
    ),
    filled(
        "gelu_far_tails",
        ACTIVATED,
        (0.0, 4.0),
        linear(65, 48, 48, Tail::act(Activation::GeluErf)),
    ),
    // Convolutions: sizes, strides, both paddings, doubling to odd sides, joins on and off vec4s.
    case("folded", SUM, conv([2, 2, 64, 10], 0, 16, Taps::Doubled(4, 128), Tail::ALL)),
    case("same_3", SUM, conv([2, 9, 7, 10], 0, 6, Taps::Same(3), Tail::BIAS)),
    case("same_1", SUM, conv([2, 9, 7, 48], 0, 10, Taps::Same(1), Tail::BIAS)),
    case("one_pixel", SUM, conv([1, 1, 1, 3], 0, 1, Taps::Same(3), Tail::NONE)),
    case("one_row", SUM, conv([1, 1, 33, 6], 0, 10, Taps::Same(3), Tail::BIAS)),
    case("rgb_in", SUM, conv([1, 17, 19, 3], 0, 48, Taps::Same(3), Tail::BIAS)),
    case("rgb_out", SUM, conv([1, 17, 19, 48], 0, 3, Taps::Same(3), Tail::BIAS)),
    case("wide", SUM, conv([2, 24, 24, 48], 0, 96, Taps::Same(3), Tail::ALL)),
    case("many_tiles", SUM, conv([2, 64, 65, 16], 0, 130, Taps::Same(1), Tail::BIAS)),
    case("tall_picture", SUM, conv([1, 80, 40, 10], 0, 16, Taps::Same(3), Tail::ALL)),
    case("tall_joined", SUM, conv([2, 40, 40, 6], 10, 16, Taps::Same(3), Tail::ALL)),
    case("tall_halved", SUM, conv([2, 81, 41, 10], 0, 16, Taps::Halved(1), Tail::BIAS)),
    case("tall_doubled", SUM, conv([2, 40, 20, 10], 0, 16, Taps::Doubled(79, 40), Tail::RESIDUAL)),
    case("tall_folded", SUM, conv([2, 40, 32, 10], 0, 16, Taps::Doubled(80, 64), Tail::RESIDUAL)),
    case("not_folded", SUM, conv([2, 3, 32, 16], 0, 18, Taps::Doubled(5, 64), Tail::BIAS)),
    case("halved_pad_1_even", SUM, conv([2, 10, 12, 6], 0, 10, Taps::Halved(1), Tail::BIAS)),
    case("halved_pad_1_odd", SUM, conv([2, 11, 13, 6], 0, 10, Taps::Halved(1), Tail::BIAS)),
    case("halved_pad_0_even", SUM, conv([2, 10, 12, 48], 0, 10, Taps::Halved(0), Tail::BIAS)),
    case("halved_pad_0_odd", SUM, conv([2, 11, 13, 6], 0, 10, Taps::Halved(0), Tail::BIAS)),
    case("doubled_even", SUM, conv([2, 6, 5, 10], 0, 6, Taps::Doubled(12, 10), Tail::BIAS)),
    case("doubled_odd", SUM, conv([2, 6, 5, 10], 0, 6, Taps::Doubled(11, 9), Tail::BIAS)),
    case("doubled_wide", SUM, conv([1, 12, 12, 48], 0, 64, Taps::Doubled(24, 23), Tail::RESIDUAL)),
    case("joined_aligned", SUM, conv([2, 9, 7, 48], 16, 10, Taps::Same(3), Tail::BIAS)),
    case("joined_unaligned", SUM, conv([2, 9, 7, 6], 10, 10, Taps::Same(3), Tail::BIAS)),
    case("joined_1_3", SUM, conv([2, 9, 7, 1], 3, 48, Taps::Same(3), Tail::ALL)),
    case("joined_1x1", SUM, conv([2, 9, 7, 10], 48, 66, Taps::Same(1), Tail::RESIDUAL)),
    case(
        "silu_residual",
        ACTIVATED,
        conv(
            [2, 9, 7, 10],
            0,
            48,
            Taps::Same(3),
            Tail { activation: Activation::Silu, ..Tail::ALL },
        ),
    ),
    // Attention: head sizes of every engine, tails of queries and keys, masks, windows.
    case("one_key", SOFTMAX, full(1, 1, 1, 4)),
    case("dim_4", SOFTMAX, full(65, 67, 3, 4)),
    case("dim_6", SOFTMAX, full(33, 65, 3, 6)),
    case("dim_40", SOFTMAX, full(65, 77, 3, 40)),
    case("dim_64", SOFTMAX, full(130, 77, 2, 64)),
    case("dim_80", SOFTMAX, full(20, 200, 2, 80)),
    case("dim_160", SOFTMAX, full(20, 70, 2, 160)),
    case("dim_512", SOFTMAX, full(65, 70, 1, 512)),
    case("one_query", SOFTMAX, full(1, 1000, 2, 64)),
    case("many_keys", SOFTMAX, full(70, 1500, 2, 40)),
    case("many_queries", SOFTMAX, full(1500, 70, 2, 16)),
    case("segments_across_items", SOFTMAX, full(33, 1333, 2, 16)),
    case("segments_causal", SOFTMAX, scoped(301, 301, 1, 64, AttentionScope::Causal)),
    case(
        "columns_aligned",
        SOFTMAX,
        Attention {
            items: 2,
            lq: 33,
            lk: 65,
            heads: 3,
            dim: 40,
            scope: AttentionScope::Full,
            column: 8,
        },
    ),
    case(
        "columns_unaligned",
        SOFTMAX,
        Attention {
            items: 2,
            lq: 33,
            lk: 65,
            heads: 3,
            dim: 40,
            scope: AttentionScope::Full,
            column: 6,
        },
    ),
    case(
        "columns_odd",
        SOFTMAX,
        Attention {
            items: 2,
            lq: 33,
            lk: 65,
            heads: 3,
            dim: 6,
            scope: AttentionScope::Full,
            column: 3,
        },
    ),
    case("causal_77", SOFTMAX, scoped(77, 77, 2, 64, AttentionScope::Causal)),
    case("causal_odd", SOFTMAX, scoped(65, 65, 2, 6, AttentionScope::Causal)),
    // Scores of ±60: a softmax without its maximum taken off overflows.
    filled("large_scores", 6e-5, (0.0, 3.0), full(33, 65, 2, 40)),
    filled("causal_large_scores", 6e-5, (0.0, 3.0), scoped(40, 40, 2, 64, AttentionScope::Causal)),
    case("patches", SOFTMAX, patches((16, 24), (8, 8), (0, 0), 2, 40)),
    case("patches_jitter", SOFTMAX, patches((16, 24), (8, 8), (1, 3), 2, 40)),
    case("patches_parts", SOFTMAX, patches((16, 16), (8, 8), (0, 0), 3, 64)),
    case("patches_most_jitter", SOFTMAX, patches((16, 24), (8, 8), (4, 4), 2, 64)),
    case("patches_odd_grid", SOFTMAX, patches((19, 23), (9, 8), (2, 1), 1, 64)),
    case("patches_tall", SOFTMAX, patches((40, 9), (10, 9), (3, 0), 2, 4)),
    case("patches_dim_6", SOFTMAX, patches((11, 13), (5, 6), (0, 2), 3, 6)),
    case("patches_dim_160", SOFTMAX, patches((12, 12), (6, 6), (1, 2), 1, 160)),
    case("patches_of_the_whole_grid", SOFTMAX, patches((9, 9), (9, 9), (0, 0), 2, 40)),
    case("patches_window_beyond_the_grid", SOFTMAX, patches((5, 12), (8, 8), (1, 0), 2, 40)),
    case("patches_window_1", SOFTMAX, patches((6, 7), (1, 1), (0, 0), 1, 40)),
    case("patches_isolated", SOFTMAX, isolated((16, 24), (4, 4), 2, 40)),
    case("patches_isolated_odd", SOFTMAX, isolated((19, 23), (5, 4), 1, 64)),
    case("patches_isolated_dim_6", SOFTMAX, isolated((11, 13), (5, 6), 3, 6)),
    case("patches_large", SOFTMAX, patches((48, 32), (16, 16), (5, 3), 1, 40)),
    // Group norms: groups that are no vec4s, joins, many chunks, statistics that cancel, epsilons.
    case(
        "one_channel",
        NORM,
        GroupNorm { x: [2, 5, 7, 1], c2: 0, groups: 1, eps: 1e-5, silu: false },
    ),
    case(
        "groups_of_3",
        NORM,
        GroupNorm { x: [2, 9, 7, 6], c2: 0, groups: 2, eps: 1e-5, silu: false },
    ),
    case(
        "groups_of_5",
        NORM,
        GroupNorm { x: [2, 9, 7, 10], c2: 0, groups: 2, eps: 1e-5, silu: true },
    ),
    case(
        "groups_of_1",
        NORM,
        GroupNorm { x: [2, 9, 7, 48], c2: 0, groups: 48, eps: 1e-5, silu: false },
    ),
    case(
        "one_group",
        NORM,
        GroupNorm { x: [2, 9, 7, 48], c2: 0, groups: 1, eps: 1e-5, silu: false },
    ),
    case(
        "many_chunks",
        NORM,
        GroupNorm { x: [2, 67, 65, 48], c2: 0, groups: 8, eps: 1e-5, silu: true },
    ),
    case(
        "many_chunks_of_3",
        NORM,
        GroupNorm { x: [2, 67, 65, 3], c2: 0, groups: 3, eps: 1e-5, silu: true },
    ),
    case(
        "many_chunks_joined",
        NORM,
        GroupNorm { x: [2, 67, 65, 1], c2: 3, groups: 2, eps: 1e-5, silu: false },
    ),
    case(
        "joined_aligned",
        NORM,
        GroupNorm { x: [2, 9, 7, 48], c2: 16, groups: 8, eps: 1e-5, silu: true },
    ),
    case(
        "joined_unaligned",
        NORM,
        GroupNorm { x: [2, 19, 17, 6], c2: 10, groups: 4, eps: 1e-5, silu: true },
    ),
    case(
        "joined_1_3",
        NORM,
        GroupNorm { x: [2, 9, 7, 1], c2: 3, groups: 2, eps: 1e-5, silu: false },
    ),
    filled(
        "mean_far_above_deviation",
        SHIFTED,
        (500.0, 1.0),
        GroupNorm { x: [2, 41, 17, 48], c2: 0, groups: 8, eps: 1e-5, silu: false },
    ),
    // A variance near epsilon: one that is wrong, or added after the root, is seen.
    filled(
        "variance_of_epsilon",
        NORM,
        (0.0, 3e-3),
        GroupNorm { x: [2, 9, 7, 48], c2: 0, groups: 8, eps: 1e-5, silu: false },
    ),
    filled(
        "large_epsilon",
        NORM,
        (0.0, 0.1),
        GroupNorm { x: [2, 9, 7, 10], c2: 0, groups: 5, eps: 1e-2, silu: false },
    ),
    // Layer norms.
    case("one_row_of_1", NORM, LayerNorm { rows: 1, channels: 1, eps: 1e-5 }),
    case("channels_3", NORM, LayerNorm { rows: 7, channels: 3, eps: 1e-5 }),
    case("channels_6", NORM, LayerNorm { rows: 65, channels: 6, eps: 1e-5 }),
    case("channels_10", NORM, LayerNorm { rows: 65, channels: 10, eps: 1e-5 }),
    case("channels_48", NORM, LayerNorm { rows: 65, channels: 48, eps: 1e-5 }),
    case("channels_1283", NORM, LayerNorm { rows: 33, channels: 1283, eps: 1e-5 }),
    case("many_rows", NORM, LayerNorm { rows: 5000, channels: 48, eps: 1e-5 }),
    filled(
        "mean_far_above_deviation",
        SHIFTED,
        (500.0, 1.0),
        LayerNorm { rows: 65, channels: 320, eps: 1e-5 },
    ),
    filled(
        "variance_of_epsilon",
        NORM,
        (0.0, 3e-3),
        LayerNorm { rows: 65, channels: 48, eps: 1e-5 },
    ),
    filled("large_epsilon", NORM, (0.0, 0.1), LayerNorm { rows: 65, channels: 10, eps: 1e-2 }),
    // Elementwise.
    case("channels_1", EXP, Silu { rows: 1, channels: 1 }),
    case("channels_6", EXP, Silu { rows: 65, channels: 6 }),
    case("many_rows", EXP, Silu { rows: 5000, channels: 48 }),
    filled("far_tails", EXP, (0.0, 6.0), Silu { rows: 65, channels: 48 }),
];

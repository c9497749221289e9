//! What is timed, as data.

use super::call::Call::{self, *};
use super::call::{Tail, Taps};
use crate::kernels::attention::{AttentionScope, PatchGeometry};
use crate::kernels::matmul::Activation;
use crate::reference::joint::Queries;
use crate::scalediff::Mask;

/// A call that is timed. Its [`id`](Case::id) is unique.
#[derive(Debug, Clone, Copy)]
pub struct Case {
    pub name: &'static str,
    pub call: Call,
}

impl Case {
    /// `kernel/name`.
    pub fn id(&self) -> String {
        format!("{}/{}", self.call.kernel(), self.name)
    }
}

const fn case(name: &'static str, call: Call) -> Case {
    Case { name, call }
}

const fn linear(rows: u32, k: u32, n: u32, tail: Tail) -> Call {
    Matmul { items: 2, rows, k, n, tail }
}

const fn conv(items: u32, side: u32, c: u32, c2: u32, n: u32, taps: Taps) -> Call {
    Conv2d { x: [items, side, side, c], c2, n, taps, tail: Tail::BIAS }
}

const fn attend(items: u32, lq: u32, lk: u32, heads: u32, dim: u32, scope: AttentionScope) -> Call {
    Attention { items, lq, lk, heads, dim, scope, column: 0 }
}

const fn full(items: u32, lq: u32, lk: u32, heads: u32, dim: u32) -> Call {
    attend(items, lq, lk, heads, dim, AttentionScope::Full)
}

/// Neighborhood patches on a square grid, without jitter.
const fn square(side: u32, window: u32) -> PatchGeometry {
    PatchGeometry::new((side, side), (window, window), (0, 0))
}

const fn patches(items: u32, side: u32, window: u32, heads: u32, dim: u32) -> Call {
    let scope = AttentionScope::Patches(square(side, window));
    attend(items, side * side, side * side, heads, dim, scope)
}

const fn group_norm(items: u32, side: u32, c: u32, c2: u32, groups: u32) -> Call {
    GroupNorm { x: [items, side, side, c], c2, groups, eps: 1e-5, silu: true }
}

/// The low-pass of one step of structure guidance.
const fn masked(side: u32) -> Call {
    let (mask, cutoff) = (Mask::Butterworth, 0.0625);
    Masked { x: [1, side, side, 4], mask, cutoff, minus: false, base: true }
}

/// Text beside a square picture: over all of it, or where `window` is less than `side` in patches.
const fn joint(
    side: u32,
    window: u32,
    text: u32,
    (heads, dim): (u32, u32),
    queries: Queries,
) -> Call {
    let scope = if window < side {
        AttentionScope::Patches(square(side, window))
    } else {
        AttentionScope::Full
    };
    let (pixels, x_pair) = ([side, side], 9 * dim / 32);
    Joint { items: 1, text, pixels, heads, dim, x_pair, scope, queries, column: 0 }
}

const fn rotary(side: u32, heads: u32, dim: u32) -> Call {
    let x = [1, side, side, 2 * heads * dim];
    Rotary { x, heads, dim, column: heads * dim, x_pair: Some(9 * dim / 32) }
}

const PICTURE: Queries = Queries::Picture;
const WINDOWS: Queries = Queries::Windows { shifted: false };

/// `joint`: attention of a transformer's block at four times its base size, windows of 16 × 16 tokens and 64 of text: in
/// patches (`npa`), over the whole picture (`full`), and in the form of the official code, which copies text queries and
/// keys to every window (`replicated`, here without the copies).
/// `flux`: layers of FLUX.1 at pictures of that side. `tiny`: the small model from 128 to 512 pixels (latents 16² to 64², both branches of guidance; VAE of 16, 32
/// and 48 channels). `sdxl`: layers of SDXL, some with fewer rows so that a software device has them too.
/// `sdxl_1024`, `_2048`, `_4096`: its layers at pictures of that side, whole.
pub const CASES: &[Case] = &[
    case("joint_npa_picture", joint(64, 16, 64, (4, 64), PICTURE)),
    case("joint_npa_text", joint(64, 16, 64, (4, 64), WINDOWS)),
    case(
        "joint_npa_mean",
        WindowMean { windows: 64, part: [0, 64], before: false, items: 1, text: 64, channels: 256 },
    ),
    case("joint_full_picture", joint(64, 64, 64, (4, 64), PICTURE)),
    case("joint_full_text", joint(64, 64, 64, (4, 64), Queries::Text)),
    case("joint_replicated", full(64, 64 + 64, 64 + 256, 4, 64)),
    case("tiny_flux_npa_32x32", joint(32, 8, 32, (3, 32), PICTURE)),
    case("tiny_flux_npa_text_32x32", joint(32, 8, 32, (3, 32), WINDOWS)),
    case("tiny_flux_full_32x32", joint(32, 32, 32, (3, 32), PICTURE)),
    case("tiny_flux_rotary_32x32", rotary(32, 3, 32)),
    case("flux_1024_attention", joint(64, 64, 512, (24, 128), PICTURE)),
    case("flux_2048_npa", joint(128, 64, 512, (24, 128), PICTURE)),
    case("flux_2048_npa_text", joint(128, 64, 512, (24, 128), WINDOWS)),
    case("flux_4096_npa", joint(256, 64, 512, (24, 128), PICTURE)),
    case("flux_4096_npa_text", joint(256, 64, 512, (24, 128), WINDOWS)),
    case("flux_1024_rotary", rotary(64, 24, 128)),
    case("flux_1024_qk", Matmul { items: 1, rows: 4096, k: 3072, n: 6144, tail: Tail::BIAS }),
    case(
        "flux_1024_up",
        Matmul { items: 1, rows: 4096, k: 3072, n: 12288, tail: Tail::act(Activation::GeluTanh) },
    ),
    case("flux_1024_down", Matmul { items: 1, rows: 4096, k: 12288, n: 3072, tail: Tail::GATE }),
    case("flux_1024_norm", ModulatedNorm { items: 1, rows: 4096, channels: 3072, eps: 1e-6 }),
    case("tiny_qkv_32x32", linear(1024, 64, 192, Tail::BIAS)),
    case("tiny_out_32x32", linear(1024, 64, 64, Tail::RESIDUAL)),
    case("tiny_geglu_32x32", linear(1024, 64, 256, Tail::act(Activation::Geglu))),
    case("tiny_ff_down_32x32", linear(1024, 256, 64, Tail::RESIDUAL)),
    case("tiny_time_embedding", linear(1, 128, 128, Tail::act(Activation::Silu))),
    case("sdxl_out_1024", linear(512, 640, 640, Tail::RESIDUAL)),
    case("sdxl_geglu_256", linear(128, 1280, 5120, Tail::act(Activation::Geglu))),
    case("square_8192", Matmul { items: 1, rows: 8192, k: 8192, n: 8192, tail: Tail::NONE }),
    case("sdxl_text_77", linear(77, 2048, 640, Tail::NONE)),
    case("tiny_in_64x64", conv(2, 64, 4, 0, 32, Taps::Same(3))),
    case("tiny_res_64x64", conv(2, 64, 32, 0, 32, Taps::Same(3))),
    case("tiny_res_joined_64x64", conv(2, 64, 64, 32, 32, Taps::Same(3))),
    case("tiny_res_32x32", conv(2, 32, 64, 0, 64, Taps::Same(3))),
    case("tiny_down_64x64", conv(2, 64, 32, 0, 32, Taps::Halved(1))),
    case("tiny_up_32x32", conv(2, 32, 64, 0, 64, Taps::Doubled(64, 64))),
    case("tiny_skip_64x64", conv(2, 64, 64, 32, 32, Taps::Same(1))),
    case("tiny_vae_512_16", conv(1, 512, 16, 0, 16, Taps::Same(3))),
    case("tiny_vae_512_rgb", conv(1, 512, 16, 0, 3, Taps::Same(3))),
    case("tiny_vae_up_256_32", conv(1, 128, 32, 0, 32, Taps::Doubled(256, 256))),
    case("tiny_vae_64_48", conv(1, 64, 48, 0, 48, Taps::Same(3))),
    case("sdxl_res_320_48x48", conv(1, 48, 320, 0, 320, Taps::Same(3))),
    case("tiny_self_16x16", full(2, 256, 256, 4, 16)),
    case("tiny_npa_32x32", patches(2, 32, 8, 4, 16)),
    case("tiny_full_32x32", full(2, 1024, 1024, 4, 16)),
    case("tiny_cross_32x32", full(2, 1024, 77, 4, 16)),
    case("tiny_vae_mid_64x64", full(1, 1024, 4096, 1, 48)),
    case("sdxl_self_32x32", full(1, 1024, 1024, 4, 64)),
    case("sdxl_npa_64x64", patches(1, 64, 32, 2, 64)),
    case("flux_self_16x16", full(1, 256, 512, 2, 128)),
    case("sdxl_cross_4096", full(1, 4096, 77, 10, 64)),
    case("sdxl_vae_mid_512", full(1, 256, 1024, 1, 512)),
    case("tiny_16x16", group_norm(2, 16, 32, 0, 8)),
    case("tiny_joined_8x8", group_norm(2, 8, 64, 32, 8)),
    case("tiny_64x64", group_norm(2, 64, 32, 0, 8)),
    case("tiny_joined_64x64", group_norm(2, 64, 64, 32, 8)),
    case("tiny_vae_512", group_norm(1, 512, 16, 0, 2)),
    case("sdxl_128x128", group_norm(1, 128, 320, 0, 32)),
    case("tiny_32x32", LayerNorm { rows: 2048, channels: 64, eps: 1e-5 }),
    case("sdxl_4096", LayerNorm { rows: 4096, channels: 640, eps: 1e-5 }),
    case("tiny_64x64", Silu { rows: 8192, channels: 32 }),
    case("sdxl_4096", Silu { rows: 4096, channels: 1280 }),
    case("tiny_64x64", ModelInput { x: [1, 64, 64, 4], branches: 2 }),
    case("tiny_64x64", PredictX0 { x: [1, 64, 64, 4], guided: true, apart: false }),
    case("tiny_64x64", Lift { x: [1, 64, 64, 4], low: [8, 8], terms: [true, true, false, true] }),
    case(
        "sdxl_256x256",
        Lift { x: [1, 256, 256, 4], low: [32, 32], terms: [true, true, false, true] },
    ),
    case("tiny_doubling_64x64", Bicubic { x: [1, 32, 32, 4], out: [64, 64] }),
    case(
        "tiny_reduce_64x64",
        Reduce { x: [1, 64, 64, 4], factor: 0.125, minus: true, base: false },
    ),
    case(
        "sdxl_reduce_128x128",
        Reduce { x: [1, 128, 128, 4], factor: 0.125, minus: true, base: false },
    ),
    case(
        "sdxl_reduce_512x512",
        Reduce { x: [1, 512, 512, 4], factor: 0.125, minus: false, base: true },
    ),
    case("tiny_low_pass_64x64", masked(64)),
    case("sdxl_low_pass_128x128", masked(128)),
    case("sdxl_low_pass_512x512", masked(512)),
    case(
        "tiny_64x64",
        GatherWindows { x: [2, 64, 64, 4], window: [16, 16], apart: false, part: [0, 13] },
    ),
    case(
        "tiny_64x64",
        AverageWindows {
            x: [2, 64, 64, 4],
            window: [16, 16],
            apart: false,
            part: [0, 13],
            before: true,
        },
    ),
    // SDXL at 1024², its training size: latents 128², attention over 64² and 32² tokens.
    case("sdxl_1024_q_640", linear(4096, 640, 640, Tail::NONE)),
    case("sdxl_1024_geglu_640", linear(4096, 640, 2560, Tail::act(Activation::Geglu))),
    case("sdxl_1024_ff_down_640", linear(4096, 2560, 640, Tail::RESIDUAL)),
    case("sdxl_1024_q_1280", linear(1024, 1280, 1280, Tail::NONE)),
    case("sdxl_1024_geglu_1280", linear(1024, 1280, 5120, Tail::act(Activation::Geglu))),
    case("sdxl_1024_ff_down_1280", linear(1024, 5120, 1280, Tail::RESIDUAL)),
    case("sdxl_1024_res_320", conv(2, 128, 320, 0, 320, Taps::Same(3))),
    case("sdxl_1024_res_640", conv(2, 64, 640, 0, 640, Taps::Same(3))),
    case("sdxl_1024_res_1280", conv(2, 32, 1280, 0, 1280, Taps::Same(3))),
    case("sdxl_1024_res_joined_1280", conv(2, 32, 1280, 1280, 1280, Taps::Same(3))),
    case("sdxl_1024_down_320", conv(2, 128, 320, 0, 320, Taps::Halved(1))),
    case("sdxl_1024_up_640", conv(2, 64, 640, 0, 640, Taps::Doubled(128, 128))),
    case("sdxl_1024_vae_512", conv(1, 128, 512, 0, 512, Taps::Same(3))),
    case("sdxl_1024_vae_256", conv(1, 512, 256, 0, 256, Taps::Same(3))),
    case("sdxl_1024_vae_128", conv(1, 1024, 128, 0, 128, Taps::Same(3))),
    case("sdxl_1024_self_640", full(2, 4096, 4096, 10, 64)),
    case("sdxl_1024_self_1280", full(2, 1024, 1024, 20, 64)),
    case("sdxl_1024_cross_640", full(2, 4096, 77, 10, 64)),
    case("sdxl_1024_cross_1280", full(2, 1024, 77, 20, 64)),
    case("sdxl_1024_vae_mid", full(1, 16384, 16384, 1, 512)),
    case("sdxl_1024_norm_320", group_norm(2, 128, 320, 0, 32)),
    case("sdxl_1024_norm_joined_1280", group_norm(2, 32, 1280, 1280, 32)),
    case("sdxl_1024_vae_norm_128", group_norm(1, 1024, 128, 0, 32)),
    case("sdxl_1024_norm_640", LayerNorm { rows: 8192, channels: 640, eps: 1e-5 }),
    // At 2048²: latents 256², patches over 128² and 64² tokens with windows of the training size.
    case("sdxl_2048_geglu_640", linear(16384, 640, 2560, Tail::act(Activation::Geglu))),
    case("sdxl_2048_res_320", conv(2, 256, 320, 0, 320, Taps::Same(3))),
    case("sdxl_2048_npa_640", patches(2, 128, 64, 10, 64)),
    case("sdxl_2048_npa_1280", patches(2, 64, 32, 20, 64)),
    case("sdxl_2048_full_640", full(2, 16384, 16384, 10, 64)),
    case("sdxl_2048_norm_320", group_norm(2, 256, 320, 0, 32)),
    // At 4096²: latents 512², patches over 256² and 128² tokens.
    case("sdxl_4096_geglu_640", linear(65536, 640, 2560, Tail::act(Activation::Geglu))),
    case("sdxl_4096_res_320", conv(2, 512, 320, 0, 320, Taps::Same(3))),
    case("sdxl_4096_npa_640", patches(2, 256, 64, 10, 64)),
    case("sdxl_4096_npa_1280", patches(2, 128, 32, 20, 64)),
    case("sdxl_4096_full_640", full(2, 65536, 65536, 10, 64)),
    case("sdxl_4096_norm_320", group_norm(2, 512, 320, 0, 32)),
];

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn no_two_cases_share_an_id() {
        let ids: HashSet<String> = CASES.iter().map(Case::id).collect();
        assert_eq!(ids.len(), CASES.len());
    }
}

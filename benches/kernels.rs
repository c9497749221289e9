//! All kernels at the shapes of the small model that ships inside, and at bounded ones of SDXL:
//! `cargo bench -- [FILTER] [--json FILE]`. Every case is verified on sampled outputs first.

#[path = "../tests/common/mod.rs"]
#[allow(dead_code, reason = "tests and benches each use a part")]
mod common;
mod harness;

use common::call::{Built, Call, Call::*, Tail, Taps, Types};
use common::inputs::Maker;
use harness::args::Args;
use harness::peak::Peak;
use harness::report::{Report, Row};
use harness::timer::{WallClock, measure};
use scalediff::error::{Error, Result};
use scalediff::gpu::{Gpu, Slabs};
use scalediff::graph::{Graph, Plan};
use scalediff::kernels::attention::{AttentionScope, PatchGeometry};
use scalediff::kernels::matmul::Activation;
use scalediff::scalediff::Mask;
use scalediff::tensor::DType;

struct Case {
    name: &'static str,
    call: Call,
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
const fn patches(items: u32, side: u32, window: u32, heads: u32, dim: u32) -> Call {
    let scope = AttentionScope::Patches(PatchGeometry {
        height: side,
        width: side,
        window_h: window,
        window_w: window,
        jitter_h: 0,
        jitter_w: 0,
        isolated: false,
    });
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

/// `tiny`: the small model from 128 to 512 pixels (latents 16² to 64², both branches of guidance; VAE
/// of 16, 32 and 48 channels). `sdxl`: shapes of SDXL at its base size, with fewer rows where a
/// software device would take minutes.
const BENCH_CASES: &[Case] = &[
    case("tiny_qkv_32x32", linear(1024, 64, 192, Tail::BIAS)),
    case("tiny_out_32x32", linear(1024, 64, 64, Tail::RESIDUAL)),
    case("tiny_geglu_32x32", linear(1024, 64, 256, Tail::act(Activation::Geglu))),
    case("tiny_ff_down_32x32", linear(1024, 256, 64, Tail::RESIDUAL)),
    case("tiny_time_embedding", linear(1, 128, 128, Tail::act(Activation::Silu))),
    case("sdxl_out_1024", linear(512, 640, 640, Tail::RESIDUAL)),
    case("sdxl_geglu_256", linear(128, 1280, 5120, Tail::act(Activation::Geglu))),
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
    case("sdxl_cross_4096", full(1, 4096, 77, 10, 64)),
    case("sdxl_vae_mid_512", full(1, 256, 1024, 1, 512)),
    case("tiny_64x64", group_norm(2, 64, 32, 0, 8)),
    case("tiny_joined_64x64", group_norm(2, 64, 64, 32, 8)),
    case("tiny_vae_512", group_norm(1, 512, 16, 0, 2)),
    case("sdxl_128x128", group_norm(1, 128, 320, 0, 32)),
    case("tiny_32x32", LayerNorm { rows: 2048, channels: 64, eps: 1e-5 }),
    case("sdxl_4096", LayerNorm { rows: 4096, channels: 640, eps: 1e-5 }),
    case("tiny_64x64", Silu { rows: 8192, channels: 32 }),
    case("sdxl_4096", Silu { rows: 4096, channels: 1280 }),
    case("tiny_64x64", ModelInput { x: [1, 64, 64, 4], branches: 2 }),
    case("tiny_64x64", PredictX0 { x: [1, 64, 64, 4], guided: true }),
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
];

/// Rows verified of every case.
const SAMPLES: usize = 12;
/// Most error relative to |wanted| + root mean square: the kernel tests are strict, this only says
/// that what is timed is what is meant.
const TOLERANCE: f64 = 2e-3;

fn main() {
    if let Err(e) = Args::parse(std::env::args().skip(1)).and_then(|args| bench(&args)) {
        eprintln!("error: {e}");
        std::process::exit(1);
    }
}

fn bench(args: &Args) -> Result<()> {
    let gpu = Gpu::open(&args.gpu)?;
    let types = if args.dtype == DType::F16 { Types::F16 } else { Types::F32 };
    let mut clock = WallClock;
    let mut report = Report::new(args, &gpu, Peak::measure(&gpu, &mut clock)?)?;
    for Case { name, call } in BENCH_CASES {
        let id = format!("{}/{name}", call.kernel());
        if !id.contains(&args.filter) {
            continue;
        }
        let mut g = Graph::new(gpu.caps().clone());
        let built = call.record(&mut g, types, Maker::new(name, (0.0, 1.0)))?;
        let heaviest = g.ops().iter().max_by_key(|op| op.flops);
        let variant =
            heaviest.map_or(String::new(), |op| format!("{}{}", op.spec.name, op.variant));
        let error = verify(&gpu, &g, call, &built).map_err(|e| e.at(&id))?;
        let inputs: Vec<_> = built.inputs().map(|(t, v)| (t, v.to_vec())).collect();
        let bytes = inputs.iter().map(|(t, _)| t.bytes()).sum::<u64>() + built.output.bytes();
        let times = measure(&gpu, &mut clock, args.seconds, |calls| {
            let mut g = Graph::new(gpu.caps().clone());
            let built = call.record(&mut g, types, Maker::new(name, (0.0, 1.0)))?;
            for _ in 1..calls {
                (built.again)(&mut g)?;
            }
            Ok((g, built.inputs().map(|(t, v)| (t, v.to_vec())).collect()))
        })?;
        let (kernel, flops, bytes) = (call.kernel(), g.flops() as f64, bytes as f64);
        report.row(&Row { kernel, case: name, variant: &variant, flops, bytes, error }, &times)?;
    }
    Ok(())
}

/// Runs the case once and compares sampled rows; returns the largest error.
fn verify(gpu: &Gpu, g: &Graph, call: &Call, built: &Built) -> Result<f64> {
    let plan = Plan::compile(gpu, g, &Slabs::new())?;
    for (tensor, values) in built.inputs() {
        plan.write(gpu, tensor, values)?;
    }
    plan.run(gpu, &mut |_| Ok(()))?;
    let all = plan.read(gpu, built.output)?;
    let (count, n) = (built.output.shape.rows() as usize, built.output.shape.channels as usize);
    // The first, the last, and some between at no regular distance.
    let samples = SAMPLES.min(count);
    let mut rows: Vec<usize> = (0..samples)
        .map(|i| (i * (count - 1) / (samples - 1).max(1)).saturating_sub(i * 7 % 5))
        .collect();
    rows[samples - 1] = count - 1;
    let wanted = call.reference(built, Some(&rows));
    let got = rows.iter().flat_map(|r| &all[r * n..(r + 1) * n]);
    let rms =
        (wanted.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / wanted.len() as f64).sqrt();
    let error = got
        .zip(&wanted)
        .map(|(a, b)| (f64::from(*a) - f64::from(*b)).abs() / (f64::from(*b).abs() + rms))
        .fold(0.0, |a: f64, b| if b.is_nan() { f64::INFINITY } else { a.max(b) });
    if error > TOLERANCE {
        return Err(Error::internal(format!("differs from the reference by {error:.1e}")));
    }
    Ok(error)
}

//! What is no number stays none through every storage type, so that the check after each stage finds it;
//! what is too large for f16 becomes its largest.

use half::f16;
use scalediff::gpu::{Gpu, Slabs};
use scalediff::graph::{Graph, Plan};
use scalediff::kernels::layer_norm::Affine;
use scalediff::kernels::{layer_norm, silu};
use scalediff::tensor::{DType, Shape, Tensor};

use super::setups;

const ROWS: usize = 37;
const LARGE: f32 = 1e6;

/// Runs `record` of `x`, `[ROWS, values / ROWS]`, stored as `dtype`.
fn run(
    gpu: &Gpu,
    dtype: DType,
    x: &[f32],
    record: impl FnOnce(&mut Graph, Tensor, Tensor) -> Tensor,
) -> Vec<f32> {
    let mut g = Graph::new(gpu.caps().clone());
    let channels = (x.len() / ROWS) as u32;
    let input = g.input("x", Shape::matrix(ROWS as u32, channels), dtype);
    let large = g.input("large", Shape::matrix(1, channels), DType::F32);
    let output = record(&mut g, input, large);
    g.output(output);
    let plan = Plan::compile(gpu, &g, &Slabs::new()).unwrap();
    plan.write(gpu, input, x).unwrap();
    plan.write(gpu, large, &vec![LARGE; channels as usize]).unwrap();
    plan.run(gpu, &mut |_| Ok(())).unwrap();
    plan.read(gpu, output).unwrap()
}

#[test]
fn nan_stays_and_overflow_is_the_largest_half() {
    let most = f16::MAX.to_f32();
    for setup in setups() {
        for bits in 0..8 {
            let pick = |bit: u32| if bits & bit == 0 { DType::F32 } else { DType::F16 };
            // Eight channels go by pairs of vec4s on processors.
            let (act, out, channels) = (pick(1), pick(2), if bits & 4 == 0 { 6 } else { 48 });
            let what = format!("{act} to {out}, {channels} channels on {}", setup.name);
            let mut x: Vec<f32> = (0..ROWS * channels).map(|i| (i as f32 * 0.37).sin()).collect();
            let nans = [5, 3 * channels, 11 * channels - 1, 11 * channels];
            for (i, at) in nans.into_iter().enumerate() {
                x[at] = if i % 2 == 0 { f32::NAN } else { -f32::NAN };
            }
            x[20 * channels] = LARGE;

            let y = run(&setup.whole, act, &x, |g, x, _| silu::record(g, x, out).unwrap());
            for (i, v) in y.iter().enumerate() {
                assert_eq!(v.is_nan(), nans.contains(&i), "silu, {what}: {v} at {i}");
            }
            let limit = if [act, out].contains(&DType::F16) { most } else { LARGE };
            assert_eq!(y[20 * channels], limit, "silu, {what}");

            let y = run(&setup.whole, act, &x, |g, x, large| {
                layer_norm::record(g, x, Affine::WeightBias(large, large), 1e-5, out).unwrap()
            });
            for (row, y) in y.chunks_exact(channels).enumerate() {
                let is_nan = nans.iter().any(|at| at / channels == row);
                assert!(y.iter().all(|v| v.is_nan() == is_nan), "row {row}, {what}: {y:?}");
                let largest = y.iter().fold(0.0, |a: f32, v| a.max(v.abs()));
                let expected = if out == DType::F16 { largest == most } else { largest > LARGE };
                assert!(is_nan || expected, "row {row}, {what}: {largest}");
            }
        }
    }
}

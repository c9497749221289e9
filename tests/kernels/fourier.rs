//! The transform against an independent one, and what holds of every low-pass made with it.

use rustfft::FftPlanner;
use rustfft::num_complex::Complex;
use scalediff::error::Result;
use scalediff::gpu::Slabs;
use scalediff::graph::{Graph, Plan};
use scalediff::kernels::fft::{self, Direction, FftExtras};
use scalediff::kernels::latent::{Axis, ResampleExtras};
use scalediff::scalediff::{Filter, LowPass, Mask};
use scalediff::tensor::{DType, Shape, Tensor};

use super::setups;
use scalediff::bench::rng::Rng;

/// Runs what `record` records of an input `x`, as the product runs.
fn on_device(
    shape: Shape,
    x: &[f32],
    record: impl FnOnce(&mut Graph, Tensor, &mut Vec<(Tensor, Vec<f32>)>) -> Result<Vec<Tensor>>,
) -> Vec<Vec<f32>> {
    let gpu = &setups()[0].whole;
    let mut g = Graph::new(gpu.caps().clone());
    let input = g.input("x", shape, DType::F32);
    let mut fixed = vec![(input, x.to_vec())];
    let results = record(&mut g, input, &mut fixed).unwrap();
    results.iter().for_each(|t| _ = g.output(*t));
    let plan = Plan::compile(gpu, &g, &Slabs::new()).unwrap();
    for (tensor, values) in &fixed {
        plan.write(gpu, *tensor, values).unwrap();
    }
    plan.run(gpu, &mut |_| Ok(())).unwrap();
    results.iter().map(|t| plan.read(gpu, *t).unwrap()).collect()
}

fn random(name: &str, shape: Shape) -> Vec<f32> {
    let mut rng = Rng::new(name);
    (0..shape.elems()).map(|_| rng.value(0.0, 1.0)).collect()
}

/// The difference of two lists as a share of the second, both in root mean square.
fn relative(got: impl Iterator<Item = f64>, wanted: impl Iterator<Item = f64>) -> f64 {
    let sums = got.zip(wanted).fold((0.0, 0.0), |s, (a, b)| (s.0 + (a - b).powi(2), s.1 + b * b));
    (sums.0 / sums.1).sqrt()
}

/// The two-dimensional transform of one plane in f64 by rustfft.
fn rustfft(mut z: Vec<Complex<f64>>, h: usize, w: usize) -> Vec<Complex<f64>> {
    let mut planner = FftPlanner::new();
    planner.plan_fft_forward(w).process(&mut z);
    let mut columns: Vec<_> = (0..h * w).map(|i| z[i % h * w + i / h]).collect();
    planner.plan_fft_forward(h).process(&mut columns);
    (0..h * w).map(|i| columns[i % w * h + i / w]).collect()
}

#[test]
fn fft_is_rustfft_and_returns() {
    for (h, w) in [
        (6, 6),
        (34, 34),
        (104, 104),
        (254, 130),
        (512, 512),
        (1, 1000),
        (254, 1),
        (509, 3),
        (45, 77),
        (128, 96),
    ] {
        let shape = Shape::new(1, h, w, 2);
        let x = random(&format!("{h}x{w}"), shape);
        let results = on_device(shape, &x, |g, x, fixed| {
            let mut roots = |n| {
                let tensor = g.input("roots", fft::roots_shape(n), DType::F32);
                fixed.push((tensor, fft::roots(n)));
                tensor
            };
            let (rows, columns) = (roots(h), roots(w));
            let mut both = |x, direction| {
                let none = FftExtras::default();
                let z = fft::record(g, x, Axis::Width, direction, columns, 2, none)?;
                fft::record(g, z, Axis::Height, direction, rows, 2, none)
            };
            let z = both(x, Direction::Forward)?;
            Ok(vec![z, both(z, Direction::Inverse)?])
        });
        let z = x.chunks_exact(2).map(|v| Complex::new(f64::from(v[0]), f64::from(v[1]))).collect();
        let wanted = rustfft(z, h as usize, w as usize);
        let wanted = wanted.iter().flat_map(|z| [z.re, z.im]);
        let forward = relative(results[0].iter().map(|v| f64::from(*v)), wanted);
        let count = f64::from(h) * f64::from(w);
        let back = results[1].iter().map(|v| f64::from(*v) / count);
        let back = relative(back, x.iter().map(|v| f64::from(*v)));
        println!("{h}x{w}: {forward:.1e} forward, {back:.1e} there and back");
        assert!(forward < 1e-6 && back < 1e-6, "{h}x{w}: {forward:.1e}, {back:.1e}");
    }
}

#[test]
fn low_and_high_are_the_input() {
    for mask in [Mask::Ideal, Mask::Gaussian, Mask::Butterworth] {
        for (h, w, c, cutoff) in [(64, 64, 4, 0.0625), (34, 51, 3, 0.2), (1, 10, 16, 1e-300)] {
            let shape = Shape::new(2, h, w, c);
            let x = random(&format!("{mask:?} {h}x{w}"), shape);
            let bands = on_device(shape, &x, |g, x, fixed| {
                let pass = LowPass::new(g, h, w, Filter::Fft { mask, cutoff }, fixed);
                let low = pass.reduce(g, x, ResampleExtras::default())?;
                let high = pass.reduce(g, x, ResampleExtras { minus: None, base: Some(x) })?;
                // A high band has no low one left where the mask is 0 or 1.
                Ok(vec![low, high, pass.reduce(g, high, ResampleExtras::default())?])
            });
            let sum = bands[0].iter().zip(&bands[1]).map(|(l, h)| f64::from(l + h));
            let error = relative(sum, x.iter().map(|v| f64::from(*v)));
            assert!(error < 1e-7, "{mask:?} {h}x{w}: {error:.1e}");
            let energy = |v: &[f32]| v.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>();
            let [low, high, rest] = [0, 1, 2].map(|i| energy(&bands[i]) / energy(&x));
            assert!(low > 0.0 && high > 0.0 && low < 1.0 && high < 1.0, "{low} {high}");
            assert!(rest < 1e-12 || mask != Mask::Ideal, "{mask:?} {h}x{w}: {rest:.1e}");
        }
    }
}

//! The cascade's sampling on the device, with a formula for a denoiser, against the same steps in f64.

mod common;

use std::cell::RefCell;
use std::ops::Range;

use scalediff::error::Result;
use scalediff::gpu::{Gpu, GpuOptions};
use scalediff::graph::{Graph, Pulse};
use scalediff::kernels::latent::{StepCoefficients, lift};
use scalediff::kernels::silu;
use scalediff::sampling::{Noise, Rng, Sampler, SamplerChoice, Schedule, Scheduler};
use scalediff::scalediff::{
    Attention, Cascade, CascadeOptions, Codec, Coefficients, Denoiser, Event, Filter, Latents,
    Prediction, Progress, Reload, SizePlan, StageAttention,
};
use scalediff::tensor::{DType, Tensor};
use serde_json::json;

use common::{CFG, Stub};

const SEED: u64 = 5;
const STEPS: usize = 10;
const RESTART: usize = 4;
/// What each branch adds, the negative one first.
const SHIFTS: [f32; 2] = [-0.4, 0.3];

fn slope(timestep: f32) -> f32 {
    0.6 + 0.0002 * timestep
}

/// Records silu(k(t) · input + shift), element by element.
fn formula(g: &mut Graph, input: Tensor, branches: Range<u32>) -> Result<Prediction> {
    let shifts = &SHIFTS[branches.start as usize..branches.end as usize];
    assert_eq!(input.shape.batch as usize, shifts.len());
    let time = g.input("time", StepCoefficients::SHAPE, DType::F32);
    let shift = g.input("shift", input.shape, DType::F32);
    let sum = lift(g, input.shape, [Some(input), Some(shift), None], None, time)?;
    let item = input.shape.elems() as usize / shifts.len();
    Ok(Prediction {
        output: silu::record(g, sum, DType::F32)?,
        step: vec![time],
        fixed: vec![(shift, shifts.iter().flat_map(|s| vec![*s; item]).collect())],
    })
}

/// Its k(t).
fn step_values(timestep: f32) -> Vec<Vec<f32>> {
    vec![Coefficients::sum(slope(timestep), 1.0, 0.0).values().to_vec()]
}

/// A latent is a pixel, whose last channel is lost; pictures may pass for large.
struct Plain {
    large: bool,
}

impl Codec for Plain {
    fn channels(&self) -> u32 {
        4
    }

    fn factor(&self) -> u32 {
        1
    }

    fn is_large(&self, _: u32, _: u32) -> bool {
        self.large
    }

    fn decode(&mut self, latents: &[f32], _: u32, _: u32, _: Pulse) -> Result<Vec<f32>> {
        Ok(latents.chunks_exact(4).flat_map(|p| [p[0], p[1], p[2]]).collect())
    }

    fn encode_doubled(&mut self, image: &[f32], h: u32, w: u32, _: Pulse) -> Result<Vec<f32>> {
        Ok(doubled(image, h as usize, w as usize))
    }
}

fn doubled(image: &[f32], h: usize, w: usize) -> Vec<f32> {
    let pixel = |i: usize| &image[(i / (2 * w) / 2 * w + i % (2 * w) / 2) * 3..][..3];
    (0..4 * h * w).flat_map(|i| [pixel(i), &[0.5]].concat()).collect()
}

/// The latents of every stage.
#[derive(Default)]
struct Stages(Vec<Vec<f32>>);

impl Progress for Stages {
    fn event(&mut self, _: Event) -> Result<()> {
        Ok(())
    }

    fn latents(&mut self, _: u32, latents: &Latents) -> Result<()> {
        self.0.push(latents.values.clone());
        Ok(())
    }
}

fn noise(noise: Noise, h: u32, w: u32) -> Vec<f32> {
    Rng::Cpu.randn(noise.seed(SEED), (4 * h * w) as usize)
}

fn silu(v: f64) -> f64 {
    v / (1.0 + (-v).exp())
}

/// Both stages in f64. With a scale factor of 1 the low-pass keeps everything.
fn expected(schedule: &Schedule, guided: Range<usize>, size: SizePlan) -> [Vec<f64>; 2] {
    let (h, w) = (size.base_height, size.base_width);
    let mut stages = [0, 1].map(|_| Vec::new());
    let mut reference: Vec<f64> = Vec::new();
    for (stage, first) in [(0, 0), (1, RESTART)] {
        let start = if stage == 0 { schedule.init_noise_sigma } else { schedule.sigmas[first] };
        let fresh = |n| -> Vec<f64> {
            noise(n, h << stage, w << stage).into_iter().map(f64::from).collect()
        };
        let mut x: Vec<f64> =
            fresh(Noise::Stage(stage)).iter().map(|v| v * f64::from(start)).collect();
        x.iter_mut().zip(&reference).for_each(|(x, r)| *x += r);
        let mut previous = vec![0.0; x.len()];
        for i in first..STEPS {
            let (step, sigma) = (schedule.step(i, first), f64::from(schedule.sigmas[i]));
            let added = fresh(Noise::Step { stage, step: i });
            for k in 0..x.len() {
                let input = x[k] / sigma.hypot(1.0) * f64::from(slope(schedule.timesteps[i]));
                let [negative, positive] = SHIFTS.map(|s| silu(input + f64::from(s)));
                let out = if guided.contains(&i) {
                    negative + f64::from(CFG) * (positive - negative)
                } else {
                    positive
                };
                let mut x0 = x[k] - sigma * out;
                if stage > 0 {
                    x0 += f64::from(schedule.sg_weight(i, first)) * (reference[k] - x0);
                }
                x[k] = step.x * x[k]
                    + step.x0 * x0
                    + step.previous * previous[k]
                    + step.noise * added[k];
                previous[k] = x0;
            }
        }
        let image: Vec<f32> =
            x.chunks_exact(4).flat_map(|p| [0, 1, 2].map(|c| p[c] as f32)).collect();
        reference = doubled(&image, h as usize, w as usize).into_iter().map(f64::from).collect();
        stages[stage as usize] = x;
    }
    stages
}

fn distance(got: &[f32], want: &[f64]) -> f64 {
    assert_eq!(got.len(), want.len());
    let sum = |f: &dyn Fn(usize) -> f64| (0..want.len()).map(|i| f(i).powi(2)).sum::<f64>();
    (sum(&|i| f64::from(got[i]) - want[i]) / sum(&|i| want[i])).sqrt()
}

/// Every sampler through a restart with structure guidance; what is recorded anew on the way (jitter moves
/// windows, the guidance's range changes branches) carries the sampler's history along.
#[test]
fn every_sampler_steps_as_its_formula_says() {
    let gpu = Gpu::open(&GpuOptions::default()).unwrap();
    let config = json!({"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear",
                        "timestep_spacing": "trailing"});
    let small = SizePlan::new(14, 10, 7, 1, Some(1)).unwrap();
    // So large that the branches of guidance come one after the other.
    let large = SizePlan::new(400, 384, 200, 1, Some(1)).unwrap();
    let samplers = [Sampler::Euler, Sampler::EulerAncestral, Sampler::Ddim, Sampler::DpmPlusPlus2M];
    for sampler in samplers {
        for (size, guided, jitter, recorded) in [
            (small, 0..10, None, vec![2, 2]),
            (small, 0..10, Some(SEED), vec![2; 7]),
            (small, 2..6, None, vec![1, 2, 1, 2, 1]),
            (small, 0..4, None, vec![2, 1, 1]),
            (large, 0..10, None, vec![1, 1, 1, 1]),
        ] {
            let choice = SamplerChoice { sampler: Some(sampler), karras: false };
            let scheduler = Scheduler::from_config(&config, choice).unwrap();
            let schedule = scheduler.schedule(STEPS).unwrap();
            let branches = RefCell::new(Vec::new());
            let predict = |g: &mut Graph, input: Tensor, part: Range<u32>, _: Attention| {
                branches.borrow_mut().push(part.len());
                formula(g, input, part)
            };
            let make = || Box::new(Stub::new(&predict, step_values));
            let options = CascadeOptions {
                steps: STEPS,
                restart_ratio: 0.6,
                filter: Filter::Resample { scale_factor: 1.0 },
                attention: StageAttention::Patches,
                frequency_mixing: false,
                structure_guidance: true,
                guidance_start: guided.start as f64 / STEPS as f64,
                guidance_stop: guided.end as f64 / STEPS as f64,
                jitter,
            };
            let mut got = Stages::default();
            let mut reloads = 0;
            let mut reload = |_: &mut dyn Progress| {
                reloads += 1;
                let again: Box<dyn Denoiser> = make();
                Ok(again)
            };
            let mut codec = Plain { large: guided.start == 0 };
            let later = if codec.large { size.stages } else { 0 };
            let (denoiser, reload, codec) = (make(), Some(&mut reload as Reload), &mut codec);
            Cascade { gpu: &gpu, denoiser, reload, codec, schedule: schedule.clone(), options }
                .run(&size, None, &mut noise, &mut got)
                .unwrap();
            for (stage, want) in expected(&schedule, guided.clone(), size).iter().enumerate() {
                let error = distance(&got.0[stage], want);
                assert!(error < 1e-5, "{sampler} {guided:?} stage {stage}: {error:.1e}");
            }
            assert_eq!(reloads, later, "each later stage of large pictures loads the denoiser");
            assert_eq!(*branches.borrow(), recorded, "{sampler} {guided:?}");
        }
    }
}

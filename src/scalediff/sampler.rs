//! One stage of sampling: a plan for the step, replayed with new coefficients.

use super::denoiser::{Attention, Denoiser};
use super::filters::{Filter, LowPass, upsample_bicubic};
use crate::error::Result;
use crate::gpu::{Caps, Gpu, Slabs};
use crate::graph::{Graph, Plan, Pulse};
use crate::kernels::latent::{ResampleExtras, StepCoefficients, lift, model_input, predict_x0};
use crate::sampling::{PredictionType, Schedule};
use crate::tensor::{DType, Shape, Tensor};

/// Latents on the host: channels last, one item.
#[derive(Debug, Clone, PartialEq)]
pub struct Latents {
    pub height: u32,
    pub width: u32,
    pub channels: u32,
    pub values: Vec<f32>,
}

impl Latents {
    /// Their shape as a tensor.
    pub fn shape(&self) -> Shape {
        Shape::new(1, self.height, self.width, self.channels)
    }
}

/// The coefficients of one step of the Euler sampler (in fused form): with
/// r = sigma_next / sigma, x ← r·x + (1 - r)·(x0 + g·U(low)).
pub struct Coefficients;

impl Coefficients {
    /// Step `i` of `schedule` with guidance weight `g` on the low band.
    pub fn step(schedule: &Schedule, i: usize, cfg: f32, g: f32) -> StepCoefficients {
        let sigma = f64::from(schedule.sigmas[i]);
        let ratio = f64::from(schedule.sigmas[i + 1]) / sigma;
        let norm = (sigma * sigma + 1.0).sqrt();
        let (c_x, c_out) = match schedule.prediction {
            PredictionType::Epsilon => (1.0, -sigma),
            PredictionType::VPrediction => (1.0 / (norm * norm), -sigma / norm),
        };
        StepCoefficients {
            c_in: (1.0 / norm) as f32,
            c_x: c_x as f32,
            c_out: c_out as f32,
            cfg,
            a: ratio as f32,
            b: (1.0 - ratio) as f32,
            g: ((1.0 - ratio) * f64::from(g)) as f32,
        }
    }

    /// `lift` as the plain sum a·x + b·x2 + g·U(low).
    pub fn sum(a: f32, b: f32, g: f32) -> StepCoefficients {
        StepCoefficients { a, b, g, ..StepCoefficients::default() }
    }
}

/// The step of one stage, recorded: what a plan of memory needs, and what [`StepPlan`] compiles.
pub struct StepGraph {
    pub graph: Graph,
    x: Tensor,
    next: Tensor,
    coefficients: Tensor,
    step: Vec<Tensor>,
    /// Inputs to write once.
    fixed: Vec<(Tensor, Vec<f32>)>,
}

impl StepGraph {
    /// `reference`: the low-pass and the low band of the reference latents, for structure guidance.
    pub fn record(
        caps: &Caps,
        denoiser: &dyn Denoiser,
        latents: Shape,
        attention: Attention,
        reference: Option<(Filter, &[f32])>,
    ) -> Result<Self> {
        let mut g = Graph::new(caps.clone());
        let x = g.input("latents", latents, DType::F32);
        let coefficients = g.input("step", StepCoefficients::SHAPE, DType::F32);
        let input =
            model_input(&mut g, x, coefficients, denoiser.branches(), denoiser.input_dtype())?;
        let prediction = denoiser.predict(&mut g, input, attention)?;
        let mut fixed = prediction.fixed;
        let x0 = predict_x0(&mut g, x, prediction.output, coefficients)?;
        let low = match reference {
            None => None,
            Some((filter, values)) => {
                let pass = LowPass::new(&mut g, latents.height, latents.width, filter, &mut fixed);
                let base = g.input("reference", pass.low_shape(latents), DType::F32);
                fixed.push((base, values.to_vec()));
                Some(pass.reduce(&mut g, x0, ResampleExtras { minus: None, base: Some(base) })?)
            }
        };
        let next = lift(&mut g, latents, Some(x), Some(x0), low, coefficients)?;
        g.output(next);
        Ok(Self { graph: g, x, next, coefficients, step: prediction.step, fixed })
    }
}

/// The step of one stage, compiled.
pub(super) struct StepPlan<'a> {
    gpu: &'a Gpu,
    denoiser: &'a dyn Denoiser,
    plan: Plan,
    x: Tensor,
    next: Tensor,
    coefficients: Tensor,
    step: Vec<Tensor>,
}

impl<'a> StepPlan<'a> {
    /// Compiles what [`StepGraph::record`] records.
    pub(super) fn compile(
        gpu: &'a Gpu,
        denoiser: &'a dyn Denoiser,
        latents: Shape,
        attention: Attention,
        reference: Option<(Filter, &[f32])>,
    ) -> Result<Self> {
        let recorded = StepGraph::record(gpu.caps(), denoiser, latents, attention, reference)?;
        let StepGraph { graph, x, next, coefficients, step, fixed } = recorded;
        let plan = Plan::compile(gpu, &graph, denoiser.slabs())?;
        for (tensor, values) in &fixed {
            plan.write(gpu, *tensor, values)?;
        }
        Ok(Self { gpu, denoiser, plan, x, next, coefficients, step })
    }

    /// Sets the latents that the next step starts from.
    pub(super) fn start(&self, latents: &[f32]) -> Result<()> {
        self.plan.write(self.gpu, self.x, latents)
    }

    /// One step.
    pub(super) fn run(
        &self,
        coefficients: StepCoefficients,
        timestep: f32,
        pulse: Pulse,
    ) -> Result<()> {
        self.plan.write(self.gpu, self.coefficients, &coefficients.values())?;
        for (tensor, values) in self.step.iter().zip(self.denoiser.step_values(timestep)) {
            self.plan.write(self.gpu, *tensor, &values)?;
        }
        self.plan.run(self.gpu, pulse)?;
        self.plan.copy(self.gpu, self.next, self.x)
    }

    /// The latents reached.
    pub(super) fn finish(&self) -> Result<Vec<f32>> {
        self.plan.read(self.gpu, self.x)
    }
}

/// What a stage starts from.
pub(super) struct Restart {
    /// Noised latents.
    pub latents: Latents,
    /// The reference's low band, for structure guidance.
    pub low: Vec<f32>,
}

/// Mixes the latent upsampling with the encoded picture and adds noise (the paper's latent frequency mixing).
pub(super) fn restart(
    gpu: &Gpu,
    previous: &Latents,
    encoded: &[f32],
    noise: &[f32],
    sigma: f32,
    filter: Filter,
    mix: bool,
) -> Result<Restart> {
    let mut fixed = Vec::new();
    let mut g = Graph::new(gpu.caps().clone());
    let full = Shape { height: 2 * previous.height, width: 2 * previous.width, ..previous.shape() };
    let mut input = |g: &mut Graph, name, shape, values: &[f32]| {
        let tensor = g.input(name, shape, DType::F32);
        fixed.push((tensor, values.to_vec()));
        tensor
    };
    let z = input(&mut g, "previous", previous.shape(), &previous.values);
    let rgb = input(&mut g, "encoded", full, encoded);
    let noise = input(&mut g, "noise", full, noise);
    let mixing = input(
        &mut g,
        "mixing",
        StepCoefficients::SHAPE,
        &Coefficients::sum(1.0, 0.0, 1.0).values(),
    );
    let noising = input(
        &mut g,
        "noising",
        StepCoefficients::SHAPE,
        &Coefficients::sum(1.0, sigma, 0.0).values(),
    );

    let pass = LowPass::new(&mut g, full.height, full.width, filter, &mut fixed);
    let reference = if mix {
        let upsampled = upsample_bicubic(&mut g, z, full.height, full.width, &mut fixed)?;
        let low =
            pass.reduce(&mut g, upsampled, ResampleExtras { minus: Some(rgb), base: None })?;
        lift(&mut g, full, Some(rgb), None, Some(low), mixing)?
    } else {
        rgb
    };
    let low = pass.reduce(&mut g, reference, ResampleExtras::default())?;
    let start = lift(&mut g, full, Some(reference), Some(noise), None, noising)?;
    g.output(low);
    g.output(start);
    let plan = Plan::once(gpu, &g, &Slabs::new(), &fixed, &mut |_| Ok(()))?;
    let values = plan.read(gpu, start)?;
    let latents =
        Latents { height: full.height, width: full.width, channels: full.channels, values };
    Ok(Restart { latents, low: plan.read(gpu, low)? })
}

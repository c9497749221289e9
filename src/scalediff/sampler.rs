//! One stage of sampling: a plan for the step, replayed with new coefficients.

use super::denoiser::{Attention, Denoiser};
use super::filters::{Filter, LowPass, upsample_bicubic};
use crate::error::Result;
use crate::gpu::{Caps, Gpu, Slabs};
use crate::graph::{Graph, Plan, Pulse};
use crate::kernels::latent::{
    Branches, ResampleExtras, StepCoefficients, lift, model_input, predict_x0,
};
use crate::sampling::{PredictionType, Sampler, Schedule};
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

/// The coefficients of a sampler's step, as the kernels take them.
pub struct Coefficients;

impl Coefficients {
    /// Step `i` of `schedule`, begun at step `first`, with structure guidance of weight `g`: x0 becomes
    /// x0 + g·U(low) before the sampler steps, here in one sum.
    pub fn step(schedule: &Schedule, i: usize, first: usize, cfg: f32, g: f32) -> StepCoefficients {
        let step = schedule.step(i, first);
        let sigma = f64::from(schedule.sigmas[i]);
        let norm = (sigma * sigma + 1.0).sqrt();
        let (c_in, c_x, c_out) = match schedule.prediction {
            PredictionType::Epsilon => (1.0 / norm, 1.0, -sigma),
            PredictionType::VPrediction => (1.0 / norm, 1.0 / (norm * norm), -sigma / norm),
            PredictionType::Flow => (1.0, 1.0, -sigma),
        };
        StepCoefficients {
            c_in: c_in as f32,
            c_x: c_x as f32,
            c_out: c_out as f32,
            cfg,
            a: step.x as f32,
            b: step.x0 as f32,
            // No sampler has both.
            c: (step.previous + step.noise) as f32,
            g: (step.x0 * f64::from(g)) as f32,
        }
    }

    /// `lift` as the plain sum a·x + b·x2 + g·U(low).
    pub fn sum(a: f32, b: f32, g: f32) -> StepCoefficients {
        StepCoefficients { a, b, g, ..StepCoefficients::default() }
    }
}

/// The step of one stage, recorded: what a plan of memory needs, and what `StepPlan` compiles.
pub struct StepGraph {
    pub graph: Graph,
    tensors: StepTensors,
    /// Inputs to write once.
    fixed: Vec<(Tensor, Vec<f32>)>,
}

/// What is written before each step and kept after it.
struct StepTensors {
    x: Tensor,
    next: Tensor,
    coefficients: Tensor,
    /// [`Prediction::step`](super::Prediction::step).
    step: Vec<Tensor>,
    /// The sampler's third operand: fresh noise, or the previous step's x0.
    third: Option<Tensor>,
    /// This step's x0, where the next one reads it.
    x0: Option<Tensor>,
    /// Coefficients of structure guidance, where it is apart from the sampler's sum.
    guide: Option<Tensor>,
}

/// Latents (places on their grid) up to which both branches of guidance are predicted at once. One of more fills a device
/// alone, and one after the other they take half the memory.
const JOINED_LATENTS: u32 = 192 * 192;

/// Where a stage stands between two steps.
pub(super) struct State {
    pub x: Vec<f32>,
    /// The last step's x0, for samplers with a history; before the first step there is none.
    pub previous: Option<Vec<f32>>,
}

/// What one step is run with.
pub(super) struct StepInputs {
    pub coefficients: StepCoefficients,
    /// Weight of structure guidance.
    pub guidance: f32,
    pub timestep: f32,
    /// Unit normals, for samplers that add noise.
    pub noise: Option<Vec<f32>>,
}

impl StepGraph {
    /// `reference`: the low-pass and the low band of the reference latents, for structure guidance.
    /// `branches`: as many as the denoiser has, or one.
    pub fn record(
        caps: &Caps,
        denoiser: &dyn Denoiser,
        latents: Shape,
        attention: Attention,
        reference: Option<(Filter, &[f32])>,
        sampler: Sampler,
        branches: u32,
    ) -> Result<Self> {
        let mut g = Graph::new(caps.clone());
        let x = g.input("latents", latents, DType::F32);
        let coefficients = g.input("step", StepCoefficients::SHAPE, DType::F32);
        let dtype = denoiser.input_dtype();
        // Of several branches, one alone is the last, the positive one.
        let first = denoiser.branches() - branches;
        let (model, step, mut fixed) = if branches == 2 && latents.rows() > JOINED_LATENTS {
            let input = model_input(&mut g, x, coefficients, 1, dtype)?;
            let mut one = |branch: u32| {
                let only = branch..branch + 1;
                g.scope(format!("branch.{branch}"), |g| denoiser.predict(g, input, only, attention))
            };
            let (negative, positive) = (one(first)?, one(first + 1)?);
            let model = Branches::Apart(negative.output, positive.output);
            let step = [negative.step, positive.step].concat();
            (model, step, [negative.fixed, positive.fixed].concat())
        } else {
            let input = model_input(&mut g, x, coefficients, branches, dtype)?;
            let made = denoiser.predict(&mut g, input, first..denoiser.branches(), attention)?;
            (Branches::Joined(made.output), made.step, made.fixed)
        };
        let x0 = predict_x0(&mut g, x, model, coefficients)?;
        let low = match reference {
            None => None,
            Some((filter, values)) => {
                let pass = LowPass::new(&mut g, latents.height, latents.width, filter, &mut fixed);
                let base = g.input("reference", pass.low_shape(latents), DType::F32);
                fixed.push((base, values.to_vec()));
                Some(pass.reduce(&mut g, x0, ResampleExtras { minus: None, base: Some(base) })?)
            }
        };
        let third = (sampler.has_history() || sampler.adds_noise())
            .then(|| g.input("third", latents, DType::F32));
        let (x0, low, guide) = match low {
            // The next step reads the guided x0 by itself.
            Some(low) if sampler.has_history() => {
                let guide = g.input("guide", StepCoefficients::SHAPE, DType::F32);
                let guided = lift(&mut g, latents, [None, Some(x0), None], Some(low), guide)?;
                (guided, None, Some(guide))
            }
            low => (x0, low, None),
        };
        let next = lift(&mut g, latents, [Some(x), Some(x0), third], low, coefficients)?;
        let x0 = sampler.has_history().then_some(x0);
        for output in [Some(next), x0].into_iter().flatten() {
            g.output(output);
        }
        g.settle(fixed.iter().map(|(tensor, _)| *tensor));
        let tensors = StepTensors { x, next, coefficients, step, third, x0, guide };
        Ok(Self { graph: g, tensors, fixed })
    }
}

/// The step of one stage, compiled.
pub(super) struct StepPlan<'a> {
    gpu: &'a Gpu,
    denoiser: &'a dyn Denoiser,
    plan: Plan,
    tensors: StepTensors,
}

impl<'a> StepPlan<'a> {
    /// Compiles what was recorded of `denoiser`.
    pub(super) fn compile(
        gpu: &'a Gpu,
        denoiser: &'a dyn Denoiser,
        recorded: StepGraph,
    ) -> Result<Self> {
        let StepGraph { graph, tensors, fixed } = recorded;
        let plan = Plan::compile(gpu, &graph, denoiser.slabs())?;
        for (tensor, values) in &fixed {
            plan.write(gpu, *tensor, values)?;
        }
        Ok(Self { gpu, denoiser, plan, tensors })
    }

    /// Sets what the next step starts from.
    pub(super) fn start(&self, state: &State) -> Result<()> {
        if let Some(third) = self.tensors.third {
            // Where there is nothing yet its coefficient is 0, but 0 times an old NaN would be NaN.
            let zeros = || vec![0.0; state.x.len()];
            let values = state.previous.clone().unwrap_or_else(zeros);
            self.plan.write(self.gpu, third, &values)?;
        }
        self.plan.write(self.gpu, self.tensors.x, &state.x)
    }

    /// One step.
    pub(super) fn run(&self, inputs: &StepInputs, pulse: Pulse) -> Result<()> {
        let (t, write) = (&self.tensors, |t, v: &[f32]| self.plan.write(self.gpu, t, v));
        write(t.coefficients, &inputs.coefficients.values())?;
        let values = self.denoiser.step_values(inputs.timestep);
        // Branches apart take the same values.
        for (tensor, values) in t.step.iter().zip(values.iter().cycle()) {
            write(*tensor, &values.repeat(tensor.shape.batch as usize))?;
        }
        if let Some(guide) = t.guide {
            write(guide, &Coefficients::sum(0.0, 1.0, inputs.guidance).values())?;
        }
        if let (Some(third), Some(noise)) = (t.third, &inputs.noise) {
            write(third, noise)?;
        }
        self.plan.run(self.gpu, pulse)?;
        if let (Some(x0), Some(third)) = (t.x0, t.third) {
            self.plan.copy(self.gpu, x0, third)?;
        }
        self.plan.copy(self.gpu, t.next, t.x)
    }

    /// What has been reached.
    pub(super) fn finish(&self) -> Result<State> {
        let read = |tensor| self.plan.read(self.gpu, tensor);
        // The third operand holds the last x0 since the copy above.
        let previous = self.tensors.x0.and(self.tensors.third).map(read).transpose()?;
        Ok(State { x: read(self.tensors.x)?, previous })
    }
}

/// What a stage starts from.
pub(super) struct Restart {
    /// Noised latents.
    pub latents: Latents,
    /// The reference's low band, for structure guidance.
    pub low: Vec<f32>,
}

/// Mixes the latent upsampling with the encoded picture (the paper's latent frequency mixing) and returns `clean` parts
/// of that with `noisy` parts of noise.
pub(super) fn restart(
    gpu: &Gpu,
    previous: &Latents,
    encoded: &[f32],
    noise: &[f32],
    (clean, noisy): (f32, f32),
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
        &Coefficients::sum(clean, noisy, 0.0).values(),
    );

    let pass = LowPass::new(&mut g, full.height, full.width, filter, &mut fixed);
    let reference = if mix {
        let upsampled = upsample_bicubic(&mut g, z, full.height, full.width, &mut fixed)?;
        let low =
            pass.reduce(&mut g, upsampled, ResampleExtras { minus: Some(rgb), base: None })?;
        lift(&mut g, full, [Some(rgb), None, None], Some(low), mixing)?
    } else {
        rgb
    };
    let low = pass.reduce(&mut g, reference, ResampleExtras::default())?;
    let start = lift(&mut g, full, [Some(reference), Some(noise), None], None, noising)?;
    g.output(low);
    g.output(start);
    let plan = Plan::once(gpu, &g, &Slabs::new(), &fixed, &mut |_| Ok(()))?;
    let values = plan.read(gpu, start)?;
    let latents =
        Latents { height: full.height, width: full.width, channels: full.channels, values };
    Ok(Restart { latents, low: plan.read(gpu, low)? })
}

//! The parts of the method alone.

use serde::Deserialize;

use super::{Outputs, one, picture, run_graph, to_rows};
use crate::error::{Error, Result};
use crate::gpu::{Gpu, Slabs};
use crate::graph::{Graph, Plan};
use crate::kernels::attention::{self, Attention, AttentionScope, Heads, PatchGeometry, Slice};
use crate::kernels::latent::{ResampleExtras, StepCoefficients, lift};
use crate::pipeline::Precision;
use crate::scalediff::{Coefficients, Filter, LowPass, upsample_bicubic};
use crate::tensor::{DType, Shape, Tensor};
use crate::verify::Case;

pub fn npa_attention(gpu: &Gpu, precision: Precision, case: &Case) -> Result<Outputs> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Params {
        height: u32,
        width: u32,
        base_height: u32,
        base_width: u32,
    }
    let p: Params = case.params()?;
    let mut g = Graph::new(gpu.caps().clone());
    let mut inputs = Vec::new();
    let mut heads = Heads { count: 1, dim: 1 };
    let mut batch = 1;
    for name in ["q", "k", "v"] {
        let ([b, h, l, d], values) = case.input::<4>(name)?;
        if l as u64 != u64::from(p.height) * u64::from(p.width) {
            return Err(Error::model(format!(
                "input {name} has {l} tokens, the grid {}×{}",
                p.height, p.width
            )));
        }
        (batch, heads) = (b, Heads { count: h as u32, dim: d as u32 });
        let shape = Shape::new(b as u32, p.height, p.width, (h * d) as u32);
        // Heads go from an axis of their own into the columns.
        let mut rows = vec![0.0; values.len()];
        for (i, v) in values.iter().enumerate() {
            let (item, head, token, c) = (i / (h * l * d), i / (l * d) % h, i / d % l, i % d);
            rows[((item * l + token) * h + head) * d + c] = *v;
        }
        inputs.push((g.input(name, shape, precision.dtype()), rows));
    }
    let scope = AttentionScope::Patches(PatchGeometry::new(
        (p.height, p.width),
        (p.base_height, p.base_width),
        (0, 0),
    ));
    let slice = |i: usize| Slice { tensor: inputs[i].0, column: 0 };
    let call = Attention::new(slice(0), slice(1), slice(2), heads, scope);
    let o = attention::record(&mut g, call, DType::F32)?;
    g.output(o);
    let plan = Plan::once(gpu, &g, &Slabs::new(), &inputs, &mut |_| Ok(()))?;
    let rows = plan.read(gpu, o)?;
    let (h, l, d) = (heads.count as usize, (p.height * p.width) as usize, heads.dim as usize);
    let mut values = vec![0.0; rows.len()];
    for (i, v) in rows.iter().enumerate() {
        let (item, token, head, c) = (i / (l * h * d), i / (h * d) % l, i / d % h, i % d);
        values[((item * h + head) * l + token) * d + c] = *v;
    }
    Ok(one("o", vec![batch, h, l, d], values))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ScaleFactor {
    scale_factor: f64,
}

/// The resampling low-pass for latents of shape `x`.
fn resampling(
    g: &mut Graph,
    x: Shape,
    scale_factor: f64,
    inputs: &mut Vec<(Tensor, Vec<f32>)>,
) -> LowPass {
    LowPass::new(g, x.height, x.width, Filter::Resample { scale_factor }, inputs)
}

/// An input picture as a graph input.
fn latent_input(
    g: &mut Graph,
    case: &Case,
    name: &str,
    inputs: &mut Vec<(Tensor, Vec<f32>)>,
) -> Result<Tensor> {
    let (dims, values) = case.input::<4>(name)?;
    let shape = picture(dims)?;
    let tensor = g.input(name, shape, DType::F32);
    inputs.push((tensor, to_rows(values, shape)));
    Ok(tensor)
}

fn sum_input(
    g: &mut Graph,
    (a, b, low): (f32, f32, f32),
    inputs: &mut Vec<(Tensor, Vec<f32>)>,
) -> Tensor {
    let tensor = g.input("step", StepCoefficients::SHAPE, DType::F32);
    inputs.push((tensor, Coefficients::sum(a, b, low).values().to_vec()));
    tensor
}

pub fn low_pass(gpu: &Gpu, case: &Case) -> Result<Outputs> {
    let p: ScaleFactor = case.params()?;
    let (mut g, mut inputs) = (Graph::new(gpu.caps().clone()), Vec::new());
    let x = latent_input(&mut g, case, "x", &mut inputs)?;
    let pass = resampling(&mut g, x.shape, p.scale_factor, &mut inputs);
    let low = pass.reduce(&mut g, x, ResampleExtras::default())?;
    let step = sum_input(&mut g, (0.0, 0.0, 1.0), &mut inputs);
    let y = lift(&mut g, x.shape, [None; 3], Some(low), step)?;
    run_graph(gpu, g, &Slabs::new(), &inputs, y, "y")
}

pub fn frequency_mixing(gpu: &Gpu, case: &Case) -> Result<Outputs> {
    let p: ScaleFactor = case.params()?;
    let (mut g, mut inputs) = (Graph::new(gpu.caps().clone()), Vec::new());
    let lu = latent_input(&mut g, case, "latent_upsampled", &mut inputs)?;
    let ru = latent_input(&mut g, case, "rgb_upsampled", &mut inputs)?;
    let pass = resampling(&mut g, lu.shape, p.scale_factor, &mut inputs);
    let low = pass.reduce(&mut g, lu, ResampleExtras { minus: Some(ru), base: None })?;
    let step = sum_input(&mut g, (1.0, 0.0, 1.0), &mut inputs);
    let y = lift(&mut g, ru.shape, [Some(ru), None, None], Some(low), step)?;
    run_graph(gpu, g, &Slabs::new(), &inputs, y, "latents")
}

pub fn structure_guidance(gpu: &Gpu, case: &Case) -> Result<Outputs> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Params {
        scale_factor: f64,
        gamma: f32,
    }
    let p: Params = case.params()?;
    let (mut g, mut inputs) = (Graph::new(gpu.caps().clone()), Vec::new());
    let x0 = latent_input(&mut g, case, "x0", &mut inputs)?;
    let reference = latent_input(&mut g, case, "reference", &mut inputs)?;
    let pass = resampling(&mut g, x0.shape, p.scale_factor, &mut inputs);
    let base = pass.reduce(&mut g, reference, ResampleExtras::default())?;
    let low = pass.reduce(&mut g, x0, ResampleExtras { minus: None, base: Some(base) })?;
    let step = sum_input(&mut g, (0.0, 1.0, p.gamma), &mut inputs);
    let y = lift(&mut g, x0.shape, [None, Some(x0), None], Some(low), step)?;
    run_graph(gpu, g, &Slabs::new(), &inputs, y, "x0")
}

pub fn bicubic(gpu: &Gpu, case: &Case) -> Result<Outputs> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Params {
        height: u32,
        width: u32,
    }
    let p: Params = case.params()?;
    let (mut g, mut inputs) = (Graph::new(gpu.caps().clone()), Vec::new());
    let x = latent_input(&mut g, case, "x", &mut inputs)?;
    let (height, width) = (p.height, p.width);
    let Shape { batch, channels, .. } = x.shape;
    picture([batch, channels, height, width].map(|v| v as usize))?;
    let y = upsample_bicubic(&mut g, x, height, width, &mut inputs)?;
    run_graph(gpu, g, &Slabs::new(), &inputs, y, "y")
}

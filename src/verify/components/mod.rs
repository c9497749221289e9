//! What each component computes for a case.

mod autoencoder;
mod denoisers;
mod method;
mod pipeline;
mod sampling;
mod text;

use std::collections::BTreeMap;

use serde::Deserialize;

use super::case::{Case, CaseTensor, Comparison, Values};
use crate::error::{Error, Result};
use crate::gpu::{Gpu, Slabs};
use crate::graph::{Graph, Plan};
use crate::pipeline::{Model, Precision, channels_first, channels_last};
use crate::tensor::{Shape, Tensor};

type Outputs = BTreeMap<String, CaseTensor>;

/// Runs a case and compares.
pub(super) fn run(
    gpu: &Gpu,
    model: Option<&Model>,
    precision: Precision,
    case: &Case,
) -> Result<Vec<Comparison>> {
    let with_model = || {
        model.ok_or_else(|| {
            Error::model(format!(
                "a case of {} needs a model/ folder beside cases/",
                case.component
            ))
        })
    };
    let got = match case.component.as_str() {
        "unet" => denoisers::unet(with_model()?, case)?,
        "flux_transformer" => denoisers::flux_transformer(with_model()?, case)?,
        "vae_encoder" => autoencoder::vae_encoder(with_model()?, case)?,
        "vae_decoder" => autoencoder::vae_decoder(with_model()?, case)?,
        "clip_text" => text::clip_text(with_model()?, case)?,
        "t5_encoder" => text::t5_encoder(with_model()?, case)?,
        "tokenize" => text::tokenize(with_model()?, case)?,
        "schedule" => sampling::schedule(with_model()?, case)?,
        "pipeline" => pipeline::pipeline(with_model()?, case)?,
        "npa_attention" => method::npa_attention(gpu, precision, case)?,
        "low_pass" => method::low_pass(gpu, case)?,
        "latent_frequency_mixing" => method::frequency_mixing(gpu, case)?,
        "structure_guidance" => method::structure_guidance(gpu, case)?,
        "bicubic_upsample" => method::bicubic(gpu, case)?,
        "torch_randn" => sampling::torch_randn(case)?,
        other => {
            return Err(Error::model(format!("component {other} is not known to this version")));
        }
    };
    case.compare(got, case.tolerance(precision))
}

fn one(name: &str, shape: Vec<usize>, values: Vec<f32>) -> Outputs {
    BTreeMap::from([(name.to_string(), CaseTensor { shape, values: Values::F32(values) })])
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Nothing {}

/// `[b, c, h, w]` as a shape of at most 2^28 values.
fn picture(dims: [usize; 4]) -> Result<Shape> {
    let count = dims.iter().try_fold(1usize, |n, d| n.checked_mul(*d));
    match (count, dims.map(u32::try_from)) {
        (Some(1..=0x1000_0000), [Ok(b), Ok(c), Ok(h), Ok(w)]) => Ok(Shape::new(b, h, w, c)),
        _ => Err(Error::model(format!("a tensor of shape {dims:?} is empty or too large"))),
    }
}

/// Channels first to channels last, item by item.
fn to_rows(values: &[f32], shape: Shape) -> Vec<f32> {
    let item = (shape.elems() / u64::from(shape.batch)) as usize;
    values.chunks_exact(item).flat_map(|v| channels_last(v, shape.channels as usize)).collect()
}

fn to_planes(values: &[f32], shape: Shape) -> (Vec<usize>, Vec<f32>) {
    let item = (shape.elems() / u64::from(shape.batch)) as usize;
    let dims = [shape.batch, shape.channels, shape.height, shape.width].map(|v| v as usize);
    let planes = values
        .chunks_exact(item)
        .flat_map(|v| channels_first(v, shape.channels as usize))
        .collect();
    (dims.to_vec(), planes)
}

/// Compiles, writes the inputs, runs, reads one output as `[b, c, h, w]`.
fn run_graph(
    gpu: &Gpu,
    mut g: Graph,
    slabs: &Slabs,
    inputs: &[(Tensor, Vec<f32>)],
    output: Tensor,
    name: &str,
) -> Result<Outputs> {
    g.output(output);
    let plan = Plan::once(gpu, &g, slabs, inputs, &mut |_| Ok(()))?;
    let (shape, values) = to_planes(&plan.read(gpu, output)?, output.shape);
    Ok(one(name, shape, values))
}

//! Denoisers alone: a forward pass.

use serde::Deserialize;

use super::{Outputs, one, picture, run_graph, to_rows};
use crate::error::{Error, Result};
use crate::graph::{Graph, Plan};
use crate::models::flux;
use crate::models::sdxl_unet::Conditioning;
use crate::models::windows::{Draw, Windows};
use crate::pipeline::Model;
use crate::tensor::{DType, Shape};
use crate::verify::Case;

pub fn unet(model: &Model, case: &Case) -> Result<Outputs> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Params {
        npa: Option<Npa>,
    }
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Npa {
        base_height: u32,
        base_width: u32,
    }
    let params: Params = case.params()?;
    let (dims, sample) = case.input::<4>("sample")?;
    let (_, timestep) = case.input::<1>("timestep")?;
    let ([b, tokens, width], context) = case.input::<3>("encoder_hidden_states")?;
    let ([_, pooled_width], pooled) = case.input::<2>("text_embeds")?;
    let ([_, 6], time_ids) = case.input::<2>("time_ids")? else {
        return Err(Error::model("input time_ids does not have six columns"));
    };
    let shape = picture(dims)?;
    let unet = model.unet()?;
    let net = &unet.net;
    let batch = shape.batch;
    if shape.channels != net.config.in_channels
        || width as u32 != net.config.context_dim
        || b as u32 != batch
    {
        return Err(Error::model("the inputs do not fit the U-Net's config"));
    }
    let mut added = Vec::new();
    for (pooled, ids) in pooled.chunks_exact(pooled_width).zip(time_ids.chunks_exact(6)) {
        added.extend(net.added_values(pooled, ids)?);
    }
    let dtype = model.precision.dtype();
    let mut g = Graph::new(model.engine()?.caps().clone());
    let x = g.input("sample", shape, dtype);
    let conditioning = Conditioning {
        time: g.input("time", Shape::matrix(batch, net.config.channels[0]), DType::F32),
        added: g.input("added", Shape::matrix(batch, net.config.added_dim), DType::F32),
        context: g.input("context", Shape::tokens(batch, tokens as u32, width as u32), dtype),
    };
    let base = params.npa.map(|n| (n.base_height, n.base_width));
    let mut windows = Windows { base, isolated: false, jitter: None };
    let y = g.scope("unet", |g| net.forward(g, x, conditioning, &mut windows))?;
    let inputs = [
        (x, to_rows(sample, shape)),
        (conditioning.time, net.time_values(only(timestep)?).repeat(batch as usize)),
        (conditioning.added, added),
        (conditioning.context, context.to_vec()),
    ];
    run_graph(model.engine()?, g, &unet.slabs, &inputs, y, "sample")
}

pub fn flux_transformer(model: &Model, case: &Case) -> Result<Outputs> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Params {
        height: u32,
        width: u32,
        npa: Option<Npa>,
    }
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Npa {
        base_height: u32,
        base_width: u32,
        jitter: Option<Vec<[u32; 2]>>,
    }
    let p: Params = case.params()?;
    let ([b, l, c], sample) = case.input::<3>("hidden_states")?;
    let ([_, tokens, width], context) = case.input::<3>("encoder_hidden_states")?;
    let (_, pooled) = case.input::<2>("pooled_projections")?;
    let (_, timestep) = case.input::<1>("timestep")?;
    let shape = picture([b, c, p.height as usize, p.width as usize])?;
    let loaded = model.flux()?;
    let net = &loaded.net;
    let config = &net.config;
    let layers = (config.double_blocks + config.single_blocks) as usize;
    let jitter = p.npa.as_ref().and_then(|n| n.jitter.as_ref());
    if shape.rows_per_item() as usize != l
        || shape.channels != config.in_channels
        || width as u32 != config.context_dim
        || pooled.len() != b * config.pooled_dim as usize
        || context.len() != b * tokens * width
        || jitter.is_some_and(|pairs| pairs.len() != layers)
    {
        return Err(Error::model("the inputs do not fit the transformer's config"));
    }
    let (batch, act) = (shape.batch, model.precision.dtype());
    let mut g = Graph::new(model.engine()?.caps().clone());
    let x = g.input("sample", shape, act);
    let sinusoids = Shape::matrix(batch, flux::SINUSOIDS);
    let conditioning = flux::Conditioning {
        time: g.input("time", sinusoids, DType::F32),
        guidance: config.guidance.then(|| g.input("guidance", sinusoids, DType::F32)),
        pooled: g.input("pooled", Shape::matrix(batch, config.pooled_dim), DType::F32),
        context: g.input("context", Shape::tokens(batch, tokens as u32, width as u32), act),
    };
    let mut inputs = vec![
        (x, sample.to_vec()),
        (conditioning.time, flux::Flux::sinusoid_values(only(timestep)?).repeat(b)),
        (conditioning.pooled, pooled.to_vec()),
        (conditioning.context, context.to_vec()),
    ];
    if let Some(tensor) = conditioning.guidance {
        let (_, scale) = case.input::<1>("guidance")?;
        inputs.push((tensor, flux::Flux::sinusoid_values(only(scale)?).repeat(b)));
    }
    let mut shifts = jitter.into_iter().flatten().flatten().copied();
    let mut draw = |most: u32| shifts.next().unwrap_or(0).min(most);
    let mut windows = Windows {
        base: p.npa.as_ref().map(|n| (n.base_height, n.base_width)),
        isolated: false,
        jitter: jitter.map(|_| &mut draw as Draw),
    };
    let y = g.scope("transformer", |g| {
        net.forward(g, x, conditioning, &mut windows, act, &mut inputs)
    })?;
    g.output(y);
    let plan = Plan::once(model.engine()?, &g, &loaded.slabs, &inputs, &mut |_| Ok(()))?;
    Ok(one("sample", vec![b, l, c], plan.read(model.engine()?, y)?))
}

/// The value of an input that has one.
fn only(values: &[f32]) -> Result<f32> {
    let first = values.first().copied();
    first.ok_or_else(|| Error::model("timestep or guidance is empty, expected one value"))
}

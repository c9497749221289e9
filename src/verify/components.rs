//! What each component computes for a case.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::case::{Case, CaseTensor, Comparison, Values};
use crate::error::{Error, Result};
use crate::gpu::{Gpu, Slabs};
use crate::graph::{Graph, Plan};
use crate::kernels::attention::{self, AttentionScope, Heads, PatchGeometry, Slice};
use crate::kernels::latent::{ResampleExtras, StepCoefficients, lift};
use crate::models::sdxl_unet::{Conditioning, Windows};
use crate::models::text::ClipTokenizer;
use crate::pipeline::{
    Model, Precision, PromptIds, Sdxl, VaeCodec, channels_first, channels_last, decode_raw, embed,
    encode_raw, encode_text,
};
use crate::sampling::{Noise, Rng, SamplerChoice};
use crate::scalediff::{
    Cascade, CascadeOptions, Coefficients, Event, Filter, LowPass, Progress, SizePlan,
    StageAttention, StageResult, upsample_bicubic,
};
use crate::tensor::{DType, Shape, Tensor};

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
        "unet" => unet(with_model()?, case)?,
        "vae_encoder" => vae_encoder(with_model()?, case)?,
        "vae_decoder" => vae_decoder(with_model()?, case)?,
        "clip_text" => clip_text(with_model()?, case)?,
        "tokenize" => tokenize(with_model()?, case)?,
        "schedule" => schedule(with_model()?, case)?,
        "pipeline" => pipeline(with_model()?, case)?,
        "npa_attention" => npa_attention(gpu, precision, case)?,
        "low_pass" => low_pass(gpu, case)?,
        "latent_frequency_mixing" => frequency_mixing(gpu, case)?,
        "structure_guidance" => structure_guidance(gpu, case)?,
        "bicubic_upsample" => bicubic(gpu, case)?,
        "torch_randn" => torch_randn(case)?,
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

fn unet(model: &Model, case: &Case) -> Result<Outputs> {
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
        (conditioning.time, net.time_values(timestep[0]).repeat(batch as usize)),
        (conditioning.added, added),
        (conditioning.context, context.to_vec()),
    ];
    run_graph(model.engine()?, g, &unet.slabs, &inputs, y, "sample")
}

fn vae_encoder(model: &Model, case: &Case) -> Result<Outputs> {
    let Nothing {} = case.params()?;
    let (dims, image) = case.input::<4>("image")?;
    let shape = picture(dims)?;
    let encoder = model.vae_encoder()?;
    let config = model.vae_config()?;
    let mean = encode_raw(
        model.engine()?,
        &encoder,
        &to_rows(image, shape),
        shape,
        None,
        &mut |_| Ok(()),
    )?;
    let factor = config.factor();
    let (h, w) = (shape.height / factor, shape.width / factor);
    let (dims, planes) = to_planes(&mean, Shape::new(shape.batch, h, w, config.latent_channels));
    Ok(one("mean", dims, planes))
}

fn vae_decoder(model: &Model, case: &Case) -> Result<Outputs> {
    let Nothing {} = case.params()?;
    let (dims, latents) = case.input::<4>("latents")?;
    let shape = picture(dims)?;
    let decoder = model.vae_decoder()?;
    let config = model.vae_config()?;
    let (image, _) =
        decode_raw(model.engine()?, &decoder, &to_rows(latents, shape), shape, &mut |_| Ok(()))?;
    let factor = config.factor();
    let full =
        Shape::new(shape.batch, factor * shape.height, factor * shape.width, config.image_channels);
    let (dims, planes) = to_planes(&image, full);
    Ok(one("image", dims, planes))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Subfolder {
    subfolder: String,
}

fn clip_text(model: &Model, case: &Case) -> Result<Outputs> {
    let params: Subfolder = case.params()?;
    let ids = case.ids("input_ids")?;
    let encoder = model.clip(&params.subfolder)?;
    let rows: Vec<&[u32]> = ids.iter().map(Vec::as_slice).collect();
    let states = encode_text(model.engine()?, &encoder, &rows, &mut |_| Ok(()))?;
    let (batch, tokens, width) =
        (ids.len(), ids.first().map_or(0, Vec::len), encoder.net.config.width as usize);
    let all = |f: &dyn Fn(usize) -> Vec<f32>| (0..batch).flat_map(f).collect::<Vec<f32>>();
    let mut out =
        one("penultimate", vec![batch, tokens, width], all(&|i| states[i].penultimate.clone()));
    out.append(&mut one("pooled", vec![batch, width], all(&|i| states[i].pooled.clone())));
    if let Some(projection) = encoder.net.config.projection {
        let values = all(&|i| states[i].projected.clone().unwrap_or_default());
        out.append(&mut one("text_embeds", vec![batch, projection as usize], values));
    }
    Ok(out)
}

fn tokenize(model: &Model, case: &Case) -> Result<Outputs> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Params {
        subfolder: String,
        text: String,
    }
    let params: Params = case.params()?;
    let ids = ClipTokenizer::open(&model.files, &params.subfolder)?.encode(&params.text)?.ids;
    let values: Vec<i64> = ids.iter().map(|v| i64::from(*v)).collect();
    let tensor = CaseTensor { shape: vec![1, values.len()], values: Values::I64(values) };
    Ok(BTreeMap::from([("input_ids".to_string(), tensor)]))
}

fn schedule(model: &Model, case: &Case) -> Result<Outputs> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Params {
        steps: usize,
    }
    let params: Params = case.params()?;
    let schedule = model.scheduler(SamplerChoice::default())?.schedule(params.steps)?;
    let mut out = one("sigmas", vec![schedule.sigmas.len()], schedule.sigmas);
    out.append(&mut one("timesteps", vec![schedule.timesteps.len()], schedule.timesteps));
    Ok(out)
}

fn pipeline(model: &Model, case: &Case) -> Result<Outputs> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Params {
        height: u32,
        width: u32,
        steps: usize,
        guidance_scale: f32,
        stages: u32,
        restart_ratio: f64,
        scale_factor: f64,
        encode: String,
    }
    let p: Params = case.params()?;
    if p.encode != "mean" {
        return Err(Error::model(format!("encode is {:?}, expected \"mean\"", p.encode)));
    }
    let ids = |name: &str| -> Result<Vec<u32>> {
        Ok(case.ids(name)?.into_iter().next().unwrap_or_default())
    };
    let prompts = [
        PromptIds { first: ids("negative_ids")?, second: ids("negative_ids_2")? },
        PromptIds { first: ids("prompt_ids")?, second: ids("prompt_ids_2")? },
    ];
    if p.stages > 6 {
        return Err(Error::model(format!("{} stages are too many", p.stages)));
    }
    let mut noises = Vec::new();
    for stage in 0..=p.stages {
        let (dims, values) = case.input::<4>(&format!("noise.{stage}"))?;
        noises.push(to_rows(values, picture(dims)?));
    }
    let guided = p.guidance_scale > 1.0;
    let used = if guided { &prompts[..] } else { &prompts[1..] };
    let embeddings = embed(model, used, &mut |_| Ok(()))?;
    let factor = model.vae_config()?.factor();
    let size =
        SizePlan::new(p.width << p.stages, p.height << p.stages, p.width, factor, Some(p.stages))?;
    let options = CascadeOptions {
        steps: p.steps,
        restart_ratio: p.restart_ratio,
        filter: Filter::Resample { scale_factor: p.scale_factor },
        attention: StageAttention::Patches,
        frequency_mixing: true,
        structure_guidance: true,
        guidance_start: 0.0,
        guidance_stop: 1.0,
        jitter: None,
    };
    let schedule = model.scheduler(SamplerChoice::default())?.schedule(p.steps)?;
    if schedule.sampler.adds_noise() {
        return Err(Error::model("a case has no noise for the steps of an ancestral sampler"));
    }
    let mut codec = VaeCodec::load(model)?;
    let denoiser =
        Sdxl::open(model.clone(), false)?.denoiser_of(embeddings, p.guidance_scale, &size)?;
    let denoiser = Box::new(denoiser);
    let gpu = model.engine()?;
    let cascade = Cascade { gpu, denoiser, codec: &mut codec, schedule, options };
    let mut stages = Stages::default();
    let mut noise = |noise: Noise, _: u32, _: u32| match noise {
        Noise::Stage(stage) => noises[stage as usize].clone(),
        Noise::Step { .. } => Vec::new(),
    };
    cascade.run(&size, None, &mut noise, &mut stages)?;
    Ok(stages.0)
}

/// Collects what every stage makes.
#[derive(Default)]
struct Stages(Outputs);

impl Progress for Stages {
    fn event(&mut self, _: Event) -> Result<()> {
        Ok(())
    }

    fn stage(&mut self, result: &StageResult) -> Result<()> {
        let StageResult { stage, latents, image, width, height, .. } = result;
        let (dims, planes) = to_planes(&latents.values, latents.shape());
        self.0.append(&mut one(&format!("latents.{stage}"), dims, planes));
        let (dims, planes) = to_planes(image, Shape::new(1, *height, *width, 3));
        self.0.append(&mut one(&format!("image.{stage}"), dims, planes));
        Ok(())
    }
}

fn npa_attention(gpu: &Gpu, precision: Precision, case: &Case) -> Result<Outputs> {
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
    let scope = AttentionScope::Patches(PatchGeometry {
        height: p.height,
        width: p.width,
        window_h: p.base_height,
        window_w: p.base_width,
        jitter_h: 0,
        jitter_w: 0,
        isolated: false,
    });
    let slice = |i: usize| Slice { tensor: inputs[i].0, column: 0 };
    let o = attention::record(&mut g, slice(0), slice(1), slice(2), heads, scope, DType::F32)?;
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

fn low_pass(gpu: &Gpu, case: &Case) -> Result<Outputs> {
    let p: ScaleFactor = case.params()?;
    let (mut g, mut inputs) = (Graph::new(gpu.caps().clone()), Vec::new());
    let x = latent_input(&mut g, case, "x", &mut inputs)?;
    let pass = resampling(&mut g, x.shape, p.scale_factor, &mut inputs);
    let low = pass.reduce(&mut g, x, ResampleExtras::default())?;
    let step = sum_input(&mut g, (0.0, 0.0, 1.0), &mut inputs);
    let y = lift(&mut g, x.shape, [None; 3], Some(low), step)?;
    run_graph(gpu, g, &Slabs::new(), &inputs, y, "y")
}

fn frequency_mixing(gpu: &Gpu, case: &Case) -> Result<Outputs> {
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

fn structure_guidance(gpu: &Gpu, case: &Case) -> Result<Outputs> {
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

fn bicubic(gpu: &Gpu, case: &Case) -> Result<Outputs> {
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

fn torch_randn(case: &Case) -> Result<Outputs> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Params {
        seed: u64,
        shape: Vec<usize>,
        rng: String,
    }
    let p: Params = case.params()?;
    let rng: Rng = p.rng.parse()?;
    let count = p.shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).filter(|n| *n <= 1 << 28);
    let count = count.ok_or_else(|| Error::model(format!("shape {:?} is too large", p.shape)))?;
    Ok(one("x", p.shape, rng.randn(p.seed, count)))
}

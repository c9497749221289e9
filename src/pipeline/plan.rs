//! What a request will need: memory, work and cuts of every phase, from configs alone.

use super::codec::{is_large, record_decoder, record_encoder};
use super::family::{self, Prompts};
use super::model::{Model, Precision};
use super::request::Request;
use crate::error::Result;
use crate::gpu::Caps;
use crate::graph::{Graph, Layout};
use crate::sampling::restart_step;
use crate::scalediff::{Denoiser, StepGraph};
use crate::tensor::Shape;
use crate::weights::ModelFiles;

/// One phase: a graph that is laid out once and replayed.
#[derive(Debug, Clone, PartialEq)]
pub struct Phase {
    /// Such as `stage 1, denoise 2048×2048`.
    pub name: String,
    /// How often it runs.
    pub replays: u64,
    /// Bytes of the weights it uses.
    pub weight_bytes: u64,
    /// Bytes of other weights that stay loaded meanwhile.
    pub resident_bytes: u64,
    /// Bytes of all its buffers.
    pub activation_bytes: u64,
    /// Bytes alive at its fullest op: no plan of buffers can need less.
    pub live_bytes: u64,
    /// Floating point operations of one replay, all branches of guidance together, without what is the same in all.
    pub flops: u64,
    /// Branches of guidance in one replay.
    pub branches: u32,
    /// Dispatches of the first replay.
    pub dispatches: usize,
    /// Ops that are cut into several dispatches.
    pub cut_ops: usize,
    /// Ops in all.
    pub ops: usize,
    /// Tensors that lie in several buffers.
    pub banded: usize,
    /// Bytes of the largest tensor, and the op path that makes it.
    pub largest_tensor: (u64, String),
    /// Bytes of the largest binding.
    pub largest_binding: u64,
    /// Bytes of the largest buffer, of weights or of activations.
    pub largest_buffer: u64,
}

impl Phase {
    /// Device memory in use while it runs.
    pub fn peak_bytes(&self) -> u64 {
        self.weight_bytes + self.resident_bytes + self.activation_bytes
    }

    fn new(name: String, graph: &Graph, caps: &Caps, weight_bytes: u64) -> Result<Self> {
        let layout = Layout::new(graph, &caps.limits).map_err(|e| e.at(&name))?;
        let bindings = graph.ops().iter().zip(&layout.chunks).flat_map(|(op, chunks)| {
            chunks.iter().flat_map(|chunk| {
                op.operands.iter().zip(&chunk.bound).filter_map(|(operand, rows)| {
                    Some(operand.tensor?.row_bytes() * u64::from(rows.end - rows.start))
                })
            })
        });
        let largest = graph.activations().max_by_key(|(tensor, _)| tensor.bytes());
        Ok(Self {
            name,
            replays: 1,
            weight_bytes,
            resident_bytes: 0,
            activation_bytes: layout.buffer_bytes(),
            live_bytes: layout.live_bytes,
            flops: graph.flops(),
            branches: 1,
            dispatches: layout.chunks.iter().map(Vec::len).sum(),
            cut_ops: layout.chunks.iter().filter(|c| c.len() > 1).count(),
            ops: layout.chunks.len(),
            banded: layout.banded(),
            largest_tensor: largest.map_or((0, String::new()), |(t, n)| (t.bytes(), n.to_owned())),
            largest_binding: bindings.max().unwrap_or(0),
            largest_buffer: layout.largest_buffer(),
        })
    }
}

/// The phases of `request` in order, for a device with the facts `caps`.
///
/// Needs the configs of a model folder, not its weights; large tensors are counted, never made.
///
/// # Errors
/// A request out of range, a config that does not fit, or an op that no cut brings below a limit.
pub fn plan(
    files: &ModelFiles,
    precision: Precision,
    caps: &Caps,
    request: &Request,
) -> Result<Vec<Phase>> {
    let model = Model::of_shapes(caps.limits, files.clone(), precision);
    let mut family = family::open(&model, false)?;
    let defaults = family.defaults().of(files)?;
    let (options, guidance) = (defaults.options(request)?, defaults.cfg_scale(request)?);
    options.check()?;
    let sampler = family.schedule(request.sampler_choice(), options.steps)?.sampler;
    let vae = model.vae_config()?;
    let size = defaults.size(request, family.native_size(), vae.factor() * family.patch())?;

    let length = defaults.length(request)?.unwrap_or(0);
    let prompts = Prompts { positive: "", negative: None, guidance, length, in_part: false };
    let mut phases = Vec::new();
    for encoder in family.encoder_graphs(caps, &prompts)? {
        phases.push(Phase::new(encoder.name, &encoder.graph, caps, encoder.weight_bytes)?);
    }
    let denoiser = family.blank_denoiser(&prompts, &size)?;
    let (encoder, decoder) = (model.vae_encoder()?, model.vae_decoder()?);
    let denoiser_bytes = denoiser.slabs().bytes();
    let skipped = restart_step(options.steps, options.restart_ratio);
    for stage in 0..=size.stages {
        let (width, height) = size.stage_size(stage);
        let (h, w) = (height / vae.factor(), width / vae.factor());
        let latents = Shape::new(1, h, w, vae.latent_channels);
        let beside = if is_large(&vae, precision.dtype(), h, w) { 0 } else { denoiser_bytes };
        let mut codec_bytes = decoder.slabs.bytes();
        if stage > 0 {
            codec_bytes += encoder.slabs.bytes();
            let half = Shape::new(1, height / 2, width / 2, vae.image_channels);
            let (graph, ..) = record_encoder(caps, &encoder.net, half, Some((height, width)))?;
            let name = format!("stage {stage}, encode {width}×{height}");
            let phase = Phase::new(name, &graph, caps, encoder.slabs.bytes())?;
            let resident_bytes = beside + decoder.slabs.bytes();
            phases.push(Phase { resident_bytes, ..phase });
        }
        let base = (size.base_height / vae.factor(), size.base_width / vae.factor());
        let attention = options.attention.scope(stage, base, options.jitter);
        let windows = options.attention.windows(denoiser.as_ref(), stage, base, (h, w));
        let model = windows.as_ref().map_or(denoiser.as_ref(), |d| d as &dyn Denoiser);
        let low =
            (stage > 0 && options.structure_guidance).then_some((options.filter, &[] as &[f32]));
        let steps = if stage > 0 { skipped } else { 0 }..options.steps;
        let guided = match model.branches() {
            1 => steps.len(),
            _ => steps.clone().filter(|step| options.is_guided(*step)).count(),
        };
        for (branches, replays, note) in
            [(model.branches(), guided, ""), (1, steps.len() - guided, ", unguided")]
        {
            if replays > 0 {
                let step =
                    StepGraph::record(caps, model, latents, attention, low, sampler, branches)?;
                let name = format!("stage {stage}, denoise {width}×{height}{note}");
                let phase = Phase::new(name, &step.graph, caps, denoiser_bytes)?;
                let (replays, resident_bytes) = (replays as u64, codec_bytes);
                phases.push(Phase { replays, branches, resident_bytes, ..phase });
            }
        }

        let (graph, ..) = record_decoder(caps, &decoder.net, latents)?;
        let name = format!("stage {stage}, decode {width}×{height}");
        let phase = Phase::new(name, &graph, caps, decoder.slabs.bytes())?;
        // The denoiser is released before the last decode.
        let beside = if stage < size.stages { beside } else { 0 };
        let resident_bytes = beside + codec_bytes - decoder.slabs.bytes();
        phases.push(Phase { resident_bytes, ..phase });
    }
    Ok(phases)
}

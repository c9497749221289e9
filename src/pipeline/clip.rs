//! Running a CLIP text encoder.

use super::model::Loaded;
use crate::error::Result;
use crate::gpu::{Caps, Gpu};
use crate::graph::{Graph, Plan, Pulse};
use crate::models::text::{ClipEncoder, ClipOutputs, ClipTokenizer};
use crate::tensor::{DType, Shape, Tensor};
use crate::weights::ModelFiles;

/// Ids of a prompt by the tokenizer in `folder`; a warning is logged where it is too long.
pub fn clip_ids(files: &ModelFiles, folder: &str, prompt: &str) -> Result<Vec<u32>> {
    let encoded = ClipTokenizer::open(files, folder)?.encode(prompt)?;
    warn_of_cut(encoded.cut, folder);
    Ok(encoded.ids)
}

/// Logs that the end of a prompt was dropped.
pub(super) fn warn_of_cut(cut: usize, folder: &str) {
    if cut > 0 {
        log::warn!("the prompt is too long: its last {cut} tokens are ignored ({folder})");
    }
}

/// What a text encoder makes of one prompt.
#[derive(Debug, Clone)]
pub struct TextStates {
    /// Channels of a token.
    pub width: u32,
    /// `[tokens, width]`.
    pub penultimate: Vec<f32>,
    /// The final-normed state at the end-of-text token.
    pub pooled: Vec<f32>,
    /// That, projected.
    pub projected: Option<Vec<f32>>,
}

/// The graph of a text encoder for some prompts; with its input and its outputs.
pub(super) fn record_clip(
    caps: &Caps,
    encoder: &ClipEncoder,
    prompts: u32,
    tokens: u32,
) -> Result<(Graph, Tensor, ClipOutputs)> {
    let mut g = Graph::new(caps.clone());
    let shape = Shape::tokens(prompts, tokens, encoder.config.width);
    let x = g.input("embeddings", shape, DType::F32);
    let outputs = g.scope("text_encoder", |g| encoder.forward(g, x))?;
    for tensor in
        [Some(outputs.penultimate), Some(outputs.normed), outputs.projected].into_iter().flatten()
    {
        g.output(tensor);
    }
    Ok((g, x, outputs))
}

/// Runs a text encoder on rows of ids of equal length.
///
/// # Errors
/// Ids that the encoder does not have, or the device's limits.
pub fn encode_clip(
    gpu: &Gpu,
    encoder: &Loaded<ClipEncoder>,
    ids: &[&[u32]],
    pulse: Pulse,
) -> Result<Vec<TextStates>> {
    let config = &encoder.net.config;
    let tokens = ids.first().map_or(0, |row| row.len());
    let mut embedded = Vec::new();
    for row in ids {
        embedded.extend(encoder.net.embed(row)?);
    }
    let (g, x, outputs) = record_clip(gpu.caps(), &encoder.net, ids.len() as u32, tokens as u32)?;
    let plan = Plan::once(gpu, &g, &encoder.slabs, &[(x, embedded)], pulse)?;
    let penultimate = plan.read(gpu, outputs.penultimate)?;
    let normed = plan.read(gpu, outputs.normed)?;
    let projected = outputs.projected.map(|t| plan.read(gpu, t)).transpose()?;

    let row = |values: &[f32], width: u32, item: usize, position: usize| {
        let width = width as usize;
        values[(item * tokens + position) * width..][..width].to_vec()
    };
    let states = ids.iter().enumerate().map(|(item, ids)| {
        let position = config.pooled_position(ids);
        let length = tokens * config.width as usize;
        TextStates {
            width: config.width,
            penultimate: penultimate[item * length..][..length].to_vec(),
            pooled: row(&normed, config.width, item, position),
            projected: projected
                .as_ref()
                .zip(config.projection)
                .map(|(values, width)| row(values, width, item, position)),
        }
    });
    Ok(states.collect())
}

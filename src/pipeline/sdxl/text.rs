//! Prompts to what the U-Net reads: two tokenizers, two CLIP text encoders.

use crate::error::{Error, Result};
use crate::gpu::{Caps, Gpu};
use crate::graph::{Graph, Plan, Pulse};
use crate::models::text::{ClipEncoder, ClipOutputs, ClipTokenizer};
use crate::pipeline::model::{Loaded, Model};
use crate::tensor::{DType, Shape, Tensor};
use crate::weights::ModelFiles;

/// Token ids of one prompt for both encoders.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PromptIds {
    /// Ids for `text_encoder`.
    pub first: Vec<u32>,
    /// Ids for `text_encoder_2`.
    pub second: Vec<u32>,
}

/// What the U-Net gets of one prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct TextEmbedding {
    /// `[tokens, width of both encoders]`: their penultimate states side by side.
    pub context: Vec<f32>,
    /// The second encoder's projected pooled state.
    pub pooled: Vec<f32>,
    /// Rows of `context`.
    pub tokens: u32,
}

impl TextEmbedding {
    pub(super) fn zeros(&self) -> Self {
        Self {
            context: vec![0.0; self.context.len()],
            pooled: vec![0.0; self.pooled.len()],
            ..*self
        }
    }
}

/// Ids for both tokenizers; a warning is logged where a prompt is too long.
pub fn tokenize(files: &ModelFiles, prompt: &str) -> Result<PromptIds> {
    let ids = |folder: &str| -> Result<Vec<u32>> {
        let encoded = ClipTokenizer::open(files, folder)?.encode(prompt)?;
        if encoded.cut > 0 {
            log::warn!(
                "the prompt is too long: its last {} tokens are ignored ({folder})",
                encoded.cut
            );
        }
        Ok(encoded.ids)
    };
    Ok(PromptIds { first: ids("tokenizer")?, second: ids("tokenizer_2")? })
}

/// Runs both text encoders on some prompts, one encoder after the other; each is released afterwards.
pub fn embed(model: &Model, prompts: &[PromptIds], pulse: Pulse) -> Result<Vec<TextEmbedding>> {
    let mut encode = |folder: &str, ids: Vec<&[u32]>, from: f64| {
        let encoder = model.clip(folder)?;
        encode_text(model.engine()?, &encoder, &ids, &mut |share| pulse(from + share / 2.0))
    };
    let a = encode("text_encoder", prompts.iter().map(|p| p.first.as_slice()).collect(), 0.0)?;
    let b = encode("text_encoder_2", prompts.iter().map(|p| p.second.as_slice()).collect(), 0.5)?;
    let join = |(a, b): (TextStates, TextStates)| -> Result<TextEmbedding> {
        let pooled = b.projected.ok_or_else(|| {
            Error::model("text_encoder_2 has no projection")
                .with_hint("SDXL needs CLIPTextModelWithProjection")
        })?;
        let (wa, wb) = (a.width as usize, b.width as usize);
        let rows = a.penultimate.chunks_exact(wa).zip(b.penultimate.chunks_exact(wb));
        let context: Vec<f32> = rows.flat_map(|(a, b)| [a, b].concat()).collect();
        let tokens = (context.len() / (wa + wb)) as u32;
        Ok(TextEmbedding { context, pooled, tokens })
    };
    a.into_iter().zip(b).map(join).collect()
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
pub(super) fn record_text(
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
pub fn encode_text(
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
    let (g, x, outputs) = record_text(gpu.caps(), &encoder.net, ids.len() as u32, tokens as u32)?;
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

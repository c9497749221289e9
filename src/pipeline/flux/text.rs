//! Prompts to what the transformer reads: CLIP's pooled state and T5's states.

use crate::error::{Error, Result};
use crate::gpu::{Caps, Gpu};
use crate::graph::{Graph, Plan, Pulse};
use crate::models::text::{T5Encoder, T5Tokenizer};
use crate::pipeline::clip::{clip_ids, encode_clip, warn_of_cut};
use crate::pipeline::model::{Loaded, Model};
use crate::tensor::{DType, Shape, Tensor};
use crate::weights::ModelFiles;

/// What the transformer gets of one prompt.
#[derive(Debug, Clone, PartialEq)]
pub struct FluxText {
    /// `[tokens, width of T5]`.
    pub context: Vec<f32>,
    /// CLIP's pooled state, without a projection.
    pub pooled: Vec<f32>,
    /// Rows of `context`.
    pub tokens: u32,
}

/// Token ids of a prompt for CLIP and, `length` of them, for T5.
///
/// # Errors
/// A broken tokenizer, or a prompt of more than 1 MiB.
pub fn flux_ids(files: &ModelFiles, prompt: &str, length: u32) -> Result<[Vec<u32>; 2]> {
    let clip = clip_ids(files, "tokenizer", prompt)?;
    let t5 = T5Tokenizer::open(files, "tokenizer_2")?.encode(prompt, length)?;
    warn_of_cut(t5.cut, "tokenizer_2");
    Ok([clip, t5.ids])
}

/// Runs both text encoders on one prompt, one after the other; each is released afterwards.
///
/// # Errors
/// Broken weights, ids that an encoder does not have, or the device's limits.
pub fn flux_text(model: &Model, [clip, t5]: [&[u32]; 2], pulse: Pulse) -> Result<FluxText> {
    let engine = model.engine()?;
    let states = {
        let encoder = model.clip("text_encoder")?;
        encode_clip(engine, &encoder, &[clip], &mut |share| pulse(share / 4.0))?
    };
    let pooled = states.into_iter().next().map(|s| s.pooled).unwrap_or_default();
    let encoder = model.t5("text_encoder_2")?;
    let context = encode_t5(engine, &encoder, &[t5], &mut |share| pulse(0.25 + 0.75 * share))?;
    Ok(FluxText { context, pooled, tokens: t5.len() as u32 })
}

/// The graph of a T5 encoder for some prompts; with its two inputs and its output.
pub(super) fn record_t5(
    caps: &Caps,
    encoder: &T5Encoder,
    prompts: u32,
    tokens: u32,
) -> Result<(Graph, [Tensor; 2], Tensor)> {
    let mut g = Graph::new(caps.clone());
    let shape = Shape::tokens(prompts, tokens, encoder.config.width);
    let x = g.input("embeddings", shape, DType::F32);
    let bias = g.input("bias", encoder.bias_shape(tokens), DType::F32);
    let y = g.scope("t5", |g| encoder.forward(g, x, bias))?;
    g.output(y);
    Ok((g, [x, bias], y))
}

/// Runs a T5 encoder on rows of ids of equal length: `[rows, tokens, width]`.
///
/// # Errors
/// No ids, ids that the encoder does not have, or the device's limits.
pub fn encode_t5(
    gpu: &Gpu,
    encoder: &Loaded<T5Encoder>,
    ids: &[&[u32]],
    pulse: Pulse,
) -> Result<Vec<f32>> {
    let tokens = ids.first().map_or(0, |row| row.len()) as u32;
    if tokens == 0 {
        return Err(Error::model("a text without tokens"));
    }
    let mut embedded = Vec::new();
    for row in ids {
        embedded.extend(encoder.net.embed(row)?);
    }
    let (g, [x, bias], y) = record_t5(gpu.caps(), &encoder.net, ids.len() as u32, tokens)?;
    let inputs = [(x, embedded), (bias, encoder.net.bias_values(tokens))];
    Plan::once(gpu, &g, &encoder.slabs, &inputs, pulse)?.read(gpu, y)
}

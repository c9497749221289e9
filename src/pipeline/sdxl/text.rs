//! Prompts to what the U-Net reads: two tokenizers, two CLIP text encoders.

use crate::error::{Error, Result};
use crate::graph::Pulse;
use crate::pipeline::clip::{TextStates, clip_ids, encode_clip};
use crate::pipeline::model::Model;
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
    let ids = |folder| clip_ids(files, folder, prompt);
    Ok(PromptIds { first: ids("tokenizer")?, second: ids("tokenizer_2")? })
}

/// Runs both text encoders on some prompts, one encoder after the other; each is released afterwards.
pub fn embed(model: &Model, prompts: &[PromptIds], pulse: Pulse) -> Result<Vec<TextEmbedding>> {
    let mut encode = |folder: &str, ids: Vec<&[u32]>, from: f64| {
        let encoder = model.clip(folder)?;
        encode_clip(model.engine()?, &encoder, &ids, &mut |share| pulse(from + share / 2.0))
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

//! Prompts to token ids: CLIP's byte-level BPE and T5's SentencePiece unigram.
//!
//! The `tokenizers` crate runs both. Which normalisers and splits it gets is written in code, as transformers does
//! it for these two: a `tokenizer.json` is read for its vocabulary and added tokens (T5's also for the character
//! map) alone.

mod charsmap;
mod clip;
mod config;
mod spiece;
mod t5;

use tokenizers::Tokenizer;

use crate::error::{Error, Result};

pub use clip::ClipTokenizer;
pub use t5::T5Tokenizer;

/// Longest prompt that is tokenized, in bytes; what an encoder takes is far less.
const MAX_PROMPT_BYTES: usize = 1 << 20;

/// A tokenized prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// As many ids as the text encoder takes: the prompt's tokens with the special ones, then padding.
    pub ids: Vec<u32>,
    /// How many tokens at the prompt's end did not fit and were dropped.
    pub cut: usize,
}

/// The ids of `text` alone, without start, end and padding.
fn content(tokenizer: &Tokenizer, text: &str) -> Result<Vec<u32>> {
    if text.len() > MAX_PROMPT_BYTES {
        return Err(Error::usage(format!(
            "the prompt has {} bytes, expected at most {MAX_PROMPT_BYTES}",
            text.len()
        )));
    }
    let tokens = tokenizer
        .encode_fast(text, false)
        .map_err(|e| Error::model(format!("cannot tokenize the prompt: {e}")))?;
    Ok(tokens.get_ids().to_vec())
}

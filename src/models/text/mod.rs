//! Prompts to embeddings.

mod clip;
mod tokenize;

pub use clip::{ClipConfig, ClipEncoder, ClipOutputs};
pub use tokenize::{ClipTokenizer, Encoded, T5Tokenizer};

//! Prompts to embeddings.

mod clip;
mod t5;
mod tokenize;

pub use clip::{ClipConfig, ClipEncoder, ClipOutputs};
pub use t5::{T5Config, T5Encoder};
pub use tokenize::{ClipTokenizer, Encoded, T5Tokenizer};

//! The T5 encoder (transformers `T5EncoderModel`, version 1.1: gated GELU).

use serde_json::json;

use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::kernels::attention::{self, Attention, AttentionScope, Heads, Slice};
use crate::models::config::Config;
use crate::nn::{GatedLinear, Linear, RmsNorm};
use crate::tensor::{DType, Shape, Tensor};
use crate::weights::{Rows, Weights};

/// `text_encoder_2/config.json`.
#[derive(Debug, Clone)]
pub struct T5Config {
    pub width: u32,
    pub layers: u32,
    pub heads: u32,
    /// Channels of a head; heads together may be wider than a token.
    pub head_dim: u32,
    pub mlp: u32,
    pub vocab: u32,
    pub buckets: u32,
    pub max_distance: u32,
    pub eps: f32,
}

impl T5Config {
    /// # Errors
    /// A key at a value that this encoder does not implement.
    pub fn new(c: &Config) -> Result<Self> {
        c.require("model_type", &[json!("t5")])?;
        c.require("feed_forward_proj", &[json!("gated-gelu")])?;
        if c.get("feed_forward_proj").is_none() {
            return Err(
                c.error("feed_forward_proj is absent, expected gated-gelu (T5 version 1.1)")
            );
        }
        let (heads, head_dim) = (c.dim("num_heads")?, c.dim("d_kv")?);
        c.heads(heads, head_dim)?;
        let buckets = c.dim_opt("relative_attention_num_buckets")?.unwrap_or(32);
        let max_distance = c.dim_opt("relative_attention_max_distance")?.unwrap_or(128);
        if max_distance <= buckets / 4 {
            return Err(c.error(format!(
                "relative_attention_max_distance is {max_distance}, expected more than a quarter of the {buckets} buckets"
            )));
        }
        Ok(Self {
            width: c.dim("d_model")?,
            layers: c.layers("num_layers")?,
            heads,
            head_dim,
            mlp: c.dim("d_ff")?,
            vocab: c.dim("vocab_size")?,
            buckets,
            max_distance,
            eps: c.positive("layer_norm_epsilon", 1e-6)?,
        })
    }

    /// The row of the bias table for a key `distance` tokens after the query: half of the buckets for
    /// either direction, exact up to a quarter of them and logarithmic beyond.
    pub fn bucket(&self, distance: i64) -> u32 {
        let half = self.buckets / 2;
        let base = if distance > 0 { half } else { 0 };
        let far = distance.unsigned_abs().min(u64::from(u32::MAX)) as u32;
        let exact = half / 2;
        if far < exact.max(1) || half < 2 {
            return base + far.min(half.saturating_sub(1));
        }
        // In f32, as the reference.
        let share = (far as f32 / exact as f32).ln()
            / (f64::from(self.max_distance) / f64::from(exact)).ln() as f32;
        let log = exact.saturating_add((share * (half - exact) as f32).max(0.0) as u32);
        base + log.min(half - 1)
    }
}

/// A T5 encoder. The token table stays in the file: rows are gathered from it.
pub struct T5Encoder {
    pub config: T5Config,
    tokens: Rows,
    /// `[buckets, heads]`, of the first layer and shared by all.
    bias: Vec<f32>,
    layers: Vec<Layer>,
    final_layer_norm: RmsNorm,
}

struct Layer {
    attention_norm: RmsNorm,
    qkv: Linear,
    out: Linear,
    mlp_norm: RmsNorm,
    wi: GatedLinear,
    wo: Linear,
}

impl T5Encoder {
    /// `w` is the root of the checkpoint.
    ///
    /// # Errors
    /// A tensor that is missing or of another shape.
    pub fn load(w: &Weights, config: T5Config) -> Result<Self> {
        let c = &config;
        let inner = c.heads * c.head_dim;
        let layer = |w: Weights| -> Result<Layer> {
            let (attention, mlp) = (w.at("layer.0"), w.at("layer.1"));
            let a = attention.at("SelfAttention");
            let m = mlp.at("DenseReluDense");
            Ok(Layer {
                attention_norm: RmsNorm::load(&attention.at("layer_norm"), c.width, c.eps)?,
                qkv: Linear::load_joined(
                    &[a.at("q"), a.at("k"), a.at("v")],
                    inner,
                    c.width,
                    false,
                )?,
                out: Linear::load_without_bias(&a.at("o"), c.width, inner)?,
                mlp_norm: RmsNorm::load(&mlp.at("layer_norm"), c.width, c.eps)?,
                wi: GatedLinear::load_parts(&m.at("wi_1"), &m.at("wi_0"), c.mlp, c.width)?,
                wo: Linear::load_without_bias(&m.at("wo"), c.width, c.mlp)?,
            })
        };
        let blocks = w.at("encoder.block");
        let bias = blocks.at("0.layer.0.SelfAttention.relative_attention_bias.weight");
        let shared = w.at_any(&["shared.weight", "encoder.embed_tokens.weight"]);
        Ok(Self {
            tokens: shared.rows(c.vocab, c.width)?,
            bias: bias.values(&[c.buckets, c.heads], &[])?,
            layers: (0..c.layers).map(|i| layer(blocks.at(i))).collect::<Result<_>>()?,
            final_layer_norm: RmsNorm::load(&w.at("encoder.final_layer_norm"), c.width, c.eps)?,
            config,
        })
    }

    /// The input of [`T5Encoder::forward`] for one row of ids.
    ///
    /// # Errors
    /// An id outside the vocabulary.
    pub fn embed(&self, ids: &[u32]) -> Result<Vec<f32>> {
        let mut out = Vec::with_capacity(ids.len() * self.config.width as usize);
        for id in ids {
            if *id >= self.config.vocab {
                return Err(Error::model(format!(
                    "token id {id} lies outside the vocabulary of {}",
                    self.config.vocab
                ))
                .with_hint("the tokenizer and the text encoder belong to different models"));
            }
            out.extend(self.tokens.row(*id)?);
        }
        Ok(out)
    }

    /// Values of the second input of [`T5Encoder::forward`] for rows of `length` tokens, at least 1.
    pub fn bias_values(&self, length: u32) -> Vec<f32> {
        let (heads, length) = (self.config.heads as usize, i64::from(length));
        let distances = || (1 - length)..length;
        let at = |head: usize, d: i64| self.bias[self.config.bucket(d) as usize * heads + head];
        (0..heads).flat_map(|head| distances().map(move |d| at(head, d))).collect()
    }

    /// The shape of that input; `length` is at least 1.
    pub fn bias_shape(&self, length: u32) -> Shape {
        Shape::matrix(self.config.heads, 2 * length - 1)
    }

    /// Records the encoder on `[batch, 1, tokens, width]` embeddings, all in f32: the published weights
    /// overflow f16. Padding is attended to, as in the reference.
    pub fn forward(&self, g: &mut Graph, embedded: Tensor, bias: Tensor) -> Result<Tensor> {
        let c = &self.config;
        let heads = Heads { count: c.heads, dim: c.head_dim };
        let mut x = embedded;
        for (i, layer) in self.layers.iter().enumerate() {
            x = g.scope(format!("block.{i}"), |g| {
                let x = g.scope("layer.0", |g| {
                    let h = layer.attention_norm.forward(g, x)?;
                    let qkv = layer.qkv.forward(g, h)?;
                    let part = |i: u32| Slice { tensor: qkv, column: i * c.heads * c.head_dim };
                    let full = AttentionScope::Full;
                    let call = Attention::new(part(0), part(1), part(2), heads, full);
                    let call = Attention { scaled: false, bias: Some(bias), ..call };
                    let mixed = attention::record(g, call, DType::F32)?;
                    layer.out.forward_add(g, mixed, x)
                })?;
                g.scope("layer.1", |g| {
                    let h = layer.mlp_norm.forward(g, x)?;
                    let h = layer.wi.forward(g, h)?;
                    layer.wo.forward_add(g, h, x)
                })
            })?;
        }
        g.scope("final_layer_norm", |g| self.final_layer_norm.forward(g, x))
    }
}

#[cfg(test)]
mod tests {
    use super::T5Config;

    #[test]
    fn buckets_are_exact_near_and_logarithmic_far() {
        let c = T5Config {
            width: 1,
            layers: 1,
            heads: 1,
            head_dim: 1,
            mlp: 1,
            vocab: 1,
            buckets: 32,
            max_distance: 128,
            eps: 1e-6,
        };
        let got: Vec<u32> =
            [0, -1, 1, -7, 7, -8, 8, -15, 16, -64, 127, 128, -5000].map(|d| c.bucket(d)).into();
        assert_eq!(got, [0, 1, 17, 7, 23, 8, 24, 9, 26, 14, 31, 31, 15]);
    }
}

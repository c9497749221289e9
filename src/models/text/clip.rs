//! CLIP text encoders (transformers `CLIPTextModel` and `CLIPTextModelWithProjection`).

use serde_json::json;

use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::kernels::attention::AttentionScope;
use crate::kernels::matmul::Activation;
use crate::models::config::Config;
use crate::nn::{LayerNorm, Linear, ProjectionNames, SelfAttention};
use crate::tensor::Tensor;
use crate::weights::Weights;

/// `text_encoder/config.json`.
#[derive(Debug, Clone)]
pub struct ClipConfig {
    pub width: u32,
    pub layers: u32,
    pub heads: u32,
    pub mlp: u32,
    pub vocab: u32,
    pub positions: u32,
    pub activation: Activation,
    pub eps: f32,
    /// Width of the projected pooled state; `None` for an encoder without projection.
    pub projection: Option<u32>,
    pub eos_token_id: u32,
}

impl ClipConfig {
    /// # Errors
    /// A key at a value that this encoder does not implement.
    pub fn new(c: &Config) -> Result<Self> {
        c.require("model_type", &[json!("clip_text_model"), json!("clip")])?;
        let projected = c
            .get("architectures")
            .and_then(|v| v.get(0))
            .is_some_and(|v| v == "CLIPTextModelWithProjection");
        let activation = match c.name("hidden_act", "quick_gelu")? {
            "quick_gelu" => Activation::QuickGelu,
            "gelu" => Activation::GeluErf,
            "gelu_new" | "gelu_pytorch_tanh" => Activation::GeluTanh,
            other => {
                return Err(c
                    .error(format!("hidden_act is {other}, which is not supported"))
                    .with_hint("supported: quick_gelu, gelu, gelu_new"));
            }
        };
        let width = c.dim("hidden_size")?;
        Ok(Self {
            width,
            layers: c.dim("num_hidden_layers")?,
            heads: c.dim("num_attention_heads")?,
            mlp: c.dim("intermediate_size")?,
            vocab: c.dim("vocab_size")?,
            positions: c.dim_opt("max_position_embeddings")?.unwrap_or(77),
            activation,
            eps: c.positive("layer_norm_eps", 1e-5)?,
            projection: if projected { Some(c.dim("projection_dim")?) } else { None },
            eos_token_id: c.dim_opt("eos_token_id")?.unwrap_or(2),
        })
    }

    /// Where the pooled state is read. Id 2 in the config is a historical mistake that means the
    /// largest id; any other value means its first occurrence.
    pub fn pooled_position(&self, ids: &[u32]) -> usize {
        if self.eos_token_id == 2 {
            let largest = ids.iter().max();
            ids.iter().position(|id| Some(id) == largest).unwrap_or(0)
        } else {
            ids.iter().position(|id| *id == self.eos_token_id).unwrap_or(0)
        }
    }
}

/// What an encoder offers; the caller keeps what it needs.
#[derive(Debug, Clone, Copy)]
pub struct ClipOutputs {
    /// `[batch, 1, tokens, width]`: the output of the last layer but one, without the final norm.
    pub penultimate: Tensor,
    /// `[batch, 1, tokens, width]`: the last layer's output through the final norm.
    pub normed: Tensor,
    /// `[batch, 1, tokens, projection]`: that, projected; with a projection only.
    pub projected: Option<Tensor>,
}

/// A CLIP text encoder. Token and position tables stay on the host: they are gathered, not multiplied.
pub struct ClipEncoder {
    pub config: ClipConfig,
    tokens: Vec<f32>,
    positions: Vec<f32>,
    layers: Vec<Layer>,
    final_layer_norm: LayerNorm,
    text_projection: Option<Linear>,
}

struct Layer {
    norm1: LayerNorm,
    attention: SelfAttention,
    norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
}

impl ClipEncoder {
    /// `w` is the root of the checkpoint: names may start with `text_model` or not.
    pub fn load(w: &Weights, config: ClipConfig) -> Result<Self> {
        let c = &config;
        let m = if w.at("text_model").exists() { w.at("text_model") } else { w.clone() };
        let layer = |w: Weights| -> Result<Layer> {
            Ok(Layer {
                norm1: LayerNorm::load(&w.at("layer_norm1"), c.width, c.eps)?,
                attention: SelfAttention::load(
                    &w.at("self_attn"),
                    &ProjectionNames::CLIP,
                    c.width,
                    c.heads,
                    true,
                )?,
                norm2: LayerNorm::load(&w.at("layer_norm2"), c.width, c.eps)?,
                fc1: Linear::load(&w.at("mlp.fc1"), c.mlp, c.width)?,
                fc2: Linear::load(&w.at("mlp.fc2"), c.width, c.mlp)?,
            })
        };
        let e = m.at("embeddings");
        Ok(Self {
            tokens: e.at("token_embedding.weight").values(&[c.vocab, c.width], &[])?,
            positions: e.at("position_embedding.weight").values(&[c.positions, c.width], &[])?,
            layers: (0..c.layers)
                .map(|i| layer(m.at("encoder.layers").at(i)))
                .collect::<Result<_>>()?,
            final_layer_norm: LayerNorm::load(&m.at("final_layer_norm"), c.width, c.eps)?,
            text_projection: match c.projection {
                Some(n) => Some(Linear::load_without_bias(&w.at("text_projection"), n, c.width)?),
                None => None,
            },
            config,
        })
    }

    /// The input of [`ClipEncoder::forward`] for one row of ids: token plus position embeddings.
    ///
    /// # Errors
    /// More ids than positions, or an id outside the vocabulary.
    pub fn embed(&self, ids: &[u32]) -> Result<Vec<f32>> {
        let c = &self.config;
        let width = c.width as usize;
        if ids.len() > c.positions as usize {
            return Err(Error::model(format!(
                "{} tokens, the text encoder takes {}",
                ids.len(),
                c.positions
            )));
        }
        let mut out = Vec::with_capacity(ids.len() * width);
        for (position, id) in ids.iter().enumerate() {
            if *id >= c.vocab {
                return Err(Error::model(format!(
                    "token id {id} lies outside the vocabulary of {}",
                    c.vocab
                ))
                .with_hint("the tokenizer and the text encoder belong to different models"));
            }
            let token = &self.tokens[*id as usize * width..][..width];
            let place = &self.positions[position * width..][..width];
            out.extend(token.iter().zip(place).map(|(a, b)| a + b));
        }
        Ok(out)
    }

    /// Records the encoder on `[batch, 1, tokens, width]` embeddings. Padding is attended to, as in training.
    pub fn forward(&self, g: &mut Graph, embedded: Tensor) -> Result<ClipOutputs> {
        let mut x = embedded;
        let mut penultimate = x;
        for (i, layer) in self.layers.iter().enumerate() {
            penultimate = x;
            x = g.scope(format!("layers.{i}"), |g| {
                let h = g.scope("layer_norm1", |g| layer.norm1.forward(g, x))?;
                let x = g.scope("self_attn", |g| {
                    layer.attention.forward(g, h, AttentionScope::Causal, x)
                })?;
                let h = g.scope("layer_norm2", |g| layer.norm2.forward(g, x))?;
                let h =
                    g.scope("mlp.fc1", |g| layer.fc1.forward_act(g, h, self.config.activation))?;
                g.scope("mlp.fc2", |g| layer.fc2.forward_add(g, h, x))
            })?;
        }
        let normed = g.scope("final_layer_norm", |g| self.final_layer_norm.forward(g, x))?;
        let projected = match &self.text_projection {
            Some(projection) => {
                Some(g.scope("text_projection", |g| projection.forward(g, normed))?)
            }
            None => None,
        };
        Ok(ClipOutputs { penultimate, normed, projected })
    }
}

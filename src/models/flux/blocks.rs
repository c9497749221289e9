//! The two kinds of blocks, and the attention in them.

use super::config::FluxConfig;
use crate::error::Result;
use crate::graph::{Graph, WeightRef};
use crate::kernels::attention::{self, Attention, AttentionScope, Heads, Slice, Text, Turn};
use crate::kernels::layer_norm::Modulation;
use crate::kernels::matmul::{Activation, Gate};
use crate::kernels::{rotary, window_mean};
use crate::models::windows::Windows;
use crate::nn::{Linear, modulated_norm};
use crate::tensor::{DType, Shape, Tensor};
use crate::weights::Weights;

/// The epsilon of every norm.
pub(super) const EPS: f32 = 1e-6;

/// Most bytes of the text's answers from the windows of one layer that are kept at a time.
const ANSWER_BYTES: u64 = 64 << 20;

/// The tokens of a picture and of its text: `[batch, h, w, width]` and `[batch, 1, tokens, width]`, f32.
#[derive(Clone, Copy)]
pub(super) struct Streams {
    pub image: Tensor,
    pub text: Tensor,
}

/// What all blocks of a forward pass share.
pub(super) struct Pass<'a, 'w> {
    /// `silu` of the conditioning, `[batch, width]`.
    pub conditioning: Tensor,
    pub heads: Heads,
    pub turn: Turn,
    pub windows: &'a mut Windows<'w>,
    /// What norms, attention and the hidden layers are stored in.
    pub act: DType,
    /// Weights of the distinct windows in the text's mean, to be written once.
    pub fixed: &'a mut Vec<(Tensor, Vec<f32>)>,
}

/// Queries, keys and values of a stream, ready for attention.
#[derive(Clone, Copy)]
struct Projected {
    q: Slice,
    k: Slice,
    v: Slice,
}

/// What makes them: q and k in one product, normalised by head and turned by place; v apart, so that no binding
/// has to hold all three.
struct Projection {
    qk: Linear,
    v: Linear,
    norm_q: WeightRef,
    norm_k: WeightRef,
}

impl Projection {
    /// `names`: of q, k, v and of the norms of q and k.
    fn load(w: &Weights, c: &FluxConfig, names: [&str; 5]) -> Result<Self> {
        let [q, k, v, norm_q, norm_k] = names;
        let (width, dim) = (c.width(), c.head_dim);
        Ok(Self {
            qk: Linear::load_joined(&[w.at(q), w.at(k)], width, width, true)?,
            v: Linear::load(&w.at(v), width, width)?,
            norm_q: w.at(norm_q).at("weight").vector(dim, dim)?,
            norm_k: w.at(norm_k).at("weight").vector(dim, dim)?,
        })
    }

    fn forward(
        &self,
        g: &mut Graph,
        x: Tensor,
        heads: Heads,
        turn: Option<Turn>,
    ) -> Result<Projected> {
        let qk = self.qk.forward(g, x)?;
        let mut part = |column: u32, weight: WeightRef| -> Result<Slice> {
            let weight = g.weight(weight);
            let from = Slice { tensor: qk, column };
            let tensor = rotary::record(g, from, weight, heads, turn, EPS, x.dtype)?;
            Ok(Slice { tensor, column: 0 })
        };
        let q = part(0, self.norm_q)?;
        let k = part(heads.count * heads.dim, self.norm_k)?;
        Ok(Projected { q, k, v: Slice { tensor: self.v.forward(g, x)?, column: 0 } })
    }
}

impl Pass<'_, '_> {
    /// Attention of both streams to both: the picture's and the text's answers.
    fn attend(
        &mut self,
        g: &mut Graph,
        image: Projected,
        text: Projected,
    ) -> Result<(Tensor, Tensor)> {
        let scope = self.windows.scope(0, image.k.tensor.shape);
        let patches = match scope {
            AttentionScope::Patches(p) => Some(p),
            _ => None,
        };
        let turn = patches.map(|_| self.turn);
        let keys = Some(Text { k: text.k, v: text.v, turn });
        let call = Attention::new(image.q, image.k, image.v, self.heads, scope);
        let call = Attention { text: keys, ..call };
        let seen = g.scope("attn", |g| attention::record(g, call, self.act))?;
        let call = Attention { q: text.q, ..call };
        let Some(patches) = patches else {
            let read = g.scope("attn_text", |g| attention::record(g, call, self.act))?;
            return Ok((seen, read));
        };
        let shifted = self.windows.jitter.is_some();
        let (ys, xs) = patches.distinct(shifted);
        let blocks = f64::from(ys.blocks()) * f64::from(xs.blocks());
        let weights: Vec<f32> = ys
            .windows
            .iter()
            .flat_map(|(_, rows)| {
                xs.windows.iter().map(move |(_, columns)| {
                    (f64::from(*rows) * f64::from(*columns) / blocks) as f32
                })
            })
            .collect();
        let weight = g.input("windows", Shape::matrix(1, weights.len() as u32), DType::F32);
        self.fixed.push((weight, weights));
        let read = g.scope("attn_text", |g| {
            // Some windows at a time: all of them would outgrow the picture.
            let count = weight.shape.channels;
            let bytes = text.q.tensor.bytes().max(1);
            let limits = g.caps().limits;
            let room = ANSWER_BYTES.min(limits.binding_bytes).min(limits.buffer_bytes);
            let step = (room / bytes).clamp(1, u64::from(count)) as u32;
            let mut sum = None;
            for first in (0..count).step_by(step as usize) {
                let part = first..(first + step).min(count);
                let out = if part.end == count { self.act } else { DType::F32 };
                let answers = attention::record_windows(g, call, shifted, part.clone(), self.act)?;
                sum = Some(window_mean::record(g, answers, weight, part, sum, out)?);
            }
            sum.ok_or_else(|| g.error("a picture without windows"))
        })?;
        Ok((seen, read))
    }
}

/// The columns of one block's modulation: pieces of `width`, by number.
#[derive(Clone, Copy)]
struct Modulations {
    table: Tensor,
    width: u32,
}

impl Modulations {
    fn record(g: &mut Graph, layer: &Linear, pass: &Pass, width: u32) -> Result<Self> {
        let table = layer.forward_as(g, pass.conditioning, DType::F32)?;
        Ok(Self { table, width })
    }

    fn norm(self, g: &mut Graph, x: Tensor, shift: u32, scale: u32, out: DType) -> Result<Tensor> {
        let (scale, shift) = (scale * self.width, shift * self.width);
        modulated_norm(g, x, Modulation { table: self.table, scale, shift }, EPS, out)
    }

    fn gate(self, piece: u32) -> Gate {
        Gate { table: self.table, column: piece * self.width }
    }
}

/// One stream of a double block.
struct Stream {
    modulation: Linear,
    projection: Projection,
    out: Linear,
    up: Linear,
    down: Linear,
}

impl Stream {
    fn load(
        w: &Weights,
        c: &FluxConfig,
        norm: &str,
        attention: [&str; 5],
        out: &str,
        mlp: &str,
    ) -> Result<Self> {
        let (a, width) = (w.at("attn"), c.width());
        Ok(Self {
            modulation: Linear::load(&w.at(norm).at("linear"), 6 * width, width)?,
            projection: Projection::load(&a, c, attention)?,
            out: Linear::load(&a.at(out), width, width)?,
            up: Linear::load(&w.at(mlp).at("net.0.proj"), 4 * width, width)?,
            down: Linear::load(&w.at(mlp).at("net.2"), width, 4 * width)?,
        })
    }

    /// Adds what attention gave, then the hidden layer.
    fn finish(
        &self,
        g: &mut Graph,
        x: Tensor,
        seen: Tensor,
        m: Modulations,
        act: DType,
    ) -> Result<Tensor> {
        let x = self.out.forward_gated(g, seen, m.gate(2), x)?;
        let h = m.norm(g, x, 3, 4, act)?;
        let h = self.up.forward_act(g, h, Activation::GeluTanh)?;
        self.down.forward_gated(g, h, m.gate(5), x)
    }
}

/// A block with weights of their own for picture and text.
pub(super) struct DoubleBlock {
    image: Stream,
    text: Stream,
}

impl DoubleBlock {
    pub fn load(w: &Weights, c: &FluxConfig) -> Result<Self> {
        let own = ["to_q", "to_k", "to_v", "norm_q", "norm_k"];
        let added = ["add_q_proj", "add_k_proj", "add_v_proj", "norm_added_q", "norm_added_k"];
        Ok(Self {
            image: Stream::load(w, c, "norm1", own, "to_out.0", "ff")?,
            text: Stream::load(w, c, "norm1_context", added, "to_add_out", "ff_context")?,
        })
    }

    pub fn forward(&self, g: &mut Graph, x: Streams, pass: &mut Pass) -> Result<Streams> {
        let (heads, act, turn) = (pass.heads, pass.act, pass.turn);
        let width = heads.count * heads.dim;
        let project = |g: &mut Graph, stream: &Stream, x: Tensor, turn: Option<Turn>| {
            let m = Modulations::record(g, &stream.modulation, pass, width)?;
            let h = m.norm(g, x, 0, 1, act)?;
            Ok((m, stream.projection.forward(g, h, heads, turn)?))
        };
        let (m_image, image) =
            g.scope("image", |g| project(g, &self.image, x.image, Some(turn)))?;
        let (m_text, text) = g.scope("text", |g| project(g, &self.text, x.text, None))?;
        let (seen, read) = pass.attend(g, image, text)?;
        Ok(Streams {
            image: g.scope("image", |g| self.image.finish(g, x.image, seen, m_image, act))?,
            text: g.scope("text", |g| self.text.finish(g, x.text, read, m_text, act))?,
        })
    }
}

/// A block that picture and text share, attention and hidden layer side by side. Its last layer sees both joined;
/// each is multiplied by its own columns instead.
pub(super) struct SingleBlock {
    modulation: Linear,
    projection: Projection,
    up: Linear,
    out_attention: Linear,
    out_hidden: Linear,
}

impl SingleBlock {
    pub fn load(w: &Weights, c: &FluxConfig) -> Result<Self> {
        let (width, of) = (c.width(), 5 * c.width());
        let own = ["to_q", "to_k", "to_v", "norm_q", "norm_k"];
        let out = w.at("proj_out");
        Ok(Self {
            modulation: Linear::load(&w.at("norm.linear"), 3 * width, width)?,
            projection: Projection::load(&w.at("attn"), c, own)?,
            up: Linear::load(&w.at("proj_mlp"), 4 * width, width)?,
            out_attention: Linear::load_columns(&out, width, of, (0, width), false)?,
            out_hidden: Linear::load_columns(&out, width, of, (width, 4 * width), true)?,
        })
    }

    pub fn forward(&self, g: &mut Graph, x: Streams, pass: &mut Pass) -> Result<Streams> {
        let (heads, act, turn) = (pass.heads, pass.act, pass.turn);
        let m = Modulations::record(g, &self.modulation, pass, heads.count * heads.dim)?;
        let project = |g: &mut Graph, x: Tensor, turn: Option<Turn>| {
            let h = m.norm(g, x, 0, 1, act)?;
            Ok((h, self.projection.forward(g, h, heads, turn)?))
        };
        let (h_image, image) = g.scope("image", |g| project(g, x.image, Some(turn)))?;
        let (h_text, text) = g.scope("text", |g| project(g, x.text, None))?;
        let (seen, read) = pass.attend(g, image, text)?;
        let finish = |g: &mut Graph, x: Tensor, h: Tensor, seen: Tensor| {
            let x = self.out_attention.forward_gated(g, seen, m.gate(2), x)?;
            let h = self.up.forward_act(g, h, Activation::GeluTanh)?;
            self.out_hidden.forward_gated(g, h, m.gate(2), x)
        };
        Ok(Streams {
            image: g.scope("image", |g| finish(g, x.image, h_image, seen))?,
            text: g.scope("text", |g| finish(g, x.text, h_text, read))?,
        })
    }
}

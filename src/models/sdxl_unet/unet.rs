//! The network: down, mid, up, with skips joined on channels and never copied.

use super::blocks::Transformer;
use super::config::UnetConfig;
use crate::error::Result;
use crate::graph::Graph;
use crate::kernels::matmul::Activation;
use crate::kernels::silu;
use crate::models::embed::sinusoids;
use crate::models::windows::Windows;
use crate::nn::{Conv2d, GroupNorm, Linear, ResnetBlock};
use crate::tensor::{DType, Tensor};
use crate::weights::Weights;

/// What steers a forward pass beside the sample.
#[derive(Debug, Clone, Copy)]
pub struct Conditioning {
    /// `[batch, 1, 1, channels[0]]` f32: sinusoids of the timestep.
    pub time: Tensor,
    /// `[batch, 1, 1, added_dim]` f32: pooled text, then sinusoids of the `time_ids`.
    pub added: Tensor,
    /// `[batch, 1, tokens, context_dim]`.
    pub context: Tensor,
}

/// The denoiser of SDXL: `[batch, h, w, 4]` latents to the predicted noise of the same shape.
pub struct Unet {
    pub config: UnetConfig,
    conv_in: Conv2d,
    time_embedding: [Linear; 2],
    add_embedding: [Linear; 2],
    down: Vec<Level>,
    mid: (ResnetBlock, Transformer, ResnetBlock),
    up: Vec<Level>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
}

/// Resnets with or without attention, then a change of size except at the last level.
struct Level {
    resnets: Vec<ResnetBlock>,
    attentions: Vec<Transformer>,
    resample: Option<Conv2d>,
}

impl Unet {
    /// Loads the weights that `config` calls for.
    pub fn load(w: &Weights, config: UnetConfig) -> Result<Self> {
        let c = &config;
        let (first, last) = (c.channels[0], c.channels[c.channels.len() - 1]);
        let time = 4 * first;
        let levels = c.channels.len();
        let resnet = |w: &Weights, c_in, c_out| {
            ResnetBlock::load(w, (c_in, c_out), Some(time), c.groups, c.eps, 1.0)
        };
        let transformer = |w: &Weights, level: usize| {
            Transformer::load(
                w,
                c.channels[level],
                c.heads[level],
                c.depth[level],
                c.context_dim,
                c.groups,
            )
        };

        // Channels of the skips in the order they are pushed.
        let mut skips = vec![first];
        let mut down = Vec::new();
        let mut width = first;
        for level in 0..levels {
            let w = w.at("down_blocks").at(level);
            let out = c.channels[level];
            let mut block = Level { resnets: Vec::new(), attentions: Vec::new(), resample: None };
            for i in 0..c.resnets_per_level {
                block.resnets.push(resnet(&w.at("resnets").at(i), width, out)?);
                if c.down_attention[level] {
                    block.attentions.push(transformer(&w.at("attentions").at(i), level)?);
                }
                width = out;
                skips.push(out);
            }
            if level + 1 < levels {
                block.resample = Some(Conv2d::load(&w.at("downsamplers.0.conv"), out, out, 3)?);
                skips.push(out);
            }
            down.push(block);
        }

        let m = w.at("mid_block");
        let mid = (
            resnet(&m.at("resnets.0"), last, last)?,
            transformer(&m.at("attentions.0"), levels - 1)?,
            resnet(&m.at("resnets.1"), last, last)?,
        );

        let mut up = Vec::new();
        for (i, level) in (0..levels).rev().enumerate() {
            let w = w.at("up_blocks").at(i);
            let out = c.channels[level];
            let mut block = Level { resnets: Vec::new(), attentions: Vec::new(), resample: None };
            for j in 0..=c.resnets_per_level {
                let skip = skips.pop().unwrap_or(first);
                block.resnets.push(resnet(&w.at("resnets").at(j), width + skip, out)?);
                if c.up_attention[i] {
                    block.attentions.push(transformer(&w.at("attentions").at(j), level)?);
                }
                width = out;
            }
            if level > 0 {
                block.resample = Some(Conv2d::load(&w.at("upsamplers.0.conv"), out, out, 3)?);
            }
            up.push(block);
        }

        let pair = |w: Weights, k| -> Result<[Linear; 2]> {
            Ok([
                Linear::load(&w.at("linear_1"), time, k)?,
                Linear::load(&w.at("linear_2"), time, time)?,
            ])
        };
        Ok(Self {
            conv_in: Conv2d::load(&w.at("conv_in"), first, c.in_channels, 3)?,
            time_embedding: pair(w.at("time_embedding"), first)?,
            add_embedding: pair(w.at("add_embedding"), c.added_dim)?,
            down,
            mid,
            up,
            conv_norm_out: GroupNorm::load(&w.at("conv_norm_out"), first, c.groups, c.eps)?,
            conv_out: Conv2d::load(&w.at("conv_out"), c.out_channels, first, 3)?,
            config,
        })
    }

    /// Records a forward pass; `windows` says what self-attention sees.
    pub fn forward(
        &self,
        g: &mut Graph,
        sample: Tensor,
        conditioning: Conditioning,
        windows: &mut Windows,
    ) -> Result<Tensor> {
        let time = Some(self.embed(g, conditioning)?);
        let context = conditioning.context;

        let mut x = g.scope("conv_in", |g| self.conv_in.forward(g, sample))?;
        let mut skips = vec![x];
        for (level, block) in self.down.iter().enumerate() {
            for (i, resnet) in block.resnets.iter().enumerate() {
                x = g.scope(format!("down_blocks.{level}.resnets.{i}"), |g| {
                    resnet.forward(g, x, None, time)
                })?;
                if let Some(attention) = block.attentions.get(i) {
                    x = g.scope(format!("down_blocks.{level}.attentions.{i}"), |g| {
                        attention.forward(g, x, context, level, windows)
                    })?;
                }
                skips.push(x);
            }
            if let Some(conv) = &block.resample {
                x = g.scope(format!("down_blocks.{level}.downsamplers.0"), |g| {
                    conv.forward_halved(g, x, 1)
                })?;
                skips.push(x);
            }
        }

        let coarsest = self.down.len() - 1;
        let (first, attention, second) = &self.mid;
        x = g.scope("mid_block.resnets.0", |g| first.forward(g, x, None, time))?;
        x = g.scope("mid_block.attentions.0", |g| {
            attention.forward(g, x, context, coarsest, windows)
        })?;
        x = g.scope("mid_block.resnets.1", |g| second.forward(g, x, None, time))?;

        for (b, block) in self.up.iter().enumerate() {
            for (i, resnet) in block.resnets.iter().enumerate() {
                let skip = skips.pop();
                x = g.scope(format!("up_blocks.{b}.resnets.{i}"), |g| {
                    resnet.forward(g, x, skip, time)
                })?;
                if let Some(attention) = block.attentions.get(i) {
                    x = g.scope(format!("up_blocks.{b}.attentions.{i}"), |g| {
                        attention.forward(g, x, context, coarsest - b, windows)
                    })?;
                }
            }
            if let (Some(conv), Some(next)) = (&block.resample, skips.last()) {
                // The size of the next skip, which an odd grid makes one less than twice ours.
                let (height, width) = (next.shape.height, next.shape.width);
                x = g.scope(format!("up_blocks.{b}.upsamplers.0"), |g| {
                    conv.forward_doubled(g, x, height, width)
                })?;
            }
        }
        let x = g.scope("conv_norm_out", |g| self.conv_norm_out.forward_silu(g, x, None))?;
        g.scope("conv_out", |g| self.conv_out.forward_as(g, x, DType::F32))
    }

    /// Time and added conditions as one vector per batch item, through SiLU as every resnet wants it.
    fn embed(&self, g: &mut Graph, c: Conditioning) -> Result<Tensor> {
        let [t1, t2] = &self.time_embedding;
        let time = g.scope("time_embedding", |g| {
            let h = t1.forward_act(g, c.time, Activation::Silu)?;
            t2.forward(g, h)
        })?;
        let [a1, a2] = &self.add_embedding;
        g.scope("add_embedding", |g| {
            let h = a1.forward_act(g, c.added, Activation::Silu)?;
            let sum = a2.forward_add(g, h, time)?;
            silu::record(g, sum, DType::F32)
        })
    }

    /// The values of [`Conditioning::time`] for one batch item.
    pub fn time_values(&self, timestep: f32) -> Vec<f32> {
        let c = &self.config;
        sinusoids(f64::from(timestep), c.channels[0], c.flip_sin_to_cos, c.freq_shift)
    }

    /// The values of [`Conditioning::added`] for one batch item.
    ///
    /// # Errors
    /// A pooled text whose length does not fit the config.
    pub fn added_values(&self, pooled: &[f32], time_ids: &[f32]) -> Result<Vec<f32>> {
        let c = &self.config;
        let mut values = pooled.to_vec();
        for id in time_ids {
            values.extend(sinusoids(
                f64::from(*id),
                c.time_id_dim,
                c.flip_sin_to_cos,
                c.freq_shift,
            ));
        }
        if values.len() != c.added_dim as usize {
            return Err(crate::error::Error::model(format!(
                "unet: {} pooled values and {} time ids make {} values, projection_class_embeddings_input_dim is {}",
                pooled.len(),
                time_ids.len(),
                values.len(),
                c.added_dim
            )));
        }
        Ok(values)
    }
}

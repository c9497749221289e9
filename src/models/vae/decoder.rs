//! Latents to pixels.

use super::{EPS, Mid, VaeConfig, norm, scale_of};
use crate::error::Result;
use crate::graph::Graph;

use crate::nn::{Conv2d, GroupNorm, ResnetBlock};
use crate::tensor::{DType, Tensor};
use crate::weights::Weights;

/// `[batch, h, w, latent]` (unscaled) to `[batch, 8h, 8w, 3]`, about -1…1 and not clamped.
pub struct Decoder {
    post_quant_conv: Option<Conv2d>,
    conv_in: Conv2d,
    mid: Mid,
    up: Vec<(Vec<ResnetBlock>, Option<Conv2d>)>,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
    /// Of activations.
    dtype: DType,
}

impl Decoder {
    /// `w` is the root of the autoencoder's names.
    pub fn load(w: &Weights, c: &VaeConfig) -> Result<Self> {
        let d = w.at("decoder");
        let levels = c.channels.len();
        let (first, last) = (c.channels[0], c.channels[levels - 1]);
        let scale = scale_of(w.dtype());
        let mut width = last;
        let mut up = Vec::new();
        for (i, &out) in c.channels.iter().rev().enumerate() {
            let b = d.at("up_blocks").at(i);
            let mut resnets = Vec::new();
            for j in 0..=c.resnets_per_level {
                resnets.push(ResnetBlock::load(
                    &b.at("resnets").at(j),
                    (width, out),
                    None,
                    c.groups,
                    EPS,
                    scale,
                )?);
                width = out;
            }
            let double = if i + 1 < levels {
                let w = b.at("upsamplers.0.conv");
                Some(Conv2d::load_scaled(&w, out, out, 3, (scale, scale))?)
            } else {
                None
            };
            up.push((resnets, double));
        }
        let latent = c.latent_channels;
        Ok(Self {
            post_quant_conv: if c.post_quant_conv {
                Some(Conv2d::load(&w.at("post_quant_conv"), latent, latent, 1)?)
            } else {
                None
            },
            conv_in: Conv2d::load_scaled(&d.at("conv_in"), last, latent, 3, (1.0, scale))?,
            mid: Mid::load(&d.at("mid_block"), last, c)?,
            up,
            conv_norm_out: norm(&d.at("conv_norm_out"), first, c.groups)?,
            conv_out: Conv2d::load(&d.at("conv_out"), c.image_channels, first, 3)?,
            dtype: w.dtype(),
        })
    }

    /// Records the decoder.
    pub fn forward(&self, g: &mut Graph, latents: Tensor) -> Result<Tensor> {
        let mut x = match &self.post_quant_conv {
            Some(conv) => g.scope("post_quant_conv", |g| conv.forward(g, latents))?,
            None => latents,
        };
        x = g.scope("conv_in", |g| self.conv_in.forward_as(g, x, self.dtype))?;
        x = g.scope("mid_block", |g| self.mid.forward(g, x))?;
        // What is enlarged last, and by what, where the result is computed for each use.
        let mut enlarged: Option<(usize, &Conv2d)> = None;
        let most = g.kept_bytes();
        for (i, (resnets, double)) in self.up.iter().enumerate() {
            for (j, resnet) in resnets.iter().enumerate() {
                let input = |g: &mut Graph| match enlarged {
                    Some((i, conv)) => doubled(g, i, conv, x),
                    None => Ok(x),
                };
                x = g.scope(format!("up_blocks.{i}.resnets.{j}"), |g| {
                    resnet.forward_again(g, &input, most)
                })?;
                enlarged = None;
            }
            match double {
                Some(conv) if 4 * x.bytes() > most => enlarged = Some((i, conv)),
                Some(conv) => x = doubled(g, i, conv, x)?,
                None => {}
            }
        }
        x = g.scope("conv_norm_out", |g| self.conv_norm_out.forward_silu(g, x, None))?;
        g.scope("conv_out", |g| self.conv_out.forward_as(g, x, DType::F32))
    }
}

fn doubled(g: &mut Graph, level: usize, conv: &Conv2d, x: Tensor) -> Result<Tensor> {
    let (height, width) = (2 * x.shape.height, 2 * x.shape.width);
    g.scope(format!("up_blocks.{level}.upsamplers.0"), |g| {
        conv.forward_doubled(g, x, height, width)
    })
}

//! Pixels to the mean of the posterior.

use super::{EPS, Mid, VaeConfig, norm, scale_of};
use crate::error::Result;
use crate::graph::Graph;

use crate::nn::{Conv2d, GroupNorm, ResnetBlock};
use crate::tensor::{DType, Tensor};
use crate::weights::Weights;

/// `[batch, H, W, 3]` in -1…1 to `[batch, H/8, W/8, latent]`, the posterior's mean (unscaled).
pub struct Encoder {
    conv_in: Conv2d,
    down: Vec<(Vec<ResnetBlock>, Option<Conv2d>)>,
    mid: Mid,
    conv_norm_out: GroupNorm,
    conv_out: Conv2d,
    quant_conv: Option<Conv2d>,
    /// Of activations.
    dtype: DType,
}

impl Encoder {
    /// `w` is the root of the autoencoder's names.
    pub fn load(w: &Weights, c: &VaeConfig) -> Result<Self> {
        let e = w.at("encoder");
        let levels = c.channels.len();
        let (first, last) = (c.channels[0], c.channels[levels - 1]);
        let scale = scale_of(w.dtype());
        let mut width = first;
        let mut down = Vec::new();
        for (level, &out) in c.channels.iter().enumerate() {
            let b = e.at("down_blocks").at(level);
            let mut resnets = Vec::new();
            for i in 0..c.resnets_per_level {
                resnets.push(ResnetBlock::load(
                    &b.at("resnets").at(i),
                    (width, out),
                    None,
                    c.groups,
                    EPS,
                    scale,
                )?);
                width = out;
            }
            let halve = if level + 1 < levels {
                let w = b.at("downsamplers.0.conv");
                Some(Conv2d::load_scaled(&w, out, out, 3, (scale, scale))?)
            } else {
                None
            };
            down.push((resnets, halve));
        }
        // Mean and log-variance lie side by side; only the mean is used.
        let moments = 2 * c.latent_channels;
        let kept = if c.quant_conv { moments } else { c.latent_channels };
        Ok(Self {
            conv_in: Conv2d::load_scaled(
                &e.at("conv_in"),
                first,
                c.image_channels,
                3,
                (1.0, scale),
            )?,
            down,
            mid: Mid::load(&e.at("mid_block"), last, c)?,
            conv_norm_out: norm(&e.at("conv_norm_out"), last, c.groups)?,
            conv_out: Conv2d::load_first(&e.at("conv_out"), moments, last, 3, kept)?,
            quant_conv: if c.quant_conv {
                Some(Conv2d::load_first(
                    &w.at("quant_conv"),
                    moments,
                    moments,
                    1,
                    c.latent_channels,
                )?)
            } else {
                None
            },
            dtype: w.dtype(),
        })
    }

    /// Records the encoder.
    pub fn forward(&self, g: &mut Graph, image: Tensor) -> Result<Tensor> {
        let conv_in =
            |g: &mut Graph| g.scope("conv_in", |g| self.conv_in.forward_as(g, image, self.dtype));
        let most = g.kept_bytes();
        let mut again = self.conv_in.same_bytes(image, self.dtype) > most;
        let mut x = if again { image } else { conv_in(g)? };
        for (level, (resnets, halve)) in self.down.iter().enumerate() {
            for (i, resnet) in resnets.iter().enumerate() {
                let input = |g: &mut Graph| if again { conv_in(g) } else { Ok(x) };
                x = g.scope(format!("down_blocks.{level}.resnets.{i}"), |g| {
                    resnet.forward_again(g, &input, most)
                })?;
                again = false;
            }
            if let Some(conv) = halve {
                // Padded below and to the right only.
                x = g.scope(format!("down_blocks.{level}.downsamplers.0"), |g| {
                    conv.forward_halved(g, x, 0)
                })?;
            }
        }
        x = g.scope("mid_block", |g| self.mid.forward(g, x))?;
        x = g.scope("conv_norm_out", |g| self.conv_norm_out.forward_silu(g, x, None))?;
        x = g.scope("conv_out", |g| self.conv_out.forward_as(g, x, DType::F32))?;
        match &self.quant_conv {
            Some(conv) => g.scope("quant_conv", |g| conv.forward(g, x)),
            None => Ok(x),
        }
    }
}

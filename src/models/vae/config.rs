//! `vae/config.json`.

use serde_json::json;

use crate::error::Result;
use crate::models::config::Config;

/// The dimensions of an autoencoder.
#[derive(Debug, Clone)]
pub struct VaeConfig {
    /// Channels of each level, the finest first.
    pub channels: Vec<u32>,
    /// Residual blocks of each level on the way in; one more on the way out.
    pub resnets_per_level: u32,
    pub latent_channels: u32,
    pub image_channels: u32,
    pub groups: u32,
    pub mid_attention: bool,
    pub quant_conv: bool,
    pub post_quant_conv: bool,
    /// Model latents = (VAE latents - shift) × scaling.
    pub scaling: f32,
    pub shift: f32,
}

impl VaeConfig {
    /// # Errors
    /// A key at a value that this autoencoder does not implement.
    pub fn new(c: &Config) -> Result<Self> {
        c.require("_class_name", &[json!("AutoencoderKL")])?;
        c.require("act_fn", &[json!("silu"), json!("swish")])?;
        c.require("in_channels", &[json!(3)])?;
        c.require("out_channels", &[json!(3)])?;
        c.require("latents_mean", &[])?;
        c.require("latents_std", &[])?;
        let channels = c.dim_list("block_out_channels")?;
        for (key, only) in
            [("down_block_types", "DownEncoderBlock2D"), ("up_block_types", "UpDecoderBlock2D")]
        {
            let names = c.names(key)?;
            if names.len() != channels.len() || names.iter().any(|n| *n != only) {
                return Err(
                    c.error(format!("{key} is {names:?}, expected {} × {only}", channels.len()))
                );
            }
        }
        Ok(Self {
            resnets_per_level: c.dim("layers_per_block")?,
            latent_channels: c.dim("latent_channels")?,
            image_channels: 3,
            groups: c.dim_opt("norm_num_groups")?.unwrap_or(32),
            mid_attention: c.flag("mid_block_add_attention", true)?,
            quant_conv: c.flag("use_quant_conv", true)?,
            post_quant_conv: c.flag("use_post_quant_conv", true)?,
            scaling: c.positive("scaling_factor", 0.18215)?,
            shift: c.number("shift_factor", 0.0)? as f32,
            channels,
        })
    }

    /// Pixels per latent along each axis.
    pub fn factor(&self) -> u32 {
        1 << (self.channels.len() - 1)
    }
}

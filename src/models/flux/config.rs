//! `transformer/config.json`.

use serde_json::json;

use crate::error::Result;
use crate::models::config::Config;

/// The dimensions of a FLUX transformer.
#[derive(Debug, Clone)]
pub struct FluxConfig {
    /// Values of a token: 2 × 2 latents.
    pub in_channels: u32,
    pub out_channels: u32,
    pub heads: u32,
    pub head_dim: u32,
    /// Blocks with weights of their own for text and picture.
    pub double_blocks: u32,
    /// Blocks that both share.
    pub single_blocks: u32,
    pub context_dim: u32,
    pub pooled_dim: u32,
    /// Whether the guidance scale is an input.
    pub guidance: bool,
    /// Channels of a head that turn by each axis: one along which pictures do not extend, rows, columns.
    pub axes: [u32; 3],
}

impl FluxConfig {
    /// # Errors
    /// A key at a value that this transformer does not implement.
    pub fn new(c: &Config) -> Result<Self> {
        c.require("_class_name", &[json!("FluxTransformer2DModel")])?;
        c.require("patch_size", &[json!(1)])?;
        let head_dim = c.dim_opt("attention_head_dim")?.unwrap_or(128);
        let axes = match c.get("axes_dims_rope") {
            None => vec![16, 56, 56],
            Some(_) => c.dims("axes_dims_rope", 3)?,
        };
        if axes.iter().sum::<u32>() != head_dim || axes.iter().any(|a| a % 2 != 0) {
            return Err(c.error(format!(
                "axes_dims_rope is {axes:?}, expected even numbers with the sum {head_dim}"
            )));
        }
        if head_dim % 4 != 0 {
            return Err(
                c.error(format!("attention_head_dim is {head_dim}, expected a multiple of 4"))
            );
        }
        let heads = c.dim("num_attention_heads")?;
        c.heads(heads, head_dim)?;
        let in_channels = c.dim("in_channels")?;
        Ok(Self {
            in_channels,
            out_channels: c.dim_opt("out_channels")?.unwrap_or(in_channels),
            heads,
            head_dim,
            double_blocks: c.layers("num_layers")?,
            single_blocks: c.layers("num_single_layers")?,
            context_dim: c.dim("joint_attention_dim")?,
            pooled_dim: c.dim("pooled_projection_dim")?,
            guidance: c.flag("guidance_embeds", false)?,
            axes: [axes[0], axes[1], axes[2]],
        })
    }

    /// Channels of a stream.
    pub fn width(&self) -> u32 {
        self.heads * self.head_dim
    }
}

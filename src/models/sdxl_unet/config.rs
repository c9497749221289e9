//! `unet/config.json`.

use serde_json::json;

use crate::error::Result;
use crate::models::config::Config;

/// The dimensions of a U-Net; every one comes from the config.
#[derive(Debug, Clone)]
pub struct UnetConfig {
    pub in_channels: u32,
    pub out_channels: u32,
    /// Channels of each level, the finest first.
    pub channels: Vec<u32>,
    /// Attention heads of each level.
    pub heads: Vec<u32>,
    /// Transformer blocks of each attention, per level.
    pub depth: Vec<u32>,
    /// Whether each level of the way down has attention.
    pub down_attention: Vec<bool>,
    /// Whether each level of the way up has attention, the coarsest first.
    pub up_attention: Vec<bool>,
    pub resnets_per_level: u32,
    pub context_dim: u32,
    /// Length of the pooled text with the embedded `time_ids`.
    pub added_dim: u32,
    /// Sinusoids of each of the six `time_ids`.
    pub time_id_dim: u32,
    pub flip_sin_to_cos: bool,
    pub freq_shift: f64,
    pub groups: u32,
    pub eps: f32,
    /// Side of the latents that the model was trained at.
    pub sample_size: u32,
}

impl UnetConfig {
    /// # Errors
    /// A key at a value that this U-Net does not implement.
    pub fn new(c: &Config) -> Result<Self> {
        c.require("_class_name", &[json!("UNet2DConditionModel")])?;
        for (key, allowed) in [
            ("act_fn", vec![json!("silu"), json!("swish")]),
            ("addition_embed_type", vec![json!("text_time")]),
            ("mid_block_type", vec![json!("UNetMidBlock2DCrossAttn")]),
            ("resnet_time_scale_shift", vec![json!("default")]),
            ("time_embedding_type", vec![json!("positional")]),
            ("attention_type", vec![json!("default")]),
            ("conv_in_kernel", vec![json!(3)]),
            ("conv_out_kernel", vec![json!(3)]),
            ("downsample_padding", vec![json!(1)]),
            ("mid_block_scale_factor", vec![json!(1), json!(1.0)]),
            ("resnet_out_scale_factor", vec![json!(1), json!(1.0)]),
            ("center_input_sample", vec![json!(false)]),
            ("dual_cross_attention", vec![json!(false)]),
            ("only_cross_attention", vec![json!(false)]),
            ("mid_block_only_cross_attention", vec![json!(false)]),
            ("resnet_skip_time_act", vec![json!(false)]),
            ("class_embeddings_concat", vec![json!(false)]),
            ("class_embed_type", vec![]),
            ("num_class_embeds", vec![]),
            ("encoder_hid_dim", vec![]),
            ("encoder_hid_dim_type", vec![]),
            ("time_embedding_dim", vec![]),
            ("time_embedding_act_fn", vec![]),
            ("timestep_post_act", vec![]),
            ("time_cond_proj_dim", vec![]),
            ("cross_attention_norm", vec![]),
            ("reverse_transformer_layers_per_block", vec![]),
        ] {
            c.require(key, &allowed)?;
        }
        if c.get("addition_embed_type").is_none() {
            return Err(c
                .error("addition_embed_type is null, expected text_time")
                .with_hint("this looks like a Stable Diffusion 1 or 2 model; SDXL is supported"));
        }
        let channels = c.dim_list("block_out_channels")?;
        let levels = channels.len();
        let attention = |key: &str, with: &str, without: &str| {
            let names = c.names(key)?;
            if names.len() != levels {
                return Err(
                    c.error(format!("{key} has {} entries, expected {levels}", names.len()))
                );
            }
            let one = |name: &&str| match *name {
                n if n == with => Ok(true),
                n if n == without => Ok(false),
                other => Err(c.error(format!("{key}: {other} is not supported"))),
            };
            names.iter().map(one).collect::<Result<Vec<bool>>>()
        };
        // A quirk of diffusers: "attention_head_dim" holds the number of heads.
        let heads_key = if c.get("num_attention_heads").is_some() {
            "num_attention_heads"
        } else {
            "attention_head_dim"
        };
        Ok(Self {
            in_channels: c.dim("in_channels")?,
            out_channels: c.dim("out_channels")?,
            heads: c.dims(heads_key, levels)?,
            depth: match c.get("transformer_layers_per_block") {
                None => vec![1; levels],
                Some(_) => c.dims("transformer_layers_per_block", levels)?,
            },
            down_attention: attention("down_block_types", "CrossAttnDownBlock2D", "DownBlock2D")?,
            up_attention: attention("up_block_types", "CrossAttnUpBlock2D", "UpBlock2D")?,
            resnets_per_level: c.dim("layers_per_block")?,
            context_dim: c.dim("cross_attention_dim")?,
            added_dim: c.dim("projection_class_embeddings_input_dim")?,
            time_id_dim: c.dim("addition_time_embed_dim")?,
            flip_sin_to_cos: c.flag("flip_sin_to_cos", true)?,
            freq_shift: c.number("freq_shift", 0.0)?,
            groups: c.dim_opt("norm_num_groups")?.unwrap_or(32),
            eps: c.positive("norm_eps", 1e-5)?,
            sample_size: c.dim_opt("sample_size")?.unwrap_or(128),
            channels,
        })
    }
}

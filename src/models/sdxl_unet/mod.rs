//! The U-Net of SDXL (diffusers `UNet2DConditionModel` with `addition_embed_type` "text_time").

mod blocks;
mod config;
mod unet;

pub use config::UnetConfig;
pub use unet::{Conditioning, Unet};

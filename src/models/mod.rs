//! The networks, each a page to lay beside its paper. They record ops and know no device.

pub mod config;
pub mod embed;
pub mod flux;
pub mod sdxl_unet;
pub mod text;
pub mod vae;
pub mod windows;

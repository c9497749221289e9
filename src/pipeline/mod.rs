//! From a request to a picture: loads what each phase needs, runs the cascade, makes pixels.
//!
//! [`Pipeline`] is the way in; the rest serves [`verify`](crate::verify) and tools.

mod clip;
mod codec;
mod family;
mod flux;
mod generate;
mod image;
mod layout;
mod metadata;
mod model;
mod picture;
mod plan;
pub mod png;
mod reached;
mod request;
mod sdxl;
mod windows;

pub use clip::{TextStates, encode_clip};
pub use codec::{VaeCodec, decode_raw, encode_raw};
pub use flux::{Flux, FluxDenoiser, FluxText, encode_t5, flux_ids, flux_text};
pub use generate::{LoadOptions, Pipeline};
pub use image::Image;
pub use layout::{channels_first, channels_last};
pub use metadata::{Metadata, StageSize};
pub use model::{Loaded, Model, Precision};
pub use picture::{DevicePicture, Picture};
pub use plan::{Phase, plan};
pub use reached::Reached;
pub use request::{Defaults, Request};
pub use sdxl::{PromptIds, Sdxl, SdxlDenoiser, TextEmbedding, embed, tokenize};

//! From a request to a picture: loads what each phase needs, runs the cascade, makes pixels.

mod codec;
mod image;
mod model;
mod request;
mod sdxl;

pub use codec::{VaeCodec, decode_raw, encode_raw};
pub use image::Image;
pub use model::{Loaded, Model, Precision};
pub use request::{Defaults, Request};
pub use sdxl::{
    PromptIds, SdxlDenoiser, SdxlPipeline, TextEmbedding, TextStates, channels_first,
    channels_last, encode_text,
};

//! The small model compiled into the program: the SDXL architecture, trained on drawn pictures.

use crate::weights::ModelFiles;

macro_rules! files {
    ($($path:literal),* $(,)?) => {
        &[$(($path, include_bytes!(concat!("embedded/tiny-sdxl/", $path)))),*]
    };
}

static TINY_SDXL: &[(&str, &[u8])] = files![
    "model_index.json",
    "scalediff.json",
    "scheduler/scheduler_config.json",
    "text_encoder/config.json",
    "text_encoder/model.safetensors",
    "text_encoder_2/config.json",
    "text_encoder_2/model.safetensors",
    "tokenizer/merges.txt",
    "tokenizer/special_tokens_map.json",
    "tokenizer/tokenizer_config.json",
    "tokenizer/vocab.json",
    "tokenizer_2/merges.txt",
    "tokenizer_2/special_tokens_map.json",
    "tokenizer_2/tokenizer_config.json",
    "tokenizer_2/vocab.json",
    "unet/config.json",
    "unet/diffusion_pytorch_model.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
];

/// The embedded model: "a {red|blue|yellow|white|purple} {house|tower|ball} on {grass|sand|snow} under
/// a {day|sunset|night} sky", or "a green tree on …"; 128×128 at the base, 512×512 by default.
pub fn tiny_sdxl() -> ModelFiles {
    ModelFiles::Embedded { name: "tiny-sdxl", files: TINY_SDXL }
}

/// The embedded model of this name, if there is one.
pub fn by_name(name: &str) -> Option<ModelFiles> {
    [tiny_sdxl()].into_iter().find(|files| files.name() == name)
}

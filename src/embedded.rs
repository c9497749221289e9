//! The small models compiled into the program, trained on drawn pictures: the SDXL architecture and that of FLUX.1.

use crate::weights::ModelFiles;

macro_rules! files {
    ($folder:literal: $($path:literal),* $(,)?) => {
        &[$(($path, include_bytes!(concat!("embedded/", $folder, "/", $path)))),*]
    };
}

static TINY_SDXL: &[(&str, &[u8])] = files![
    "tiny-sdxl":
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

static TINY_FLUX: &[(&str, &[u8])] = files![
    "tiny-flux":
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
    "tokenizer_2/special_tokens_map.json",
    "tokenizer_2/tokenizer.json",
    "tokenizer_2/tokenizer_config.json",
    "transformer/config.json",
    "transformer/diffusion_pytorch_model.safetensors",
    "vae/config.json",
    "vae/diffusion_pytorch_model.safetensors",
];

/// The small U-Net: "a {red|blue|yellow|white|purple} {house|tower|ball} on {grass|sand|snow} under
/// a {day|sunset|night} sky", or "a green tree on …"; 128×128 at the base, 512×512 by default.
pub fn tiny_sdxl() -> ModelFiles {
    ModelFiles::Embedded { name: "tiny-sdxl", files: TINY_SDXL }
}

/// The small transformer: the same prompts and sizes.
pub fn tiny_flux() -> ModelFiles {
    ModelFiles::Embedded { name: "tiny-flux", files: TINY_FLUX }
}

/// The embedded model of this name, if there is one.
pub fn by_name(name: &str) -> Option<ModelFiles> {
    [tiny_sdxl(), tiny_flux()].into_iter().find(|files| files.name() == name)
}

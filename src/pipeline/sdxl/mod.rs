//! SDXL: two text encoders, micro-conditioning, classifier-free guidance.

mod denoiser;
mod text;

use std::sync::Arc;

use serde_json::Value;

pub use denoiser::SdxlDenoiser;
pub use text::{PromptIds, TextEmbedding, embed, tokenize};

use super::clip::record_clip;
use super::family::{Encoder, Family, Prompts};
use super::model::{Loaded, Model};
use super::request::Defaults;
use crate::error::{Error, Result};
use crate::gpu::Caps;
use crate::models::config::Config;
use crate::models::sdxl_unet::Unet;
use crate::sampling::{SamplerChoice, Schedule};
use crate::scalediff::{Denoiser, Event, Progress, SizePlan};

/// A model folder of this family.
pub struct Sdxl {
    model: Model,
    native_size: u32,
    zeros_for_absent_prompt: bool,
    keep_loaded: bool,
    unet: Option<Arc<Loaded<Unet>>>,
    /// The last prompts and what they were encoded to.
    embedded: Option<(Texts, Vec<TextEmbedding>)>,
}

/// Prompts as the encoders see them, the negative first; `None` stands for zeros.
type Texts = Vec<Option<String>>;

impl Sdxl {
    /// Reads and checks the configs; weights come later.
    pub fn open(model: Model, keep_loaded: bool) -> Result<Self> {
        let index: Value = model.files.read_json("model_index.json")?;
        let index = Config::new("model_index.json", index);
        let (vae, unet) = (model.vae_config()?, model.unet_config()?);
        let latent = vae.latent_channels;
        if unet.in_channels != latent || unet.out_channels != latent {
            return Err(Error::model(format!(
                "unet/config.json: {} channels in and {} out, vae/config.json: latent_channels {latent}",
                unet.in_channels, unet.out_channels
            ))
            .with_hint("this looks like an inpainting or editing model; text-to-image models are supported"));
        }
        Ok(Self {
            native_size: unet.sample_size.saturating_mul(vae.factor()),
            zeros_for_absent_prompt: index.flag("force_zeros_for_empty_prompt", true)?,
            keep_loaded,
            unet: None,
            embedded: None,
            model,
        })
    }

    /// The denoiser for embeddings at hand, one per branch, the negative first.
    pub fn denoiser_of(
        &mut self,
        embeddings: Vec<TextEmbedding>,
        guidance: f32,
        size: &SizePlan,
    ) -> Result<SdxlDenoiser> {
        let unet = match self.unet.take() {
            Some(unet) => unet,
            None => Arc::new(self.model.unet()?),
        };
        self.unet = self.keep_loaded.then(|| Arc::clone(&unet));
        let time_ids = [size.base_height, size.base_width, 0, 0, size.base_height, size.base_width];
        Ok(SdxlDenoiser {
            unet,
            embeddings,
            time_ids: time_ids.map(|v| v as f32),
            guidance,
            precision: self.model.precision,
        })
    }

    /// One embedding per branch, from the last call where the prompts are the same.
    fn embeddings(
        &mut self,
        prompts: &Prompts,
        progress: &mut dyn Progress,
    ) -> Result<Vec<TextEmbedding>> {
        let mut texts: Texts = vec![Some(prompts.positive.to_owned())];
        if prompts.guidance > 1.0 {
            let zeros = prompts.negative.is_none() && self.zeros_for_absent_prompt;
            let negative = prompts.negative.unwrap_or("").to_owned();
            texts.insert(0, (!zeros).then_some(negative));
        }
        if let Some((_, embeddings)) = self.embedded.as_ref().filter(|(last, _)| *last == texts) {
            return Ok(embeddings.clone());
        }
        let files = &self.model.files;
        let ids = texts.iter().flatten().map(|text| tokenize(files, text));
        let ids = ids.collect::<Result<Vec<_>>>()?;
        progress.event(Event::Loading("text encoders"))?;
        let mut made = embed(&self.model, &ids, &mut |share| progress.event(Event::Prompt(share)))?;
        if texts.len() > made.len() {
            made.insert(0, made[0].zeros());
        }
        self.embedded = Some((texts, made.clone()));
        Ok(made)
    }
}

impl Family for Sdxl {
    fn native_size(&self) -> u32 {
        self.native_size
    }

    fn defaults(&self) -> Defaults {
        Defaults::SDXL
    }

    fn patch(&self) -> u32 {
        1
    }

    fn schedule(&self, choice: SamplerChoice, steps: usize) -> Result<Schedule> {
        self.model.schedule(choice, steps, false)
    }

    fn denoiser(
        &mut self,
        prompts: &Prompts,
        size: &SizePlan,
        progress: &mut dyn Progress,
    ) -> Result<Box<dyn Denoiser>> {
        let embeddings = self.embeddings(prompts, progress)?;
        progress.event(Event::Loading("denoiser"))?;
        Ok(Box::new(self.denoiser_of(embeddings, prompts.guidance, size)?))
    }

    fn encoder_graphs(&self, caps: &Caps, prompts: &Prompts) -> Result<Vec<Encoder>> {
        let prompts = if prompts.guidance > 1.0 { 2 } else { 1 };
        let one = |name: &str| {
            let encoder = self.model.clip(name)?;
            let tokens = encoder.net.config.positions;
            let (graph, ..) = record_clip(caps, &encoder.net, prompts, tokens)?;
            Ok(Encoder { name: name.to_owned(), graph, weight_bytes: encoder.slabs.bytes() })
        };
        ["text_encoder", "text_encoder_2"].into_iter().map(one).collect()
    }

    fn blank_denoiser(&mut self, prompts: &Prompts, size: &SizePlan) -> Result<Box<dyn Denoiser>> {
        let guidance = prompts.guidance;
        let unet = self.model.unet_config()?;
        let tokens = self.model.clip_config("text_encoder")?.positions;
        let blank = TextEmbedding {
            context: vec![0.0; (tokens * unet.context_dim) as usize],
            pooled: vec![0.0; unet.added_dim.saturating_sub(6 * unet.time_id_dim) as usize],
            tokens,
        };
        let branches = if guidance > 1.0 { 2 } else { 1 };
        Ok(Box::new(self.denoiser_of(vec![blank; branches], guidance, size)?))
    }
}

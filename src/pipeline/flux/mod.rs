//! FLUX.1: CLIP and T5, a transformer that is told its guidance.

mod denoiser;
mod text;

use std::sync::Arc;

pub use denoiser::FluxDenoiser;
use denoiser::PATCH;
pub use text::{FluxText, encode_t5, flux_ids, flux_text};

use super::clip::record_clip;
use super::family::{Encoder, Family, Prompts};
use super::model::{Loaded, Model};
use super::request::Defaults;
use crate::error::{Error, Result};
use crate::gpu::Caps;
use crate::models::flux;
use crate::sampling::{SamplerChoice, Schedule};
use crate::scalediff::{Denoiser, Event, Progress, SizePlan};

/// Side of the pictures that the published models were trained on, in latents.
const NATIVE_LATENTS: u32 = 128;

/// A model folder of this family.
pub struct Flux {
    model: Model,
    native_size: u32,
    /// Whether it takes a guidance scale (dev) or not (schnell).
    guided: bool,
    keep_loaded: bool,
    flux: Option<Arc<Loaded<flux::Flux>>>,
    /// The last prompt with its number of tokens, and what it was encoded to.
    encoded: Option<((String, u32), FluxText)>,
}

impl Flux {
    /// Reads and checks the configs; weights come later.
    ///
    /// # Errors
    /// A config that is missing or does not fit the others.
    pub fn open(model: Model, keep_loaded: bool) -> Result<Self> {
        let (vae, transformer) = (model.vae_config()?, model.flux_config()?);
        let token = 4 * vae.latent_channels;
        if transformer.in_channels != token || transformer.out_channels != token {
            return Err(Error::model(format!(
                "transformer/config.json: {} channels in and {} out, vae/config.json: latent_channels {}, expected {token}",
                transformer.in_channels, transformer.out_channels, vae.latent_channels
            ))
            .with_hint("this looks like an inpainting or control model; text-to-image models are supported"));
        }
        Ok(Self {
            native_size: NATIVE_LATENTS * vae.factor(),
            guided: transformer.guidance,
            keep_loaded,
            flux: None,
            encoded: None,
            model,
        })
    }

    /// The denoiser for a text at hand.
    ///
    /// # Errors
    /// Weights that are missing or do not fit, or the device's memory.
    pub fn denoiser_of(&mut self, text: FluxText, guidance: f32) -> Result<FluxDenoiser> {
        let flux = match self.flux.take() {
            Some(flux) => flux,
            None => Arc::new(self.model.flux()?),
        };
        self.flux = self.keep_loaded.then(|| Arc::clone(&flux));
        Ok(FluxDenoiser { flux, text, guidance, precision: self.model.precision })
    }

    /// The prompt encoded, from the last call where it is the same.
    fn text(&mut self, prompts: &Prompts, progress: &mut dyn Progress) -> Result<FluxText> {
        let key = (prompts.positive.to_owned(), prompts.length);
        if let Some((_, text)) = self.encoded.as_ref().filter(|(last, _)| *last == key) {
            return Ok(text.clone());
        }
        if prompts.negative.is_some_and(|n| !n.is_empty()) {
            log::warn!(
                "the negative prompt is ignored: this model has no guidance by two branches"
            );
        }
        if prompts.in_part {
            log::warn!(
                "this model is told its guidance: --guidance-start and -stop change nothing"
            );
        }
        let [clip, t5] = flux_ids(&self.model.files, prompts.positive, prompts.length)?;
        progress.event(Event::Loading("text encoders"))?;
        let pulse = &mut |share| progress.event(Event::Prompt(share));
        let text = flux_text(&self.model, [&clip, &t5], pulse)?;
        self.encoded = Some((key, text.clone()));
        Ok(text)
    }
}

impl Family for Flux {
    fn native_size(&self) -> u32 {
        self.native_size
    }

    fn defaults(&self) -> Defaults {
        if self.guided { Defaults::FLUX_DEV } else { Defaults::FLUX_SCHNELL }
    }

    fn patch(&self) -> u32 {
        PATCH
    }

    fn schedule(&self, choice: SamplerChoice, steps: usize) -> Result<Schedule> {
        self.model.schedule(choice, steps, true)
    }

    fn denoiser(
        &mut self,
        prompts: &Prompts,
        _: &SizePlan,
        progress: &mut dyn Progress,
    ) -> Result<Box<dyn Denoiser>> {
        let text = self.text(prompts, progress)?;
        progress.event(Event::Loading("denoiser"))?;
        Ok(Box::new(self.denoiser_of(text, prompts.guidance)?))
    }

    fn encoder_graphs(&self, caps: &Caps, prompts: &Prompts) -> Result<Vec<Encoder>> {
        let clip = self.model.clip("text_encoder")?;
        let (graph, ..) = record_clip(caps, &clip.net, 1, clip.net.config.positions)?;
        let (name, weight_bytes) = ("text_encoder".to_owned(), clip.slabs.bytes());
        let first = Encoder { name, graph, weight_bytes };
        let t5 = self.model.t5("text_encoder_2")?;
        let (graph, ..) = text::record_t5(caps, &t5.net, 1, prompts.length)?;
        let (name, weight_bytes) = ("text_encoder_2".to_owned(), t5.slabs.bytes());
        Ok(vec![first, Encoder { name, graph, weight_bytes }])
    }

    fn blank_denoiser(&mut self, prompts: &Prompts, _: &SizePlan) -> Result<Box<dyn Denoiser>> {
        let c = self.model.flux_config()?;
        let text = FluxText {
            context: vec![0.0; (prompts.length * c.context_dim) as usize],
            pooled: vec![0.0; c.pooled_dim as usize],
            tokens: prompts.length,
        };
        Ok(Box::new(self.denoiser_of(text, prompts.guidance)?))
    }
}

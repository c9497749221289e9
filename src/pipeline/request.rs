//! What a picture is asked for with.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::{Error, Result};
use crate::sampling::{Rng, Sampler, SamplerChoice};
use crate::scalediff::{CascadeOptions, Filter, MAX_STAGES, Mask, SizePlan, StageAttention};
use crate::weights::ModelFiles;

/// A request: plain data. Fields that are `None` take the model's default ([`Defaults`]).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Request {
    /// What the picture shows. Any text; what exceeds the encoders' tokens (CLIP 77) is ignored with a warning.
    /// Default: "".
    pub prompt: String,
    /// What it should not show. Default `None`: nothing (zero embeddings where the model says so), which
    /// differs from "".
    pub negative_prompt: Option<String>,
    /// Width of the final picture in pixels, 1 to 16384. Default: the model's, else 4 × its training size.
    pub width: Option<u32>,
    /// Height of the final picture in pixels, as `width`.
    pub height: Option<u32>,
    /// Sampler steps of the first stage, 1 to 1000. Default: the model's, else 50 (SDXL), 30
    /// (FLUX.1-dev) or 4 (schnell).
    pub steps: Option<usize>,
    /// Guidance scale, 0 to 1000. Of classifier-free guidance, where at most 1 means none; or what a
    /// guidance-distilled transformer is told. Default: the model's, else 7.5 (SDXL) or 3.5 (FLUX).
    pub cfg_scale: Option<f32>,
    /// Guidance by two branches works from this share of the steps on, 0 to 1. Default: 0.
    pub guidance_start: Option<f64>,
    /// Guidance works up to this share of the steps, 0 to 1; the other steps cost half. Default: 1.
    pub guidance_stop: Option<f64>,
    /// How latents go from one noise level to the next. Default: as the model's scheduler config says.
    pub sampler: Option<Sampler>,
    /// Noise levels spaced after Karras et al. (2022). Default `false`: as the model's scheduler config says.
    pub karras: bool,
    /// Any number; of a CPU's seed only the low 32 bits count for the first stage, as in torch. Default: 0.
    pub seed: u64,
    /// Whose random numbers the seed begins. Default: `cpu`.
    pub rng: Rng,
    /// Doublings after the first stage, 0 to 6. Default: as often as the picture is twice the training size.
    pub stages: Option<u32>,
    /// Share of the steps that later stages run, above 0 and at most 1. Default: the model's, else 0.4
    /// (SDXL), 0.6 (FLUX.1-dev) or 0.5 (schnell).
    pub restart_ratio: Option<f64>,
    /// Side of the low band as a share of the latents' side, above 0 and at most 1. Default: the model's,
    /// else 0.125 (SDXL) or 0.25 (FLUX).
    pub scale_factor: Option<f64>,
    /// A mask over the Fourier transform as the low-pass of frequency mixing and structure guidance.
    /// Default `None`: resampling by `scale_factor`, as in the paper.
    pub filter: Option<Mask>,
    /// Cutoff of `filter` in cycles per latent, above 0 and at most 1; frequencies along an axis end at
    /// 0.5. Default: half the scale factor, where the reduced grid of the resampling ends.
    pub filter_cutoff: Option<f64>,
    /// What the later stages see of their larger picture. Default: neighborhood patches.
    pub attention: StageAttention,
    /// Do without latent frequency mixing. Default `false`.
    pub no_frequency_mixing: bool,
    /// Do without structure guidance. Default `false`.
    pub no_structure_guidance: bool,
    /// Shift the patches at random, per layer and step (the paper's optional window shifting). Default: the
    /// model's, else off for U-Nets and on for transformers, as in the official code.
    pub jitter: Option<bool>,
    /// Tokens of the T5 encoder, for models that have one, 1 to 512. Default: the model's, else 512, or 256 for
    /// models without guidance.
    pub max_sequence_length: Option<u32>,
}

impl Request {
    /// What it says about the sampler.
    pub fn sampler_choice(&self) -> SamplerChoice {
        SamplerChoice { sampler: self.sampler, karras: self.karras }
    }
}

/// A model's default settings: the paper's, or what its `scalediff.json` says.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Defaults {
    /// Side of the pictures that the model was trained on, in pixels; `None`: as its configs or its family say.
    pub native_size: Option<u32>,
    /// Pixels; `None`: 4 × the training size.
    pub width: Option<u32>,
    /// Pixels; `None`: 4 × the training size.
    pub height: Option<u32>,
    /// See [`Request::steps`].
    pub steps: usize,
    /// See [`Request::cfg_scale`].
    pub cfg_scale: f32,
    /// See [`Request::restart_ratio`].
    pub restart_ratio: f64,
    /// See [`Request::scale_factor`].
    pub scale_factor: f64,
    /// See [`Request::jitter`].
    pub jitter: bool,
    /// See [`Request::max_sequence_length`]; `None` for models without such an encoder.
    pub max_sequence_length: Option<u32>,
}

/// Doublings by default, as in the paper: 1024 to 4096.
const DEFAULT_STAGES: u32 = 2;

impl Defaults {
    /// Of SDXL, as in the paper.
    pub const SDXL: Self = Self {
        native_size: None,
        width: None,
        height: None,
        steps: 50,
        cfg_scale: 7.5,
        restart_ratio: 0.4,
        scale_factor: 0.125,
        jitter: false,
        max_sequence_length: None,
    };
    /// Of FLUX.1-dev, as in the official scripts; the length of the text as in its signature.
    pub const FLUX_DEV: Self = Self {
        steps: 30,
        cfg_scale: 3.5,
        restart_ratio: 0.6,
        scale_factor: 0.25,
        jitter: true,
        max_sequence_length: Some(512),
        ..Self::SDXL
    };
    /// Of FLUX.1-schnell, as in the official scripts.
    pub const FLUX_SCHNELL: Self = Self {
        steps: 4,
        cfg_scale: 0.0,
        restart_ratio: 0.5,
        max_sequence_length: Some(256),
        ..Self::FLUX_DEV
    };

    /// These with what a model folder's `scalediff.json` says.
    ///
    /// # Errors
    /// A file of another shape.
    pub fn of(self, files: &ModelFiles) -> Result<Self> {
        const FILE: &str = "scalediff.json";
        if !files.exists(FILE) {
            return Ok(self);
        }
        let own: Map<String, Value> = files.read_json(FILE)?;
        let wrong = |e| Error::model(format!("{FILE}: {e}"));
        let mut all = serde_json::to_value(self).map_err(wrong)?;
        if let Value::Object(all) = &mut all {
            all.extend(own);
        }
        serde_json::from_value(all).map_err(wrong)
    }

    /// Tokens of the long text encoder for a request.
    ///
    /// # Errors
    /// A number out of range.
    pub fn length(&self, request: &Request) -> Result<Option<u32>> {
        let length = request.max_sequence_length.or(self.max_sequence_length);
        if let Some(length) = length.filter(|length| !(1..=512).contains(length)) {
            return Err(Error::usage(format!("{length} tokens of text, expected 1 to 512")));
        }
        Ok(self.max_sequence_length.and(length))
    }

    /// The low-pass for a request.
    fn filter(&self, request: &Request) -> Result<Filter> {
        let scale_factor = request.scale_factor.unwrap_or(self.scale_factor);
        match (request.filter, request.filter_cutoff) {
            (Some(mask), cutoff) => {
                Ok(Filter::Fft { mask, cutoff: cutoff.unwrap_or(scale_factor / 2.0) })
            }
            (None, None) => Ok(Filter::Resample { scale_factor }),
            (None, Some(_)) => Err(Error::usage("a filter cutoff without an FFT filter")
                .with_hint("choose one with --filter, or use --scale-factor with the resampling")),
        }
    }

    /// `request` with nothing left open, for a picture of `size`.
    ///
    /// # Errors
    /// Settings that contradict each other.
    pub fn resolve(&self, request: &Request, size: &SizePlan) -> Result<Request> {
        let filter_cutoff = match self.filter(request)? {
            Filter::Fft { cutoff, .. } => Some(cutoff),
            Filter::Resample { .. } => None,
        };
        Ok(Request {
            width: Some(size.width),
            height: Some(size.height),
            steps: Some(request.steps.unwrap_or(self.steps)),
            cfg_scale: Some(self.cfg_scale(request)?),
            stages: Some(size.stages),
            restart_ratio: Some(request.restart_ratio.unwrap_or(self.restart_ratio)),
            scale_factor: Some(request.scale_factor.unwrap_or(self.scale_factor)),
            filter_cutoff,
            jitter: Some(request.jitter.unwrap_or(self.jitter)),
            max_sequence_length: self.length(request)?,
            ..request.clone()
        })
    }

    /// The cascade's options for a request.
    ///
    /// # Errors
    /// Settings that contradict each other.
    pub fn options(&self, request: &Request) -> Result<CascadeOptions> {
        Ok(CascadeOptions {
            steps: request.steps.unwrap_or(self.steps),
            restart_ratio: request.restart_ratio.unwrap_or(self.restart_ratio),
            filter: self.filter(request)?,
            attention: request.attention,
            frequency_mixing: !request.no_frequency_mixing,
            structure_guidance: !request.no_structure_guidance,
            guidance_start: request.guidance_start.unwrap_or(0.0),
            guidance_stop: request.guidance_stop.unwrap_or(1.0),
            jitter: request.jitter.unwrap_or(self.jitter).then_some(request.seed),
        })
    }

    /// The sizes of a request: what it says, else the model's default, else four times the training
    /// size, by default `native`; `unit` pixels to a latent or a token.
    pub fn size(&self, request: &Request, native: u32, unit: u32) -> Result<SizePlan> {
        let native = self.native_size.unwrap_or(native).clamp(1, 65536);
        let stages = request.stages.unwrap_or(DEFAULT_STAGES).min(MAX_STAGES);
        let side = |asked: Option<u32>, default: Option<u32>| {
            asked.or(default).unwrap_or_else(|| native.saturating_mul(1 << stages))
        };
        SizePlan::new(
            side(request.width, self.width),
            side(request.height, self.height),
            native,
            unit,
            request.stages,
        )
    }

    /// The guidance scale for a request.
    pub fn cfg_scale(&self, request: &Request) -> Result<f32> {
        let scale = request.cfg_scale.unwrap_or(self.cfg_scale);
        if !(0.0..=1000.0).contains(&scale) {
            return Err(Error::usage(format!("guidance scale {scale} lies outside 0 to 1000")));
        }
        Ok(scale)
    }
}

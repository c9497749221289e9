//! What a picture says about itself: enough to make it again.
//!
//! A PNG carries two texts. `parameters` is in the form of AUTOMATIC1111's web UI, which galleries and other
//! programs read; `scalediff` is [`Metadata`] as JSON, which replays. Both hold names, never paths.

use std::fmt::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::model::Precision;
use super::png::{self, Text};
use super::request::Request;
use crate::error::{Error, Result};
use crate::sampling::{Rng, Sampler};

/// Keyword of the text in A1111's form.
const PARAMETERS: &str = "parameters";
/// Keyword of our own text.
const OWN: &str = "scalediff";

/// How a picture was made.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Metadata {
    /// Version of this crate.
    pub version: String,
    /// The model folder's name.
    pub model: String,
    /// What it was stored in.
    pub precision: Precision,
    /// The device's name.
    pub device: String,
    /// How latents went from one noise level to the next.
    pub sampler: Sampler,
    /// Whether the levels were spaced after Karras et al. (2022).
    pub karras: bool,
    /// From the base up.
    pub stages: Vec<StageSize>,
    /// With the model's defaults filled in.
    pub request: Request,
}

/// One stage of a cascade.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageSize {
    /// Pixels generated.
    pub width: u32,
    /// Pixels generated.
    pub height: u32,
    /// Sampler steps run.
    pub steps: usize,
}

impl Metadata {
    /// As JSON in one line.
    pub fn to_json(&self) -> Result<String> {
        serde_json::to_string(self)
            .map_err(|e| Error::internal("the metadata cannot be written").with_source(e))
    }

    /// From [`Metadata::to_json`].
    ///
    /// # Errors
    /// JSON of another shape, such as that of a newer version with settings unknown here.
    pub fn from_json(json: &str) -> Result<Self> {
        serde_json::from_str(json).map_err(|e| {
            Error::model("the metadata is not what this version writes")
                .with_source(e)
                .with_hint("another version of scalediff made the file")
        })
    }

    /// From a PNG file.
    ///
    /// # Errors
    /// A file that is no PNG, holds no such text, or one of another version.
    pub fn read_png(path: &Path) -> Result<Self> {
        let texts = png::read_texts(path)?;
        let Some((_, json)) = texts.iter().find(|(keyword, _)| keyword == OWN) else {
            let error = Error::model(format!("{} holds no metadata of scalediff", path.display()));
            return Err(match texts.iter().any(|(keyword, _)| keyword == PARAMETERS) {
                true => error.with_hint("another program made it: see scalediff metadata FILE"),
                false => error.with_hint("programs that edit or send pictures often remove it"),
            });
        };
        Self::from_json(json).map_err(|e| e.at(path.display()))
    }

    /// That of the picture of an earlier stage, of `width × height` pixels after the crop: a request for
    /// that size with that many stages makes the same picture.
    pub fn of_stage(&self, stage: u32, width: u32, height: u32) -> Self {
        let mut own = self.clone();
        own.stages.truncate(stage as usize + 1);
        own.request.stages = Some(stage);
        (own.request.width, own.request.height) = (Some(width), Some(height));
        own
    }

    /// Keywords and texts for a PNG.
    pub fn texts(&self) -> Result<Vec<Text>> {
        Ok(vec![(PARAMETERS.to_owned(), self.parameters()), (OWN.to_owned(), self.to_json()?)])
    }

    /// In the form of A1111's web UI: the prompt, the negative prompt, and a line of settings.
    ///
    /// `Size` is that of the first pass, as there; what follows it counts as a "hires" pass.
    pub fn parameters(&self) -> String {
        let r = &self.request;
        let mut text = r.prompt.clone();
        if let Some(negative) = r.negative_prompt.as_deref().filter(|n| !n.is_empty()) {
            let _ = write!(text, "\nNegative prompt: {negative}");
        }
        let size = |width: Option<u32>, height: Option<u32>| {
            format!("{}x{}", width.unwrap_or(0), height.unwrap_or(0))
        };
        let last = size(r.width, r.height);
        let mut settings: Vec<(&str, String)> = Vec::new();
        let base = self.stages.first();
        let hires = self.stages.get(1);
        settings.push(("Steps", base.map_or(0, |s| s.steps).to_string()));
        settings.push(("Sampler", self.sampler.to_string()));
        let spacing = if self.karras { "Karras" } else { "Uniform" };
        settings.push(("Schedule type", spacing.to_owned()));
        settings.extend(r.cfg_scale.map(|scale| ("CFG scale", scale.to_string())));
        settings.push(("Seed", r.seed.to_string()));
        settings.push(match (base, hires) {
            (Some(base), Some(_)) => ("Size", size(Some(base.width), Some(base.height))),
            _ => ("Size", last.clone()),
        });
        settings.push(("Model", self.model.clone()));
        if hires.is_some() {
            settings.extend(r.restart_ratio.map(|v| ("Denoising strength", v.to_string())));
        }
        // A1111 takes a missing one for the GPU's.
        let rng = match r.rng {
            Rng::Cpu => "CPU",
            Rng::Cuda => "GPU",
        };
        settings.push(("RNG", rng.to_owned()));
        if let Some(stage) = hires {
            settings.push(("Hires resize", last));
            settings.push(("Hires steps", stage.steps.to_string()));
            settings.push(("Hires upscaler", "ScaleDiff".to_owned()));
        }
        settings.push(("Version", format!("scalediff {}", self.version)));
        let settings: Vec<String> =
            settings.into_iter().map(|(key, value)| format!("{key}: {}", quoted(&value))).collect();
        text.push('\n');
        text.push_str(&settings.join(", "));
        text
    }
}

/// A value as A1111 writes it: in JSON's quotes where it holds what separates values.
fn quoted(value: &str) -> String {
    if !value.contains([',', ':', '\n', '"']) {
        return value.to_owned();
    }
    serde_json::to_string(value).unwrap_or_default()
}

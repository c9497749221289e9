//! What a run has reached, in a file from which another goes on.

use std::path::Path;

use serde_json::Value;

use super::layout::{channels_first, channels_last};
use super::metadata::Metadata;
use crate::error::{Error, Result};
use crate::scalediff::{Latents, MAX_STAGES, StageResult};
use crate::weights::TensorFile;

/// Key of the text that holds the [`Metadata`].
const OWN: &str = "scalediff";
/// Name of the base picture.
const PICTURE: &str = "picture.0";

/// The finished stages of a run.
///
/// In its safetensors file stage `n` is the tensor `latents.n`, `[1, channels, height, width]`, in the model's
/// scaled space; `picture.0` is the base picture, `[1, 3, height, width]`, about -1…1 and not yet cropped.
#[derive(Debug, Clone, PartialEq)]
pub struct Reached {
    metadata: Metadata,
    file: TensorFile,
}

impl Reached {
    /// Nothing yet, of a run that `metadata` describes.
    pub fn new(metadata: Metadata) -> Self {
        Self { metadata, file: TensorFile::default() }
    }

    /// From a file; `None` where there is none.
    ///
    /// # Errors
    /// A file that cannot be read or is none of ours.
    pub fn read(path: &Path) -> Result<Option<Self>> {
        if !path.try_exists().unwrap_or(true) {
            return Ok(None);
        }
        let mut file = TensorFile::read(path)?;
        let json = file.texts.remove(OWN).ok_or_else(|| {
            Error::model("no latents of scalediff")
                .at(path.display())
                .with_hint("it was not written by --save-latent")
        })?;
        let metadata = Metadata::from_json(&json).map_err(|e| e.at(path.display()))?;
        Ok(Some(Self { metadata, file }))
    }

    /// Writes the file, whole or not at all.
    ///
    /// # Errors
    /// A place that cannot be written, or a full disk.
    pub fn write(&self, path: &Path) -> Result<()> {
        let mut file = self.file.clone();
        file.texts.insert(OWN.to_owned(), self.metadata.to_json()?);
        file.write(path)
    }

    /// How the run was asked for.
    pub fn metadata(&self) -> &Metadata {
        &self.metadata
    }

    /// Adds the latents of a stage.
    pub fn add(&mut self, stage: u32, latents: &Latents) {
        let Latents { height, width, channels, .. } = *latents;
        let shape = [1, channels, height, width].map(|v| v as usize).to_vec();
        let values = channels_first(&latents.values, channels as usize);
        self.file.tensors.insert(name(stage), (shape, values));
    }

    /// Adds the picture of the base stage; others are left out.
    pub fn add_picture(&mut self, result: &StageResult) {
        if result.stage == 0 {
            let shape = [1, 3, result.height, result.width].map(|v| v as usize).to_vec();
            self.file.tensors.insert(PICTURE.to_owned(), (shape, channels_first(&result.image, 3)));
        }
    }

    /// The last finished stage and its latents.
    ///
    /// # Errors
    /// A tensor of another shape than latents have.
    pub fn last(&self) -> Result<Option<(u32, Latents)>> {
        let found =
            (0..=MAX_STAGES).rev().find_map(|n| Some((n, self.file.tensors.get(&name(n))?)));
        let Some((stage, (shape, values))) = found else { return Ok(None) };
        let side = |axis: usize| shape.get(axis).and_then(|v| u32::try_from(*v).ok());
        let (4, Some(1), Some(channels), Some(height), Some(width)) =
            (shape.len(), side(0), side(1), side(2), side(3))
        else {
            return Err(Error::model(format!(
                "{}: shape is {shape:?}, expected [1, channels, height, width]",
                name(stage)
            )));
        };
        let values = channels_last(values, channels as usize);
        Ok(Some((stage, Latents { height, width, channels, values })))
    }

    /// Where the run was made, if not as `other`: by another version, or on another device.
    pub fn made_elsewhere(&self, other: &Metadata) -> Option<String> {
        let place = |m: &Metadata| format!("scalediff {} on {}", m.version, m.device);
        let (there, here) = (place(&self.metadata), place(other));
        (there != here).then(|| format!("the latents were made by {there}, this is {here}"))
    }

    /// Whether a run described by `other` goes on from here; another version or device is only logged.
    ///
    /// # Errors
    /// What differs.
    pub fn check(&self, other: &Metadata) -> Result<()> {
        let facts = |m: &Metadata| {
            let request = serde_json::to_value(&m.request).ok();
            let mut facts = request.and_then(|v| v.as_object().cloned()).unwrap_or_default();
            let text = |v: String| Value::String(v);
            facts.insert("model".to_owned(), text(m.model.clone()));
            facts.insert("precision".to_owned(), text(format!("{:?}", m.precision).to_lowercase()));
            facts.insert("sampler used".to_owned(), text(m.sampler.to_string()));
            facts.insert("karras used".to_owned(), Value::Bool(m.karras));
            facts
        };
        let (there, here) = (facts(&self.metadata), facts(other));
        let differing: Vec<String> = there
            .iter()
            .filter(|(key, value)| here.get(*key) != Some(value))
            .map(|(key, value)| {
                let here = here.get(key).unwrap_or(&Value::Null);
                format!("{key} is {} there, {} here", shown(value), shown(here))
            })
            .collect();
        if differing.is_empty() {
            if let Some(elsewhere) = self.made_elsewhere(other) {
                log::warn!(
                    "{elsewhere}: the picture may differ a little from an uninterrupted run's"
                );
            }
            return Ok(());
        }
        Err(Error::usage(format!(
            "the latents are those of another request: {}",
            differing.join("; ")
        ))
        .with_hint(
            "leave the flags out to take them from the file, or start anew with another file",
        ))
    }
}

/// A value in a few words.
fn shown(value: &Value) -> String {
    let text = value.to_string();
    match text.char_indices().nth(60) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text,
    }
}

fn name(stage: u32) -> String {
    format!("latents.{stage}")
}

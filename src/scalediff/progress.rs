//! What a run tells whoever watches it.

use super::sampler::Latents;
use crate::error::Result;

/// What happens.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Event {
    /// Weights are read and uploaded: of what.
    Loading(&'static str),
    /// A share of the text encoders' work is done.
    Prompt(f64),
    /// A stage begins: 0 is the base. `steps` sampler steps, none where the latents are those of an earlier run; `width × height` pixels.
    Stage { stage: u32, width: u32, height: u32, steps: usize },
    /// A share of the stage's sampling is done.
    Sampling(f64),
    /// A share of turning latents into the picture is done.
    Decoding(f64),
    /// A share of turning the doubled picture into latents is done.
    Encoding(f64),
}

/// What a stage made.
#[derive(Debug, Clone, PartialEq)]
pub struct StageResult {
    /// 0 is the base.
    pub stage: u32,
    /// Number of the last stage.
    pub stages: u32,
    /// In the model's scaled space.
    pub latents: Latents,
    /// `[height, width, 3]`, about -1…1, neither clamped nor rounded, not yet cropped.
    pub image: Vec<f32>,
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// Pixels (width, height) of the centred part that was asked for.
    pub cropped: (u32, u32),
}

/// Watches a run. An error from any method, such as [`Error::cancelled`](crate::error::Error::cancelled),
/// stops the run at the next submission and comes back to the caller as it is.
///
/// A closure that takes an [`Event`] is a `Progress`, and so is `()`, which watches nothing.
pub trait Progress {
    /// Called about ten times a second while the device works.
    fn event(&mut self, event: Event) -> Result<()>;

    /// Takes the latents of a stage as soon as they are sampled, before they are decoded.
    fn latents(&mut self, stage: u32, latents: &Latents) -> Result<()> {
        let _ = (stage, latents);
        Ok(())
    }

    /// Takes what a stage made as soon as it is decoded.
    fn stage(&mut self, result: &StageResult) -> Result<()> {
        let _ = result;
        Ok(())
    }
}

impl<F: FnMut(Event) -> Result<()>> Progress for F {
    fn event(&mut self, event: Event) -> Result<()> {
        self(event)
    }
}

impl Progress for () {
    fn event(&mut self, _: Event) -> Result<()> {
        Ok(())
    }
}

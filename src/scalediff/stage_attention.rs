//! What the stages after the first see of their larger picture.

use serde::{Deserialize, Serialize};

use super::denoiser::{Attention, Denoiser};
use super::multidiffusion::MultiDiffusion;

/// What each stage after the first sees of its larger picture.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum StageAttention {
    /// Self-attention in neighborhood patches: the method.
    #[default]
    #[serde(rename = "npa")]
    Patches,
    /// Patches that see no further than their own block of queries: what the overlap is worth.
    #[serde(rename = "isolated-npa")]
    IsolatedPatches,
    /// Self-attention over the whole picture.
    #[serde(rename = "full")]
    Full,
    /// Overlapping windows of the base size, predicted apart and averaged ([`MultiDiffusion`]).
    #[serde(rename = "multidiffusion")]
    Windows,
    /// Windows as small as the blocks of queries, side by side: a control, which leaves seams.
    #[serde(rename = "isolated-windows")]
    IsolatedWindows,
}

impl StageAttention {
    /// What self-attention sees in a stage. `base`: height and width of the first stage's latents.
    pub fn scope(self, stage: u32, base: (u32, u32), jitter: Option<u64>) -> Attention {
        let isolated = match self {
            Self::Patches if stage > 0 => false,
            Self::IsolatedPatches if stage > 0 => true,
            _ => return Attention::Full,
        };
        Attention::Patches { base_height: base.0, base_width: base.1, isolated, jitter }
    }

    /// The denoiser in windows, for a stage of `latents` (height, width) that is predicted so.
    pub fn windows(
        self,
        denoiser: &dyn Denoiser,
        stage: u32,
        base: (u32, u32),
        latents: (u32, u32),
    ) -> Option<MultiDiffusion<'_>> {
        let half = |side: u32| side.div_ceil(2).next_multiple_of(denoiser.patch());
        let (window, apart) = match self {
            Self::Windows if stage > 0 => (base, false),
            Self::IsolatedWindows if stage > 0 => ((half(base.0), half(base.1)), true),
            _ => return None,
        };
        Some(MultiDiffusion::new(denoiser, window, latents, apart))
    }
}

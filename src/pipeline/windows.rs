//! What the cascade says of attention, as networks take it.

use crate::models::windows::{Draw, Windows};
use crate::sampling::TorchRng;
use crate::scalediff::Attention;

/// Runs `record` with the windows of `attention`; `patch` latents make the side of a token.
pub(super) fn with_windows<T>(
    attention: Attention,
    patch: u32,
    record: impl FnOnce(&mut Windows) -> T,
) -> T {
    let (base, isolated, seed) = match attention {
        Attention::Full => (None, false, None),
        Attention::Patches { base_height, base_width, isolated, jitter } => {
            (Some((base_height.div_ceil(patch), base_width.div_ceil(patch))), isolated, jitter)
        }
    };
    let mut rng = seed.map(TorchRng::new);
    let mut draw = rng.as_mut().map(|rng| |most: u32| rng.uniform_u32(most));
    record(&mut Windows { base, isolated, jitter: draw.as_mut().map(|d| d as Draw) })
}

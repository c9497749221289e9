//! Which keys each self-attention of a forward pass sees.

use crate::kernels::attention::{AttentionScope, PatchGeometry};
use crate::tensor::Shape;

/// Draws a whole number from 0 to its argument, inclusive.
pub type Draw<'a> = &'a mut dyn FnMut(u32) -> u32;

/// Neighborhood patches at every level, or none.
#[derive(Default)]
pub struct Windows<'a> {
    /// The grid of the first stage, in latents (U-Net) or tokens (transformer); `None`: attention over the whole
    /// grid.
    pub base: Option<(u32, u32)>,
    /// Patches see their own block only: half the base's grid per axis, without overlap.
    pub isolated: bool,
    /// Shifts the patches, anew at every call; `None`: not shifted.
    pub jitter: Option<Draw<'a>>,
}

impl Windows<'_> {
    /// The scope of the next self-attention, `level` halvings below the base, on `grid`.
    ///
    /// The window is the base's own grid at that level, or half of it where isolated.
    pub fn scope(&mut self, level: usize, grid: Shape) -> AttentionScope {
        let Some((h, w)) = self.base else { return AttentionScope::Full };
        let window = |n: u32| {
            let whole = halvings(n, level);
            if self.isolated { (whole / 2).max(1) } else { whole }
        };
        let (window_h, window_w) = (window(h), window(w));
        // The kernel takes shifts up to 255; windows above 510 tokens are rarer than that matters.
        let mut shift =
            |window: u32| self.jitter.as_mut().map_or(0, |draw| draw((window / 2).min(255)));
        AttentionScope::Patches(PatchGeometry {
            height: grid.height,
            width: grid.width,
            window_h,
            window_w,
            jitter_h: shift(window_h),
            jitter_w: shift(window_w),
            isolated: self.isolated,
        })
    }
}

/// `n` halved `times` times, rounding up: the side of a grid some levels down.
fn halvings(n: u32, times: usize) -> u32 {
    (0..times).fold(n, |n, _| n.div_ceil(2))
}

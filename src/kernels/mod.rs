//! The kernels: for each its parameters, the choice of a variant, and how it is recorded.

use crate::gpu::{Caps, Tile, TileKind};

pub mod attention;
pub mod conv2d;
mod engine;
pub mod fft;
pub mod group_norm;
mod lanes;
pub mod latent;
pub mod layer_norm;
pub mod matmul;
pub mod patchify;
pub mod rotary;
pub mod silu;
pub mod window_mean;
pub mod windows;

/// The tiles to choose from for a kind of work on a device.
pub fn tiles(caps: &Caps, kind: TileKind) -> Vec<Tile> {
    match kind {
        TileKind::Matmul | TileKind::MatmulSmall | TileKind::Conv2d | TileKind::Conv2dSmall => {
            engine::tiles(caps)
        }
        TileKind::Attention | TileKind::AttentionWide => {
            attention::tiles_of_kind(caps, kind).to_vec()
        }
    }
}

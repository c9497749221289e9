//! Flash attention: over all keys, causal, or in neighborhood patches (NPA), with no score matrix.
//!
//! Text may join a picture's keys, as in diffusion transformers: it then takes part in every softmax. In
//! patches it stands at the corner of each window, and its own queries are answered once for each window
//! that differs ([`record_windows`]); [`super::window_mean`] averages the answers.
//!
//! Six engines fill the slot `attend`: `coop` (GPUs with matrix units) and `coop_wide` (the same, heads of more than 128
//! channels, spread over the subgroups), `tile` (GPUs: keys and values through workgroup memory),
//! `lanes` (processors: keys and values broadcast out of vector registers), `wide` (processors: heads
//! of more than 128 channels, spread over the lanes) and `columns` (any head size and alignment, slow).
//! Keys that exceed a binding come in segments: one op each, which hand (maximum, sum, accumulator) on
//! in a state tensor.

mod check;
mod patches;
mod record;
mod tiling;
mod variant;

pub use patches::{Distinct, PatchGeometry, patch_origin};
pub use record::{Params, SPEC, record, record_windows};
pub(super) use tiling::tiles_of_kind;
pub use tiling::{Engine, Problem, Scope, Tiling, tiling};

use crate::tensor::Tensor;

/// The widest head: that of the VAE.
pub const MAX_DIM: u32 = 512;

/// Which keys a query sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum AttentionScope {
    /// All keys of its batch item.
    Full,
    /// Keys up to its own position.
    Causal,
    /// Those in the window of its patch.
    Patches(PatchGeometry),
}

/// Columns of a tensor, from `column` on.
#[derive(Debug, Clone, Copy)]
pub struct Slice {
    pub tensor: Tensor,
    pub column: u32,
}

/// Heads, side by side in the columns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Heads {
    pub count: u32,
    pub dim: u32,
}

/// Operands of `softmax(scale · q·kᵀ + bias) · v`.
#[derive(Debug, Clone, Copy)]
pub struct Attention {
    pub q: Slice,
    pub k: Slice,
    pub v: Slice,
    pub heads: Heads,
    pub scope: AttentionScope,
    /// Whether scores are divided by sqrt(dim).
    pub scaled: bool,
    /// `[heads, lq + lk - 1]` f32, added to the score of key j and query i at column j - i + lq - 1; with
    /// [`AttentionScope::Full`] only.
    pub bias: Option<Tensor>,
    /// Keys that join those of `k`.
    pub text: Option<Text>,
}

/// Keys and values of a text.
#[derive(Debug, Clone, Copy)]
pub struct Text {
    /// Columns, row size and type as of the picture's `k`.
    pub k: Slice,
    /// As of the picture's `v`.
    pub v: Slice,
    /// Where the picture is seen in patches.
    pub turn: Option<Turn>,
}

/// A rotary embedding over a grid: see [`super::rotary`].
#[derive(Debug, Clone, Copy)]
pub struct Turn {
    /// `[positions, dim]` f32: cos and sin by turns, for each pair of channels.
    pub table: Tensor,
    /// Pairs before this one turn by the row, the others by the column.
    pub x_pair: u32,
}

impl Attention {
    /// Scaled, without bias or text.
    pub fn new(q: Slice, k: Slice, v: Slice, heads: Heads, scope: AttentionScope) -> Self {
        Self { q, k, v, heads, scope, scaled: true, bias: None, text: None }
    }
}

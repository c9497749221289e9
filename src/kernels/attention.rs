//! Attention over the whole grid, causal, or in neighborhood patches (NPA).

use bytemuck::NoUninit;

use crate::error::Result;
use crate::gpu::Caps;
use crate::graph::{Graph, Launch, Window};
use crate::shader::{KernelSpec, Variant};
use crate::tensor::{DType, Tensor};

/// `flash`.
pub const SPEC: KernelSpec = KernelSpec { name: "flash", file: "attention/flash.wgsl" };

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

/// Neighborhood patches: queries in blocks of half a window, each with one window of keys around it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PatchGeometry {
    /// The grid of tokens.
    pub height: u32,
    pub width: u32,
    /// The window, which is the grid of the base size at this level.
    pub window_h: u32,
    pub window_w: u32,
    /// Shift of the blocks, 0 to half a window.
    pub jitter_h: u32,
    pub jitter_w: u32,
}

/// First key of the window that position `at` sees, along one axis of `len` tokens (ALGORITHM 1.10).
pub fn patch_origin(at: u32, window: u32, len: u32, jitter: u32) -> u32 {
    let window = window.min(len);
    let block = (window / 2).max(1);
    let origin =
        i64::from(block * ((at + jitter) / block)) - i64::from(jitter) - i64::from(window / 4);
    origin.clamp(0, i64::from(len - window)) as u32
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

/// Parameters of `flash`.
#[repr(C)]
#[derive(Debug, Clone, Copy, NoUninit)]
pub struct Params {
    pub first_group: u32,
    pub rows: u32,
    pub row0: u32,
    pub kv_row0: u32,
    pub q_rows_per_item: u32,
    pub kv_rows_per_item: u32,
    pub heads: u32,
    pub q_stride: u32,
    pub kv_stride: u32,
    pub q_column: u32,
    pub k_column: u32,
    pub v_column: u32,
    pub grid: u32,
    pub window: u32,
    pub jitter: u32,
    pub scale: f32,
}

/// Variant of `flash`.
pub fn choose(
    caps: &Caps,
    q: DType,
    kv: DType,
    out: DType,
    heads: Heads,
    scope: AttentionScope,
) -> Variant {
    Variant::new()
        .num("WG", 64)
        .num("DIM", heads.dim)
        .flag("CAUSAL", scope == AttentionScope::Causal)
        .flag("PATCHES", matches!(scope, AttentionScope::Patches(_)))
        .elem("q", caps.elem(q))
        .elem("k", caps.elem(kv))
        .elem("v", caps.elem(kv))
        .elem("y", caps.elem(out))
}

/// Records `softmax(q·kᵀ / sqrt(dim)) · v` per head; the result has `count × dim` channels.
pub fn record(
    g: &mut Graph,
    q: Slice,
    k: Slice,
    v: Slice,
    heads: Heads,
    scope: AttentionScope,
    out: DType,
) -> Result<Tensor> {
    let y = g.tensor(q.tensor.shape.with_channels(heads.count * heads.dim), out);
    let variant = choose(g.caps(), q.tensor.dtype, k.tensor.dtype, out, heads, scope);
    let (lq, lk) = (q.tensor.shape.rows_per_item(), k.tensor.shape.rows_per_item());
    let (grid, window, jitter) = match scope {
        AttentionScope::Patches(p) => (
            p.height << 16 | p.width,
            p.window_h.min(p.height) << 16 | p.window_w.min(p.width),
            p.jitter_h << 16 | p.jitter_w,
        ),
        _ => (0, 0, 0),
    };
    let keys = match scope {
        AttentionScope::Patches(p) => u64::from(p.window_h.min(p.height) * p.window_w.min(p.width)),
        _ => u64::from(lk),
    };
    let (q_stride, kv_stride) = (q.tensor.shape.stride4(), k.tensor.shape.stride4());
    g.op(&SPEC, variant)
        .read(q.tensor, Window::Rows)
        .read(k.tensor, Window::Whole)
        .read(v.tensor, Window::Whole)
        .write(y, Window::Rows)
        .over(q.tensor.shape.rows(), 0)
        .flops(4 * u64::from(q.tensor.shape.rows()) * keys * u64::from(heads.count * heads.dim))
        .launch(move |chunk| {
            let params = Params {
                first_group: 0,
                rows: chunk.row_count(),
                row0: chunk.rows.start,
                kv_row0: chunk.first(1),
                q_rows_per_item: lq,
                kv_rows_per_item: lk,
                heads: heads.count,
                q_stride,
                kv_stride,
                q_column: q.column,
                k_column: k.column,
                v_column: v.column,
                grid,
                window,
                jitter,
                scale: 1.0 / (heads.dim as f32).sqrt(),
            };
            Launch::new(&params, (chunk.row_count() * heads.count).div_ceil(64))
        });
    Ok(y)
}

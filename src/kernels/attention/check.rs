//! What operands of attention must fulfil: the shader checks nothing.

use super::{Attention, AttentionScope, MAX_DIM, Slice, Turn};
use crate::error::Result;
use crate::graph::Graph;
use crate::tensor::Shape;

/// `pixels`: rows of an item of the picture, where the scope is patches.
pub(super) fn check(g: &Graph, a: &Attention, pixels: u32) -> Result<()> {
    let Attention { q, k, v, heads, scope, bias, text, .. } = *a;
    let (qs, ks, vs) = (q.tensor.shape, k.tensor.shape, v.tensor.shape);
    if heads.count == 0 || heads.dim == 0 || heads.dim > MAX_DIM {
        return Err(g.error(format!(
            "attention over {} heads of {} channels, expected 1 to {MAX_DIM} channels",
            heads.count, heads.dim
        )));
    }
    if qs.batch != ks.batch || ks.rows() != vs.rows() || k.tensor.dtype != v.tensor.dtype {
        return Err(g.error(format!("attention of {qs} to keys {ks} and values {vs}")));
    }
    let width = heads.count * heads.dim;
    if [q, k, v].iter().any(|s| s.column + width > s.tensor.shape.channels) {
        return Err(g.error(format!("{width} attention columns exceed the operand's")));
    }
    // Five bits of the number of keys hold something else.
    let packed = ks.rows() < 1 << 26
        && [q, k, v].iter().all(|s| s.tensor.shape.stride4() < 1 << 16 && s.column < 1 << 16)
        && heads.count < 1 << 16
        && qs.batch < 1 << 16;
    if !packed {
        return Err(g.error(format!("attention operands of {qs} and {ks} are too wide")));
    }
    if let AttentionScope::Patches(p) = scope {
        let fits = p.height * p.width == pixels
            && p.height * p.width == ks.rows_per_item()
            && p.height.max(p.width).max(p.window_h).max(p.window_w) < 1 << 15
            && p.window_h.min(p.window_w) > 0
            && p.jitter_h <= (p.window_h / 2).min(255)
            && p.jitter_w <= (p.window_w / 2).min(255);
        if !fits {
            return Err(g.error(format!("attention patches {p:?} do not fit queries {qs}")));
        }
    }
    if let Some(bias) = bias {
        let want = Shape::matrix(heads.count, qs.rows_per_item() + ks.rows_per_item() - 1);
        if bias.shape != want || scope != AttentionScope::Full {
            return Err(g.error(format!("a bias of {}, expected {want}", bias.shape)));
        }
    }
    if let Some(text) = text {
        let same = |a: Slice, b: Slice| {
            a.column == b.column
                && a.tensor.dtype == b.tensor.dtype
                && a.tensor.shape.channels == b.tensor.shape.channels
                && a.tensor.shape.batch == b.tensor.shape.batch
        };
        let rows = text.k.tensor.shape.rows() == text.v.tensor.shape.rows();
        if !(same(text.k, k) && same(text.v, v) && rows) || scope == AttentionScope::Causal {
            return Err(g.error(format!(
                "text keys {} and values {} beside {ks} and {vs}",
                text.k.tensor.shape, text.v.tensor.shape
            )));
        }
        let tokens = text.k.tensor.shape.rows_per_item();
        let patched = matches!(scope, AttentionScope::Patches(_));
        let short = |turn: Turn| match scope {
            AttentionScope::Patches(p) => {
                turn.table.shape.channels != heads.dim
                    || turn.table.shape.rows() < p.height.max(p.width)
                    || 2 * turn.x_pair > heads.dim
            }
            _ => true,
        };
        if text.turn.is_some_and(short) || text.turn.is_some() != patched || tokens >= 1 << 16 {
            return Err(g.error("text beside patches needs the table of its rotary embedding"));
        }
    }
    Ok(())
}

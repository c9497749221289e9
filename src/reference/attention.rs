//! Attention by naive loops with f64 sums; patches by enumerating the blocks, not by the closed form.

use std::ops::Range;

use crate::kernels::attention::{AttentionScope, Heads};

/// Rows of `channels` values, of which the heads start at `column`.
#[derive(Clone, Copy)]
pub struct Slice<'a> {
    pub values: &'a [f32],
    pub channels: usize,
    pub column: usize,
}

impl Slice<'_> {
    pub(super) fn at(&self, row: usize, column: usize) -> f64 {
        f64::from(self.values[row * self.channels + self.column + column])
    }
}

/// `softmax(scale · q·k) · v` of one query over its keys and values.
pub(super) fn softmax_mix(
    q: &[f64],
    keys: impl Iterator<Item = (Vec<f64>, Vec<f64>)>,
    scale: f64,
) -> Vec<f32> {
    let dot = |k: &[f64]| scale * q.iter().zip(k).map(|(a, b)| a * b).sum::<f64>();
    let scored: Vec<(f64, Vec<f64>)> = keys.map(|(k, v)| (dot(&k), v)).collect();
    let top = scored.iter().map(|(s, _)| *s).fold(f64::NEG_INFINITY, f64::max);
    let sum: f64 = scored.iter().map(|(s, _)| (s - top).exp()).sum();
    let mix = |c: usize| scored.iter().map(|(s, v)| (s - top).exp() * v[c]).sum::<f64>();
    (0..q.len()).map(|c| (mix(c) / sum) as f32).collect()
}

/// `softmax(scale · q·kᵀ + bias) · v` per batch item and head; `[items · lq, heads · dim]`. `bias` holds
/// `lq + lk - 1` values per head, that of key j and query i at j - i + lq - 1; or nothing.
pub fn attention(
    (q, k, v): (Slice, Slice, Slice),
    (items, lq, lk): (usize, usize, usize),
    heads: Heads,
    scope: AttentionScope,
    scale: f64,
    bias: &[f32],
) -> Vec<f32> {
    let distance = |head: usize, i: usize, j: usize| {
        bias.get(head * (lq + lk - 1) + j + lq - 1 - i).map_or(0.0, |b| f64::from(*b))
    };
    let (count, dim) = (heads.count as usize, heads.dim as usize);
    let mut y = vec![0.0; items * lq * count * dim];
    let mut one = |item: usize, i: usize, keys: &[usize]| {
        for head in 0..count {
            let column = head * dim;
            let row = item * lq + i;
            let scores: Vec<f64> = keys
                .iter()
                .map(|j| {
                    let dot = |c| q.at(row, column + c) * k.at(item * lk + j, column + c);
                    scale * (0..dim).map(dot).sum::<f64>() + distance(head, i, *j)
                })
                .collect();
            let top = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let weights: Vec<f64> = scores.iter().map(|s| (s - top).exp()).collect();
            let sum: f64 = weights.iter().sum();
            for c in column..column + dim {
                let mix: f64 =
                    keys.iter().zip(&weights).map(|(j, w)| w * v.at(item * lk + j, c)).sum();
                y[row * count * dim + c] = (mix / sum) as f32;
            }
        }
    };
    for item in 0..items {
        match scope {
            AttentionScope::Full => {
                let keys: Vec<usize> = (0..lk).collect();
                (0..lq).for_each(|i| one(item, i, &keys));
            }
            AttentionScope::Causal => {
                let keys: Vec<usize> = (0..lk).collect();
                (0..lq).for_each(|i| one(item, i, &keys[..(i + 1).min(lk)]));
            }
            AttentionScope::Patches(p) => {
                let width = p.width as usize;
                for (rows, key_rows) in blocks(p.height, p.window_h, p.jitter_h, p.isolated) {
                    for (cols, key_cols) in blocks(p.width, p.window_w, p.jitter_w, p.isolated) {
                        let key = |y: usize| key_cols.clone().map(move |x| y * width + x);
                        let keys: Vec<usize> = key_rows.clone().flat_map(key).collect();
                        for y in rows.clone() {
                            cols.clone().for_each(|x| one(item, y * width + x, &keys));
                        }
                    }
                }
            }
        }
    }
    y
}

/// The blocks of one axis: their queries, and the keys that they see.
pub(super) fn blocks(
    len: u32,
    window: u32,
    jitter: u32,
    isolated: bool,
) -> Vec<(Range<usize>, Range<usize>)> {
    let (len, window, jitter) = (i64::from(len), i64::from(window), i64::from(jitter));
    let (block, margin) = if isolated { (window, 0) } else { ((window / 2).max(1), window / 4) };
    let mut out = Vec::new();
    let mut from = -jitter;
    while from < len {
        let origin = (from - margin).clamp(0, (len - window).max(0));
        let queries = from.max(0) as usize..(from + block).clamp(0, len) as usize;
        out.push((queries, origin as usize..(origin + window.min(len)) as usize));
        from += block;
    }
    out
}

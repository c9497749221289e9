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
    fn at(&self, row: usize, column: usize) -> f64 {
        f64::from(self.values[row * self.channels + self.column + column])
    }
}

/// `softmax(scale · q·kᵀ) · v` per batch item and head; `[items · lq, heads · dim]`.
pub fn attention(
    (q, k, v): (Slice, Slice, Slice),
    (items, lq, lk): (usize, usize, usize),
    heads: Heads,
    scope: AttentionScope,
    scale: f64,
) -> Vec<f32> {
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
                    scale * (0..dim).map(dot).sum::<f64>()
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
fn blocks(len: u32, window: u32, jitter: u32, isolated: bool) -> Vec<(Range<usize>, Range<usize>)> {
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

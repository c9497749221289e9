//! Attention of pictures and text together, in the form of the paper's code: text queries and keys are turned
//! to the corner of every window. Rows one by one, patches by enumerating the blocks.

use super::attention::{Slice, blocks, softmax_mix};
use crate::kernels::attention::{AttentionScope, Heads, PatchGeometry};

/// Whose queries are answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Queries {
    /// The picture's.
    Picture,
    /// The text's, over the whole picture.
    Text,
    /// The text's, in every distinct window; with the blocks of a shifted grid.
    Windows { shifted: bool },
}

/// Operands of joint attention.
pub struct Joint<'a> {
    pub q: Slice<'a>,
    pub k: Slice<'a>,
    pub v: Slice<'a>,
    pub text_k: Slice<'a>,
    pub text_v: Slice<'a>,
    pub items: usize,
    /// Tokens of a text, and of a picture.
    pub text: usize,
    pub pixels: usize,
    pub heads: Heads,
    pub scope: AttentionScope,
    pub queries: Queries,
    /// cos and sin by turns of every pair of a head at every position, and the first pair that turns by
    /// the column.
    pub table: &'a [f32],
    pub x_pair: usize,
}

impl Joint<'_> {
    /// One row of the result.
    pub fn row(&self, row: usize) -> Vec<f32> {
        let (item, q_row, window) = match (self.queries, self.scope) {
            (Queries::Windows { shifted }, AttentionScope::Patches(p)) => {
                let run = row / self.text;
                let item = run % self.items;
                let window = windows(&p, shifted)[run / self.items].clone();
                (item, item * self.text + row % self.text, Some((window, p)))
            }
            (Queries::Picture, AttentionScope::Patches(p)) => {
                let i = row % self.pixels;
                let (y, x) = (i / p.width as usize, i % p.width as usize);
                let ys = blocks(p.height, p.window_h, p.jitter_h, p.isolated);
                let xs = blocks(p.width, p.window_w, p.jitter_w, p.isolated);
                let find = |all: Vec<Block>, at: usize| {
                    all.into_iter().find(|(queries, _)| queries.contains(&at)).map(|(_, keys)| keys)
                };
                let window = find(ys, y).zip(find(xs, x));
                (row / self.pixels, row, window.map(|w| (w, p)))
            }
            (queries, _) => {
                let length = if queries == Queries::Text { self.text } else { self.pixels };
                (row / length, row, None)
            }
        };
        let keys: Vec<usize> = match &window {
            None => (0..self.pixels).collect(),
            Some(((ys, xs), p)) => {
                let line = |y: usize| xs.clone().map(move |x| y * p.width as usize + x);
                ys.clone().flat_map(line).collect()
            }
        };
        let corner = window.map(|((ys, xs), _)| (ys.start, xs.start));
        let dim = self.heads.dim as usize;
        let text_query = self.queries != Queries::Picture;
        (0..self.heads.count as usize)
            .flat_map(|head| {
                let part = |s: &Slice, row: usize, turn: bool| {
                    let values: Vec<f64> = (0..dim).map(|c| s.at(row, head * dim + c)).collect();
                    match corner.filter(|_| turn) {
                        Some((y, x)) => self.turned(&values, y, x),
                        None => values,
                    }
                };
                let q = part(&self.q, q_row, text_query);
                let texts = (0..self.text).map(|t| {
                    let t = item * self.text + t;
                    (part(&self.text_k, t, true), part(&self.text_v, t, false))
                });
                let pixels = keys.iter().map(|i| {
                    let i = item * self.pixels + i;
                    (part(&self.k, i, false), part(&self.v, i, false))
                });
                softmax_mix(&q, texts.chain(pixels), 1.0 / (dim as f64).sqrt())
            })
            .collect()
    }

    fn turned(&self, v: &[f64], y: usize, x: usize) -> Vec<f64> {
        let dim = self.heads.dim as usize;
        (0..dim)
            .map(|c| {
                let pair = c / 2;
                let place = if pair >= self.x_pair { x } else { y };
                let at = |i: usize| f64::from(self.table[place * dim + 2 * pair + i]);
                let (cos, sin) = (at(0), at(1));
                if c % 2 == 0 { v[c] * cos - v[c + 1] * sin } else { v[c] * cos + v[c - 1] * sin }
            })
            .collect()
    }
}

/// Queries and keys of a block along one axis.
type Block = (Range, Range);
type Range = std::ops::Range<usize>;

/// The windows of all blocks that differ, row by row.
fn windows(p: &PatchGeometry, shifted: bool) -> Vec<(Range, Range)> {
    let axis = |len: u32, window: u32, jitter: u32| {
        let step = i64::from(if p.isolated { window } else { (window / 2).max(1) });
        let margin = if p.isolated { 0 } else { i64::from(window / 4) };
        let last = i64::from(len.saturating_sub(window));
        let count = i64::from(len).div_euclid(step) + i64::from(i64::from(len) % step > 0);
        let mut all: Vec<Range> = Vec::new();
        for b in 0..count + i64::from(shifted) {
            let origin = (b * step - i64::from(jitter) - margin).clamp(0, last);
            let keys = origin as usize..(origin + i64::from(window.min(len))) as usize;
            if all.last() != Some(&keys) {
                all.push(keys);
            }
        }
        all
    };
    let (ys, xs) = (axis(p.height, p.window_h, p.jitter_h), axis(p.width, p.window_w, p.jitter_w));
    ys.iter().flat_map(|y| xs.iter().map(move |x| (y.clone(), x.clone()))).collect()
}

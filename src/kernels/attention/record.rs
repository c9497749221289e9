//! Recording `flash`: operands checked, packed and cut.

use std::ops::Range;

use bytemuck::NoUninit;

use super::check::check;
use super::tiling::{Problem, Scope, Tiling, tiling};
use super::variant::{Carry, choose};
use super::{Attention, AttentionScope, PatchGeometry};
use crate::error::Result;
use crate::graph::{Graph, Launch, STEP, Window};
use crate::shader::KernelSpec;
use crate::tensor::{DType, Shape, Tensor};

/// `flash`.
pub const SPEC: KernelSpec = KernelSpec { name: "flash", file: "attention/flash.wgsl" };

/// Parameters of `flash`; pairs of u16 have the first one low.
#[repr(C)]
#[derive(Debug, Clone, Copy, NoUninit)]
pub struct Params {
    pub first_group: u32,
    pub items_heads: u32,
    pub q_k_stride: u32,
    pub v_y_stride: u32,
    pub q_k_col: u32,
    /// u16 column of v, u8 jitter_h, u8 jitter_w.
    pub v_col_jitter: u32,
    pub lq: u32,
    /// Keys of an item; for text queries the numbers of windows, each with its first block in the top bit.
    pub lk: u32,
    pub q_row0: u32,
    /// First key row of the segment.
    pub kv_row0: u32,
    /// Rows of the segment, in the top 5 bits how many rows before it are bound; of windows the first and the end
    /// line that are seen.
    pub kv_rows: u32,
    pub y_row0: u32,
    pub y_rows: u32,
    pub grid: u32,
    pub window: u32,
    /// Text keys of an item; the number of the first window.
    pub text: u32,
}

/// Records attention per head; the result has q's rows and `count × dim` channels.
///
/// # Errors
/// Operands whose extents do not fit together, or are beyond what the kernel can address.
pub fn record(g: &mut Graph, a: Attention, out: DType) -> Result<Tensor> {
    check(g, &a, a.q.tensor.shape.rows_per_item())?;
    let scope = match a.scope {
        AttentionScope::Full => Scope::Full,
        AttentionScope::Causal => Scope::Causal,
        AttentionScope::Patches(p) => Scope::Patches(p),
    };
    let y = a.q.tensor.shape.with_channels(a.heads.count * a.heads.dim);
    Recorder::new(g, a, scope, None).record(g, y, out)
}

/// Records attention of the text's own queries `q` in some of the distinct windows of the patches of `k`, numbered
/// in row order: `[windows × items, 1, tokens, count × dim]`. `shifted`: see [`PatchGeometry::distinct`].
///
/// # Errors
/// As [`record`]; also a scope without patches, or windows that it does not have.
pub fn record_windows(
    g: &mut Graph,
    a: Attention,
    shifted: bool,
    windows: Range<u32>,
    out: DType,
) -> Result<Tensor> {
    let (AttentionScope::Patches(p), Some(text)) = (a.scope, a.text) else {
        return Err(g.error("text queries by windows need patches and text keys"));
    };
    check(g, &a, p.height * p.width)?;
    let q = a.q.tensor.shape;
    if q.rows() != text.k.tensor.shape.rows() || text.turn.is_none() {
        return Err(g.error(format!("text queries {q} to keys {}", text.k.tensor.shape)));
    }
    let (ys, xs) = p.distinct(shifted);
    let count = (ys.windows.len() * xs.windows.len()) as u32;
    if windows.is_empty() || windows.end > count || count >= 1 << 16 {
        return Err(g.error(format!("windows {windows:?} of {count}")));
    }
    let runs = q.batch * (windows.end - windows.start);
    let y = Shape::tokens(runs, q.rows_per_item(), a.heads.count * a.heads.dim);
    let windows = Windows { shifted, first: windows.start };
    Recorder::new(g, a, Scope::Windows, Some(windows)).record(g, y, out)
}

/// The windows that text queries see.
#[derive(Clone, Copy)]
struct Windows {
    shifted: bool,
    first: u32,
}

/// What the ops of one attention share.
#[derive(Clone, Copy)]
struct Recorder {
    a: Attention,
    problem: Problem,
    tiling: Tiling,
    /// Where the queries are the text's.
    windows: Option<Windows>,
}

impl Recorder {
    fn new(g: &Graph, a: Attention, scope: Scope, windows: Option<Windows>) -> Self {
        let texts = a.text.map(|t| [t.k, t.v]);
        let all = || [a.q, a.k, a.v].into_iter().chain(texts.into_iter().flatten());
        let problem = Problem {
            heads: a.heads,
            scope,
            lq: a.q.tensor.shape.rows_per_item(),
            aligned: all().all(|s| s.column.is_multiple_of(4)),
            paired: a.heads.dim.is_multiple_of(8)
                && all().all(|s| {
                    s.column.is_multiple_of(8) && s.tensor.shape.stride4().is_multiple_of(2)
                }),
            halves: all().all(|s| s.tensor.dtype == DType::F16),
        };
        let tiling = tiling(g.caps(), &problem);
        Self { a, problem, tiling, windows }
    }

    fn geometry(&self) -> Option<PatchGeometry> {
        match self.a.scope {
            AttentionScope::Patches(p) => Some(p),
            _ => None,
        }
    }

    fn record(self, g: &mut Graph, shape: Shape, out: DType) -> Result<Tensor> {
        let caps = g.caps().clone();
        let keys = self.a.k.tensor.shape;
        let y = g.tensor(shape, out);
        let row_bytes = self.a.k.tensor.row_bytes().max(self.a.v.tensor.row_bytes());
        let most = rows_within(caps.operand_bytes(), row_bytes);
        let segments = match self.geometry() {
            Some(p) => {
                let items = self.a.q.tensor.shape.batch;
                let straddled = match self.windows {
                    None => p.straddled(STEP, items),
                    Some(_) => p.straddled_by_text(STEP, self.problem.lq, items),
                };
                p.line_parts(most / p.width, straddled, self.tiling.block_k())
            }
            None => segments(keys.rows(), keys.rows_per_item(), self.tiling.block_k(), most),
        };
        let width = 4 * self.tiling.state4(self.a.heads);
        let state =
            (segments.len() > 1).then(|| g.tensor(Shape::matrix(shape.rows(), width), DType::F32));
        let count = segments.len();
        for (index, segment) in segments.into_iter().enumerate() {
            let carry = match (index, count) {
                (_, 1) => Carry::None,
                (0, _) => Carry::First,
                (i, n) if i + 1 == n => Carry::Last,
                _ => Carry::Middle,
            };
            self.segment(g, segment, carry, y, state);
        }
        Ok(y)
    }

    /// One op: the queries, and the keys `segment`: rows, or lines of every window.
    fn segment(
        self,
        g: &mut Graph,
        segment: Range<u32>,
        carry: Carry,
        y: Tensor,
        state: Option<Tensor>,
    ) {
        let Self { a, problem, tiling, windows } = self;
        let variant = choose(g.caps(), &a, &problem, carry, y.dtype);
        let text = a.text.filter(|_| carry.is_first());
        let q = if windows.is_some() { Window::Whole } else { Window::Rows };
        let mut op = g
            .op(&SPEC, variant)
            .read(a.q.tensor, q)
            .read(a.k.tensor, self.key_window(&segment))
            .read(a.v.tensor, self.key_window(&segment))
            .write(y, Window::Rows);
        if let Some(text) = text {
            op = op.read(text.k.tensor, Window::Whole).read(text.v.tensor, Window::Whole);
        }
        let turn = a.text.and_then(|text| text.turn);
        if let Some(turn) = turn.filter(|_| text.is_some() || windows.is_some()) {
            op = op.read(turn.table, Window::Whole);
        }
        if let Some(bias) = a.bias {
            op = op.read(bias, Window::Whole);
        }
        if let Some(state) = state {
            op = op.write(state, Window::Rows);
        }
        let geometry = self.geometry();
        let lk = match (geometry, windows) {
            (Some(p), Some(Windows { shifted, .. })) => {
                let (ys, xs) = p.distinct(shifted);
                let half = |d: &super::Distinct| d.windows.len() as u32 | d.first_block << 15;
                pair(half(&ys), half(&xs))
            }
            _ => a.k.tensor.shape.rows_per_item(),
        };
        op.over(y.shape.rows(), 0).flops(self.flops(&segment, text.is_some(), y)).launch(
            move |chunk| {
                let bound = &chunk.bound[1];
                let (kv_row0, kv_rows) = match geometry {
                    Some(_) => (bound.start, pair(segment.start, segment.end)),
                    None => {
                        let before = segment.start - bound.start;
                        (segment.start, (segment.end - segment.start) | before << 27)
                    }
                };
                let params = Params {
                    first_group: 0,
                    items_heads: pair(a.q.tensor.shape.batch, a.heads.count),
                    q_k_stride: pair(a.q.tensor.shape.stride4(), a.k.tensor.shape.stride4()),
                    v_y_stride: pair(a.v.tensor.shape.stride4(), y.shape.stride4()),
                    q_k_col: pair(a.q.column, a.k.column),
                    v_col_jitter: a.v.column
                        | geometry.map_or(0, |p| p.jitter_h << 16 | p.jitter_w << 24),
                    lq: problem.lq,
                    lk,
                    q_row0: chunk.first(0),
                    kv_row0,
                    kv_rows,
                    y_row0: chunk.rows.start,
                    y_rows: chunk.row_count(),
                    grid: geometry.map_or(0, |p| pair(p.height, p.width)),
                    window: geometry.map_or(0, |p| pair(p.window_h, p.window_w)),
                    text: pair(
                        a.text.map_or(0, |t| t.k.tensor.shape.rows_per_item()),
                        windows.map_or(0, |w| w.first),
                    ),
                };
                Launch::new(&params, tiling.groups(&problem, &chunk.rows))
            },
        );
    }

    /// The key rows that a chunk of queries sees, from where a row of any size starts at a binding's
    /// alignment: so keys and values begin with the same row, whatever their sizes.
    fn key_window(self, segment: &Range<u32>) -> Window {
        let aligned = |rows: Range<u32>| rows.start / ALIGNED_ROWS * ALIGNED_ROWS..rows.end;
        let part = segment.clone();
        match (self.geometry(), self.windows) {
            (None, _) => {
                let bound = aligned(part);
                Window::Map(Box::new(move |_| bound.clone()))
            }
            (Some(p), None) => Window::Map(Box::new(move |rows| aligned(p.key_rows(rows, &part)))),
            (Some(p), Some(Windows { shifted, first, .. })) => {
                let (lq, items) = (self.problem.lq, self.a.q.tensor.shape.batch);
                Window::Map(Box::new(move |rows| {
                    let runs =
                        rows.start / lq + first * items..rows.end.div_ceil(lq) + first * items;
                    aligned(p.window_rows(&runs, items, shifted, &part))
                }))
            }
        }
    }

    fn flops(&self, segment: &Range<u32>, text: bool, y: Tensor) -> u64 {
        let keys = self.a.k.tensor.shape;
        let seen = f64::from(segment.end - segment.start);
        let picture = match self.geometry() {
            Some(p) => seen * f64::from(p.window_w.min(p.width)),
            None => seen / f64::from(keys.batch),
        };
        let joined = self.a.text.filter(|_| text);
        let joined = joined.map_or(0, |t| t.k.tensor.shape.rows_per_item());
        let channels = f64::from(self.a.heads.count * self.a.heads.dim);
        (4.0 * f64::from(y.shape.rows()) * (picture + f64::from(joined)) * channels) as u64
    }
}

fn pair(low: u32, high: u32) -> u32 {
    low | high << 16
}

/// Rows that start at a binding's alignment, whatever a row's size.
const ALIGNED_ROWS: u32 = 32;

/// Key rows of a segment: those before it that alignment may add fit too.
fn rows_within(bytes: u64, row_bytes: u64) -> u32 {
    (bytes / row_bytes.max(1)).saturating_sub(u64::from(ALIGNED_ROWS)).clamp(32, 1 << 26) as u32
}

/// Ranges of at most `most` key rows that start where a tile of `block` keys starts in its item of
/// `lk` rows: so every tile is what it is without segments, and so are all sums.
fn segments(rows: u32, lk: u32, block: u32, most: u32) -> Vec<Range<u32>> {
    let mut cuts = Vec::new();
    let mut start = 0;
    while start < rows {
        let end = match start + most {
            end if end >= rows => rows,
            end => end / lk * lk + end % lk / block * block,
        };
        cuts.push(start..end);
        start = end;
    }
    cuts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn segments_cover_all_keys_and_start_where_tiles_do() {
        for (items, lk, block, most) in
            [(1, 1, 32, 32), (2, 64, 32, 100), (3, 77, 8, 60), (2, 1500, 32, 333)]
        {
            let cut = segments(items * lk, lk, block, most);
            assert_eq!((cut[0].start, cut[cut.len() - 1].end), (0, items * lk));
            assert!(cut.windows(2).all(|w| w[0].end == w[1].start));
            assert!(
                cut.iter()
                    .all(|s| s.start % lk % block == 0 && s.end - s.start <= most && !s.is_empty())
            );
        }
    }
}

//! Flash attention: over all keys, causal, or in neighborhood patches (NPA), with no score matrix.
//!
//! Four engines fill the slot `attend`: `tile` (GPUs: keys and values through workgroup memory),
//! `lanes` (processors: keys and values broadcast out of vector registers), `wide` (processors: heads
//! of more than 128 channels, spread over the lanes) and `columns` (any head size and alignment, slow).
//! Keys that exceed a binding come in segments: one op each, which hand (maximum, sum, accumulator) on
//! in a state tensor.

use std::f32::consts::LOG2_E;
use std::ops::Range;

use bytemuck::NoUninit;

use crate::error::Result;
use crate::gpu::{Caps, DeviceClass};
use crate::graph::{Graph, Launch, Window};
use crate::shader::{KernelSpec, Variant};
use crate::tensor::{DType, Shape, Tensor};

/// `flash`.
pub const SPEC: KernelSpec = KernelSpec { name: "flash", file: "attention/flash.wgsl" };

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

/// Neighborhood patches: queries in blocks of half a window, each with one window of keys around it.
/// Isolated ones see no further than their own block, which is then the window: for measuring what the
/// overlap is worth.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PatchGeometry {
    /// The grid of tokens.
    pub height: u32,
    pub width: u32,
    /// The grid of the base size at this level, which is the window where the grid is larger.
    pub window_h: u32,
    pub window_w: u32,
    /// Shift of the blocks, 0 to half a window.
    pub jitter_h: u32,
    pub jitter_w: u32,
    pub isolated: bool,
}

impl PatchGeometry {
    /// Queries of one block, per axis.
    pub fn patch(&self) -> (u32, u32) {
        (block_of(self.window_h, self.isolated), block_of(self.window_w, self.isolated))
    }

    /// Blocks per axis; the jitter adds at most one.
    pub fn blocks(&self) -> (u32, u32) {
        let (ph, pw) = self.patch();
        ((self.height - 1 + self.jitter_h) / ph + 1, (self.width - 1 + self.jitter_w) / pw + 1)
    }

    /// Keys that one query sees.
    pub fn keys(&self) -> u32 {
        self.window_h.min(self.height) * self.window_w.min(self.width)
    }
}

/// Queries that share a window, along one axis.
fn block_of(window: u32, isolated: bool) -> u32 {
    if isolated { window } else { (window / 2).max(1) }
}

/// First key of the window that position `at` sees, along one axis of `len` tokens.
pub fn patch_origin(at: u32, window: u32, len: u32, jitter: u32, isolated: bool) -> u32 {
    let block = block_of(window, isolated);
    let margin = if isolated { 0 } else { window / 4 };
    let origin = i64::from(block * ((at + jitter) / block)) - i64::from(jitter) - i64::from(margin);
    origin.clamp(0, i64::from(len.saturating_sub(window))) as u32
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
    pub lk: u32,
    pub q_row0: u32,
    /// First key row of the segment.
    pub kv_row0: u32,
    /// Rows of the segment; in the top 5 bits how many rows before it are bound.
    pub kv_rows: u32,
    pub y_row0: u32,
    pub y_rows: u32,
    pub grid: u32,
    pub window: u32,
    /// Softmax scale × log2(e).
    pub scale: f32,
}

/// The implementation of the slot `attend`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Engine {
    Tile,
    Lanes,
    Wide,
    Columns,
}

/// Which part of the keys an op sees: the implementation of the slot `carry`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Carry {
    /// All of them.
    None,
    First,
    Middle,
    Last,
}

/// What decides the variant, apart from element types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Problem {
    pub heads: Heads,
    pub scope: AttentionScope,
    /// Queries of one batch item.
    pub lq: u32,
    /// The columns of q, k and v start at whole vec4s.
    pub aligned: bool,
    /// Pairs of vec4s of a head lie together in q, k, v and the result, at even places.
    pub paired: bool,
}

/// Engine and tile for a problem: everything the host must know of a variant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tiling {
    pub engine: Engine,
    /// Queries of a tile.
    pub block_q: u32,
    /// Vec4s of a head whose output one workgroup owns (`tile` only).
    pub slice4: u32,
}

/// Invocations of a subgroup that `lanes` and `wide` are written for.
const LANES: u32 = 8;
/// The widest slice whose accumulator fits an invocation's registers in `tile`.
const TILE_SLICE4: u32 = 32;

/// The engine and tile that suit a device.
pub fn tiling(caps: &Caps, p: &Problem) -> Tiling {
    let d4 = p.heads.dim.div_ceil(4);
    // Queries that share a window: a longer tile would be partly empty.
    let sharing = match p.scope {
        AttentionScope::Patches(g) => g.patch().0 * g.patch().1,
        _ => p.lq,
    };
    if !p.heads.dim.is_multiple_of(4) {
        return Tiling { engine: Engine::Columns, block_q: 1, slice4: d4 };
    }
    let vectors = caps.class == DeviceClass::Cpu && caps.subgroups && caps.subgroup_min >= LANES;
    if vectors && d4 <= 32 {
        // Unrolled code and the vectors kept per lane grow with d4 times the queries per lane.
        let most = match d4 {
            0..=4 => 8,
            5..=16 => 4,
            _ => 2,
        };
        let per_lane = sharing.div_ceil(LANES).clamp(1, most);
        return Tiling { engine: Engine::Lanes, block_q: LANES * per_lane, slice4: d4 };
    }
    if vectors {
        // A loaded number serves one tile; a larger one exceeds the processor's first cache.
        return Tiling { engine: Engine::Wide, block_q: sharing.min(8), slice4: d4 };
    }
    let block_q = [16, 32].into_iter().find(|b| *b >= sharing).unwrap_or(64);
    Tiling { engine: Engine::Tile, block_q, slice4: d4.min(TILE_SLICE4) }
}

impl Tiling {
    /// Keys of a tile.
    fn block_k(&self) -> u32 {
        match self.engine {
            Engine::Tile => 32,
            Engine::Lanes | Engine::Wide => LANES,
            Engine::Columns => 1,
        }
    }

    /// Vec4s of state per row.
    pub fn state4(&self, heads: Heads) -> u32 {
        let d4 = heads.dim.div_ceil(4);
        match self.engine {
            Engine::Columns => 3 * (heads.count * heads.dim).div_ceil(4),
            Engine::Lanes | Engine::Wide => heads.count * (d4 + 1),
            // Maximum, and a sum from each of the lanes that share a row.
            Engine::Tile => heads.count * d4.div_ceil(self.slice4) * (self.slice4 + 3),
        }
    }

    /// Workgroups for the output rows `rows`.
    pub fn groups(&self, p: &Problem, rows: &Range<u32>) -> u32 {
        if rows.is_empty() {
            return 0;
        }
        let tiles = self.tile_after(p, rows.end - 1) - self.tile_at(p, rows.start);
        match self.engine {
            Engine::Columns => {
                ((rows.end - rows.start) * (p.heads.count * p.heads.dim).div_ceil(4)).div_ceil(64)
            }
            Engine::Lanes | Engine::Wide => tiles * p.heads.count,
            Engine::Tile => tiles * p.heads.count * p.heads.dim.div_ceil(4).div_ceil(self.slice4),
        }
    }

    /// The first tile that may hold `row`.
    fn tile_at(&self, p: &Problem, row: u32) -> u32 {
        let (item, i) = (row / p.lq, row % p.lq);
        match p.scope {
            AttentionScope::Patches(g) => {
                let (blocks_h, _) = g.blocks();
                let block_row = (i / g.width + g.jitter_h) / g.patch().0;
                (item * blocks_h + block_row) * self.tiles_per_block_row(&g)
            }
            _ => item * p.lq.div_ceil(self.block_q) + i / self.block_q,
        }
    }

    /// The first tile after all that may hold `row`.
    fn tile_after(&self, p: &Problem, row: u32) -> u32 {
        self.tile_at(p, row)
            + match p.scope {
                AttentionScope::Patches(g) => self.tiles_per_block_row(&g),
                _ => 1,
            }
    }

    fn tiles_per_block_row(&self, g: &PatchGeometry) -> u32 {
        g.blocks().1 * (g.patch().0 * g.patch().1).div_ceil(self.block_q)
    }
}

/// Variant of `flash`.
pub fn choose(caps: &Caps, p: &Problem, carry: Carry, q: DType, kv: DType, out: DType) -> Variant {
    let tiling = tiling(caps, p);
    let scope = match p.scope {
        AttentionScope::Full => 0,
        AttentionScope::Causal => 1,
        AttentionScope::Patches(_) => 2,
    };
    let isolated = matches!(p.scope, AttentionScope::Patches(g) if g.isolated);
    let paired = p.paired && matches!(tiling.engine, Engine::Lanes | Engine::Wide);
    let elem = |dtype| if paired { caps.elem_pairs(dtype) } else { caps.elem(dtype) };
    Variant::new()
        .num("HEAD_DIM", p.heads.dim)
        .num("SCOPE", scope)
        .flag("ISOLATED", isolated)
        .num("BLOCK_Q", tiling.block_q)
        .num("SLICE4", tiling.slice4)
        .flag("ALIGNED", p.aligned && p.heads.dim.is_multiple_of(4))
        .flag("PAIRED", paired)
        .slot(
            "attend",
            match tiling.engine {
                Engine::Tile => "tile",
                Engine::Lanes => "lanes",
                Engine::Wide => "wide",
                Engine::Columns => "columns",
            },
        )
        .slot(
            "carry",
            match carry {
                Carry::None => "none",
                Carry::First => "first",
                Carry::Middle => "middle",
                Carry::Last => "last",
            },
        )
        .elem("q", elem(q))
        .elem("k", elem(kv))
        .elem("v", elem(kv))
        .elem("y", elem(out))
        .elem("state", caps.elem(DType::F32))
}

/// Records `softmax(q·kᵀ / sqrt(dim)) · v` per head; the result has `count × dim` channels.
///
/// # Errors
/// Operands whose extents do not fit together, or are beyond what the kernel can address.
pub fn record(
    g: &mut Graph,
    q: Slice,
    k: Slice,
    v: Slice,
    heads: Heads,
    scope: AttentionScope,
    out: DType,
) -> Result<Tensor> {
    check(g, q, k, v, heads, scope)?;
    let shape = q.tensor.shape;
    let problem = Problem {
        heads,
        scope,
        lq: shape.rows_per_item(),
        aligned: [q, k, v].iter().all(|s| s.column.is_multiple_of(4)),
        paired: heads.dim.is_multiple_of(8)
            && [q, k, v]
                .iter()
                .all(|s| s.column.is_multiple_of(8) && s.tensor.shape.stride4().is_multiple_of(2)),
    };
    let caps = g.caps().clone();
    let tiling = tiling(&caps, &problem);
    let lk = k.tensor.shape.rows_per_item();
    let y = g.tensor(shape.with_channels(heads.count * heads.dim), out);
    let kv_row_bytes = k.tensor.row_bytes().max(v.tensor.row_bytes());
    let most = rows_within(caps.limits.binding_bytes, kv_row_bytes);
    let segments = match scope {
        // Windows shrink with the chunk of queries.
        AttentionScope::Patches(_) => vec![0..k.tensor.shape.rows()],
        _ => segments(k.tensor.shape.rows(), lk, tiling.block_k(), most),
    };
    let state = (segments.len() > 1)
        .then(|| g.tensor(Shape::matrix(shape.rows(), 4 * tiling.state4(heads)), DType::F32));
    let (geometry, keys) = match scope {
        AttentionScope::Patches(p) => (Some(p), p.keys()),
        _ => (None, lk),
    };
    let pair = |low: u32, high: u32| low | high << 16;
    let count = segments.len();
    for (index, segment) in segments.into_iter().enumerate() {
        let carry = match (index, count) {
            (_, 1) => Carry::None,
            (0, _) => Carry::First,
            (i, n) if i + 1 == n => Carry::Last,
            _ => Carry::Middle,
        };
        let share = f64::from(segment.end - segment.start) / f64::from(k.tensor.shape.rows());
        let window = || match geometry {
            Some(p) => Window::Map(Box::new(move |rows: &Range<u32>| key_rows(&p, rows))),
            None => {
                // Down to where a row of any size starts at a binding's alignment.
                let bound = segment.start / ALIGNED_ROWS * ALIGNED_ROWS..segment.end;
                Window::Map(Box::new(move |_: &Range<u32>| bound.clone()))
            }
        };
        let flops =
            4.0 * shape.rows() as f64 * f64::from(keys) * f64::from(heads.count * heads.dim);
        let mut op = g
            .op(&SPEC, choose(&caps, &problem, carry, q.tensor.dtype, k.tensor.dtype, out))
            .read(q.tensor, Window::Rows)
            .read(k.tensor, window())
            .read(v.tensor, window())
            .write(y, Window::Rows);
        if let Some(state) = state {
            op = op.write(state, Window::Rows);
        }
        op.over(shape.rows(), 0).flops((flops * share) as u64).launch(move |chunk| {
            let bound = &chunk.bound[1];
            let keys = if geometry.is_some() { bound } else { &segment };
            let params = Params {
                first_group: 0,
                items_heads: pair(shape.batch, heads.count),
                q_k_stride: pair(q.tensor.shape.stride4(), k.tensor.shape.stride4()),
                v_y_stride: pair(v.tensor.shape.stride4(), y.shape.stride4()),
                q_k_col: pair(q.column, k.column),
                v_col_jitter: v.column
                    | geometry.map_or(0, |p| p.jitter_h << 16 | p.jitter_w << 24),
                lq: problem.lq,
                lk,
                q_row0: chunk.first(0),
                kv_row0: keys.start,
                kv_rows: (keys.end - keys.start) | (keys.start - bound.start) << 27,
                y_row0: chunk.rows.start,
                y_rows: chunk.row_count(),
                grid: geometry.map_or(0, |p| pair(p.height, p.width)),
                window: geometry.map_or(0, |p| pair(p.window_h, p.window_w)),
                scale: LOG2_E / (heads.dim as f32).sqrt(),
            };
            Launch::new(&params, tiling.groups(&problem, &chunk.rows))
        });
    }
    Ok(y)
}

fn check(
    g: &Graph,
    q: Slice,
    k: Slice,
    v: Slice,
    heads: Heads,
    scope: AttentionScope,
) -> Result<()> {
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
        let fits = p.height * p.width == qs.rows_per_item()
            && p.height * p.width == ks.rows_per_item()
            && p.height.max(p.width).max(p.window_h).max(p.window_w) < 1 << 16
            && p.window_h.min(p.window_w) > 0
            && p.jitter_h <= (p.window_h / 2).min(255)
            && p.jitter_w <= (p.window_w / 2).min(255);
        if !fits {
            return Err(g.error(format!("attention patches {p:?} do not fit queries {qs}")));
        }
    }
    Ok(())
}

/// Rows that start at a binding's alignment, whatever a row's size.
const ALIGNED_ROWS: u32 = 32;

/// Key rows of a segment: those before it that alignment may add fit the binding too.
fn rows_within(binding_bytes: u64, row_bytes: u64) -> u32 {
    (binding_bytes / row_bytes.max(1)).saturating_sub(u64::from(ALIGNED_ROWS)).clamp(32, 1 << 26)
        as u32
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

/// The rows of keys that the queries `rows` see, in patches.
fn key_rows(p: &PatchGeometry, rows: &Range<u32>) -> Range<u32> {
    let per_item = p.height * p.width;
    let origin = |row: u32| {
        row / per_item * per_item
            + patch_origin(row % per_item / p.width, p.window_h, p.height, p.jitter_h, p.isolated)
                * p.width
    };
    let last = rows.end.max(1) - 1;
    origin(rows.start)..origin(last) + p.window_h.min(p.height) * p.width
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn window_origins_match_the_enumerated_blocks() {
        for (len, window) in [(128u32, 64u32), (20, 8), (19, 8), (9, 8), (5, 8), (7, 1), (12, 3)] {
            let w = window.min(len);
            for (block, margin, isolated) in
                [((window / 2).max(1), window / 4, false), (window, 0, true)]
            {
                for jitter in 0..=window / 2 {
                    for b in 0..=(len + jitter) / block {
                        let from = (b * block) as i64 - jitter as i64;
                        let want = (from - margin as i64).clamp(0, (len - w) as i64) as u32;
                        for at in from.max(0)..(from + block as i64).min(len as i64) {
                            let got = patch_origin(at as u32, window, len, jitter, isolated);
                            assert_eq!(got, want);
                        }
                    }
                }
            }
        }
        let origins: Vec<u32> = (0..4).map(|b| patch_origin(32 * b, 64, 128, 0, false)).collect();
        assert_eq!(origins, [0, 16, 48, 64]);
    }

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

    #[test]
    fn odd_heads_take_columns_and_vectors_take_lanes() {
        let p = |dim| Problem {
            heads: Heads { count: 2, dim },
            scope: AttentionScope::Full,
            lq: 1024,
            aligned: true,
            paired: true,
        };
        let cpu = Caps { class: DeviceClass::Cpu, subgroups: true, subgroup_min: 8, ..Caps::FLOOR };
        assert_eq!(tiling(&cpu, &p(6)).engine, Engine::Columns);
        assert_eq!(tiling(&cpu, &p(64)).engine, Engine::Lanes);
        assert_eq!(tiling(&cpu, &p(160)).engine, Engine::Wide);
        assert_eq!(tiling(&cpu, &p(512)).engine, Engine::Wide);
        assert_eq!(tiling(&Caps::FLOOR, &p(512)).engine, Engine::Tile);
        assert_eq!(tiling(&Caps::FLOOR, &p(64)).engine, Engine::Tile);
        assert_eq!(tiling(&Caps { subgroup_min: 4, ..cpu }, &p(64)).engine, Engine::Tile);
    }
}

//! Which engine takes a problem, with which tile.

use std::ops::Range;

use super::{Heads, PatchGeometry};
use crate::gpu::{Caps, Coop, LANES, Tile, TileKind};

/// The implementation of the slot `attend`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Engine {
    Tile,
    Lanes,
    Wide,
    Columns,
    Coop(CoopTile),
    CoopWide(CoopWideTile),
}

/// The tile of `attend/coop.wgsl`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CoopTile {
    pub coop: Coop,
    /// Each takes as many queries as a matrix has rows.
    pub subgroups: u32,
    /// Keys of a tile.
    pub block_k: u32,
    /// Channels of a head, padded to whole matrices.
    pub dim: u32,
}

/// The tile of `attend/coop_wide.wgsl`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CoopWideTile {
    pub coop: Coop,
    /// Matrices of queries, no more than of keys, and of keys, at most two.
    pub q_rows: u32,
    pub k_tiles: u32,
    /// Parts of a head whose scores are added.
    pub parts: u32,
    /// Channels of a head, padded to whole matrices for every subgroup.
    pub dim: u32,
}

/// How queries are arranged, and thus which keys they see.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    Full,
    Causal,
    Patches(PatchGeometry),
    /// Text queries, once for each distinct window.
    Windows,
}

/// What decides the variant, apart from element types.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Problem {
    pub heads: Heads,
    pub scope: Scope,
    /// Queries of one run: of a batch item, or of a window.
    pub lq: u32,
    /// The columns of all operands start at whole vec4s.
    pub aligned: bool,
    /// Pairs of vec4s of a head lie together in q, k, v and the result, at even places.
    pub paired: bool,
    /// All operands are stored as f16.
    pub halves: bool,
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

/// The widest slice whose accumulator fits an invocation's registers in `tile`.
const TILE_SLICE4: u32 = 32;

/// The widest head whose accumulator fits a subgroup's registers in `coop`.
const COOP_D4: u32 = 32;
/// Keys of a tile in `tile`.
const BLOCK_K: u32 = 32;

impl CoopTile {
    /// The largest tile within the limits that queries which share `sharing` rows fill.
    fn choose(caps: &Caps, coop: Coop, dim: u32, sharing: u32) -> Option<Self> {
        let padded = dim.next_multiple_of(coop.side);
        let [most, block_k, ..] = tile_of(caps, dim.div_ceil(4))?.map(u32::from);
        let most = sharing.div_ceil(coop.side).min(most);
        (1..=most).rev().map(|subgroups| Self { coop, subgroups, block_k, dim: padded }).find(|t| {
            t.invocations() <= caps.limits.invocations && t.bytes() <= caps.limits.workgroup_bytes
        })
    }

    pub fn invocations(self) -> u32 {
        self.subgroups * self.coop.subgroup
    }

    fn block_q(self) -> u32 {
        self.subgroups * self.coop.side
    }

    /// Workgroup memory: keys, values and probabilities as halves, scores as f32, rows padded; a flag.
    fn bytes(self) -> u32 {
        let rows = self.subgroups * self.coop.side;
        4 * self.block_k * (self.dim + 8)
            + 2 * rows * (self.block_k + 8)
            + 4 * rows * (self.block_k + 8)
            + 16
    }
}

impl CoopWideTile {
    /// The largest tile within the limits.
    fn choose(caps: &Caps, coop: Coop, dim: u32) -> Option<Self> {
        let candidates: &[(u32, u32, u32)] = match coop.subgroup {
            // A software device only tests.
            0..16 => &[(1, 1, 2)],
            64.. => &[(2, 2, 1), (1, 1, 4)],
            _ => &[(2, 2, 2), (1, 1, 8)],
        };
        let tile = |&(q_rows, k_tiles, parts): &(u32, u32, u32)| {
            let dim = dim.next_multiple_of(q_rows * k_tiles * parts * coop.side);
            Self { coop, q_rows, k_tiles, parts, dim }
        };
        candidates.iter().map(tile).find(|t| {
            t.invocations() <= caps.limits.invocations && t.bytes() <= caps.limits.workgroup_bytes
        })
    }

    pub fn subgroups(self) -> u32 {
        self.q_rows * self.k_tiles * self.parts
    }

    pub fn invocations(self) -> u32 {
        self.subgroups() * self.coop.subgroup
    }

    pub fn block_q(self) -> u32 {
        self.q_rows * self.coop.side
    }

    pub fn block_k(self) -> u32 {
        self.k_tiles * self.coop.side
    }

    /// Lanes that own a row of scores, eight keys each at least; the state has room for the sums of four.
    pub fn lanes(self) -> u32 {
        (self.invocations() / self.block_q()).min(self.block_k() / 8).min(4)
    }

    /// Workgroup memory: keys or values and probabilities as halves, scores of every part as f32, rows padded; a vec4 for
    /// every row; a flag.
    fn bytes(self) -> u32 {
        let (rows, keys) = (self.block_q(), self.block_k());
        2 * keys * (self.dim + 8)
            + 2 * rows * (keys + 8)
            + 4 * self.parts * rows * (keys + 8)
            + 16 * rows
            + 16
    }
}

/// Heads up to here are narrow.
const NARROW_D4: u32 = 16;

/// The tiles that attention may take on a device with heads of `d4` vec4s, best first where nothing was measured: of
/// [`CoopTile`] the most subgroups, and keys; of `lanes` queries of a lane. None where there is no choice.
fn tiles(caps: &Caps, d4: u32) -> &'static [Tile] {
    match (caps.coop, d4) {
        // Unrolled code and the vectors kept per lane grow with d4 times the queries per lane.
        _ if caps.has_vectors() && d4 <= 4 => &[[8, 0, 0, 0, 0]],
        _ if caps.has_vectors() && d4 <= NARROW_D4 => {
            &[[4, 0, 0, 0, 0], [8, 0, 0, 0, 0], [2, 0, 0, 0, 0]]
        }
        _ if caps.has_vectors() => &[[2, 0, 0, 0, 0], [4, 0, 0, 0, 0]],
        // A software device only tests: its compiler unrolls every product.
        (Some(coop), _) if coop.subgroup < 16 => &[[2, 32, 0, 0, 0], [1, 32, 0, 0, 0]],
        // Measured on an NVIDIA H200: more subgroups hide more than two matrices of queries each, or longer tiles, save.
        (Some(_), 0..=NARROW_D4) => &[[8, 32, 0, 0, 0], [4, 32, 0, 0, 0], [8, 64, 0, 0, 0]],
        (Some(_), _) => &[[4, 32, 0, 0, 0], [8, 32, 0, 0, 0], [2, 32, 0, 0, 0]],
        (None, _) => &[],
    }
}

/// The tile measured for such heads, else the first.
fn tile_of(caps: &Caps, d4: u32) -> Option<Tile> {
    let kind = if d4 <= NARROW_D4 { TileKind::Attention } else { TileKind::AttentionWide };
    let tiles = tiles(caps, d4);
    caps.tiles.get(kind).filter(|tile| tiles.contains(tile)).or(tiles.first().copied())
}

/// The tiles that `kind` of attention may take, best first where nothing was measured.
pub fn tiles_of_kind(caps: &Caps, kind: TileKind) -> &'static [Tile] {
    tiles(caps, if kind == TileKind::AttentionWide { 2 * NARROW_D4 } else { NARROW_D4 })
}

/// The engine and tile that suit a device.
pub fn tiling(caps: &Caps, p: &Problem) -> Tiling {
    let d4 = p.heads.dim.div_ceil(4);
    // Queries that share a window: a longer tile would be partly empty.
    let sharing = match p.scope {
        Scope::Patches(g) => g.patch().0 * g.patch().1,
        _ => p.lq,
    };
    if !p.heads.dim.is_multiple_of(4) {
        return Tiling { engine: Engine::Columns, block_q: 1, slice4: d4 };
    }
    let vectors = caps.has_vectors();
    if vectors && d4 <= 32 {
        let most = tile_of(caps, d4).map_or(1, |[most, ..]| u32::from(most));
        let per_lane = sharing.div_ceil(LANES).clamp(1, most);
        return Tiling { engine: Engine::Lanes, block_q: LANES * per_lane, slice4: d4 };
    }
    if vectors {
        // A loaded number serves one tile; a larger one exceeds the processor's first cache.
        return Tiling { engine: Engine::Wide, block_q: sharing.min(8), slice4: d4 };
    }
    let block_q = [16, 32].into_iter().find(|b| *b >= sharing).unwrap_or(64);
    let units = caps.coop.filter(|_| p.halves && p.paired).and_then(|coop| {
        if d4 <= COOP_D4 {
            let tile = CoopTile::choose(caps, coop, p.heads.dim, sharing)?;
            Some((Engine::Coop(tile), tile.block_q()))
        } else {
            let tile = CoopWideTile::choose(caps, coop, p.heads.dim)?;
            Some((Engine::CoopWide(tile), tile.block_q()))
        }
    });
    if let Some((engine, block_q)) = units {
        return Tiling { engine, block_q, slice4: d4 };
    }
    Tiling { engine: Engine::Tile, block_q, slice4: d4.min(TILE_SLICE4) }
}

impl Tiling {
    /// Keys of a tile.
    pub(super) fn block_k(&self) -> u32 {
        match self.engine {
            Engine::Tile => BLOCK_K,
            Engine::Coop(t) => t.block_k,
            Engine::CoopWide(t) => t.block_k(),
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
            // Maximum, and the sums of up to four lanes that share a row.
            Engine::Coop(_) | Engine::CoopWide(_) => heads.count * (d4 + 2),
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
            Engine::Lanes | Engine::Wide | Engine::Coop(_) | Engine::CoopWide(_) => {
                tiles * p.heads.count
            }
            Engine::Tile => tiles * p.heads.count * p.heads.dim.div_ceil(4).div_ceil(self.slice4),
        }
    }

    /// The first tile that may hold `row`.
    fn tile_at(&self, p: &Problem, row: u32) -> u32 {
        let (item, i) = (row / p.lq, row % p.lq);
        match p.scope {
            Scope::Patches(g) => {
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
                Scope::Patches(g) => self.tiles_per_block_row(&g),
                _ => 1,
            }
    }

    fn tiles_per_block_row(&self, g: &PatchGeometry) -> u32 {
        g.blocks().1 * (g.patch().0 * g.patch().1).div_ceil(self.block_q)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::gpu::DeviceClass;

    #[test]
    fn odd_heads_take_columns_and_vectors_take_lanes() {
        let p = |dim| Problem {
            heads: Heads { count: 2, dim },
            scope: Scope::Full,
            lq: 1024,
            aligned: true,
            paired: true,
            halves: true,
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

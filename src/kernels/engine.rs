//! The engines behind the slot `mma`, which matrix products and convolutions share.

use crate::gpu::{Caps, Coop, DeviceClass, LANES, Tile, TileKind};
use crate::shader::{Elem, Variant};
use crate::tensor::DType;

/// An engine with the sizes of its tiles, chosen for one product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Engine {
    /// `mma/tile.wgsl`: tiles in workgroup memory.
    Tile { rows: u32, cols: u32, thread_rows: u32, thread_cols4: u32, gated: bool },
    /// `mma/lanes.wgsl`: tiles in registers, weights handed round by shuffles.
    Lanes(Lanes),
    /// `mma/direct.wgsl`: nothing shared.
    Direct,
    /// `mma/coop.wgsl`: matrix units.
    Coop(CoopTile),
}

/// The tile of `mma/coop.wgsl`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct CoopTile {
    coop: Coop,
    /// Subgroups along rows and columns, and matrices of each.
    subgroup_rows: u32,
    subgroup_cols: u32,
    matrix_rows: u32,
    matrix_cols: u32,
    /// Octets of k in a step.
    depth8: u32,
    /// k is a whole number of steps.
    whole: bool,
    gated: bool,
}

/// The tile of `mma/lanes.wgsl`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Lanes {
    /// Eights of rows, and of weight rows.
    rows8: u32,
    cols8: u32,
    /// Only the first half of the eight weight rows holds columns.
    half: bool,
    gated: bool,
    /// Vec4s of k in a step: 1 or 2.
    deep: u32,
    /// Rows of the result hold an even number of vec4s.
    paired: bool,
    /// A tile lies within one batch item.
    one_item: bool,
    /// Two tiles side by side share the pixels of a doubled line: the even ones, and the odd ones.
    folded: bool,
}

/// A product as engines see it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Product {
    pub rows: u32,
    pub cols: u32,
    pub gated: bool,
    /// A convolution's.
    pub conv: bool,
    /// Vec4s of k under one tap.
    pub k4: u32,
    /// Every operand has an even number of vec4s along k.
    pub even_k: bool,
    pub rows_per_item: u32,
    /// Rows of a line of the output, of a convolution of 3 × 3 over a picture doubled as a whole; else 0.
    pub doubled_w: u32,
    /// All operands are stored as f16.
    pub halves: bool,
}

impl Product {
    /// Weight rows: columns, in pairs where gated.
    fn w_rows(&self) -> u32 {
        let pair = if self.gated { 2 } else { 1 };
        4 * pair * self.cols.div_ceil(4)
    }

    fn kind(&self) -> TileKind {
        let large = u64::from(self.rows) * u64::from(self.w_rows()) >= TileKind::LARGE;
        match (self.conv, large) {
            (false, true) => TileKind::Matmul,
            (false, false) => TileKind::MatmulSmall,
            (true, true) => TileKind::Conv2d,
            (true, false) => TileKind::Conv2dSmall,
        }
    }

    /// The tile measured for such products on this device.
    fn measured(&self, caps: &Caps) -> Option<Tile> {
        caps.tiles.get(self.kind()).filter(|tile| tiles(caps).contains(tile))
    }

    /// Whether tiles of `rows × cols` are enough to fill a device.
    fn fills(&self, rows: u32, cols: u32) -> bool {
        u64::from(self.rows.div_ceil(rows)) * u64::from(self.w_rows().div_ceil(cols)) >= 128
    }
}

/// The tiles that products on a device take where nothing was measured, the largest first, and further ones that
/// `scalediff tune` tries: of [`CoopTile`] subgroups along rows and columns, matrices of each along rows and columns, and
/// octets of k in a step; of [`Lanes`] eights of rows and of weight rows, and vec4s of k; of [`Engine::Tile`] rows, columns,
/// and rows and vec4s of columns of an invocation.
fn own_and_further(caps: &Caps) -> (&'static [Tile], &'static [Tile]) {
    match (caps.class, caps.coop.map(|coop| (coop.side, coop.subgroup))) {
        // Unrolled code and the sums of a lane grow with rows × columns. Larger tiles load less, and spill more: large products
        // and convolutions are up to 1.1 times as fast with them on Mesa 22.3 and 26.2, and up to 1.2 times as slow on 23.2 to
        // 25.2.
        (DeviceClass::Cpu, _) if caps.has_vectors() => (
            &[[4, 2, 2, 0, 0]],
            &[[4, 4, 2, 0, 0], [8, 2, 2, 0, 0], [8, 4, 2, 0, 0], [8, 4, 1, 0, 0]],
        ),
        (DeviceClass::Cpu, _) => (&[], &[]),
        // Eight accumulators of 16 × 16 are 64 registers of a subgroup of 32, as are sixteen of a subgroup of 64; matrices
        // of 8 × 8 take two at most. Those of 32 are the fastest of eight that were measured on an NVIDIA H200, the others
        // follow from them.
        (_, Some((16, 64))) => (
            &[[2, 2, 4, 4, 8], [2, 2, 4, 4, 4], [2, 2, 2, 2, 8]],
            &[[2, 4, 2, 2, 8], [4, 2, 2, 2, 4]],
        ),
        (_, Some((16, _))) => (
            &[[2, 4, 4, 2, 8], [2, 4, 4, 2, 4], [2, 4, 2, 1, 8]],
            &[[2, 2, 4, 4, 4], [2, 2, 2, 2, 8]],
        ),
        // A software device, which only tests: its compiler unrolls every product.
        (_, Some((_, 0..16))) => (&[[2, 2, 2, 1, 2]], &[[1, 2, 1, 1, 2]]),
        (_, Some(_)) => (&[[2, 2, 4, 4, 4], [2, 2, 4, 2, 4]], &[[2, 2, 2, 2, 8]]),
        // Large tiles read least. Which suit integrated GPUs has not been measured: they begin with the smaller one.
        (DeviceClass::Discrete, None) => {
            (&[[128, 64, 8, 2, 0], [64, 64, 4, 2, 0]], &[[64, 64, 8, 2, 0], [64, 128, 8, 2, 0]])
        }
        (DeviceClass::Integrated, None) => {
            (&[[64, 64, 4, 2, 0]], &[[128, 64, 8, 2, 0], [64, 64, 8, 2, 0], [64, 128, 8, 2, 0]])
        }
    }
}

/// All tiles that products on a device may take.
pub(super) fn tiles(caps: &Caps) -> Vec<Tile> {
    let (own, further) = own_and_further(caps);
    [own, further].concat()
}

impl Engine {
    /// The engine for a product.
    pub(super) fn choose(caps: &Caps, p: &Product) -> Self {
        if caps.class == DeviceClass::Cpu {
            return if caps.has_vectors() {
                Self::Lanes(Lanes::new(caps, p))
            } else {
                Self::Direct
            };
        }
        caps.coop
            .filter(|_| p.halves && p.even_k && p.rows > 32)
            .and_then(|coop| CoopTile::choose(caps, coop, p))
            .map_or_else(|| Self::tile(caps, p), Self::Coop)
    }

    /// How weights and inputs of `dtype` are read.
    pub(super) fn elem_in(self, caps: &Caps, dtype: DType) -> Elem {
        match self {
            Self::Lanes(l) => caps.elem_in_paired(dtype, l.deep == 2),
            Self::Coop(_) => Elem::Octets,
            _ => caps.elem_in(dtype),
        }
    }

    /// How a residual of `dtype` is read.
    pub(super) fn elem_res(self, caps: &Caps, dtype: DType) -> Elem {
        caps.elem_in_paired(dtype, self.is_paired())
    }

    /// How the result, of `dtype`, is written.
    pub(super) fn elem_out(self, caps: &Caps, dtype: DType) -> Elem {
        caps.elem_paired(dtype, self.is_paired())
    }

    /// Whether the epilogue takes two vec4s of a row at a time.
    fn is_paired(self) -> bool {
        matches!(self, Self::Lanes(Lanes { paired: true, .. }))
    }

    /// Needs no matrix units, but a device that has them lists tiles of those: then it is one of the others' own.
    fn tile(caps: &Caps, p: &Product) -> Self {
        let plain = Caps { coop: None, ..caps.clone() };
        let own = own_and_further(&plain).0;
        let fits = |tile: &Tile| p.fills(u32::from(tile[0]), u32::from(tile[1]));
        let mut listed = p.measured(&plain).into_iter().chain(own.iter().copied());
        let tile = listed.find(fits).or(own.last().copied()).unwrap_or_default();
        let [rows, cols, thread_rows, thread_cols4, _] = match p.rows {
            0..=32 => [32, 64, 4, 2, 0],
            _ => tile.map(u32::from),
        };
        Self::Tile { rows, cols, thread_rows, thread_cols4, gated: p.gated }
    }

    /// Adds the slot and its constants.
    pub(super) fn apply(self, variant: Variant) -> Variant {
        match self {
            Self::Tile { rows, cols, thread_rows, thread_cols4, .. } => variant
                .slot("mma", "tile")
                .num("WG", (rows / thread_rows) * (cols / (4 * thread_cols4)))
                .num("BM", rows)
                .num("BN", cols)
                .num("RM", thread_rows)
                .num("CV", thread_cols4)
                .flag("ONE_ITEM", false)
                .flag("FOLDED", false),
            Self::Lanes(l) => variant
                .slot("mma", "lanes")
                .num("WG", LANES)
                .num("QUADS", l.rows8.div_ceil(4))
                .num("CB", l.cols8)
                .num("DEEP", l.deep)
                .flag("HALF", l.half)
                .flag("ONE_EIGHT", l.rows8 == 1)
                .flag("PAIRED", l.paired)
                .flag("ONE_ITEM", l.one_item)
                .flag("FOLDED", l.folded),
            Self::Direct => variant
                .slot("mma", "direct")
                .num("WG", 64)
                .flag("ONE_ITEM", false)
                .flag("FOLDED", false),
            Self::Coop(t) => variant
                .slot("mma", "coop")
                .coop(t.coop.side, t.coop.subgroup, t.coop.scalars)
                .num("WG", t.invocations())
                .num("SM", t.subgroup_rows)
                .num("SN", t.subgroup_cols)
                .num("TM", t.matrix_rows)
                .num("TN", t.matrix_cols)
                .num("K8", t.depth8)
                .num("K_TILES", 8 * t.depth8 / t.coop.side)
                .num("A_LOADS", (t.rows() * t.depth8).div_ceil(t.invocations()))
                .num("W_LOADS", (t.cols() * t.depth8).div_ceil(t.invocations()))
                .flag("WHOLE_STEPS", t.whole)
                .flag("ONE_ITEM", false)
                .flag("FOLDED", false),
        }
    }

    /// Of a folded convolution the rows that two tiles share: launches begin at multiples of them.
    pub(super) fn folded_rows(self) -> Option<u32> {
        match self {
            Self::Lanes(l) if l.folded => Some(2 * LANES * l.rows8),
            _ => None,
        }
    }

    /// Workgroups for a launch of `rows × cols` outputs.
    pub(super) fn groups(self, rows: u32, cols: u32) -> u32 {
        match self {
            Self::Tile { rows: tile_rows, cols: tile_cols, gated, .. } => {
                let tile_cols = if gated { tile_cols / 2 } else { tile_cols };
                rows.div_ceil(tile_rows) * cols.div_ceil(tile_cols)
            }
            Self::Lanes(l) => {
                let w_rows = if l.gated { 8 } else { 4 } * cols.div_ceil(4);
                rows.div_ceil(LANES * l.rows8) * w_rows.div_ceil(LANES * l.cols8)
            }
            Self::Direct => (rows.div_ceil(8) * cols.div_ceil(4)).div_ceil(64),
            Self::Coop(t) => {
                let w_rows = if t.gated { 8 } else { 4 } * cols.div_ceil(4);
                rows.div_ceil(t.rows()) * w_rows.div_ceil(t.cols())
            }
        }
    }
}

impl CoopTile {
    /// The tile that was measured, or else the first, which fits the device's limits and leaves it enough of them to fill it;
    /// where none does the last.
    fn choose(caps: &Caps, coop: Coop, p: &Product) -> Option<Self> {
        let tile = |tile: &Tile| {
            let [subgroup_rows, subgroup_cols, matrix_rows, matrix_cols, depth8] =
                tile.map(u32::from);
            Self {
                coop,
                subgroup_rows,
                subgroup_cols,
                matrix_rows,
                matrix_cols,
                depth8,
                whole: p.k4.is_multiple_of(2 * depth8),
                gated: p.gated,
            }
        };
        let fits = |t: &Self| {
            t.invocations() <= caps.limits.invocations && t.bytes() <= caps.limits.workgroup_bytes
        };
        let own = own_and_further(caps).0;
        let listed = p.measured(caps).into_iter().chain(own.iter().copied());
        let fitting: Vec<Self> = listed.map(|t| tile(&t)).filter(fits).collect();
        let filling = fitting.iter().find(|t| p.fills(t.rows(), t.cols()));
        filling.or(fitting.last()).copied()
    }

    fn invocations(self) -> u32 {
        self.subgroup_rows * self.subgroup_cols * self.coop.subgroup
    }

    fn rows(self) -> u32 {
        self.subgroup_rows * self.matrix_rows * self.coop.side
    }

    fn cols(self) -> u32 {
        self.subgroup_cols * self.matrix_cols * self.coop.side
    }

    /// Workgroup memory: slices with an octet more to a row, and a matrix of f32 per subgroup.
    fn bytes(self) -> u32 {
        let side = self.coop.side;
        let results = self.subgroup_rows * self.subgroup_cols * side * (side + 8);
        (self.rows() + self.cols()) * (self.depth8 + 1) * 16 + 4 * results
    }
}

impl Lanes {
    fn new(caps: &Caps, p: &Product) -> Self {
        let w_rows = p.w_rows();
        let narrow = !w_rows.next_multiple_of(16).is_multiple_of(32) && w_rows < 128;
        let tile = p.measured(caps).unwrap_or(own_and_further(caps).0[0]).map(u32::from);
        let (rows8, cols8, deep) = match (w_rows, p.rows) {
            (_, 0..=8) => (1, 4, 2),
            (0..=8, _) => (8, 1, 2),
            _ if narrow => (4, 2, 2),
            _ => (tile[0], tile[1], tile[2]),
        };
        Self {
            rows8,
            cols8,
            half: w_rows <= 4,
            gated: p.gated,
            deep: if p.even_k { deep } else { 1 },
            paired: p.cols.div_ceil(4).is_multiple_of(2) && (cols8 > 1 || !p.gated),
            one_item: p.rows_per_item.is_multiple_of(LANES * rows8),
            folded: p.doubled_w > 0 && p.doubled_w.is_multiple_of(2 * LANES * rows8),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOFTWARE: Caps =
        Caps { class: DeviceClass::Cpu, subgroups: true, subgroup_min: 8, ..Caps::FLOOR };

    fn product(rows: u32, cols: u32, gated: bool) -> Product {
        Product {
            rows,
            cols,
            gated,
            conv: false,
            k4: 64,
            even_k: true,
            rows_per_item: rows,
            doubled_w: 0,
            halves: true,
        }
    }

    #[test]
    fn software_devices_share_by_shuffles_where_a_subgroup_is_wide_enough() {
        let choose = |caps: &Caps| Engine::choose(caps, &product(4096, 320, false));
        assert!(matches!(choose(&SOFTWARE), Engine::Lanes(_)));
        assert_eq!(choose(&Caps { subgroup_min: 4, ..SOFTWARE }), Engine::Direct);
        assert_eq!(choose(&Caps { subgroups: false, ..SOFTWARE }), Engine::Direct);
        assert!(matches!(choose(&Caps::FLOOR), Engine::Tile { .. }));
    }

    #[test]
    fn tiles_follow_the_shape() {
        let lanes = |rows, cols, gated| {
            let l = Lanes::new(&SOFTWARE, &product(rows, cols, gated));
            (l.rows8, l.cols8, l.half)
        };
        assert_eq!(lanes(4096, 3, false), (8, 1, true));
        assert_eq!(lanes(4096, 16, false), (4, 2, false));
        assert_eq!(lanes(4096, 48, false), (4, 2, false));
        assert_eq!(lanes(4096, 64, true), (4, 2, false));
        assert_eq!(lanes(2, 1280, false), (1, 4, false));
        let rows_of = |rows, cols| match Engine::choose(&Caps::FLOOR, &product(rows, cols, false)) {
            Engine::Tile { rows, .. } => rows,
            other => panic!("{other:?}"),
        };
        assert_eq!((rows_of(77, 640), rows_of(2, 1280), rows_of(4096, 640)), (64, 32, 128));
    }
}

//! The engines behind the slot `mma`, which matrix products and convolutions share.

use crate::gpu::{Caps, DeviceClass};
use crate::shader::Variant;

/// Invocations that `lanes` runs as one vector; a subgroup must hold them.
const LANES: u32 = 8;

/// An engine with the sizes of its tiles, chosen for one product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Engine {
    /// `mma/tile.wgsl`: tiles in workgroup memory.
    Tile { rows: u32, cols: u32, thread_rows: u32, thread_cols4: u32, gated: bool },
    /// `mma/lanes.wgsl`: tiles in registers, rows handed round by shuffles.
    Lanes { blocks: u32, below: u32, share: u32 },
    /// `mma/direct.wgsl`: nothing shared.
    Direct,
}

impl Engine {
    /// The engine for `rows × cols` outputs.
    pub(super) fn choose(caps: &Caps, rows: u32, cols: u32, gated: bool) -> Self {
        match caps.class {
            DeviceClass::Cpu if caps.subgroups && caps.subgroup_min >= LANES => {
                Self::lanes(rows, cols, gated)
            }
            DeviceClass::Cpu => Self::Direct,
            class => Self::tile(class, rows, cols, gated),
        }
    }

    fn lanes(rows: u32, cols: u32, gated: bool) -> Self {
        // Tiles of 32 columns, or of 16 and twice the rows: those take 20 loads where the others take
        // 12, half as much again in time, which pays only where half the columns would be wasted.
        let below = if !gated && cols <= 16 { 2 } else { 1 };
        // Gated lanes hold two sums to a row: half as many rows fill the registers.
        let most = if gated { 4 } else { 8 };
        // Two sizes only: a software driver compiles each variant for about half a second.
        let blocks = if rows <= 2 * LANES { 1 } else { most };
        Self::Lanes { blocks, below, share: 1 }
    }

    /// The engine for a convolution of whose taps `taps` in a line see the same rows, moved by one.
    pub(super) fn sharing(self, taps: u32) -> Self {
        match self {
            Self::Lanes { blocks, below, .. } => Self::Lanes { blocks, below, share: taps },
            other => other,
        }
    }

    fn tile(class: DeviceClass, rows: u32, cols: u32, gated: bool) -> Self {
        let weight_cols = if gated { 2 * cols } else { cols };
        let large = u64::from(rows.div_ceil(128)) * u64::from(weight_cols.div_ceil(64));
        let (rows, thread_rows) = match rows {
            0..=32 => (32, 4),
            // Large tiles read least, but only if there are enough of them to fill the device.
            _ if class == DeviceClass::Discrete && large >= 128 => (128, 8),
            _ => (64, 4),
        };
        Self::Tile { rows, cols: 64, thread_rows, thread_cols4: 2, gated }
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
                .num("CV", thread_cols4),
            Self::Lanes { blocks, below, share } => variant
                .slot("mma", "lanes")
                .num("WG", LANES)
                .num("BLOCKS", blocks)
                .num("LM", below)
                .num("SHARE", share),
            Self::Direct => variant.slot("mma", "direct").num("WG", 64),
        }
    }

    /// Workgroups for a launch of `rows × cols` outputs.
    pub(super) fn groups(self, rows: u32, cols: u32) -> u32 {
        match self {
            Self::Tile { rows: tile_rows, cols: tile_cols, gated, .. } => {
                let tile_cols = if gated { tile_cols / 2 } else { tile_cols };
                rows.div_ceil(tile_rows) * cols.div_ceil(tile_cols)
            }
            Self::Lanes { blocks, below, .. } => {
                rows.div_ceil(LANES * below * blocks) * cols.div_ceil(4 * LANES / below)
            }
            Self::Direct => (rows.div_ceil(8) * cols.div_ceil(4)).div_ceil(64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOFTWARE: Caps =
        Caps { class: DeviceClass::Cpu, subgroups: true, subgroup_min: 8, ..Caps::FLOOR };

    fn lanes_of(blocks: u32, below: u32) -> Engine {
        Engine::Lanes { blocks, below, share: 1 }
    }

    #[test]
    fn software_devices_share_by_shuffles_where_a_subgroup_is_wide_enough() {
        let choose = |caps: &Caps| Engine::choose(caps, 4096, 320, false);
        assert_eq!(choose(&SOFTWARE), lanes_of(8, 1));
        assert_eq!(choose(&Caps { subgroup_min: 4, ..SOFTWARE }), Engine::Direct);
        assert_eq!(choose(&Caps { subgroups: false, ..SOFTWARE }), Engine::Direct);
        assert!(matches!(choose(&Caps::FLOOR), Engine::Tile { .. }));
    }

    #[test]
    fn tiles_follow_the_shape() {
        let lanes = |rows, cols, gated| Engine::choose(&SOFTWARE, rows, cols, gated);
        assert_eq!(lanes(4096, 16, false), lanes_of(8, 2));
        assert_eq!(lanes(4096, 48, false), lanes_of(8, 1));
        assert_eq!(lanes(4096, 64, true), lanes_of(4, 1));
        assert_eq!(lanes(2, 1280, false), lanes_of(1, 1));
        let rows_of = |rows, cols| match Engine::choose(&Caps::FLOOR, rows, cols, false) {
            Engine::Tile { rows, .. } => rows,
            other => panic!("{other:?}"),
        };
        assert_eq!((rows_of(77, 640), rows_of(2, 1280), rows_of(4096, 640)), (64, 32, 128));
    }
}

//! Every tile that `scalediff tune` may choose computes the reference too.

use std::collections::HashSet;

use scalediff::bench::call::Types;
use scalediff::gpu::{Caps, TileKind, Tiles};
use scalediff::kernels::tiles;

use super::cases::{self, Case};
use super::{Recorded, run, setups, tolerance, worst};

/// Cases run with each tile: its code is the same in all.
const OF_EACH: usize = 5;

fn kernel(kind: TileKind) -> &'static str {
    match kind {
        TileKind::Matmul | TileKind::MatmulSmall => "matmul",
        TileKind::Conv2d | TileKind::Conv2dSmall => "conv2d",
        TileKind::Attention | TileKind::AttentionWide => "attention",
    }
}

#[test]
fn every_tile_is_the_reference() {
    let mut seen = HashSet::new();
    for setup in setups() {
        for kind in TileKind::ALL {
            // The cases are small: a large product's tile runs as a small one's.
            for tile in tiles(setup.whole.caps(), kind) {
                let tiles = Tiles::NONE.with(kind, Some(*tile));
                let caps = Caps { tiles, ..setup.whole.caps().clone() };
                let ran = cases::all()
                    .filter(|case| case.call.kernel() == kernel(kind))
                    .flat_map(|case| [(case, Types::F32), (case, Types::F16)])
                    .map(|(case, types)| (case, types, Recorded::with_caps(&caps, case, types)))
                    .map(|(case, types, recorded)| (case, types, recorded.unwrap()))
                    .filter(|(.., recorded)| seen.insert(recorded.variants()))
                    .take(OF_EACH);
                for (case, types, recorded) in ran {
                    check(setup, case, types, &recorded, tile);
                }
            }
        }
    }
    assert!(seen.len() > 10, "{} variants", seen.len());
}

fn check(setup: &super::Setup, case: &Case, types: Types, recorded: &Recorded, tile: &[u8]) {
    let out = run(&setup.whole, recorded).unwrap_or_else(|e| panic!("{}: {e}", case.name));
    let (error, at) = worst(&out.values, &case.call.reference(&recorded.built, None));
    let most = tolerance(case, types, recorded);
    let place = format!("{} with tile {tile:?} on {}", case.name, setup.name);
    assert!(error <= most, "{place}: error {error:.2e} at {at}, at most {most:.1e}");
}

//! Every tile that `scalediff tune` may choose computes the reference too.

use std::collections::HashSet;

use scalediff::bench::call::Types;
use scalediff::gpu::{Caps, TileKind, Tiles};
use scalediff::kernels::tiles;
use scalediff::tensor::DType;

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
    let (mut seen, mut taken) = (HashSet::new(), HashSet::new());
    for setup in setups() {
        // Large products have the tiles of smaller ones, and cases are small.
        for kind in TileKind::ALL.into_iter().filter(|kind| kind.smaller().is_none()) {
            for (i, tile) in tiles(setup.whole.caps(), kind).into_iter().enumerate() {
                let tiles = Tiles::NONE.with(kind, Some(tile));
                let caps = Caps { tiles, ..setup.whole.caps().clone() };
                let ran = cases::all()
                    .filter(|case| case.call.kernel() == kernel(kind))
                    .flat_map(|case| [(case, Types::F32), (case, Types::F16)])
                    .map(|(case, types)| (case, types, Recorded::with_caps(&caps, case, types)))
                    .map(|(case, types, recorded)| (case, types, recorded.unwrap()))
                    .filter(|(.., recorded)| seen.insert(recorded.variants()))
                    .take(OF_EACH);
                for (case, types, recorded) in ran {
                    check(setup, case, types, &recorded, &tile);
                    taken.insert((kind, tile));
                }
                // What a device takes by itself the other tests run, and some tiers are alike.
                let known = i == 0 || taken.contains(&(kind, tile));
                assert!(known, "{kind} on {}: no case takes {tile:?}", setup.name);
            }
        }
    }
    assert!(seen.len() > 10, "{} variants", seen.len());
}

/// Other tests read the operands of processors' kernels through textures, where a driver has them.
#[test]
fn processors_read_buffers_too() {
    let setup = &setups()[0];
    let own = setup.whole.caps();
    if !own.elem_in(DType::F16).is_texture() {
        return;
    }
    let caps = Caps { texels: false, ..own.clone() };
    for kernel in ["matmul", "conv2d", "attention", "group_norm", "layer_norm"] {
        let mut seen = HashSet::new();
        for case in cases::all().filter(|case| case.call.kernel() == kernel) {
            for types in [Types::F32, Types::F16] {
                let through = Recorded::with_caps(own, case, types).unwrap();
                let recorded = Recorded::with_caps(&caps, case, types).unwrap();
                let differs = recorded.variants() != through.variants();
                if differs && seen.len() < OF_EACH && seen.insert(recorded.variants()) {
                    check(setup, case, types, &recorded, &[]);
                }
            }
        }
        assert!(seen.len() > 1, "{kernel} on {}: {} variants", setup.name, seen.len());
    }
}

fn check(setup: &super::Setup, case: &Case, types: Types, recorded: &Recorded, tile: &[u8]) {
    let out = run(&setup.whole, recorded).unwrap_or_else(|e| panic!("{}: {e}", case.name));
    let (error, at) = worst(&out.values, &case.call.reference(&recorded.built, None));
    let most = tolerance(case, types, recorded);
    let place = format!("{} with tile {tile:?} on {}", case.name, setup.name);
    assert!(error <= most, "{place}: error {error:.2e} at {at}, at most {most:.1e}");
}

//! Finding the fastest tile for each kind of work on a device.

use std::iter::once;

use super::cases::{CASES, Case};
use super::peak::Peak;
use super::report::Outcome;
use super::run::{Options, run_by_turns};
use crate::error::Result;
use crate::gpu::{Caps, Gpu, Tile, TileKind, Tiles};
use crate::kernels::tiles;

/// How many times as fast as the kernels' own choice a tile must be to replace it: less is noise.
const GAIN: f64 = 1.03;

/// One tile, tried.
#[derive(Debug, Clone)]
pub struct Trial {
    pub kind: TileKind,
    /// The case it was tried on.
    pub id: String,
    /// `None` is what the kernels choose.
    pub tile: Option<Tile>,
    pub outcome: Outcome,
}

impl Trial {
    /// Seconds a call, where it was right.
    pub fn seconds(&self) -> Option<f64> {
        self.outcome.seconds()
    }

    fn variant(&self) -> &str {
        match &self.outcome {
            Outcome::Measured(m) => &m.variant,
            _ => "",
        }
    }
}

/// The cases that stand for a kind of work, the heaviest first.
fn cases(kind: TileKind) -> &'static [&'static str] {
    match kind {
        TileKind::Matmul => &["matmul/sdxl_1024_geglu_640", "matmul/sdxl_1024_q_640"],
        TileKind::MatmulSmall => &["matmul/sdxl_1024_q_1280", "matmul/sdxl_out_1024"],
        TileKind::Conv2d => &["conv2d/sdxl_1024_res_640"],
        TileKind::Conv2dSmall => {
            &["conv2d/sdxl_1024_res_1280", "conv2d/sdxl_res_320_48x48", "conv2d/tiny_res_32x32"]
        }
        TileKind::Attention => &["attention/sdxl_1024_self_640", "attention/sdxl_self_32x32"],
        TileKind::AttentionWide => &["attention/flux_1024_attention", "attention/flux_self_16x16"],
    }
}

fn case(id: &str) -> Option<&'static Case> {
    CASES.iter().find(|c| c.id() == id)
}

/// Tries every tile of every kind of work, each verified first, on the heaviest case that takes no longer than
/// `options.max_seconds` a call, and returns those that are faster than what the kernels choose by more than noise.
///
/// # Errors
/// What `each` returns; a tile that fails is a [`Trial`].
pub fn tune(
    gpu: &Gpu,
    peak: Peak,
    options: &Options,
    each: &mut dyn FnMut(&Trial) -> Result<()>,
) -> Result<Tiles> {
    let mut found = Tiles::NONE;
    for kind in TileKind::ALL {
        let tiles = tiles(gpu.caps(), kind);
        if tiles.len() < 2 {
            continue;
        }
        // Where large products take too long to be measured they take what smaller ones do.
        found = found.with(kind, kind.smaller().and_then(|smaller| found.get(smaller)));
        for case in cases(kind).iter().filter_map(|id| case(id)) {
            let run = |tiles: &[Option<Tile>]| trials(gpu, kind, case, tiles, peak, options);
            let all: Vec<_> = once(None).chain(tiles.iter().copied().map(Some)).collect();
            let tried = run(&all);
            if !tried.iter().any(|trial| matches!(trial.outcome, Outcome::Skipped { .. })) {
                found = found.with(kind, fastest(tried, &run, each)?);
                break;
            }
        }
    }
    Ok(found)
}

/// Runs a case with each tile, by turns.
fn trials(
    gpu: &Gpu,
    kind: TileKind,
    case: &Case,
    tiles: &[Option<Tile>],
    peak: Peak,
    options: &Options,
) -> Vec<Trial> {
    let with =
        |tile: &Option<Tile>| Caps { tiles: Tiles::NONE.with(kind, *tile), ..gpu.caps().clone() };
    let caps: Vec<Caps> = tiles.iter().map(with).collect();
    let on: Vec<(&Gpu, &Caps)> = caps.iter().map(|caps| (gpu, caps)).collect();
    let outcomes = run_by_turns(&on, case, peak, options, None);
    let trial = |(tile, outcome): (&Option<Tile>, Outcome)| Trial {
        kind,
        id: case.id(),
        tile: *tile,
        outcome,
    };
    tiles.iter().zip(outcomes).map(trial).collect()
}

/// Of what was tried, the kernels' own choice first, the tile that is faster than that in both of two runs.
fn fastest(
    tried: Vec<Trial>,
    run: &dyn Fn(&[Option<Tile>]) -> Vec<Trial>,
    each: &mut dyn FnMut(&Trial) -> Result<()>,
) -> Result<Option<Tile>> {
    let mut tried = tried.into_iter();
    let Some(own) = tried.next() else { return Ok(None) };
    each(&own)?;
    let mut best: Option<Trial> = None;
    for trial in tried {
        // The kernels' own choice again, or a tile that this case leaves too much of a device idle for.
        if trial.variant() == own.variant() {
            continue;
        }
        each(&trial)?;
        let seconds = |t: &Option<Trial>| t.as_ref().and_then(Trial::seconds);
        if trial.seconds().unwrap_or(f64::INFINITY) < seconds(&best).unwrap_or(f64::INFINITY) {
            best = Some(trial);
        }
    }
    let faster = |trial: &Trial, own: &Trial| match (trial.seconds(), own.seconds()) {
        (Some(trial), Some(own)) => own / trial > GAIN,
        (Some(_), None) => true,
        (None, _) => false,
    };
    let Some(best) = best.filter(|best| faster(best, &own)) else { return Ok(None) };
    // Once more, and in the other order: the second of two may find caches as the first leaves them.
    let again = run(&[best.tile, None]);
    Ok(best.tile.filter(|_| faster(&again[0], &again[1])))
}

#[cfg(test)]
mod tests {
    use super::super::timer::Times;
    use super::*;
    use crate::bench::Measured;
    use crate::tensor::DType;

    #[test]
    fn every_kind_has_cases() {
        for kind in TileKind::ALL {
            assert!(!cases(kind).is_empty());
            for id in cases(kind) {
                assert!(case(id).is_some(), "{id}");
            }
        }
    }

    /// Tiles named by their first number, which takes so many milliseconds; `again` in later runs.
    fn picked(own: f64, again: f64, tiles: &[u8]) -> Option<u8> {
        let trial = |tile: Option<Tile>, own: f64| {
            let millis = tile.map_or(own, |t| f64::from(t[0]));
            let outcome = if millis == 0.0 {
                Outcome::Failed { id: String::new(), why: "wrong".into() }
            } else {
                Outcome::Measured(Measured {
                    id: String::new(),
                    variant: format!("{tile:?}"),
                    dtype: DType::F16,
                    times: Times::once(millis / 1e3),
                    peak_flops: None,
                    flops: 0.0,
                    bytes: 0.0,
                    error: 0.0,
                })
            };
            Trial { kind: TileKind::Matmul, id: String::new(), tile, outcome }
        };
        let tiles = tiles.iter().map(|t| [*t, 0, 0, 0, 0]);
        let run = |own: f64| move |tile: &Option<Tile>| trial(*tile, own);
        let all: Vec<_> = once(None).chain(tiles.map(Some)).collect();
        let tried = all.iter().map(run(own)).collect();
        let rerun = |tiles: &[Option<Tile>]| tiles.iter().map(run(again)).collect();
        fastest(tried, &rerun, &mut |_| Ok(())).unwrap().map(|t| t[0])
    }

    #[test]
    fn a_tile_must_be_faster_twice_and_right() {
        assert_eq!(picked(100.0, 100.0, &[90, 80, 110]), Some(80));
        assert_eq!(picked(100.0, 100.0, &[99, 98]), None);
        assert_eq!(picked(100.0, 80.0, &[90]), None);
        assert_eq!(picked(100.0, 100.0, &[0, 90]), Some(90));
        assert_eq!(picked(100.0, 100.0, &[]), None);
    }
}

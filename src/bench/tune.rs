//! Finding the fastest tile for each kind of work on a device.

use super::cases::{CASES, Case};
use super::peak::Peak;
use super::report::Outcome;
use super::run::{Options, run_one};
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
        match &self.outcome {
            Outcome::Measured(m) => Some(m.times.median()),
            _ => None,
        }
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
        if tiles(gpu.caps(), kind).len() < 2 {
            continue;
        }
        // Where large products take too long to be measured they take what smaller ones do.
        found = found.with(kind, kind.smaller().and_then(|smaller| found.get(smaller)));
        for case in cases(kind).iter().filter_map(|id| case(id)) {
            let run = |tile: Option<Tile>| {
                let tiles = Tiles::NONE.with(kind, tile);
                let caps = Caps { tiles, ..gpu.caps().clone() };
                let outcome = run_one(gpu, &caps, case, peak, options);
                Trial { kind, id: case.id(), tile, outcome }
            };
            let own = run(None);
            if !matches!(own.outcome, Outcome::Skipped { .. }) {
                found = found.with(kind, fastest(own, &tiles(gpu.caps(), kind), &run, each)?);
                break;
            }
        }
    }
    Ok(found)
}

/// The tile that is faster than the kernels' `own` choice in both of two runs.
fn fastest(
    own: Trial,
    tiles: &[Tile],
    run: &dyn Fn(Option<Tile>) -> Trial,
    each: &mut dyn FnMut(&Trial) -> Result<()>,
) -> Result<Option<Tile>> {
    each(&own)?;
    let mut best: Option<Trial> = None;
    for tile in tiles {
        let trial = run(Some(*tile));
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
    // Once more, in the other order: clocks and other work change meanwhile.
    let (again, own) = (run(best.tile), run(None));
    Ok(best.tile.filter(|_| faster(&again, &own)))
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
                    flops: 0.0,
                    bytes: 0.0,
                    error: 0.0,
                })
            };
            Trial { kind: TileKind::Matmul, id: String::new(), tile, outcome }
        };
        let tiles: Vec<Tile> = tiles.iter().map(|t| [*t, 0, 0, 0, 0]).collect();
        let run = |tile: Option<Tile>| trial(tile, again);
        fastest(trial(None, own), &tiles, &run, &mut |_| Ok(())).unwrap().map(|t| t[0])
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

//! Schedules and noise.

use serde::Deserialize;

use super::{Outputs, one};
use crate::error::{Error, Result};
use crate::pipeline::Model;
use crate::sampling::{Rng, SamplerChoice};
use crate::verify::Case;

pub fn schedule(model: &Model, case: &Case) -> Result<Outputs> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Params {
        steps: usize,
    }
    let params: Params = case.params()?;
    let schedule = model.scheduler(SamplerChoice::default())?.schedule(params.steps)?;
    let mut out = one("sigmas", vec![schedule.sigmas.len()], schedule.sigmas);
    out.append(&mut one("timesteps", vec![schedule.timesteps.len()], schedule.timesteps));
    Ok(out)
}

pub fn torch_randn(case: &Case) -> Result<Outputs> {
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Params {
        seed: u64,
        shape: Vec<usize>,
        rng: String,
    }
    let p: Params = case.params()?;
    let rng: Rng = p.rng.parse()?;
    let count = p.shape.iter().try_fold(1usize, |n, d| n.checked_mul(*d)).filter(|n| *n <= 1 << 28);
    let count = count.ok_or_else(|| Error::model(format!("shape {:?} is too large", p.shape)))?;
    Ok(one("x", p.shape, rng.randn(p.seed, count)))
}

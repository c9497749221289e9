//! Schedules: which noise levels a run visits, as diffusers computes them.
//!
//! `sigma` is a noise level (x = x₀ + sigma·noise), `timestep` the training step the model is told, `step` the
//! index of a denoising step. Arithmetic follows diffusers' own widths (`f32` tables, `f64` interpolation),
//! because `1 - alpha_cumprod` cancels: one rounding more or less moves the first sigmas by 1e-4.

use super::flow::FlowMatch;
use super::sampler::Sampler;
use crate::error::{Error, Result};

/// What the denoiser's output means, with `s` = sigma and `x` the unscaled sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PredictionType {
    /// The noise: `x0 = x - s·out`.
    Epsilon,
    /// The velocity: `x0 = x / (s² + 1) - out · s / sqrt(s² + 1)`.
    VPrediction,
    /// The velocity of a flow (`x = (1 - s)·x₀ + s·noise`): `x0 = x - s·out`.
    Flow,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Spacing {
    Leading,
    Linspace,
    Trailing,
}

/// Karras spacing of the sigmas; `None` takes the end of the run's own range.
#[derive(Debug, Clone, Copy)]
pub(super) struct Karras {
    pub sigma_min: Option<f64>,
    pub sigma_max: Option<f64>,
}

/// What a model's `scheduler_config.json` says.
#[derive(Debug, Clone)]
pub enum Scheduler {
    /// Noise is added to the picture (SDXL).
    Diffusion(Diffusion),
    /// The picture turns into noise (FLUX).
    Flow(FlowMatch),
}

impl Scheduler {
    /// The schedule of a run of `steps` steps.
    ///
    /// # Errors
    /// When `steps` is 0 or more than the training timesteps, and where the noise levels do not fall.
    pub fn schedule(&self, steps: usize) -> Result<Schedule> {
        match self {
            Self::Diffusion(levels) => levels.schedule(steps),
            Self::Flow(levels) => levels.schedule(steps),
        }
    }
}

/// A sampler and the training's noise levels.
#[derive(Debug, Clone)]
pub struct Diffusion {
    pub(super) alphas_cumprod: Vec<f32>,
    pub(super) train_sigmas: Vec<f32>,
    pub(super) sampler: Sampler,
    pub(super) prediction: PredictionType,
    pub(super) spacing: Spacing,
    pub(super) steps_offset: i32,
    pub(super) karras: Option<Karras>,
    /// DDIM's last step ends at 0 rather than at the first training level.
    pub(super) ends_at_zero: bool,
}

/// The noise levels of one run of `N` steps.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    /// `N + 1` noise levels, falling; the last is 0. Step `i` starts at `sigmas[i]`.
    pub sigmas: Vec<f32>,
    /// `N` noise levels that the steps end at: the next step's own, but for DDIM.
    pub targets: Vec<f32>,
    /// `N` training timesteps, falling; not always integral.
    pub timesteps: Vec<f32>,
    /// What unit noise is multiplied by to start a run.
    pub init_noise_sigma: f32,
    /// What the denoiser's output means.
    pub prediction: PredictionType,
    /// How a step combines what it has ([`Schedule::step`]).
    pub sampler: Sampler,
    /// Whether the levels are spaced after Karras et al. (2022).
    pub karras: bool,
}

/// The first step a restarted stage runs, `trunc(steps · (1 - ratio))`, at most `steps`.
///
/// Computed in `f64` like the reference: 10 steps at 0.9 give 0, since 10 · (1 - 0.9) is just below 1.
pub fn restart_step(steps: usize, ratio: f64) -> usize {
    // The cast truncates and sends NaN and negative values to 0.
    ((steps as f64 * (1.0 - ratio)) as usize).min(steps)
}

impl Diffusion {
    /// The product of `1 - beta` up to each training timestep.
    pub fn alphas_cumprod(&self) -> &[f32] {
        &self.alphas_cumprod
    }

    /// The schedule of a run of `steps` steps.
    ///
    /// # Errors
    /// When `steps` is 0 or more than the training timesteps (1000), or where the noise levels do not fall: a
    /// config whose range is reversed, or a spacing that has no room for so many steps.
    pub fn schedule(&self, steps: usize) -> Result<Schedule> {
        let table = &self.train_sigmas;
        let train = table.len();
        if steps == 0 || steps > train {
            return Err(Error::usage(format!("{steps} steps, expected 1 to {train}")));
        }
        let mut timesteps = self.spaced_timesteps(steps);
        let mut sigmas: Vec<f64> =
            timesteps.iter().map(|t| interpolate(table, f64::from(*t))).collect();
        if let Some(karras) = self.karras {
            let ends = match self.sampler {
                Sampler::DpmPlusPlus2M => [table[train - 1], table[0]].map(f64::from),
                _ => [sigmas[0], sigmas[steps - 1]],
            };
            sigmas = karras.space(ends, steps);
            let logs: Vec<f32> = table.iter().map(|s| s.ln()).collect();
            timesteps = sigmas.iter().map(|s| self.whole(timestep_of(&logs, *s)) as f32).collect();
        }
        sigmas.push(0.0);
        let sigmas: Vec<f32> = sigmas.into_iter().map(|s| s as f32).collect();
        check_fall(&sigmas).map_err(|e| e.at(format!("{steps} steps of {}", self.sampler)))?;
        let targets = match self.sampler {
            Sampler::Ddim => timesteps.iter().map(|t| self.ddim_target(*t, steps)).collect(),
            _ => sigmas[1..].to_vec(),
        };
        let largest = sigmas.iter().copied().fold(0.0, f32::max);
        // Unit noise at the scale sqrt(abar)·x for the two that diffusers writes there.
        let init_noise_sigma = match (self.sampler, self.spacing) {
            (Sampler::Ddim | Sampler::DpmPlusPlus2M, _) | (_, Spacing::Leading) => {
                (largest * largest + 1.0).sqrt()
            }
            (_, Spacing::Linspace | Spacing::Trailing) => largest,
        };
        let Self { prediction, sampler, .. } = *self;
        let karras = self.karras.is_some();
        Ok(Schedule { sigmas, targets, timesteps, init_noise_sigma, prediction, sampler, karras })
    }

    /// Timesteps as diffusers' scheduler of this sampler spaces them.
    fn spaced_timesteps(&self, steps: usize) -> Vec<f32> {
        let train = self.train_sigmas.len();
        // DPM-Solver spaces one point more and leaves out the last: its final step goes from there to 0.
        let points = steps + usize::from(self.sampler == Sampler::DpmPlusPlus2M);
        match self.spacing {
            Spacing::Leading => {
                let (ratio, offset) = (train / points, self.steps_offset as f32);
                (0..points).rev().take(steps).map(|i| (i * ratio) as f32 + offset).collect()
            }
            Spacing::Linspace => {
                let last = (train - 1) as f64;
                let gap = if points > 1 { last / (points - 1) as f64 } else { 0.0 };
                let at = |i| if i > 0 && i + 1 == points { last } else { i as f64 * gap };
                (0..points).rev().take(steps).map(|i| self.whole(at(i)) as f32).collect()
            }
            Spacing::Trailing => {
                let (first, ratio) = (train as f64, train as f64 / steps as f64);
                // numpy's arange takes the distance of its first two values, which rounds once more.
                let gap = (first - ratio) - first;
                let at = |i| (first + i as f64 * gap).round_ties_even() as f32 - 1.0;
                (0..steps).map(at).collect()
            }
        }
    }

    /// A timestep as the sampler's scheduler keeps it: Euler's may lie between the training's.
    fn whole(&self, timestep: f64) -> f64 {
        match self.sampler {
            Sampler::Euler | Sampler::EulerAncestral => timestep,
            Sampler::Ddim | Sampler::DpmPlusPlus2M => timestep.round_ties_even(),
        }
    }

    /// The level that a step of DDIM from `timestep` ends at: a fixed number of training steps on.
    fn ddim_target(&self, timestep: f32, steps: usize) -> f32 {
        let table = &self.train_sigmas;
        let target = timestep as i64 - (table.len() / steps) as i64;
        match usize::try_from(target) {
            Ok(target) => table[target.min(table.len() - 1)],
            Err(_) if self.ends_at_zero => 0.0,
            Err(_) => table[0],
        }
    }
}

impl Schedule {
    /// What the clean picture and unit noise are multiplied by at the noise level of `step`.
    pub fn mix(&self, step: usize) -> (f32, f32) {
        let sigma = self.sigmas[step];
        match self.prediction {
            PredictionType::Flow => (1.0 - sigma, sigma),
            PredictionType::Epsilon | PredictionType::VPrediction => (1.0, sigma),
        }
    }

    /// The number of steps.
    pub fn steps(&self) -> usize {
        self.timesteps.len()
    }

    /// The weight of structure guidance at `step` of a stage restarted at `restart`:
    /// `(1 - abar(step)) / (1 - abar(restart))`, 1 at the restart and falling to 0.
    ///
    /// `1 - abar` is taken as `sigma² / (1 + sigma²)`, which is the table's value at every integral timestep and
    /// is defined between them too. Steps past the end have weight 0.
    /// Along a flow it is the noise level itself, as in the official code.
    pub fn sg_weight(&self, step: usize, restart: usize) -> f32 {
        if self.prediction == PredictionType::Flow {
            return self.sigmas.get(step).copied().unwrap_or(0.0);
        }
        let one_minus_abar = |i: usize| {
            let variance = f64::from(self.sigmas.get(i).copied().unwrap_or(0.0)).powi(2);
            variance / (1.0 + variance)
        };
        let whole = one_minus_abar(restart);
        if whole > 0.0 { (one_minus_abar(step) / whole) as f32 } else { 0.0 }
    }
}

impl Karras {
    /// Karras et al. (2022), eq. 5 with rho 7: `count` levels, by default between the ends `[high, low]`.
    fn space(self, [high, low]: [f64; 2], count: usize) -> Vec<f64> {
        const RHO: f64 = 7.0;
        let high = self.sigma_max.unwrap_or(high).powf(1.0 / RHO);
        let low = self.sigma_min.unwrap_or(low).powf(1.0 / RHO);
        let last = count.saturating_sub(1).max(1) as f64;
        (0..count).map(|i| (high + i as f64 / last * (low - high)).powf(RHO)).collect()
    }
}

/// Refuses levels that rise, and ones that stay where they are. Two may be equal: as many steps as the training has
/// round to the same timestep here and there, and such a step changes nothing.
pub(super) fn check_fall(sigmas: &[f32]) -> Result<()> {
    let falls = |from: f32, to: f32| from >= to; // NaN does not
    let refuse = |what: String| {
        Err(Error::usage(format!("the noise levels {what}, expected ones that fall")).with_hint(
            "take fewer steps, or check sigma_min and sigma_max in scheduler_config.json",
        ))
    };
    if let Some(pair) = sigmas.windows(2).find(|pair| !falls(pair[0], pair[1])) {
        return refuse(format!("go from {} to {}", pair[0], pair[1]));
    }
    match sigmas {
        [first, .., last, _] if first == last => refuse(format!("are all {first}")),
        _ => Ok(()),
    }
}

/// `table` at the position `x`, linear between its entries and constant beyond its ends.
fn interpolate(table: &[f32], x: f64) -> f64 {
    let last = table.len() - 1;
    let x = x.clamp(0.0, last as f64);
    let low = x as usize;
    let (a, b) = (f64::from(table[low]), f64::from(table[(low + 1).min(last)]));
    (b - a) * (x - low as f64) + a
}

/// The training timestep whose sigma is `sigma`, linear in the logarithms `logs` of the training sigmas.
fn timestep_of(logs: &[f32], sigma: f64) -> f64 {
    let log = sigma.max(1e-10).ln();
    let below = logs.iter().rposition(|l| log - f64::from(*l) >= 0.0).unwrap_or(0);
    let low = below.min(logs.len().saturating_sub(2));
    let high = (low + 1).min(logs.len() - 1);
    let gap = f64::from(logs[low] - logs[high]);
    let weight = if gap == 0.0 { 0.0 } else { (f64::from(logs[low]) - log) / gap };
    let weight = weight.clamp(0.0, 1.0);
    (1.0 - weight) * low as f64 + weight * high as f64
}

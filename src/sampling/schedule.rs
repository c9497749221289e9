//! The discrete Euler schedule of SDXL: which noise levels a run visits, as diffusers computes them.
//!
//! `sigma` is a noise level (x = x₀ + sigma·noise), `timestep` the training step the model is told, `step` the
//! index of a denoising step. Arithmetic follows diffusers' own widths (`f32` tables, `f64` interpolation),
//! because `1 - alpha_cumprod` cancels: one rounding more or less moves the first sigmas by 1e-4.

use serde_json::{Map, Value};

use crate::error::{Error, Result};

/// Bounds what a config can make us allocate; real models train with 1000.
const MAX_TRAIN_STEPS: usize = 100_000;

/// What the denoiser's output means, with `s` = sigma and `x` the unscaled sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PredictionType {
    /// The noise: `x0 = x - s·out`.
    Epsilon,
    /// The velocity: `x0 = x / (s² + 1) - out · s / sqrt(s² + 1)`.
    VPrediction,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Spacing {
    Leading,
    Linspace,
    Trailing,
}

/// Karras spacing of the sigmas; `None` takes the end of the run's own range.
#[derive(Debug, Clone, Copy)]
struct Karras {
    sigma_min: Option<f64>,
    sigma_max: Option<f64>,
}

/// diffusers' `EulerDiscreteScheduler`, from its config.
#[derive(Debug, Clone)]
pub struct EulerDiscrete {
    alphas_cumprod: Vec<f32>,
    train_sigmas: Vec<f32>,
    prediction: PredictionType,
    spacing: Spacing,
    steps_offset: i32,
    karras: Option<Karras>,
}

/// The noise levels of one run of `N` steps.
#[derive(Debug, Clone, PartialEq)]
pub struct Schedule {
    /// `N + 1` noise levels, falling; the last is 0. Step `i` goes from `sigmas[i]` to `sigmas[i + 1]`.
    pub sigmas: Vec<f32>,
    /// `N` training timesteps, falling; not always integral.
    pub timesteps: Vec<f32>,
    /// What unit noise is multiplied by to start a run.
    pub init_noise_sigma: f32,
    /// What the denoiser's output means.
    pub prediction: PredictionType,
}

/// The first step a restarted stage runs, `trunc(steps · (1 - ratio))`, at most `steps`.
///
/// Computed in `f64` like the reference: 10 steps at 0.9 give 0, since 10 · (1 - 0.9) is just below 1.
pub fn restart_step(steps: usize, ratio: f64) -> usize {
    // The cast truncates and sends NaN and negative values to 0.
    ((steps as f64 * (1.0 - ratio)) as usize).min(steps)
}

impl EulerDiscrete {
    /// Reads a `scheduler_config.json`. Absent keys take diffusers' defaults, unknown keys are ignored.
    ///
    /// # Errors
    /// When a known key has a value of the wrong type or one that is not supported; the message names both.
    pub fn from_config(config: &Value) -> Result<Self> {
        let map = config.as_object().ok_or_else(|| Error::model("expected a JSON object"))?;
        let keys = Keys(map);
        keys.choice("_class_name", "EulerDiscreteScheduler", &[("EulerDiscreteScheduler", ())])
            .map_err(|e| {
                e.with_hint("put an EulerDiscreteScheduler config in the scheduler folder")
            })?;
        keys.choice("interpolation_type", "linear", &[("linear", ())])?;
        keys.choice("timestep_type", "discrete", &[("discrete", ())])?;
        keys.choice("final_sigmas_type", "zero", &[("zero", ())])?;
        for key in ["use_exponential_sigmas", "use_beta_sigmas", "rescale_betas_zero_snr"] {
            if keys.flag(key)? {
                return Err(keys.unsupported(key, "false"));
            }
        }
        let (sigma_min, sigma_max) = (keys.number("sigma_min")?, keys.number("sigma_max")?);
        let karras = keys.flag("use_karras_sigmas")?.then_some(Karras { sigma_min, sigma_max });
        let prediction = keys.choice(
            "prediction_type",
            "epsilon",
            &[("epsilon", PredictionType::Epsilon), ("v_prediction", PredictionType::VPrediction)],
        )?;
        let spacing = keys.choice(
            "timestep_spacing",
            "linspace",
            &[
                ("leading", Spacing::Leading),
                ("linspace", Spacing::Linspace),
                ("trailing", Spacing::Trailing),
            ],
        )?;
        let steps_offset = keys.integer("steps_offset", 0, 0..=MAX_TRAIN_STEPS)? as i32;
        let betas = betas(&keys)?;
        keys.log_unknown();

        let mut product = 1.0_f64;
        let cumulate = |beta: &f32| {
            product *= f64::from(1.0 - beta);
            product as f32
        };
        let alphas_cumprod: Vec<f32> = betas.iter().map(cumulate).collect();
        let train_sigmas = alphas_cumprod.iter().map(|a| ((1.0 - a) / a).sqrt()).collect();
        Ok(Self { alphas_cumprod, train_sigmas, prediction, spacing, steps_offset, karras })
    }

    /// The product of `1 - beta` up to each training timestep.
    pub fn alphas_cumprod(&self) -> &[f32] {
        &self.alphas_cumprod
    }

    /// What the denoiser's output means.
    pub fn prediction(&self) -> PredictionType {
        self.prediction
    }

    /// The schedule of a run of `steps` steps.
    ///
    /// # Errors
    /// When `steps` is 0 or more than the training timesteps (1000).
    pub fn schedule(&self, steps: usize) -> Result<Schedule> {
        let train = self.train_sigmas.len();
        if steps == 0 || steps > train {
            return Err(Error::usage(format!("{steps} steps, expected 1 to {train}")));
        }
        let mut timesteps = self.spaced_timesteps(steps);
        let mut sigmas: Vec<f64> =
            timesteps.iter().map(|t| interpolate(&self.train_sigmas, f64::from(*t))).collect();
        if let Some(karras) = self.karras {
            sigmas = karras.respace(&sigmas);
            let logs: Vec<f32> = self.train_sigmas.iter().map(|s| s.ln()).collect();
            timesteps = sigmas.iter().map(|s| timestep_of(&logs, *s) as f32).collect();
        }
        sigmas.push(0.0);
        let sigmas: Vec<f32> = sigmas.into_iter().map(|s| s as f32).collect();
        let largest = sigmas.iter().copied().fold(0.0, f32::max);
        let init_noise_sigma = match self.spacing {
            Spacing::Leading => (largest * largest + 1.0).sqrt(),
            Spacing::Linspace | Spacing::Trailing => largest,
        };
        Ok(Schedule { sigmas, timesteps, init_noise_sigma, prediction: self.prediction })
    }

    fn spaced_timesteps(&self, steps: usize) -> Vec<f32> {
        let train = self.train_sigmas.len();
        match self.spacing {
            Spacing::Leading => {
                let ratio = train / steps;
                (0..steps).rev().map(|i| (i * ratio) as f32 + self.steps_offset as f32).collect()
            }
            Spacing::Linspace => {
                let last = (train - 1) as f64;
                let gap = if steps > 1 { last / (steps - 1) as f64 } else { 0.0 };
                let at = |i| if i > 0 && i + 1 == steps { last } else { i as f64 * gap };
                (0..steps).rev().map(|i| at(i) as f32).collect()
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
}

impl Schedule {
    /// The number of steps.
    pub fn steps(&self) -> usize {
        self.timesteps.len()
    }

    /// The weight of structure guidance at `step` of a stage restarted at `restart`:
    /// `(1 - abar(step)) / (1 - abar(restart))`, 1 at the restart and falling to 0.
    ///
    /// `1 - abar` is taken as `sigma² / (1 + sigma²)`, which is the table's value at every integral timestep and
    /// is defined between them too. Steps past the end have weight 0.
    pub fn sg_weight(&self, step: usize, restart: usize) -> f32 {
        let one_minus_abar = |i: usize| {
            let variance = f64::from(self.sigmas.get(i).copied().unwrap_or(0.0)).powi(2);
            variance / (1.0 + variance)
        };
        let whole = one_minus_abar(restart);
        if whole > 0.0 { (one_minus_abar(step) / whole) as f32 } else { 0.0 }
    }
}

impl Karras {
    /// Karras et al. (2022), eq. 5 with rho 7, over as many levels as `sigmas` has.
    fn respace(self, sigmas: &[f64]) -> Vec<f64> {
        const RHO: f64 = 7.0;
        let end = |given: Option<f64>, own: Option<&f64>| {
            given.or(own.copied()).unwrap_or(0.0).powf(1.0 / RHO)
        };
        let (high, low) = (end(self.sigma_max, sigmas.first()), end(self.sigma_min, sigmas.last()));
        let last = sigmas.len().saturating_sub(1).max(1) as f64;
        (0..sigmas.len()).map(|i| (high + i as f64 / last * (low - high)).powf(RHO)).collect()
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

/// The training betas, from a list in the config or from the named curve.
fn betas(keys: &Keys) -> Result<Vec<f32>> {
    let betas: Vec<f32> = match keys.get("trained_betas") {
        Some(Value::Array(list)) => {
            let given: Option<Vec<f32>> = list.iter().map(|v| Some(v.as_f64()? as f32)).collect();
            given.ok_or_else(|| Error::model("trained_betas: expected a list of numbers"))?
        }
        Some(_) => return Err(keys.unsupported("trained_betas", "null or a list of numbers")),
        None => {
            let start = keys.number("beta_start")?.unwrap_or(0.0001);
            let end = keys.number("beta_end")?.unwrap_or(0.02);
            let count = keys.integer("num_train_timesteps", 1000, 1..=MAX_TRAIN_STEPS)?;
            let scaled = keys.choice(
                "beta_schedule",
                "linear",
                &[("linear", false), ("scaled_linear", true)],
            )?;
            if scaled {
                let roots = linspace(start.sqrt(), end.sqrt(), count);
                roots.into_iter().map(|root| root * root).collect()
            } else {
                linspace(start, end, count)
            }
        }
    };
    if betas.is_empty() || betas.len() > MAX_TRAIN_STEPS {
        return Err(Error::model(format!(
            "trained_betas: {} values, expected 1 to {MAX_TRAIN_STEPS}",
            betas.len()
        )));
    }
    match betas.iter().find(|beta| !(**beta > 0.0 && **beta < 1.0)) {
        Some(beta) => Err(Error::model(format!(
            "a training beta is {beta}, expected more than 0 and less than 1 (beta_start, beta_end, trained_betas)"
        ))),
        None => Ok(betas),
    }
}

/// `torch.linspace` in `f32`, bit for bit: from the start in its first half, from the end in its second, with one
/// rounding per value.
fn linspace(start: f64, end: f64, count: usize) -> Vec<f32> {
    let (start, end) = (start as f32, end as f32);
    let step = if count > 1 { (end - start) / (count - 1) as f32 } else { 0.0 };
    let at = |i: usize| {
        if i < count / 2 || count == 1 {
            step.mul_add(i as f32, start)
        } else {
            (-step).mul_add((count - 1 - i) as f32, end)
        }
    };
    (0..count).map(at).collect()
}

/// A config's keys, read with errors that name the key and its value. `null` counts as absent.
struct Keys<'a>(&'a Map<String, Value>);

impl Keys<'_> {
    /// Every key of this scheduler's config, and those diffusers leaves behind from related schedulers.
    const KNOWN: [&'static str; 24] = [
        "_class_name",
        "_diffusers_version",
        "beta_end",
        "beta_schedule",
        "beta_start",
        "clip_sample",
        "clip_sample_range",
        "final_sigmas_type",
        "interpolation_type",
        "num_train_timesteps",
        "prediction_type",
        "rescale_betas_zero_snr",
        "sample_max_value",
        "set_alpha_to_one",
        "sigma_max",
        "sigma_min",
        "skip_prk_steps",
        "steps_offset",
        "timestep_spacing",
        "timestep_type",
        "trained_betas",
        "use_beta_sigmas",
        "use_exponential_sigmas",
        "use_karras_sigmas",
    ];

    fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    fn unsupported(&self, key: &str, expected: &str) -> Error {
        let got = self.get(key).unwrap_or(&Value::Null).to_string();
        let short: String = got.chars().take(80).collect();
        Error::model(format!("{key} is {short}, expected {expected}"))
    }

    fn choice<T: Copy>(&self, key: &str, default: &str, choices: &[(&str, T)]) -> Result<T> {
        let value = self.get(key).map_or(Some(default), Value::as_str);
        let found = choices.iter().find(|(name, _)| Some(*name) == value);
        found.map(|(_, choice)| *choice).ok_or_else(|| {
            let names: Vec<String> = choices.iter().map(|(name, _)| format!("{name:?}")).collect();
            self.unsupported(key, &names.join(" or "))
        })
    }

    fn flag(&self, key: &str) -> Result<bool> {
        self.get(key)
            .map_or(Some(false), Value::as_bool)
            .ok_or_else(|| self.unsupported(key, "true or false"))
    }

    /// A number above 0, if given.
    fn number(&self, key: &str) -> Result<Option<f64>> {
        match self.get(key).map(Value::as_f64) {
            None => Ok(None),
            Some(Some(value)) if value > 0.0 => Ok(Some(value)),
            Some(_) => Err(self.unsupported(key, "a number above 0")),
        }
    }

    fn integer(
        &self,
        key: &str,
        default: usize,
        range: std::ops::RangeInclusive<usize>,
    ) -> Result<usize> {
        let value = self.get(key).map_or(Some(default as u64), Value::as_u64);
        value
            .and_then(|v| usize::try_from(v).ok())
            .filter(|v| range.contains(v))
            .ok_or_else(|| self.unsupported(key, &format!("{} to {}", range.start(), range.end())))
    }

    fn log_unknown(&self) {
        for key in self.0.keys() {
            if !Self::KNOWN.contains(&key.as_str()) {
                log::debug!("scheduler config: unknown key {key:?} ignored");
            }
        }
    }
}

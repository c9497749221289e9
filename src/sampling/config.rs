//! diffusers' `scheduler_config.json`: which sampler, over which noise levels.

use serde_json::{Map, Value};

use super::flow::{FlowMatch, is_flow};
use super::sampler::{Sampler, SamplerChoice};
use super::schedule::{Diffusion, Karras, PredictionType, Scheduler, Spacing};
use crate::error::{Error, Result};

/// Bounds what a config can make us allocate; real models train with 1000.
const MAX_TRAIN_STEPS: usize = 100_000;

/// The scheduler classes that are run as they stand.
const CLASSES: &[(&str, Sampler)] = &[
    ("EulerDiscreteScheduler", Sampler::Euler),
    ("EulerAncestralDiscreteScheduler", Sampler::EulerAncestral),
    ("DDIMScheduler", Sampler::Ddim),
    ("DPMSolverMultistepScheduler", Sampler::DpmPlusPlus2M),
];

/// Classes of which only the noise levels are of use, under a sampler that the request names.
const LEVELS_ONLY: &[&str] = &[
    "DDPMScheduler",
    "DEISMultistepScheduler",
    "DPMSolverSDEScheduler",
    "DPMSolverSinglestepScheduler",
    "HeunDiscreteScheduler",
    "KDPM2AncestralDiscreteScheduler",
    "KDPM2DiscreteScheduler",
    "LMSDiscreteScheduler",
    "PNDMScheduler",
    "UniPCMultistepScheduler",
];

impl Scheduler {
    /// Reads a `scheduler_config.json`, of which `choice` may override the sampler. Absent keys take the
    /// defaults of the sampler's class in diffusers; keys that it does not have, and unknown ones, are ignored.
    ///
    /// # Errors
    /// When a known key has a value of the wrong type or one that is not supported; the message names both.
    pub fn from_config(config: &Value, choice: SamplerChoice) -> Result<Self> {
        let map = config.as_object().ok_or_else(|| Error::model("expected a JSON object"))?;
        let keys = Keys(map);
        if is_flow(config) {
            let flow = FlowMatch::from_config(&keys, choice)?;
            keys.log_unknown();
            return Ok(Self::Flow(flow));
        }
        let sampler = keys.sampler(choice)?;
        let named = choice.sampler.is_some();
        match sampler {
            Sampler::Euler => {
                keys.choice("interpolation_type", "linear", &[("linear", ())])?;
                keys.choice("timestep_type", "discrete", &[("discrete", ())])?;
                keys.must_be_off(&["use_exponential_sigmas", "use_beta_sigmas"])?;
                keys.choice("final_sigmas_type", "zero", &[("zero", ())])?;
            }
            Sampler::EulerAncestral => {}
            Sampler::Ddim => {
                // On by default in the class itself.
                if keys.flag("clip_sample", !named)? {
                    return Err(keys.unsupported("clip_sample", "false"));
                }
                keys.must_be_off(&["thresholding"])?;
            }
            Sampler::DpmPlusPlus2M => keys.check_dpm_solver(named)?,
        }
        keys.must_be_off(&["rescale_betas_zero_snr"])?;

        let (sigma_min, sigma_max) = (keys.number("sigma_min")?, keys.number("sigma_max")?);
        let of_class = matches!(sampler, Sampler::Euler | Sampler::DpmPlusPlus2M);
        let karras = choice.karras || (of_class && keys.flag("use_karras_sigmas", false)?);
        if karras && sampler == Sampler::Ddim {
            return Err(Error::usage("DDIM has no Karras schedule").with_hint(
                "use the sampler euler with it: at the same noise levels its steps are DDIM's",
            ));
        }
        let prediction = keys.choice(
            "prediction_type",
            "epsilon",
            &[("epsilon", PredictionType::Epsilon), ("v_prediction", PredictionType::VPrediction)],
        )?;
        let spacing = keys.choice(
            "timestep_spacing",
            if sampler == Sampler::Ddim { "leading" } else { "linspace" },
            &[
                ("leading", Spacing::Leading),
                ("linspace", Spacing::Linspace),
                ("trailing", Spacing::Trailing),
            ],
        )?;
        let steps_offset = keys.integer("steps_offset", 0, 0..=MAX_TRAIN_STEPS)? as i32;
        let ends_at_zero = keys.flag("set_alpha_to_one", true)?;
        let betas = betas(&keys)?;
        keys.log_unknown();

        let mut product = 1.0_f64;
        let cumulate = |beta: &f32| {
            product *= f64::from(1.0 - beta);
            product as f32
        };
        let alphas_cumprod: Vec<f32> = betas.iter().map(cumulate).collect();
        let train_sigmas = alphas_cumprod.iter().map(|a| ((1.0 - a) / a).sqrt()).collect();
        let karras = karras.then_some(Karras { sigma_min, sigma_max });
        Ok(Self::Diffusion(Diffusion {
            alphas_cumprod,
            train_sigmas,
            sampler,
            prediction,
            spacing,
            steps_offset,
            karras,
            ends_at_zero,
        }))
    }
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
pub(super) struct Keys<'a>(&'a Map<String, Value>);

impl Keys<'_> {
    /// Every key of these schedulers' configs, and those diffusers leaves behind from related ones.
    const KNOWN: &'static [&'static str] = &[
        "_class_name",
        "_diffusers_version",
        "_use_default_values",
        "algorithm_type",
        "base_image_seq_len",
        "base_shift",
        "beta_end",
        "beta_schedule",
        "beta_start",
        "clip_sample",
        "clip_sample_range",
        "dynamic_thresholding_ratio",
        "euler_at_final",
        "final_sigmas_type",
        "flow_shift",
        "interpolation_type",
        "invert_sigmas",
        "lambda_min_clipped",
        "lower_order_final",
        "max_image_seq_len",
        "max_shift",
        "num_train_timesteps",
        "prediction_type",
        "rescale_betas_zero_snr",
        "sample_max_value",
        "set_alpha_to_one",
        "shift",
        "shift_terminal",
        "sigma_max",
        "sigma_min",
        "skip_prk_steps",
        "solver_order",
        "solver_type",
        "steps_offset",
        "stochastic_sampling",
        "thresholding",
        "time_shift_type",
        "timestep_spacing",
        "timestep_type",
        "trained_betas",
        "use_beta_sigmas",
        "use_dynamic_shifting",
        "use_exponential_sigmas",
        "use_flow_sigmas",
        "use_karras_sigmas",
        "use_lu_lambdas",
        "variance_type",
    ];

    /// The sampler of the class that the config names, or the one chosen over it.
    fn sampler(&self, choice: SamplerChoice) -> Result<Sampler> {
        let class = self.get("_class_name").and_then(Value::as_str).unwrap_or("");
        match choice.sampler {
            Some(sampler) if LEVELS_ONLY.contains(&class) => Ok(sampler),
            _ => {
                let own = self.choice("_class_name", CLASSES[0].0, CLASSES).map_err(|e| {
                    if LEVELS_ONLY.contains(&class) {
                        e.with_hint("name a sampler with --sampling-method, such as dpm++2m")
                    } else {
                        e.with_hint("put the config of one of these into the scheduler folder")
                    }
                })?;
                Ok(choice.sampler.unwrap_or(own))
            }
        }
    }

    /// What DPM++ 2M reads; where it was `named` by the request, the config's own solver does not count.
    fn check_dpm_solver(&self, named: bool) -> Result<()> {
        if !named {
            self.choice("algorithm_type", "dpmsolver++", &[("dpmsolver++", ())])?;
            self.choice("solver_type", "midpoint", &[("midpoint", ())])?;
            self.integer("solver_order", 2, 2..=2)?;
        }
        for key in ["lambda_min_clipped", "variance_type"] {
            if self.get(key).is_some() {
                return Err(self.unsupported(key, "null"));
            }
        }
        self.choice("final_sigmas_type", "zero", &[("zero", ())])?;
        self.must_be_off(&[
            "thresholding",
            "use_beta_sigmas",
            "use_dynamic_shifting",
            "use_exponential_sigmas",
            "use_flow_sigmas",
            "use_lu_lambdas",
        ])
    }

    /// Refuses what is switched on among these.
    pub(super) fn must_be_off(&self, names: &[&str]) -> Result<()> {
        for key in names {
            if self.flag(key, false)? {
                return Err(self.unsupported(key, "false"));
            }
        }
        Ok(())
    }

    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        self.0.get(key).filter(|value| !value.is_null())
    }

    pub(super) fn unsupported(&self, key: &str, expected: &str) -> Error {
        let got = self.get(key).map_or_else(|| "absent".to_owned(), Value::to_string);
        let short: String = got.chars().take(80).collect();
        Error::model(format!("{key} is {short}, expected {expected}"))
    }

    pub(super) fn choice<T: Copy>(
        &self,
        key: &str,
        default: &str,
        choices: &[(&str, T)],
    ) -> Result<T> {
        let value = self.get(key).map_or(Some(default), Value::as_str);
        let found = choices.iter().find(|(name, _)| Some(*name) == value);
        found.map(|(_, choice)| *choice).ok_or_else(|| {
            let names: Vec<String> = choices.iter().map(|(name, _)| format!("{name:?}")).collect();
            self.unsupported(key, &names.join(" or "))
        })
    }

    pub(super) fn flag(&self, key: &str, default: bool) -> Result<bool> {
        self.get(key)
            .map_or(Some(default), Value::as_bool)
            .ok_or_else(|| self.unsupported(key, "true or false"))
    }

    /// A number above 0, if given.
    pub(super) fn number(&self, key: &str) -> Result<Option<f64>> {
        match self.get(key).map(Value::as_f64) {
            None => Ok(None),
            Some(Some(value)) if value > 0.0 => Ok(Some(value)),
            Some(_) => Err(self.unsupported(key, "a number above 0")),
        }
    }

    pub(super) fn integer(
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

    pub(super) fn log_unknown(&self) {
        for key in self.0.keys() {
            if !Self::KNOWN.contains(&key.as_str()) {
                log::debug!("scheduler config: unknown key {key:?} ignored");
            }
        }
    }
}

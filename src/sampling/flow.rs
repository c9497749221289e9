//! Flow matching (FLUX): noise levels from 1 to 0, x = (1 - sigma)·x₀ + sigma·noise.

use serde_json::Value;

use super::config::Keys;
use super::sampler::{Sampler, SamplerChoice};
use super::schedule::{PredictionType, Schedule, check_fall};
use crate::error::{Error, Result};

/// diffusers' `FlowMatchEulerDiscreteScheduler`.
#[derive(Debug, Clone, Copy)]
pub struct FlowMatch {
    /// Levels become `shift·s / (1 + (shift - 1)·s)`.
    shift: f64,
    train_steps: usize,
}

impl FlowMatch {
    /// The class in `scheduler_config.json`.
    pub const CLASS: &'static str = "FlowMatchEulerDiscreteScheduler";

    /// # Errors
    /// A key at a value that is not supported, or a sampler of another kind of model.
    pub(super) fn from_config(keys: &Keys, choice: SamplerChoice) -> Result<Self> {
        if choice.karras || choice.sampler.is_some_and(|s| s != Sampler::Euler) {
            return Err(Error::usage("this model is sampled by Euler steps along a flow")
                .with_hint("leave --sampling-method and --scheduler out, or name euler"));
        }
        keys.must_be_off(&[
            "invert_sigmas",
            "stochastic_sampling",
            "use_beta_sigmas",
            "use_exponential_sigmas",
            "use_karras_sigmas",
        ])?;
        keys.choice("time_shift_type", "exponential", &[("exponential", ())])?;
        let dynamic = keys.flag("use_dynamic_shifting", false)?;
        if keys.get("shift_terminal").is_some() {
            return Err(keys.unsupported("shift_terminal", "null"));
        }
        let shift = if dynamic {
            // The exponent grows with the length of the sequence, which the method pins: the same shift at every
            // size and in every stage.
            const PINNED: f64 = 4096.0;
            let number = |key: &str, default: f64| Ok(keys.number(key)?.unwrap_or(default));
            let (low, high) = (number("base_shift", 0.5)?, number("max_shift", 1.15)?);
            let short = number("base_image_seq_len", 256.0)?;
            let long = number("max_image_seq_len", 4096.0)?;
            let share = ((PINNED - short) / (long - short).max(1.0)).clamp(0.0, 1.0);
            (low + share * (high - low)).exp()
        } else {
            keys.number("shift")?.unwrap_or(1.0)
        };
        let train_steps = keys.integer("num_train_timesteps", 1000, 1..=100_000)?;
        Ok(Self { shift, train_steps })
    }

    /// The schedule of a run of `steps` steps.
    ///
    /// # Errors
    /// When `steps` is 0 or more than the training timesteps.
    pub(super) fn schedule(&self, steps: usize) -> Result<Schedule> {
        if steps == 0 || steps > self.train_steps {
            let most = self.train_steps;
            return Err(Error::usage(format!("{steps} steps, expected 1 to {most}")));
        }
        // From 1 down to 1 / steps, as the pipeline of FLUX asks its scheduler.
        let last = 1.0 / steps as f64;
        let gap = if steps > 1 { (1.0 - last) / (steps - 1) as f64 } else { 0.0 };
        let level = |i: usize| {
            let raw = 1.0 - gap * i as f64;
            (self.shift * raw / (1.0 + (self.shift - 1.0) * raw)) as f32
        };
        let mut sigmas: Vec<f32> = (0..steps).map(level).collect();
        let timesteps = sigmas.iter().map(|s| s * self.train_steps as f32).collect();
        sigmas.push(0.0);
        check_fall(&sigmas)?;
        Ok(Schedule {
            targets: sigmas[1..].to_vec(),
            sigmas,
            timesteps,
            init_noise_sigma: 1.0,
            prediction: PredictionType::Flow,
            sampler: Sampler::Euler,
            karras: false,
        })
    }
}

/// Whether a scheduler's config is of this kind.
pub(super) fn is_flow(config: &Value) -> bool {
    config.get("_class_name").and_then(Value::as_str) == Some(FlowMatch::CLASS)
}

//! Samplers: how a step combines what it has into the next latents.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::schedule::Schedule;
use crate::error::{Error, Result};

/// How latents go from one noise level to the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Sampler {
    /// First order, deterministic (diffusers' `EulerDiscreteScheduler`).
    #[serde(rename = "euler")]
    Euler,
    /// Euler to a lower level, then fresh noise (`EulerAncestralDiscreteScheduler`).
    #[serde(rename = "euler_a")]
    EulerAncestral,
    /// Euler with levels of its own, eta 0 (`DDIMScheduler`).
    #[serde(rename = "ddim")]
    Ddim,
    /// Second order over two steps, midpoint (`DPMSolverMultistepScheduler`, "dpmsolver++").
    #[serde(rename = "dpm++2m")]
    DpmPlusPlus2M,
}

impl Sampler {
    /// Whether a step reads the previous step's x0.
    pub fn has_history(self) -> bool {
        self == Self::DpmPlusPlus2M
    }

    /// Whether a step adds noise.
    pub fn adds_noise(self) -> bool {
        self == Self::EulerAncestral
    }
}

/// The name that A1111's web UI and its metadata use.
impl fmt::Display for Sampler {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(match self {
            Self::Euler => "Euler",
            Self::EulerAncestral => "Euler a",
            Self::Ddim => "DDIM",
            Self::DpmPlusPlus2M => "DPM++ 2M",
        })
    }
}

/// What a request says about the sampler; the default leaves all to the model's config.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SamplerChoice {
    /// `None`: the model's own.
    pub sampler: Option<Sampler>,
    /// Noise levels spaced after Karras et al. (2022); `false`: as the model's config says.
    pub karras: bool,
}

/// Reads a name of A1111, stable-diffusion.cpp or diffusers, whatever its case and separators: `euler_a`,
/// `Euler a`, `dpm++2m`, `DPM++ 2M Karras`.
impl FromStr for SamplerChoice {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self> {
        let kept: String = name.chars().filter(|c| !" _-".contains(*c)).collect();
        let kept = kept.to_lowercase().replace("dpmpp", "dpm++");
        let (base, karras) = match kept.strip_suffix("karras") {
            Some(base) => (base, true),
            None => (kept.as_str(), false),
        };
        let sampler = match base {
            "euler" | "eulerdiscrete" => Sampler::Euler,
            "eulera" | "eulerancestral" => Sampler::EulerAncestral,
            "ddim" => Sampler::Ddim,
            "dpm++2m" => Sampler::DpmPlusPlus2M,
            _ => {
                return Err(Error::usage(format!(
                    "the sampler {name:?} is not known, expected euler, euler_a, ddim, dpm++2m or A1111's name"
                )));
            }
        };
        Ok(Self { sampler: Some(sampler), karras })
    }
}

/// The coefficients of one step: the next latents are the sum of these.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Step {
    /// Of the latents.
    pub x: f64,
    /// Of the clean prediction after every guidance.
    pub x0: f64,
    /// Of the previous step's clean prediction.
    pub previous: f64,
    /// Of unit normals.
    pub noise: f64,
}

impl Schedule {
    /// Step `i` of a run that began at step `first`, before which there is no history.
    pub fn step(&self, i: usize, first: usize) -> Step {
        let (from, to) = (f64::from(self.sigmas[i]), f64::from(self.targets[i]));
        let ratio = to / from;
        let euler = Step { x: ratio, x0: 1.0 - ratio, previous: 0.0, noise: 0.0 };
        match self.sampler {
            Sampler::Euler => euler,
            Sampler::EulerAncestral => {
                // Down to to²/from, then up to `to`: the variances add.
                let down = ratio * ratio;
                Step { x: down, x0: 1.0 - down, noise: to * (1.0 - down).max(0.0).sqrt(), ..euler }
            }
            Sampler::Ddim => {
                // diffusers keeps sqrt(abar)·x, and takes what reached the target's abar as if it were at the
                // next timestep's: they differ where the timesteps are not evenly spaced, and at the end.
                let norm = |sigma: f64| (sigma * sigma + 1.0).sqrt();
                let scale = norm(f64::from(self.sigmas[i + 1])) / norm(to);
                Step { x: scale * euler.x, x0: scale * euler.x0, ..euler }
            }
            Sampler::DpmPlusPlus2M => {
                let before = f64::from(self.sigmas[i.max(first + 1) - 1]);
                let (last, now) = ((before / from).ln(), (from / to).ln());
                // The first step has no history, and at sigma 0 the logarithm ends: both are first order.
                if i <= first || to == 0.0 || last <= 0.0 {
                    return euler;
                }
                let slope = 0.5 * (1.0 - ratio) * now / last;
                Step { x0: euler.x0 + slope, previous: -slope, ..euler }
            }
        }
    }
}

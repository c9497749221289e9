//! Named streams of random numbers, and torch's CPU generator: the same seed gives the same picture as a
//! PyTorch pipeline.
//!
//! Its uniforms (MT19937) are bit-exact. The normals agree within 4e-6: torch's vectorised builds evaluate
//! `log`, `sin` and `cos` with their own polynomials and differ among themselves by 2e-6.

use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::philox::Philox;
use crate::error::Error;

/// Length of the Mersenne Twister's state, in words.
const STATE: usize = 624;
/// Distance of the word that is mixed in at each step.
const MIDDLE: usize = 397;
/// Below this many values torch draws one by one in `f64`; from it on, in blocks of 16 in `f32`.
const BLOCK: usize = 16;

/// The seed of a named stream: `seed` XOR the 64-bit FNV-1a hash of `name`'s UTF-8 bytes.
///
/// The base stream is the seed itself; every other use of randomness (a stage's noise, the posterior, the
/// jitter) has its own name, so that drawing more in one place changes nothing elsewhere.
pub fn stream_seed(seed: u64, name: &str) -> u64 {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    seed ^ hash
}

/// Whose random numbers a run draws.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Rng {
    /// torch's on a CPU, as in ComfyUI and in diffusers with a CPU generator ([`TorchRng`]).
    #[default]
    Cpu,
    /// torch's on CUDA, as in A1111's web UI ([`Philox`]).
    Cuda,
}

impl Rng {
    /// `n` standard normals of a stream.
    pub fn randn(self, seed: u64, n: usize) -> Vec<f32> {
        match self {
            Self::Cpu => TorchRng::new(seed).randn(n),
            Self::Cuda => Philox::new(seed).randn(n),
        }
    }
}

impl FromStr for Rng {
    type Err = Error;

    fn from_str(name: &str) -> Result<Self, Error> {
        match name {
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda),
            _ => Err(Error::usage(format!("rng is {name:?}, expected \"cpu\" or \"cuda\""))),
        }
    }
}

/// What the cascade draws normals for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Noise {
    /// The noise that a stage starts with.
    Stage(u32),
    /// The noise that an ancestral step adds.
    Step {
        /// The stage, 0 for the base.
        stage: u32,
        /// The step, counted from the first stage's first.
        step: usize,
    },
}

impl Noise {
    /// The seed of its stream.
    pub fn seed(self, seed: u64) -> u64 {
        match self {
            Self::Stage(0) => seed,
            Self::Stage(stage) => stream_seed(seed, &format!("noise.{stage}")),
            Self::Step { stage, step } => stream_seed(seed, &format!("ancestral.{stage}.{step}")),
        }
    }
}

/// torch's CPU generator: MT19937 and the spare value of the `f64` Box-Muller path.
#[derive(Debug, Clone)]
pub struct TorchRng {
    state: [u32; STATE],
    next: usize,
    spare: Option<f64>,
}

impl TorchRng {
    /// The generator after `torch.manual_seed(seed)`. As in torch, only the low 32 bits of the seed count.
    pub fn new(seed: u64) -> Self {
        let mut state = [0; STATE];
        let mut word = seed as u32;
        for (i, slot) in state.iter_mut().enumerate() {
            if i > 0 {
                word = (word ^ (word >> 30)).wrapping_mul(1_812_433_253).wrapping_add(i as u32);
            }
            *slot = word;
        }
        Self { state, next: STATE, spare: None }
    }

    /// The next 32 random bits.
    pub fn next_u32(&mut self) -> u32 {
        if self.next >= STATE {
            self.twist();
        }
        let mut y = self.state[self.next];
        self.next += 1;
        y ^= y >> 11;
        y ^= (y << 7) & 0x9d2c_5680;
        y ^= (y << 15) & 0xefc6_0000;
        y ^ (y >> 18)
    }

    /// The next 64 random bits: two draws, the first in the high half.
    pub fn next_u64(&mut self) -> u64 {
        let high = self.next_u32();
        (u64::from(high) << 32) | u64::from(self.next_u32())
    }

    fn twist(&mut self) {
        for i in 0..STATE {
            let y = (self.state[i] & 0x8000_0000) | (self.state[(i + 1) % STATE] & 0x7fff_ffff);
            let odd = if y & 1 == 1 { 0x9908_b0df } else { 0 };
            self.state[i] = self.state[(i + MIDDLE) % STATE] ^ (y >> 1) ^ odd;
        }
        self.next = 0;
    }

    /// A uniform in `[0, 1)` with 24 random bits.
    fn uniform_f32(&mut self) -> f32 {
        (self.next_u32() & 0x00ff_ffff) as f32 / 16_777_216.0
    }

    /// A uniform in `[0, 1)` with 53 random bits.
    fn uniform_f64(&mut self) -> f64 {
        (self.next_u64() & ((1 << 53) - 1)) as f64 / (1_u64 << 53) as f64
    }

    /// A uniform integer in `0..=inclusive_max`, as `torch.randint(0, inclusive_max + 1)` draws it: a plain
    /// remainder, whose bias is below `2⁻⁴` even for the largest range taken from 32 bits.
    pub fn uniform_u32(&mut self, inclusive_max: u32) -> u32 {
        let range = u64::from(inclusive_max) + 1;
        let bits = if range >= 1 << 28 { self.next_u64() } else { u64::from(self.next_u32()) };
        (bits % range) as u32
    }

    /// `n` standard normals, as `torch.randn` of `n` contiguous values draws them.
    pub fn randn(&mut self, n: usize) -> Vec<f32> {
        if n < BLOCK {
            return (0..n).map(|_| self.normal_f64() as f32).collect();
        }
        // torch draws all uniforms first, turns whole blocks into normals in place, and for a ragged end
        // draws the last 16 values anew (overwriting some that were already normals).
        let mut values: Vec<f32> = (0..n).map(|_| self.uniform_f32()).collect();
        for block in values.chunks_exact_mut(BLOCK) {
            box_muller(block);
        }
        if !n.is_multiple_of(BLOCK) {
            let tail = &mut values[n - BLOCK..];
            tail.fill_with(|| self.uniform_f32());
            box_muller(tail);
        }
        values
    }

    /// One normal in `f64`; Box-Muller makes two, and the second is kept for the next call.
    fn normal_f64(&mut self) -> f64 {
        if let Some(spare) = self.spare.take() {
            return spare;
        }
        let angle = std::f64::consts::TAU * self.uniform_f64();
        let radius = (-2.0 * (-self.uniform_f64()).ln_1p()).sqrt();
        self.spare = Some(radius * angle.sin());
        radius * angle.cos()
    }
}

/// Turns 16 uniforms into 16 normals: value `i` pairs with `i + 8`.
///
/// Rounds to `f32` where torch does and evaluates `log`, `cos`, `sin` in `f64`, so the result lies in the
/// middle of torch's own builds.
fn box_muller(block: &mut [f32]) {
    let (first, second) = block.split_at_mut(BLOCK / 2);
    for (a, b) in first.iter_mut().zip(second) {
        let log = f64::from(1.0 - *a).ln() as f32; // 1 - a lies in (0, 1], so the logarithm is finite
        let radius = (-2.0 * log).sqrt();
        let angle = f64::from(std::f32::consts::TAU * *b);
        *a = radius * angle.cos() as f32;
        *b = radius * angle.sin() as f32;
    }
}

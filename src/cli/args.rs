//! What may be typed.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand, ValueEnum};

use super::bench_args::{BenchArgs, TuneArgs};
use super::tune;
use crate::error::Result;
use crate::gpu::{GpuOptions, Tier};
use crate::pipeline::{Precision, Request};
use crate::sampling::{Rng, SamplerChoice};
use crate::scalediff::{Mask, StageAttention};
use crate::shader::Sources;

/// High-resolution pictures without training, on any GPU: ScaleDiff in wgpu.
#[derive(Debug, Parser)]
#[command(
    name = "scalediff",
    version,
    about,
    after_help = "Exit codes: 0 done, 1 failed, 2 unreadable case (verify), 64 bad command line, \
                  130 stopped by Ctrl-C (what was reached is kept)."
)]
pub struct Args {
    #[command(subcommand)]
    pub command: Command,
    /// Say more: -v for what is done, -vv for everything.
    #[arg(short, long, global = true, action = clap::ArgAction::Count)]
    pub verbose: u8,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Make a picture from a prompt.
    #[command(allow_negative_numbers = true)]
    Generate(GenerateArgs),
    /// Say what a picture needs, from the configs alone: memory and work of every phase.
    ///
    /// Here --limits may also lie above this device's: --limits binding=2147483647.
    Plan(PlanArgs),
    /// Print the texts in a PNG file: how the picture was made.
    Metadata(MetadataArgs),
    /// List the devices, best first, with what they can do.
    Devices,
    /// Time every kernel at layer shapes of the small models, of SDXL and of FLUX.1, each verified first.
    Bench(BenchArgs),
    /// Find the fastest tiles for this device and keep them for later runs: a minute or two.
    ///
    /// Later runs on the same device, driver and shaders use them. They change times, not results, but for attention's
    /// last digits.
    Tune(TuneArgs),
    /// Run recorded cases and compare: does this machine compute right?
    Verify(VerifyArgs),
}

/// Device and precision, shared by all commands that compute.
#[derive(Debug, Clone, ClapArgs)]
pub struct DeviceArgs {
    /// A part of the device's name, or its number in `scalediff devices`.
    #[arg(long, value_name = "NAME|INDEX")]
    pub device: Option<String>,
    /// f16 or f32 storage; arithmetic is f32 in both. Default: f16.
    #[arg(long, value_enum)]
    pub precision: Option<PrecisionArg>,
    /// Run the kernels that GPUs of this tier run: plain, f16, subgroup, coop (matrix units).
    #[arg(long)]
    pub tier: Option<Tier>,
    /// Lower the device's limits: webgpu, or such as binding=1MiB,groups=64,storage=8.
    #[arg(long, value_name = "LIST")]
    pub limits: Option<String>,
    /// Keep bounds checks in the shaders: slower, for bug reports.
    #[arg(long)]
    pub shader_checks: bool,
    /// Tiles that `scalediff tune` found; none: what the kernels choose. Default: scalediff/tuning.json in the user's
    /// cache folder, where there is one.
    #[arg(long, value_name = "FILE|none")]
    pub tuning: Option<PathBuf>,
}

impl DeviceArgs {
    /// What is asked for, else the default.
    pub fn precision(&self) -> Precision {
        self.precision.map_or_else(Precision::default, Into::into)
    }

    /// As the library takes them.
    ///
    /// # Errors
    /// A tuning file that is named and cannot be read.
    pub fn gpu_options(&self, profile: bool) -> Result<GpuOptions> {
        Ok(GpuOptions {
            device: self.device.clone(),
            tier: self.tier,
            limits: self.limits.clone(),
            shader_checks: self.shader_checks,
            profile,
            tuning: tune::load(self)?,
            sources: Sources::default(),
        })
    }
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum PrecisionArg {
    F16,
    F32,
}

impl From<PrecisionArg> for Precision {
    fn from(p: PrecisionArg) -> Self {
        match p {
            PrecisionArg::F16 => Precision::F16,
            PrecisionArg::F32 => Precision::F32,
        }
    }
}

/// What the stages after the first see of their larger picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum AttentionArg {
    /// Neighborhood patches: a window of the base size around each patch.
    Npa,
    /// The whole picture: slower, and repeats itself.
    Full,
    /// Overlapping windows of the base size, predicted apart and averaged: slower still, and each
    /// window shows the whole prompt.
    Multidiffusion,
    /// For measurements: patches that see their own block only.
    #[value(hide = true)]
    IsolatedNpa,
    /// For measurements: windows as small as the blocks, side by side, which leaves seams.
    #[value(hide = true)]
    IsolatedWindows,
}

impl From<AttentionArg> for StageAttention {
    fn from(a: AttentionArg) -> Self {
        match a {
            AttentionArg::Npa => StageAttention::Patches,
            AttentionArg::Full => StageAttention::Full,
            AttentionArg::Multidiffusion => StageAttention::Windows,
            AttentionArg::IsolatedNpa => StageAttention::IsolatedPatches,
            AttentionArg::IsolatedWindows => StageAttention::IsolatedWindows,
        }
    }
}

/// The low-pass of latent frequency mixing and structure guidance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FilterArg {
    /// Reduction by the scale factor and enlargement, as in the paper.
    Resample,
    /// All frequencies up to the cutoff, none beyond: rings at edges.
    FftIdeal,
    /// A bell whose standard deviation is the cutoff: never rings.
    FftGaussian,
    /// Flat, then falling steeply, with half the amplitude at the cutoff.
    FftButterworth,
}

impl From<FilterArg> for Option<Mask> {
    fn from(filter: FilterArg) -> Self {
        match filter {
            FilterArg::Resample => None,
            FilterArg::FftIdeal => Some(Mask::Ideal),
            FilterArg::FftGaussian => Some(Mask::Gaussian),
            FilterArg::FftButterworth => Some(Mask::Butterworth),
        }
    }
}

/// How the noise levels are spaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum SchedulerArg {
    /// As the model's scheduler config says.
    Default,
    /// After Karras et al. (2022).
    Karras,
}

#[derive(Debug, ClapArgs)]
pub struct GenerateArgs {
    /// What the picture shows.
    #[arg(short, long, required_unless_present_any = ["config_from_metadata", "resume"])]
    pub prompt: Option<String>,
    /// What it should not show.
    #[arg(short, long)]
    pub negative_prompt: Option<String>,
    #[command(flatten)]
    pub request: RequestArgs,
    /// The same seed makes the same picture on the same device. Default, or negative: random.
    #[arg(short, long, allow_negative_numbers = true)]
    pub seed: Option<i64>,
    /// How many pictures, with seeds SEED, SEED + 1, … They are numbered: NAME-001.png, NAME-002.png, …
    #[arg(short, long, value_name = "N", default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=9999))]
    pub batch_count: u32,
    /// Whose random numbers: torch's on a CPU (ComfyUI, diffusers) or on CUDA (A1111's web UI).
    /// Default: cpu.
    #[arg(long, value_name = "cpu|cuda")]
    pub rng: Option<Rng>,
    /// The file to write, always PNG. %03d stands for the picture's number.
    #[arg(short, long, default_value = "scalediff.png")]
    pub output: PathBuf,
    /// Make the picture of a PNG file again, as its metadata says; other flags change what they say.
    #[arg(long, value_name = "PNG")]
    pub config_from_metadata: Option<PathBuf>,
    /// Keep what is reached in this safetensors file: the base picture, and the latents of every stage as soon
    /// as it is sampled.
    #[arg(long, value_name = "FILE", conflicts_with = "resume")]
    pub save_latent: Option<PathBuf>,
    /// Go on from the last stage in this file of --save-latent, or start anew where there is none; what is
    /// reached is kept in it. Flags that are left out are taken from it.
    #[arg(long, value_name = "FILE")]
    pub resume: Option<PathBuf>,
    /// Write no metadata into the pictures.
    #[arg(long)]
    pub disable_image_metadata: bool,
    /// Also write the picture of every stage, as NAME-stage0.png and so on.
    #[arg(long)]
    pub save_stages: bool,
    /// Print the time per kernel and per layer at the end, by the device's clock where it has one.
    #[arg(long)]
    pub profile: bool,
    #[command(flatten)]
    pub device: DeviceArgs,
}

/// Model, sizes and method: what decides the work, whatever the prompt.
#[derive(Debug, ClapArgs)]
pub struct RequestArgs {
    /// A model folder in diffusers layout (SDXL, FLUX.1), or one of the small models inside the program: tiny-sdxl
    /// (default), tiny-flux.
    #[arg(short, long, value_name = "FOLDER|NAME")]
    pub model: Option<PathBuf>,
    /// Width of the final picture in pixels.
    #[arg(short = 'W', long)]
    pub width: Option<u32>,
    /// Height of the final picture in pixels.
    #[arg(short = 'H', long)]
    pub height: Option<u32>,
    /// Steps of the first stage; later ones run the last part of them.
    #[arg(long, visible_alias = "num-inference-steps")]
    pub steps: Option<usize>,
    /// How strongly the prompt guides; at most 1 means not at all. For FLUX the guidance that it is told.
    #[arg(long, visible_aliases = ["guidance-scale", "guidance"])]
    pub cfg_scale: Option<f32>,
    /// Guide from this share of the steps on, 0 to 1.
    #[arg(long, value_name = "SHARE")]
    pub guidance_start: Option<f64>,
    /// Guide up to this share of the steps; the others cost half.
    #[arg(long, value_name = "SHARE")]
    pub guidance_stop: Option<f64>,
    /// euler, euler_a, ddim, dpm++2m, or A1111's name. Default: as the model's scheduler config says.
    #[arg(long, visible_alias = "sampler", value_name = "NAME")]
    pub sampling_method: Option<SamplerChoice>,
    /// How the noise levels are spaced. Default: default.
    #[arg(long, value_enum)]
    pub scheduler: Option<SchedulerArg>,
    /// How often the size is doubled. Default: as often as the size calls for.
    #[arg(long)]
    pub stages: Option<u32>,
    /// Share of the steps that later stages run.
    #[arg(long)]
    pub restart_ratio: Option<f64>,
    /// Side of the low band as a share of the latents' side.
    #[arg(long)]
    pub scale_factor: Option<f64>,
    /// The low-pass that keeps the smaller picture's structure. Default: resample.
    #[arg(long, value_enum)]
    pub filter: Option<FilterArg>,
    /// Cutoff of an FFT filter in cycles per latent, above 0 and at most 1. Default: half the scale
    /// factor.
    #[arg(long, value_name = "CUTOFF")]
    pub filter_cutoff: Option<f64>,
    /// Self-attention in the later stages. Default: npa.
    #[arg(long, value_enum)]
    pub attention: Option<AttentionArg>,
    /// Without latent frequency mixing.
    #[arg(long)]
    pub no_lfm: bool,
    /// Without structure guidance.
    #[arg(long)]
    pub no_sg: bool,
    /// Shift the patches at random, per layer and step. Default: for transformers (FLUX) only.
    #[arg(long, overrides_with = "no_jitter")]
    pub jitter: bool,
    /// Do not shift the patches.
    #[arg(long)]
    pub no_jitter: bool,
    /// Tokens of the T5 encoder (FLUX), 1 to 512. Default: 512, or 256 for models without guidance.
    #[arg(long, value_name = "N")]
    pub max_sequence_length: Option<u32>,
}

impl RequestArgs {
    /// As the library takes them, over what `base` says. A new size takes a new number of stages.
    pub fn request(&self, base: Request) -> Request {
        let resized = self.width.is_some() || self.height.is_some();
        let choice = self.sampler();
        let filter = self.filter.map_or(base.filter, Into::into);
        Request {
            width: self.width.or(base.width),
            height: self.height.or(base.height),
            steps: self.steps.or(base.steps),
            cfg_scale: self.cfg_scale.or(base.cfg_scale),
            guidance_start: self.guidance_start.or(base.guidance_start),
            guidance_stop: self.guidance_stop.or(base.guidance_stop),
            sampler: choice.sampler.or(base.sampler),
            karras: choice.karras || (self.scheduler.is_none() && base.karras),
            stages: self.stages.or(base.stages.filter(|_| !resized)),
            restart_ratio: self.restart_ratio.or(base.restart_ratio),
            scale_factor: self.scale_factor.or(base.scale_factor),
            filter,
            filter_cutoff: self.filter_cutoff.or(base.filter_cutoff.filter(|_| filter.is_some())),
            attention: self.attention.map_or(base.attention, Into::into),
            no_frequency_mixing: self.no_lfm || base.no_frequency_mixing,
            no_structure_guidance: self.no_sg || base.no_structure_guidance,
            jitter: match (self.jitter, self.no_jitter) {
                (true, _) => Some(true),
                (_, true) => Some(false),
                _ => base.jitter,
            },
            max_sequence_length: self.max_sequence_length.or(base.max_sequence_length),
            ..base
        }
    }
}

#[derive(Debug, ClapArgs)]
pub struct PlanArgs {
    #[command(flatten)]
    pub request: RequestArgs,
    #[command(flatten)]
    pub device: DeviceArgs,
}

impl RequestArgs {
    /// The sampler and whether its schedule is Karras', which the sampler's name may say too.
    pub fn sampler(&self) -> SamplerChoice {
        let named = self.sampling_method.unwrap_or_default();
        let karras = named.karras || self.scheduler == Some(SchedulerArg::Karras);
        SamplerChoice { karras, ..named }
    }
}

#[derive(Debug, ClapArgs)]
pub struct MetadataArgs {
    /// A PNG file, of any program.
    pub file: PathBuf,
}

#[derive(Debug, ClapArgs)]
pub struct VerifyArgs {
    /// Fixture folders, each with cases/ and, where they need it, model/.
    #[arg(required = true)]
    pub folders: Vec<PathBuf>,
    #[command(flatten)]
    pub device: DeviceArgs,
}

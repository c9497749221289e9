//! What may be typed behind `bench` and `tune`.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};

use super::args::{DeviceArgs, RequestArgs};

#[derive(Debug, ClapArgs)]
#[command(args_conflicts_with_subcommands = true)]
pub struct BenchArgs {
    #[command(subcommand)]
    pub whole: Option<BenchCommand>,
    /// Only cases whose kernel/name contains this, or one of these with commas between.
    #[arg(default_value = "")]
    pub filter: String,
    /// Name the cases and stop.
    #[arg(long)]
    pub list: bool,
    /// Also write a JSON object per case, one a line.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    /// Also show how many times as fast each case is as in this file of --json.
    #[arg(long, value_name = "FILE")]
    pub compare: Option<PathBuf>,
    /// Also time each case with the shaders of this folder, by turns, and show how many times as fast they are; may be
    /// given more than once.
    ///
    /// The folder is laid out as shaders/ in the source; files that it lacks are the program's own.
    #[arg(long, value_name = "FOLDER")]
    pub against: Vec<PathBuf>,
    /// Seconds to time each case for.
    #[arg(long, default_value_t = 1.0, value_parser = seconds)]
    pub seconds: f64,
    /// Skip cases whose single call is estimated to take longer.
    #[arg(long, value_name = "SECONDS", default_value_t = 2.0, value_parser = seconds)]
    pub max_seconds: f64,
    #[command(flatten)]
    pub device: DeviceArgs,
}

#[derive(Debug, ClapArgs)]
pub struct TuneArgs {
    /// Seconds to time each tile for.
    #[arg(long, default_value_t = 0.5, value_parser = seconds)]
    pub seconds: f64,
    /// Where a call is estimated to take longer, a smaller one stands for it.
    #[arg(long, value_name = "SECONDS", default_value_t = 0.5, value_parser = seconds)]
    pub max_seconds: f64,
    #[command(flatten)]
    pub device: DeviceArgs,
}

/// What is timed beside single kernels.
#[derive(Debug, Subcommand)]
pub enum BenchCommand {
    /// Make a picture with each kind of attention in the later stages, and time steps, decoder and encoder.
    ///
    /// Without --attention: npa, multidiffusion and full, one after the other.
    Cascade(BenchCascadeArgs),
    /// Time from the start of the process to its first dispatch and steps, with the driver's cache of compiled shaders
    /// empty and then filled (drivers of Mesa and NVIDIA).
    Startup(BenchStartupArgs),
}

#[derive(Debug, ClapArgs)]
pub struct BenchCascadeArgs {
    #[command(flatten)]
    pub request: RequestArgs,
    /// Also write a JSON object per kind of attention, one a line.
    #[arg(long, value_name = "FILE")]
    pub json: Option<PathBuf>,
    #[command(flatten)]
    pub device: DeviceArgs,
}

#[derive(Debug, ClapArgs)]
pub struct BenchStartupArgs {
    #[command(flatten)]
    pub request: RequestArgs,
    /// Print a JSON object for each run instead.
    #[arg(long)]
    pub json: bool,
    /// Be the run that is timed.
    #[arg(long, hide = true)]
    pub marks: bool,
    #[command(flatten)]
    pub device: DeviceArgs,
}

fn seconds(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(value) if value > 0.0 && value <= 1e6 => Ok(value),
        _ => Err("expected a number of seconds above 0".into()),
    }
}

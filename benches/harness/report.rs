//! One line per case on the terminal, and one JSON object per line in a file.

use std::fs::File;
use std::io::Write;

use scalediff::error::{Error, Result};
use scalediff::gpu::Gpu;
use serde_json::json;

use super::args::Args;
use super::peak::Peak;
use super::timer::Times;

pub struct Report {
    peak: Peak,
    adapter: String,
    driver: String,
    json: Option<File>,
}

/// What is known of a case beside its times.
pub struct Row<'a> {
    pub kernel: &'a str,
    pub case: &'a str,
    /// The variant of the op that does most of the work.
    pub variant: &'a str,
    pub flops: f64,
    /// Every operand once.
    pub bytes: f64,
    /// Against the reference, on sampled outputs.
    pub error: f64,
}

impl Report {
    pub fn new(args: &Args, gpu: &Gpu, peak: Peak) -> Result<Self> {
        let facts = gpu.facts();
        println!("{} ({}, {})", facts.name, facts.backend, facts.driver);
        println!(
            "{} activations; peak {:.1} GFLOP/s f32, copy {:.1} GB/s\n",
            args.dtype,
            peak.flops / 1e9,
            peak.bytes / 1e9
        );
        println!(
            "{:<42} {:>10} {:>6} {:>9} {:>6} {:>8} {:>6} {:>8}",
            "case", "median ms", "±", "GFLOP/s", "peak", "GB/s", "copy", "error"
        );
        let create = |path: &String| {
            File::create(path)
                .map_err(|e| Error::usage(format!("{path}: cannot be written")).with_source(e))
        };
        Ok(Self {
            peak,
            adapter: facts.name.clone(),
            driver: facts.driver.clone(),
            json: args.json.as_ref().map(create).transpose()?,
        })
    }

    pub fn row(&mut self, row: &Row, times: &Times) -> Result<()> {
        let t = times.median();
        let (flops, bytes) = (row.flops / t, row.bytes / t);
        println!(
            "{:<42} {:>10.3} {:>5.1}% {:>9.2} {:>5.1}% {:>8.2} {:>5.1}% {:>8.1e}",
            format!("{}/{}", row.kernel, row.case),
            t * 1e3,
            100.0 * times.spread(),
            flops / 1e9,
            100.0 * flops / self.peak.flops,
            bytes / 1e9,
            100.0 * bytes / self.peak.bytes,
            row.error
        );
        let Some(file) = &mut self.json else { return Ok(()) };
        let line = json!({
            "kernel": row.kernel, "case": row.case, "variant": row.variant,
            "seconds": t, "spread": times.spread(), "best": times.best(), "repeats": times.count(),
            "flops": row.flops, "bytes": row.bytes, "error": row.error,
            "peak_flops": self.peak.flops, "peak_bytes": self.peak.bytes,
            "adapter": self.adapter, "driver": self.driver, "version": env!("CARGO_PKG_VERSION"),
        });
        writeln!(file, "{line}")
            .map_err(|e| Error::usage("--json: cannot be written").with_source(e))
    }
}

//! How results are shown: one line per case for people, one JSON object per case for programs.

use serde_json::json;

use super::compare::Earlier;
use super::peak::Peak;
use super::timer::{Source, Times};
use crate::gpu::Gpu;
use crate::tensor::DType;

/// A case that was verified and timed.
#[derive(Debug, Clone)]
pub struct Measured {
    /// `kernel/name`.
    pub id: String,
    /// The variant of the op that does most of the work.
    pub variant: String,
    pub dtype: DType,
    pub times: Times,
    /// f32 operations per second that the device reached in multiply-adds timed by turns with the case, where it was asked to.
    pub peak_flops: Option<f64>,
    /// Two per multiply-add; 0 where bytes dominate.
    pub flops: f64,
    /// Every operand once.
    pub bytes: f64,
    /// Against the reference on sampled outputs, relative to |wanted| + root mean square.
    pub error: f64,
}

/// What came of a case.
#[derive(Debug, Clone)]
pub enum Outcome {
    Measured(Measured),
    /// Too slow or too large for this device.
    Skipped {
        id: String,
        why: String,
    },
    /// Wrong, or the device failed.
    Failed {
        id: String,
        why: String,
    },
}

impl Outcome {
    /// The median of a call's times, where it was right.
    pub fn seconds(&self) -> Option<f64> {
        match self {
            Outcome::Measured(m) => Some(m.times.median()),
            Outcome::Skipped { .. } | Outcome::Failed { .. } => None,
        }
    }
}

/// Shows outcomes against a device's peaks, and against an earlier run or other shaders where there are any.
#[derive(Debug)]
pub struct Report {
    /// Names of the other shaders, whose outcomes follow a case's own.
    others: Vec<String>,
    peak: Peak,
    dtype: DType,
    adapter: String,
    backend: String,
    driver: String,
    earlier: Option<Earlier>,
}

impl Report {
    pub fn new(
        gpu: &Gpu,
        peak: Peak,
        dtype: DType,
        earlier: Option<Earlier>,
        others: Vec<String>,
    ) -> Self {
        let facts = gpu.facts();
        Self {
            peak,
            dtype,
            adapter: facts.name.clone(),
            backend: facts.backend.to_string(),
            driver: facts.driver.clone(),
            earlier,
            others,
        }
    }

    /// The device, its peaks, and the names of the columns.
    pub fn head(&self) -> String {
        let units = match self.peak.units {
            Some(flops) => format!(", matrix units {:.1} GFLOP/s f16", flops / 1e9),
            None => String::new(),
        };
        let mut text = format!(
            "{} ({}, {})\n{} storage; peak {:.1} GFLOP/s f32{units}, copy {:.1} GB/s; host {:.1} µs a launch\n\n",
            self.adapter,
            self.backend,
            self.driver,
            self.dtype,
            self.peak.flops / 1e9,
            self.peak.bytes / 1e9,
            self.peak.launch * 1e6
        );
        text += &format!(
            "{:<42} {:>10} {:>6} {:>6} {:>9} {:>6} {:>8} {:>6} {:>8}",
            "case", "median ms", "±", "clock", "GFLOP/s", "peak", "GB/s", "copy", "error"
        );
        if self.earlier.is_some() {
            text += &format!(" {:>8}", "speedup");
        }
        for name in &self.others {
            text += &format!(" {name:>8}");
        }
        text
    }

    /// A case's outcome, and how many times as fast it is with each of the other shaders.
    pub fn line(&self, outcome: &Outcome, others: &[Outcome]) -> String {
        let m = match outcome {
            Outcome::Measured(m) => m,
            Outcome::Skipped { id, why } => return format!("{id:<42} skipped: {why}"),
            Outcome::Failed { id, why } => return format!("{id:<42} FAILED: {why}"),
        };
        let t = m.times.median();
        let (flops, bytes) = (m.flops / t, m.bytes / t);
        let mut line = format!(
            "{:<42} {:>10.3} {:>5.1}% {:>6} {:>9.2} {:>5.1}% {:>8.2} {:>5.1}% {:>8.1e}",
            m.id,
            t * 1e3,
            100.0 * m.times.spread(),
            source_name(m.times.source),
            flops / 1e9,
            100.0 * flops / self.peak.flops_of(&m.variant, m.peak_flops),
            bytes / 1e9,
            100.0 * bytes / self.peak.bytes,
            m.error
        );
        if let Some(earlier) = &self.earlier {
            line += &match earlier.speedup(m) {
                Some(ratio) => format!(" {ratio:>7.2}x"),
                None => format!(" {:>8}", "new"),
            };
        }
        for (name, other) in self.others.iter().zip(others) {
            let width = name.chars().count().max(8);
            line += &match speed(m, other) {
                Some(ratio) => format!(" {:>width$}", format!("{ratio:.2}x")),
                None => format!(" {:>width$}", "FAILED"),
            };
        }
        for (name, other) in self.others.iter().zip(others) {
            if let Outcome::Failed { why, .. } | Outcome::Skipped { why, .. } = other {
                line += &format!("\n    {name}: {why}");
            }
        }
        line
    }

    /// The same as a JSON object on one line; `--compare` reads the case's own seconds again.
    pub fn json(&self, outcome: &Outcome, others: &[Outcome]) -> String {
        let device = json!({
            "adapter": self.adapter, "backend": self.backend, "driver": self.driver,
            "version": env!("CARGO_PKG_VERSION"),
            "peak_flops": self.peak.flops, "peak_units": self.peak.units, "peak_bytes": self.peak.bytes,
            "host_launch": self.peak.launch,
        });
        match outcome {
            Outcome::Measured(m) => json!({
                "case": m.id, "status": "measured", "variant": m.variant,
                "type": m.dtype.to_string(), "clock": source_name(m.times.source),
                "seconds": m.times.median(), "host_seconds": m.times.host,
                "spread": m.times.spread(), "best": m.times.best(), "repeats": m.times.count(),
                "flops": m.flops, "bytes": m.bytes, "error": m.error, "device": device,
                "peak_flops_meanwhile": m.peak_flops,
                "against": self.others.iter().cloned().zip(others.iter().map(|o| json!({
                    "seconds": o.seconds(), "speed": speed(m, o),
                }))).collect::<serde_json::Map<_, _>>(),
            }),
            Outcome::Skipped { id, why } => {
                json!({ "case": id, "status": "skipped", "why": why, "device": device })
            }
            Outcome::Failed { id, why } => {
                json!({ "case": id, "status": "failed", "why": why, "device": device })
            }
        }
        .to_string()
    }
}

/// How many times as fast as `own` the same case is.
pub fn speed(own: &Measured, other: &Outcome) -> Option<f64> {
    other.seconds().map(|seconds| own.times.median() / seconds)
}

fn source_name(source: Source) -> &'static str {
    match source {
        Source::Device => "device",
        Source::Host => "host",
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub fn measured(id: &str, seconds: f64) -> Measured {
        Measured {
            id: id.to_string(),
            variant: "matmul[y:f32]".to_string(),
            dtype: DType::F16,
            times: Times::once(seconds),
            peak_flops: None,
            flops: 2e9,
            bytes: 1e6,
            error: 3e-4,
        }
    }

    pub fn report(earlier: Option<Earlier>) -> Report {
        Report {
            peak: Peak { flops: 4e9, chains: 8, units: None, bytes: 1e9, launch: 1e-6 },
            dtype: DType::F16,
            adapter: "a device".into(),
            backend: "Vulkan".into(),
            driver: "a driver".into(),
            earlier,
            others: Vec::new(),
        }
    }

    #[test]
    fn lines_say_time_and_shares_of_the_peaks() {
        let line = report(None).line(&Outcome::Measured(measured("matmul/a", 1.0)), &[]);
        let words: Vec<&str> = line.split_whitespace().collect();
        let want =
            ["matmul/a", "1000.000", "0.0%", "host", "2.00", "50.0%", "0.00", "0.1%", "3.0e-4"];
        assert_eq!(words, want);
        let skipped = Outcome::Skipped { id: "matmul/b".into(), why: "about 9.0 s a call".into() };
        assert!(report(None).line(&skipped, &[]).ends_with("skipped: about 9.0 s a call"));
        let columns = |text: &str| text.lines().last().map_or(0, |l| l.chars().count());
        assert_eq!(columns(&report(None).head()), line.chars().count());
    }

    #[test]
    fn other_shaders_are_shown_as_ratios() {
        let own = Outcome::Measured(measured("matmul/a", 1.0));
        let others = [
            Outcome::Measured(measured("matmul/a", 0.5)),
            Outcome::Failed { id: "matmul/a".into(), why: "wrong".into() },
        ];
        let report = Report { others: vec!["fast".into(), "wrong one".into()], ..report(None) };
        let line = report.line(&own, &others);
        let (line, why) = line.split_once('\n').unwrap();
        assert!(line.ends_with("    2.00x    FAILED"), "{line}");
        assert_eq!(why, "    wrong one: wrong");
        let columns = |text: &str| text.lines().last().map_or(0, |l| l.chars().count());
        assert_eq!(columns(&report.head()), line.chars().count());
        let value: serde_json::Value = serde_json::from_str(&report.json(&own, &others)).unwrap();
        assert_eq!(value["against"]["fast"]["speed"], 2.0);
        assert!(value["against"]["wrong one"]["speed"].is_null());
    }

    #[test]
    fn json_is_one_line_that_reads_back() {
        let outcome = Outcome::Measured(measured("matmul/a", 0.5));
        let line = report(None).json(&outcome, &[]);
        assert!(!line.contains('\n'));
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        assert_eq!(
            (value["case"].as_str(), value["seconds"].as_f64()),
            (Some("matmul/a"), Some(0.5))
        );
        assert_eq!(value["device"]["adapter"], "a device");
    }
}

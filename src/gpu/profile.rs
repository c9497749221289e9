//! Time per kernel and per layer, for finding what to make faster.

use std::collections::BTreeMap;
use std::fmt;

use super::timestamps::Clock;

/// Sums of time and work by kernel variant and by layer.
#[derive(Debug)]
pub struct Profile {
    clock: Clock,
    kernels: BTreeMap<String, Row>,
    layers: BTreeMap<String, Row>,
    /// Pieces whose stamps the driver left out.
    missing: u64,
    /// Seconds on the host's clock.
    wall: f64,
}

#[derive(Debug, Default)]
struct Row {
    calls: u64,
    seconds: f64,
    flops: f64,
    bytes: f64,
}

/// Layers listed in the report.
const LAYERS: usize = 30;

impl Profile {
    pub(crate) fn new(clock: Clock) -> Self {
        Self { clock, kernels: BTreeMap::new(), layers: BTreeMap::new(), missing: 0, wall: 0.0 }
    }

    /// Adds a piece of work of the kernel variant `kernel` in the layer `layer`.
    pub(crate) fn add(
        &mut self,
        kernel: &str,
        layer: &str,
        seconds: Option<f64>,
        flops: f64,
        bytes: f64,
    ) {
        let Some(seconds) = seconds else {
            self.missing += 1;
            return;
        };
        for (rows, key) in [(&mut self.kernels, kernel), (&mut self.layers, layer)] {
            let row = rows.entry(key.to_string()).or_default();
            row.calls += 1;
            row.seconds += seconds;
            row.flops += flops;
            row.bytes += bytes;
        }
    }

    /// Adds time of the host's clock that passed while plans ran.
    pub(crate) fn add_wall(&mut self, seconds: f64) {
        self.wall += seconds;
    }

    /// Pieces whose stamps the driver left out.
    pub(crate) fn missing(&self) -> u64 {
        self.missing
    }

    /// Seconds of all pieces.
    pub fn seconds(&self) -> f64 {
        self.kernels.values().map(|r| r.seconds).sum()
    }
}

/// Two tables, the slowest first.
impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.seconds();
        let clock = match self.clock {
            Clock::InPass => "the device's clock, stamps inside passes",
            Clock::PassEnds => "the device's clock, a pass for each piece",
            Clock::Host => "the host's clock, each piece waited for",
        };
        writeln!(
            f,
            "{:.1} ms in kernels by {clock}; {:.1} ms in all replays by the host's clock",
            total * 1e3,
            self.wall * 1e3
        )?;
        if self.missing > 0 {
            writeln!(f, "{} pieces are not counted: their stamps are missing", self.missing)?;
        }
        table(f, "kernel", &self.kernels, usize::MAX, total)?;
        table(f, "layer", &self.layers, LAYERS, total)
    }
}

fn table(
    f: &mut fmt::Formatter<'_>,
    what: &str,
    rows: &BTreeMap<String, Row>,
    most: usize,
    total: f64,
) -> fmt::Result {
    writeln!(
        f,
        "\n{:>9} {:>6} {:>6} {:>9} {:>7}  {what}",
        "ms", "share", "calls", "GFLOP/s", "GB/s"
    )?;
    let mut rows: Vec<_> = rows.iter().collect();
    rows.sort_by(|(_, a), (_, b)| b.seconds.total_cmp(&a.seconds));
    for (label, row) in rows.iter().take(most) {
        let per = |v: f64| v / row.seconds.max(1e-12) / 1e9;
        writeln!(
            f,
            "{:>9.2} {:>5.1}% {:>6} {:>9.1} {:>7.2}  {label}",
            row.seconds * 1e3,
            100.0 * row.seconds / total.max(1e-12),
            row.calls,
            per(row.flops),
            per(row.bytes),
        )?;
    }
    if rows.len() > most {
        let rest: f64 = rows[most..].iter().map(|(_, r)| r.seconds).sum();
        writeln!(
            f,
            "{:>9.2} {:>5.1}%  in {} more",
            rest * 1e3,
            100.0 * rest / total,
            rows.len() - most
        )?;
    }
    Ok(())
}

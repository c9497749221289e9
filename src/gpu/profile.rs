//! Time per kernel and per layer, for finding what to make faster.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// Sums of time and work by kernel variant.
#[derive(Debug, Default)]
pub struct Profile {
    rows: BTreeMap<String, Row>,
}

#[derive(Debug, Default)]
struct Row {
    calls: u64,
    time: Duration,
    flops: u64,
}

impl Profile {
    /// Adds one call.
    pub fn add(&mut self, label: &str, time: Duration, flops: u64) {
        let row = self.rows.entry(label.to_string()).or_default();
        row.calls += 1;
        row.time += time;
        row.flops += flops;
    }
}

/// A table, the slowest first.
impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rows: Vec<_> = self.rows.iter().collect();
        rows.sort_by_key(|(_, r)| std::cmp::Reverse(r.time));
        let total: Duration = self.rows.values().map(|r| r.time).sum();
        writeln!(f, "{:>9} {:>6} {:>6} {:>9}  kernel", "ms", "share", "calls", "GFLOP/s")?;
        for (label, row) in rows {
            let seconds = row.time.as_secs_f64();
            writeln!(
                f,
                "{:>9.2} {:>5.1}% {:>6} {:>9.1}  {label}",
                seconds * 1e3,
                100.0 * seconds / total.as_secs_f64().max(1e-12),
                row.calls,
                row.flops as f64 / seconds.max(1e-12) / 1e9,
            )?;
        }
        writeln!(f, "{:>9.2} total", total.as_secs_f64() * 1e3)
    }
}

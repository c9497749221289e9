//! An earlier run, to compare with.

use std::collections::HashMap;

use serde_json::Value;

use super::report::Measured;
use crate::error::{Error, Result};

/// Median seconds of an earlier run by case and storage type.
#[derive(Debug, Clone, Default)]
pub struct Earlier(HashMap<(String, String), f64>);

impl Earlier {
    /// Reads the JSON lines of `scalediff bench --json`; what was skipped then is left out.
    ///
    /// # Errors
    /// A line that is no such object, named by its number.
    pub fn parse(text: &str) -> Result<Self> {
        let mut times = HashMap::new();
        for (i, line) in text.lines().enumerate().filter(|(_, l)| !l.trim().is_empty()) {
            let bad = |what: &str| {
                Error::usage(format!("line {}: {what}", i + 1))
                    .with_hint("compare with a file that scalediff bench --json wrote")
            };
            let value: Value =
                serde_json::from_str(line).map_err(|e| bad("not JSON").with_source(e))?;
            if value["status"] != "measured" {
                continue;
            }
            let word = |key: &str| value[key].as_str().map(str::to_string);
            let seconds = value["seconds"].as_f64().filter(|s| *s > 0.0 && s.is_finite());
            match (word("case"), word("type"), seconds) {
                (Some(case), Some(dtype), Some(seconds)) => times.insert((case, dtype), seconds),
                _ => return Err(bad("expected case, type and seconds")),
            };
        }
        if times.is_empty() {
            return Err(Error::usage("no measured case to compare with"));
        }
        Ok(Self(times))
    }

    /// How many times as fast the case is now.
    pub fn speedup(&self, now: &Measured) -> Option<f64> {
        let then = self.0.get(&(now.id.clone(), now.dtype.to_string()))?;
        Some(then / now.times.median())
    }
}

/// Sums up the speedups of a run.
#[derive(Debug, Clone, Default)]
pub struct Ratios {
    logs: Vec<f64>,
}

impl Ratios {
    pub fn add(&mut self, ratio: f64) {
        self.logs.push(ratio.ln());
    }

    /// Geometric mean, least and most, of how many; none of no cases.
    pub fn summary(&self) -> Option<String> {
        let n = self.logs.len();
        let mean = (self.logs.iter().sum::<f64>() / n as f64).exp();
        let least = self.logs.iter().copied().reduce(f64::min)?.exp();
        let most = self.logs.iter().copied().reduce(f64::max)?.exp();
        Some(format!(
            "{n} cases: {mean:.2}x as fast on (geometric) average, {least:.2}x to {most:.2}x"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::super::report::{Outcome, tests::measured, tests::report};
    use super::*;

    #[test]
    fn what_a_run_wrote_is_compared_by_case_and_type() {
        let outcomes = [
            Outcome::Measured(measured("matmul/a", 2.0)),
            Outcome::Skipped { id: "matmul/b".into(), why: "slow".into() },
        ];
        let text: Vec<String> = outcomes.iter().map(|o| report(None).json(o, &[])).collect();
        let earlier = Earlier::parse(&(text.join("\n") + "\n")).unwrap();
        assert_eq!(earlier.speedup(&measured("matmul/a", 0.5)), Some(4.0));
        assert_eq!(earlier.speedup(&measured("matmul/b", 0.5)), None);
        let f32 = Measured { dtype: crate::tensor::DType::F32, ..measured("matmul/a", 0.5) };
        assert_eq!(earlier.speedup(&f32), None);
        let with = report(Some(earlier));
        assert!(
            with.line(&Outcome::Measured(measured("matmul/a", 0.5)), &[]).ends_with("   4.00x")
        );
        assert!(
            with.line(&Outcome::Measured(measured("matmul/c", 0.5)), &[]).ends_with("     new")
        );
    }

    #[test]
    fn what_is_no_run_is_refused_by_line() {
        for bad in ["x", "{\"status\":\"measured\"}", "[1]\n{}", ""] {
            assert!(Earlier::parse(bad).is_err(), "{bad}");
        }
        let error = Earlier::parse("\n{\"status\":\"skipped\"}\nnot json").unwrap_err();
        assert!(error.to_string().contains("line 3"), "{error}");
    }

    #[test]
    fn ratios_are_averaged_as_ratios() {
        let mut ratios = Ratios::default();
        assert_eq!(ratios.summary(), None);
        [0.5, 2.0, 4.0, 0.25].into_iter().for_each(|r| ratios.add(r));
        let want = "4 cases: 1.00x as fast on (geometric) average, 0.25x to 4.00x";
        assert_eq!(ratios.summary().as_deref(), Some(want));
    }
}

//! Bad inputs, made systematically: each must end in a clear error or in a right result, in bounded time and
//! memory, without a panic.
//!
//! Most are judged in this process and before any device is opened; flags are judged as a person types them.

mod flags;
mod latents;
mod model;
mod pictures;
mod prompts;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use scalediff::{ErrorKind, Result};

/// Far above what any input takes, even beside other tests on a slow machine.
const LIMIT: Duration = Duration::from_secs(20);
/// The most that this process may ever hold: other tests' threads, mapped files and caches included.
const MEMORY_BYTES: u64 = 1 << 30;

/// What became of some inputs.
#[derive(Default)]
struct Judge {
    refused: usize,
    accepted: usize,
    wrong: Vec<String>,
}

impl Judge {
    /// Runs one input, which may be refused or accepted.
    fn any<T>(&mut self, what: &str, run: impl FnOnce() -> Result<T>) {
        let start = Instant::now();
        let outcome = catch_unwind(AssertUnwindSafe(run));
        let time = start.elapsed();
        if time > LIMIT {
            self.wrong.push(format!("{what}: took {time:?}"));
        }
        match outcome {
            Err(_) => self.wrong.push(format!("{what}: panicked")),
            Ok(Ok(_)) => self.accepted += 1,
            Ok(Err(error)) => {
                self.refused += 1;
                let text = format!("{error:?}");
                if error.kind() == ErrorKind::Internal || error.to_string().trim().is_empty() {
                    self.wrong.push(format!("{what}: {text}"));
                }
                if text.len() > 4000 {
                    self.wrong.push(format!("{what}: an error of {} bytes", text.len()));
                }
            }
        }
    }

    /// Runs one input that must be refused with a message that names `says`.
    fn refused<T>(&mut self, what: &str, says: &str, run: impl FnOnce() -> Result<T>) {
        let mut message = String::new();
        self.any(what, || run().inspect_err(|error| message = format!("{error:?}")));
        if !message.contains(says) {
            self.wrong.push(format!("{what}: should say {says:?}, says {message:?}"));
        }
    }

    /// Runs one input that must be accepted.
    fn right<T>(&mut self, what: &str, run: impl FnOnce() -> Result<T>) {
        let mut message = None;
        self.any(what, || run().inspect_err(|error| message = Some(format!("{error:?}"))));
        if let Some(message) = message {
            self.wrong.push(format!("{what}: should be right, says {message}"));
        }
    }

    /// Ends a group of inputs, of which there must have been at least so many.
    fn verdict(self, group: &str, at_least: usize) {
        let Self { refused, accepted, wrong } = self;
        println!("{group}: {} inputs, {refused} refused, {accepted} right", refused + accepted);
        assert!(wrong.is_empty(), "{group}: {} wrong:\n{}", wrong.len(), wrong.join("\n"));
        assert!(refused + accepted >= at_least, "{group}: {refused} + {accepted} inputs");
        assert!(peak_bytes() < MEMORY_BYTES, "{group}: {} MiB", peak_bytes() >> 20);
    }
}

/// The most memory that this process has held, where the system says.
fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = peak.and_then(|text| text.trim().trim_end_matches(" kB").parse::<u64>().ok());
    kib.unwrap_or(0) << 10
}

/// A folder of a test's own, empty.
fn folder(name: &str) -> PathBuf {
    let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("bad-{name}"));
    let _ = std::fs::remove_dir_all(&path);
    std::fs::create_dir_all(&path).expect("a temporary folder");
    path
}

//! Timing whole cascades: what each kind of attention costs, per step and in all.

use std::time::Instant;

use serde_json::json;

use super::timer::median;
use crate::error::Result;
use crate::pipeline::{Pipeline, Request};
use crate::scalediff::{Event, Progress, StageAttention};

/// A stage, as the clock on the wall saw it.
#[derive(Debug, Clone, PartialEq)]
pub struct StageTime {
    /// Pixels.
    pub width: u32,
    /// Pixels.
    pub height: u32,
    /// Seconds of every step but the stage's first, which may also compile; of that one where there is no other.
    pub steps: Vec<f64>,
    /// Seconds from the stage's first step to its last.
    pub sampling: f64,
    /// Seconds from the smaller picture to its latents; none for the first stage.
    pub encoding: f64,
    /// Seconds from latents to the picture.
    pub decoding: f64,
}

impl StageTime {
    /// Median seconds of a step.
    pub fn step(&self) -> f64 {
        median(self.steps.clone())
    }
}

/// A whole cascade.
#[derive(Debug, Clone, PartialEq)]
pub struct CascadeTime {
    pub attention: StageAttention,
    pub stages: Vec<StageTime>,
    /// Seconds from the request to the last picture, with loading.
    pub whole: f64,
    /// Operations of all of it.
    pub flops: u64,
}

/// Makes the picture of `request` and times its stages.
///
/// # Errors
/// As [`Pipeline::generate`]; what `progress` returns.
pub fn time_cascade(
    pipeline: &mut Pipeline,
    request: &Request,
    progress: &mut dyn FnMut(Event) -> Result<()>,
) -> Result<CascadeTime> {
    let engine = pipeline.engine().clone();
    let (start, flops) = (Instant::now(), engine.flops_done());
    let mut watch = Stopwatch { progress, stages: Vec::new(), now: Phase::Else, since: start };
    pipeline.generate(request, &mut watch)?;
    watch.enter(Phase::Else);
    Ok(CascadeTime {
        attention: request.attention,
        stages: watch.stages,
        whole: start.elapsed().as_secs_f64(),
        flops: engine.flops_done() - flops,
    })
}

/// What is under way; encoding belongs to the stage that follows.
#[derive(Clone, Copy, PartialEq)]
enum Phase {
    Else,
    Sampling { steps: usize, done: usize },
    Encoding,
    Decoding,
}

struct Stopwatch<'a> {
    progress: &'a mut dyn FnMut(Event) -> Result<()>,
    stages: Vec<StageTime>,
    now: Phase,
    /// When the phase, or its current step, began.
    since: Instant,
}

impl Stopwatch<'_> {
    /// Ends the phase under way.
    fn enter(&mut self, next: Phase) {
        let seconds = self.since.elapsed().as_secs_f64();
        self.since = Instant::now();
        let stage = self.stages.last_mut();
        match (self.now, stage) {
            (Phase::Decoding, Some(stage)) => stage.decoding += seconds,
            (Phase::Sampling { .. }, Some(stage)) => stage.sampling += seconds,
            _ => {}
        }
        self.now = next;
    }

    fn sampled(&mut self, share: f64) {
        let Phase::Sampling { steps, done } = self.now else { return };
        // Shares of whole steps arrive at their end.
        let reached = (share * steps as f64 + 1e-6) as usize;
        if reached == done {
            return;
        }
        let seconds = self.since.elapsed().as_secs_f64();
        self.since = Instant::now();
        if let Some(stage) = self.stages.last_mut() {
            stage.sampling += seconds;
            if done <= 1 {
                stage.steps.clear();
            }
            stage.steps.push(seconds);
        }
        self.now = Phase::Sampling { steps, done: reached };
    }
}

impl Progress for Stopwatch<'_> {
    fn event(&mut self, event: Event) -> Result<()> {
        match event {
            Event::Stage { width, height, steps, .. } => {
                let encoding = match self.now {
                    Phase::Encoding => self.since.elapsed().as_secs_f64(),
                    _ => 0.0,
                };
                self.enter(Phase::Sampling { steps, done: 0 });
                let (steps, sampling, decoding) = (Vec::new(), 0.0, 0.0);
                self.stages.push(StageTime { width, height, steps, sampling, encoding, decoding });
            }
            Event::Sampling(share) => self.sampled(share),
            _ => {}
        }
        (self.progress)(event)
    }

    fn latents(&mut self, _: u32, _: &crate::scalediff::Latents) -> Result<()> {
        self.enter(Phase::Decoding);
        Ok(())
    }

    fn stage(&mut self, _: &crate::scalediff::StageResult) -> Result<()> {
        self.enter(Phase::Encoding);
        Ok(())
    }
}

impl CascadeTime {
    /// A line for every stage, each set against the same stage of `npa`.
    pub fn lines(&self, npa: Option<&CascadeTime>) -> Vec<String> {
        let stage = |(i, s): (usize, &StageTime)| {
            let ratio = npa.and_then(|n| n.stages.get(i)).map(|n| s.step() / n.step());
            format!(
                "{:<16} {:>5}×{:<5} {:>12.4} {:>8} {:>12.2} {:>10.2} {:>10.2}",
                self.name(),
                s.width,
                s.height,
                s.step(),
                ratio.map_or_else(String::new, |r| format!("{r:.2}")),
                s.sampling,
                s.encoding,
                s.decoding
            )
        };
        self.stages.iter().enumerate().map(stage).collect()
    }

    /// The names of the columns of [`CascadeTime::lines`].
    pub fn head() -> String {
        format!(
            "{:<16} {:>11} {:>12} {:>8} {:>12} {:>10} {:>10}",
            "attention", "stage", "step s", "to npa", "sampling s", "encode s", "decode s"
        )
    }

    /// As `--attention` takes it.
    pub fn name(&self) -> String {
        let name = serde_json::to_value(self.attention).ok();
        name.and_then(|n| n.as_str().map(str::to_string)).unwrap_or_default()
    }

    /// One JSON object on one line.
    pub fn json(&self) -> String {
        let stage = |s: &StageTime| {
            json!({
                "width": s.width, "height": s.height, "step": s.step(), "steps": s.steps,
                "sampling": s.sampling, "encoding": s.encoding, "decoding": s.decoding,
            })
        };
        let stages: Vec<_> = self.stages.iter().map(stage).collect();
        json!({
            "attention": self.name(), "stages": stages, "seconds": self.whole, "flops": self.flops,
        })
        .to_string()
    }
}

//! A bar per stage with the time left on a terminal, plain lines elsewhere.

use std::io::IsTerminal;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressStyle};

use crate::scalediff::Event;

/// Follows the events of a cascade.
pub struct Progress {
    terminal: bool,
    bar: Option<ProgressBar>,
    stage: String,
    stage_start: Instant,
    phase: Phase,
}

/// What is under way.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Loading,
    Prompt,
    Encoding,
    Sampling,
    Decoding,
}

impl Phase {
    fn label(self) -> &'static str {
        match self {
            Phase::Loading => "",
            Phase::Prompt => "encoding",
            Phase::Encoding => "encoding",
            Phase::Sampling => "sampling",
            Phase::Decoding => "decoding",
        }
    }
}

impl Progress {
    pub fn new() -> Self {
        Self {
            terminal: std::io::stderr().is_terminal(),
            bar: None,
            stage: String::new(),
            stage_start: Instant::now(),
            phase: Phase::Sampling,
        }
    }

    /// Shows an event.
    pub fn show(&mut self, event: Event) {
        match event {
            Event::Stage { stage, width, height, steps } => {
                let made = if steps == 0 { "resumed".into() } else { format!("{steps} steps") };
                self.stage = format!("stage {stage} ({width}×{height}, {made})");
                self.stage_start = Instant::now();
                self.begin(Phase::Sampling);
            }
            Event::Loading(what) => {
                self.stage = format!("loading the {what}");
                self.begin(Phase::Loading);
            }
            Event::Prompt(share) => {
                if self.phase != Phase::Prompt {
                    self.stage = "prompt".into();
                }
                self.advance(Phase::Prompt, share);
            }
            Event::Encoding(share) => self.advance(Phase::Encoding, share),
            Event::Sampling(share) => self.advance(Phase::Sampling, share),
            Event::Decoding(share) => self.advance(Phase::Decoding, share),
        }
    }

    /// Ends the last stage.
    pub fn finish(&mut self) {
        self.end_bar();
    }

    fn begin(&mut self, phase: Phase) {
        self.end_bar();
        self.phase = phase;
        if self.terminal {
            let style = ProgressStyle::with_template(
                "{msg} [{bar:30}] {percent:>3}% {elapsed}, {eta} left",
            );
            let bar = ProgressBar::new(1000);
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar.set_message(format!("{} {}", self.stage, phase.label()));
            bar.enable_steady_tick(Duration::from_millis(200));
            self.bar = Some(bar);
        }
    }

    fn advance(&mut self, phase: Phase, share: f64) {
        if phase != self.phase || (self.terminal && self.bar.is_none()) {
            if phase == Phase::Encoding {
                self.stage = "next stage".into();
            }
            self.begin(phase);
        }
        if let Some(bar) = &self.bar {
            bar.set_position((share * 1000.0) as u64);
        } else if share >= 1.0 && phase == Phase::Decoding {
            errln!("{}: {:.1} s", self.stage, self.stage_start.elapsed().as_secs_f64());
        }
    }

    fn end_bar(&mut self) {
        if let Some(bar) = self.bar.take() {
            bar.finish();
        }
    }
}

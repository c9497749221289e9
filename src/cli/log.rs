//! Log lines on standard error.

use log::{LevelFilter, Log, Metadata, Record};

struct Stderr;

impl Log for Stderr {
    fn enabled(&self, metadata: &Metadata) -> bool {
        // The graphics stack below us logs much that is of no use to a user.
        metadata.target().starts_with("scalediff") || metadata.level() <= log::Level::Error
    }

    fn log(&self, record: &Record) {
        if self.enabled(record.metadata()) {
            errln!("{}: {}", record.level().as_str().to_lowercase(), record.args());
        }
    }

    fn flush(&self) {}
}

/// Warnings by default; `verbose` times more.
pub fn init(verbose: u8) {
    let level = match verbose {
        0 => LevelFilter::Warn,
        1 => LevelFilter::Info,
        _ => LevelFilter::Debug,
    };
    if log::set_logger(&Stderr).is_ok() {
        log::set_max_level(level);
    }
}

//! Recorded cases against the engine: does this machine compute right?
//!
//! A fixture folder holds `model/` (diffusers layout; absent for cases without weights) and
//! `cases/*.safetensors`. A case's metadata names a component, its parameters and a tolerance; tensors
//! `in.*` and `out.*` are its inputs and expected outputs, channels first.

mod case;
mod components;

use std::path::{Path, PathBuf};

pub use case::{Case, Comparison};

use crate::error::{Error, ErrorKind, Result};
use crate::gpu::Engine;
use crate::pipeline::{Model, Precision};
use crate::weights::ModelFiles;

/// The outcome of one case.
#[derive(Debug)]
pub struct Outcome {
    pub name: String,
    pub component: String,
    /// One per expected output, or why the case could not be run.
    pub result: Result<Vec<Comparison>>,
}

impl Outcome {
    /// Whether every output is within tolerance.
    pub fn passed(&self) -> bool {
        matches!(&self.result, Ok(outputs) if outputs.iter().all(Comparison::passed))
    }

    /// Whether the case could not be read or names something unknown.
    pub fn unreadable(&self) -> bool {
        let kind = self.result.as_ref().err().map(Error::kind);
        matches!(kind, Some(ErrorKind::Io | ErrorKind::Model | ErrorKind::Usage))
    }
}

/// Runs every case of a fixture folder, in the order of their names; `report` takes each outcome.
///
/// # Errors
/// A folder without cases.
pub fn verify_folder(
    engine: &Engine,
    folder: &Path,
    precision: Precision,
    report: &mut dyn FnMut(Outcome),
) -> Result<()> {
    let cases = folder.join("cases");
    let read = |e| {
        Error::io(format!("cannot read {}", cases.display()), e)
            .with_hint("a fixture folder holds cases/*.safetensors and, where they need it, model/")
    };
    let mut files: Vec<PathBuf> = std::fs::read_dir(&cases)
        .map_err(read)?
        .filter_map(|entry| entry.ok().map(|e| e.path()))
        .filter(|path| path.extension().is_some_and(|e| e == "safetensors"))
        .collect();
    files.sort();
    if files.is_empty() {
        return Err(Error::usage(format!("{} holds no .safetensors files", cases.display())));
    }
    let model = folder.join("model");
    let model = if model.is_dir() {
        Some(Model::new(engine.clone(), ModelFiles::open(&model)?, precision))
    } else {
        None
    };
    for file in files {
        let name = file.file_stem().map_or_else(String::new, |s| s.to_string_lossy().into_owned());
        let case = Case::read(&file);
        let component = case.as_ref().map_or_else(|_| "?".into(), |c| c.component.clone());
        let result =
            case.and_then(|case| components::run(engine, model.as_ref(), precision, &case));
        report(Outcome { name, component, result });
    }
    Ok(())
}

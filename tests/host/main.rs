//! Null ring: checkpoints, tokenizer, schedule and noise, which run on the CPU alone.
//!
//! `tests/goldens/host` is made by `tools/goldens/host.py` and `text.py` with torch, diffusers, transformers and sentencepiece.

mod checkpoint;
mod noise;
mod sampling;
mod tokenize;

use std::path::{Path, PathBuf};

use scalediff::weights::ModelFiles;
use serde_json::Value;

/// A folder of its own under the system's temporary one, removed at the end of the test.
struct Scratch(PathBuf);

impl Scratch {
    fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("scalediff-{}-{test}", std::process::id()));
        std::fs::create_dir_all(&path).unwrap();
        Self(path)
    }

    fn write(&self, rel: &str, data: impl AsRef<[u8]>) -> &Self {
        let path = self.0.join(rel);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, data).unwrap();
        self
    }

    fn files(&self) -> ModelFiles {
        ModelFiles::open(&self.0).unwrap()
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn golden(name: &str) -> Value {
    let path = goldens().join(name);
    let text = std::fs::read(&path)
        .unwrap_or_else(|e| panic!("{}: {e}; make it with tools/goldens/host.py", path.display()));
    serde_json::from_slice(&text).unwrap()
}

fn goldens() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/goldens/host")
}

fn floats(value: &Value) -> Vec<f32> {
    value.as_array().unwrap().iter().map(|v| v.as_f64().unwrap() as f32).collect()
}

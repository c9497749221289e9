//! Tensors of f32 values with texts beside them, in a safetensors file of our own.

use std::collections::{BTreeMap, HashMap};
use std::path::Path;

use safetensors::tensor::TensorView;

use super::source::{Checkpoint, Dtype};
use crate::error::{Error, Result};
use crate::files;

/// What is read from or goes into one file.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct TensorFile {
    /// Texts by key.
    pub texts: HashMap<String, String>,
    /// Shape, outermost axis first, and values in row-major order, by name.
    pub tensors: BTreeMap<String, (Vec<usize>, Vec<f32>)>,
}

impl TensorFile {
    /// Reads a whole file.
    ///
    /// # Errors
    /// A file that cannot be read, is not safetensors, or holds other than floating point tensors.
    pub fn read(path: &Path) -> Result<Self> {
        let checkpoint = Checkpoint::open_file(path)?;
        let mut file = Self { texts: checkpoint.texts().clone(), tensors: BTreeMap::new() };
        for name in checkpoint.names() {
            let shape = checkpoint.get(name).map(|view| view.shape.to_vec()).unwrap_or_default();
            file.tensors.insert(name.to_owned(), (shape, checkpoint.read_f32(name)?));
        }
        Ok(file)
    }

    /// Writes the file, whole or not at all.
    ///
    /// # Errors
    /// A place that cannot be written, or a full disk.
    pub fn write(&self, path: &Path) -> Result<()> {
        let wrong = |e| Error::internal("the tensors cannot be written").with_source(e);
        let mut views = Vec::new();
        for (name, (shape, values)) in &self.tensors {
            let bytes = bytemuck::cast_slice(values);
            views.push((name, TensorView::new(Dtype::F32, shape.clone(), bytes).map_err(wrong)?));
        }
        let texts = Some(self.texts.clone());
        files::replace(path, &safetensors::serialize(views, texts).map_err(wrong)?)
    }
}

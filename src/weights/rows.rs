//! Single rows of a large table, read from the file when they are asked for.

use std::ops::Range;

use super::source::{Bytes, Dtype, TensorView};
use crate::error::{Error, Result};

/// A table `[rows, width]` that stays in the mapped file, such as a vocabulary's embeddings.
#[derive(Debug, Clone)]
pub struct Rows {
    width: usize,
    /// `None`: only the shape is known, and every row is zero.
    place: Option<Place>,
}

#[derive(Debug, Clone)]
struct Place {
    bytes: Bytes,
    range: Range<usize>,
    dtype: Dtype,
}

impl Rows {
    pub(super) fn new(bytes: Bytes, range: Range<usize>, dtype: Dtype, width: u32) -> Self {
        Self { width: width as usize, place: Some(Place { bytes, range, dtype }) }
    }

    /// For plans: a table of zeros.
    pub(super) fn blank(width: u32) -> Self {
        Self { width: width as usize, place: None }
    }

    /// One row.
    ///
    /// # Errors
    /// A row beyond the table, or an element type that is not a float.
    pub fn row(&self, index: u32) -> Result<Vec<f32>> {
        let Some(place) = &self.place else { return Ok(vec![0.0; self.width]) };
        let bytes = self.width * place.dtype.bitsize() / 8;
        let all = place.bytes.get(place.range.clone()).unwrap_or_default();
        let start = (index as usize).saturating_mul(bytes);
        let data = all.get(start..start.saturating_add(bytes));
        let data =
            data.ok_or_else(|| Error::model(format!("row {index} lies beyond its table")))?;
        TensorView { dtype: place.dtype, shape: &[self.width], data }.to_f32()
    }
}

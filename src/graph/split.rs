//! Cutting an op into chunks whose bindings fit the device's limit.

use std::ops::Range;

use super::record::{Op, Window};
use crate::error::{Error, ErrorKind, Result};
use crate::tensor::Tensor;

/// Chunks start at multiples of this many rows or columns, so that windows of every row size start
/// at multiples of 256 bytes, the coarsest alignment of bindings.
const STEP: u32 = 64;

/// A part of an op's work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    pub rows: Range<u32>,
    pub cols: Range<u32>,
    /// For each operand the bound rows: aligned down from what the window asks for.
    pub bound: Vec<Range<u32>>,
}

impl Chunk {
    /// The first bound row of an operand.
    pub fn first(&self, operand: usize) -> u32 {
        self.bound[operand].start
    }

    /// Rows of work.
    pub fn row_count(&self) -> u32 {
        self.rows.end - self.rows.start
    }

    /// Columns of work.
    pub fn col_count(&self) -> u32 {
        self.cols.end - self.cols.start
    }
}

/// Cuts `op` so that no binding exceeds `binding_bytes`: rows first, columns for weights.
///
/// # Errors
/// [`ErrorKind::OutOfMemory`] when the smallest chunk still exceeds the limit.
pub fn split(op: &Op, binding_bytes: u64) -> Result<Vec<Chunk>> {
    let mut row_step = op.rows.max(1);
    let mut col_step = op.cols.max(1);
    loop {
        let chunks = cut(op, row_step, col_step);
        let Some((operand, bytes)) = first_too_large(op, &chunks, binding_bytes) else {
            return Ok(chunks);
        };
        let (step, extent) = match op.operands[operand].window {
            Window::Cols { .. } => (&mut col_step, op.cols),
            Window::Rows | Window::Map(_) => (&mut row_step, op.rows),
            Window::Whole => return Err(too_large(op, operand, bytes, binding_bytes)),
        };
        if *step <= STEP || extent <= STEP {
            return Err(too_large(op, operand, bytes, binding_bytes));
        }
        *step = (*step / 2).next_multiple_of(STEP).min(step.saturating_sub(1) / STEP * STEP);
    }
}

fn too_large(op: &Op, operand: usize, bytes: u64, limit: u64) -> Error {
    Error::new(
        ErrorKind::OutOfMemory,
        format!(
            "{}: operand {operand} needs a binding of {bytes} bytes, the device's binding limit is {limit}",
            op.label
        ),
    )
    .with_hint("make the picture smaller (-W, -H), use --precision f16, or raise --limits binding=")
}

fn cut(op: &Op, row_step: u32, col_step: u32) -> Vec<Chunk> {
    let mut chunks = Vec::new();
    for rows in pieces(op.rows, row_step) {
        for cols in pieces(op.cols, col_step) {
            let bound = op
                .operands
                .iter()
                .map(|o| match o.tensor {
                    None => 0..0,
                    Some(t) => aligned(t, wanted(&o.window, t, &rows, &cols)),
                })
                .collect();
            chunks.push(Chunk { rows: rows.clone(), cols, bound });
        }
    }
    chunks
}

/// `0..extent` in pieces of `step`; one empty piece when there is nothing to cut.
fn pieces(extent: u32, step: u32) -> Vec<Range<u32>> {
    if extent == 0 {
        return vec![0..0];
    }
    (0..extent.div_ceil(step)).map(|i| i * step..((i + 1) * step).min(extent)).collect()
}

fn wanted(window: &Window, tensor: Tensor, rows: &Range<u32>, cols: &Range<u32>) -> Range<u32> {
    let all = tensor.shape.rows();
    let range = match window {
        Window::Whole => 0..all,
        Window::Rows => rows.clone(),
        Window::Map(map) => map(rows),
        // Weights are padded to whole vec4s of output columns.
        Window::Cols { times } => cols.start * times..cols.end.next_multiple_of(4) * times,
    };
    range.start.min(all)..range.end.min(all)
}

/// Moves the start down to the next row that begins at a multiple of 256 bytes.
fn aligned(tensor: Tensor, range: Range<u32>) -> Range<u32> {
    let row = tensor.row_bytes();
    let step = (256 / (1 << row.trailing_zeros().min(8))) as u32;
    range.start / step * step..range.end
}

fn first_too_large(op: &Op, chunks: &[Chunk], limit: u64) -> Option<(usize, u64)> {
    chunks.iter().find_map(|chunk| {
        op.operands.iter().zip(&chunk.bound).enumerate().find_map(|(i, (operand, bound))| {
            let bytes = operand.tensor?.row_bytes() * u64::from(bound.end - bound.start);
            (bytes > limit).then_some((i, bytes))
        })
    })
}

//! Cutting tensors into bands that fit the device's largest buffer, and ops into chunks whose
//! bindings fit its largest binding.

use std::ops::Range;

use super::record::{Graph, Op, Operand, Origin, Window};
use crate::error::{Error, ErrorKind, Result};
use crate::gpu::Limits;
use crate::tensor::Tensor;

/// Chunks and bands start at multiples of this many rows or columns, so that windows of every row
/// size start at multiples of 256 bytes, the coarsest alignment of bindings.
pub const STEP: u32 = 64;

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

/// Rows of one band of `tensor`: all of them for a weight, which lies whole in its slab, and where they fit one
/// buffer of `buffer_bytes`.
///
/// # Errors
/// [`ErrorKind::OutOfMemory`] when not even [`STEP`] rows fit.
pub fn band_rows(tensor: Tensor, origin: Origin, buffer_bytes: u64) -> Result<u32> {
    let rows = tensor.shape.rows().max(1);
    if matches!(origin, Origin::Weight { .. }) || tensor.bytes() <= buffer_bytes {
        return Ok(rows);
    }
    let most = (buffer_bytes / tensor.row_bytes() / u64::from(STEP)) as u32 * STEP;
    if most == 0 {
        return Err(Error::new(
            ErrorKind::OutOfMemory,
            format!(
                "{STEP} rows of a tensor of shape {} take {} bytes, the device's buffer limit is {buffer_bytes}",
                tensor.shape,
                tensor.row_bytes() * u64::from(STEP)
            ),
        )
        .with_hint("make the picture smaller (-W, -H), or raise --limits buffer="));
    }
    Ok(rows.div_ceil(rows.div_ceil(most)).next_multiple_of(STEP))
}

/// Cuts an op of `graph` so that no binding exceeds the limits: rows first, columns for weights; and so that what
/// a chunk writes lies in one band. Reads that cross from band to band are left to be gathered.
///
/// # Errors
/// [`ErrorKind::OutOfMemory`] when the smallest chunk still exceeds a limit.
pub fn split(graph: &Graph, op: &Op, limits: &Limits) -> Result<Vec<Chunk>> {
    let cutter = Cutter::new(graph, op, limits)?;
    let mut row_step = op.rows.max(1);
    let mut col_step = op.cols.max(1);
    loop {
        let chunks = cutter.cut(row_step, col_step);
        let Some(excess) = cutter.first_too_large(&chunks) else {
            return Ok(chunks);
        };
        let (step, extent, least) = match op.operands[excess.operand].window {
            Window::Cols { .. } => (&mut col_step, op.cols, STEP),
            Window::Rows | Window::Map(_) => (&mut row_step, op.rows, op.row_step),
            Window::Whole => return Err(excess.error(op)),
        };
        if *step <= least || extent <= least {
            return Err(excess.error(op));
        }
        *step = (*step / 2).next_multiple_of(least).min(step.saturating_sub(1) / least * least);
    }
}

/// What a chunk needs of an operand beyond a limit.
struct Excess {
    operand: usize,
    /// What the bytes are of.
    what: &'static str,
    bytes: u64,
    limit: (&'static str, u64),
}

impl Excess {
    fn error(&self, op: &Op) -> Error {
        let Self { operand, what, bytes, limit: (name, limit) } = self;
        Error::new(
            ErrorKind::OutOfMemory,
            format!(
                "{}: operand {operand} needs a {what} of {bytes} bytes, the device's {name} limit is {limit}",
                op.label
            ),
        )
        .with_hint(format!(
            "make the picture smaller (-W, -H), use --precision f16, or raise --limits {name}="
        ))
    }
}

/// An op with the band size of each operand, 0 for an absent one.
struct Cutter<'a> {
    op: &'a Op,
    limits: &'a Limits,
    band_rows: Vec<u32>,
}

impl<'a> Cutter<'a> {
    fn new(graph: &Graph, op: &'a Op, limits: &'a Limits) -> Result<Self> {
        let rows = |o: &Operand| {
            o.tensor.map_or(Ok(0), |t| {
                band_rows(t, graph.origin(t), graph.band_bytes(t, limits.buffer_bytes))
            })
        };
        let band_rows = op.operands.iter().map(rows).collect::<Result<_>>();
        Ok(Self { op, limits, band_rows: band_rows.map_err(|e| e.at(&op.label))? })
    }

    fn cut(&self, row_step: u32, col_step: u32) -> Vec<Chunk> {
        let mut chunks = Vec::new();
        for rows in pieces(self.op.rows, row_step) {
            for rows in self.within_bands(rows) {
                for rows in self.away_from_borders(rows) {
                    for cols in pieces(self.op.cols, col_step) {
                        let bound = self.bound(&rows, &cols);
                        chunks.push(Chunk { rows: rows.clone(), cols, bound });
                    }
                }
            }
        }
        chunks
    }

    /// Cuts a range of rows where an operand that is bound by rows changes its band.
    fn within_bands(&self, rows: Range<u32>) -> Vec<Range<u32>> {
        let by_rows =
            self.op.operands.iter().zip(&self.band_rows).filter(|(o, _)| o.window.is_rows());
        let sizes: Vec<u32> = by_rows.map(|(_, size)| *size).filter(|s| *s > 0).collect();
        let mut out = Vec::new();
        let mut start = rows.start;
        while start < rows.end {
            let next = sizes.iter().map(|s| (start / s + 1).saturating_mul(*s)).min();
            let end = next.unwrap_or(rows.end).min(rows.end);
            out.push(start..end);
            start = end;
        }
        if out.is_empty() { vec![rows] } else { out }
    }

    /// Halves a range whose windows cross from band to band until only what lies at the border still
    /// does: those pieces have to be gathered, and should be small.
    fn away_from_borders(&self, rows: Range<u32>) -> Vec<Range<u32>> {
        let half = (rows.start + (rows.end - rows.start) / 2).next_multiple_of(STEP);
        if half >= rows.end || half <= rows.start || self.gathered(&rows) == 0 {
            return vec![rows];
        }
        let (first, second) = (rows.start..half, half..rows.end);
        // Not where both halves need nearly the whole window: patches of one row of blocks do.
        if 2 * (self.mapped(&first) + self.mapped(&second)) > 3 * self.mapped(&rows) {
            return vec![rows];
        }
        [self.away_from_borders(first), self.away_from_borders(second)].concat()
    }

    /// Operand rows that windows of `rows` ask for.
    fn mapped(&self, rows: &Range<u32>) -> u64 {
        self.windows(rows).map(|(_, r)| u64::from(r.end - r.start)).sum()
    }

    /// Those of them that lie in more than one band.
    fn gathered(&self, rows: &Range<u32>) -> u64 {
        let crossing = self.windows(rows).filter(|(size, r)| crosses(r, *size));
        crossing.map(|(_, r)| u64::from(r.end - r.start)).sum()
    }

    /// Band size and rows of every operand with a window of its own.
    fn windows<'b>(&'b self, rows: &'b Range<u32>) -> impl Iterator<Item = (u32, Range<u32>)> + 'b {
        self.op.operands.iter().zip(&self.band_rows).filter_map(move |(o, size)| {
            let tensor = o.tensor?;
            matches!(o.window, Window::Map(_))
                .then(|| (*size, aligned(tensor, wanted(&o.window, tensor, rows, &(0..0)))))
        })
    }

    fn bound(&self, rows: &Range<u32>, cols: &Range<u32>) -> Vec<Range<u32>> {
        let of = |o: &Operand| match o.tensor {
            None => 0..0,
            Some(t) => aligned(t, wanted(&o.window, t, rows, cols)),
        };
        self.op.operands.iter().map(of).collect()
    }

    /// The first operand of a chunk that exceeds a limit.
    fn first_too_large(&self, chunks: &[Chunk]) -> Option<Excess> {
        let Limits { binding_bytes, buffer_bytes, .. } = *self.limits;
        chunks.iter().find_map(|chunk| {
            let operands = self.op.operands.iter().zip(&chunk.bound).zip(&self.band_rows);
            operands.enumerate().find_map(|(operand, ((o, bound), size))| {
                let tensor = o.tensor?;
                let bytes = tensor.row_bytes() * u64::from(bound.end - bound.start);
                let crosses = crosses(bound, *size);
                if crosses && o.writes {
                    // Only one buffer would hold what is written at once.
                    let (bytes, limit) = (tensor.bytes(), ("buffer", buffer_bytes));
                    return Some(Excess { operand, what: "buffer", bytes, limit });
                }
                // What crosses is gathered into a buffer of its own.
                let limit = match crosses && buffer_bytes < binding_bytes {
                    true => ("buffer", buffer_bytes),
                    false => ("binding", binding_bytes),
                };
                (bytes > limit.1).then_some(Excess { operand, what: "binding", bytes, limit })
            })
        })
    }
}

/// Whether a range of rows lies in more than one band of `size` rows.
pub(super) fn crosses(rows: &Range<u32>, size: u32) -> bool {
    size > 0 && !rows.is_empty() && rows.start / size != (rows.end - 1) / size
}

/// `0..extent` in pieces of `step`; one empty piece when there is nothing to cut.
fn pieces(extent: u32, step: u32) -> Vec<Range<u32>> {
    if extent == 0 {
        return std::iter::once(0..0).collect();
    }
    (0..extent.div_ceil(step)).map(|i| i * step..((i + 1) * step).min(extent)).collect()
}

/// Rows of an operand that a chunk of the work touches.
pub(super) fn wanted(
    window: &Window,
    tensor: Tensor,
    rows: &Range<u32>,
    cols: &Range<u32>,
) -> Range<u32> {
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

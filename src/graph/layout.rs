//! Where every tensor of a graph lies and how every op is cut: all of a plan that needs no device.

use std::ops::Range;

use super::liveness::{Lifetime, assign};
use super::record::{Graph, Origin};
use super::schedule::{Turn, schedule};
use super::split::{Chunk, band_rows, crosses, split};
use crate::error::Result;
use crate::gpu::Limits;
use crate::tensor::Tensor;

/// Buffers, places and chunks of a graph under some limits.
pub struct Layout {
    /// Activation buffers: those shared over time first, then those of inputs and outputs.
    pub buffers: Vec<BufferSpec>,
    /// For every tensor where it lies.
    pub places: Vec<Place>,
    /// For every op the chunks it is cut into.
    pub chunks: Vec<Vec<Chunk>>,
    /// The order in which they run.
    pub turns: Vec<Turn>,
    /// Bytes of the buffers that windows crossing from band to band are gathered in, by operand.
    pub scratch: Vec<u64>,
    /// For every weight that the graph reads the end of its bytes in its slab.
    weight_ends: Vec<u64>,
    /// Bytes of the activations that are alive at the fullest turn: no plan can need less.
    pub live_bytes: u64,
}

/// A buffer to allocate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BufferSpec {
    /// The tensor that comes to lie there first.
    pub label: String,
    pub bytes: u64,
}

/// Where a tensor lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// No op touches it.
    Nowhere,
    /// In bands of so many rows, each at the start of the buffer listed for it.
    Bands { rows: u32, buffers: Vec<usize> },
    /// In a slab of weights.
    Weight { slab: u32, offset: u64 },
}

/// A range of bytes in one buffer that rows of a tensor lie in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Piece {
    pub source: Source,
    pub offset: u64,
    pub bytes: u64,
}

/// An index into [`Layout::buffers`], or a slab of weights.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Source {
    Buffer(usize),
    Slab(u32),
}

impl Layout {
    /// Lays out `graph` under `limits`.
    ///
    /// # Errors
    /// A limit that no cut can meet.
    pub fn new(graph: &Graph, limits: &Limits) -> Result<Self> {
        let chunks =
            graph.ops.iter().map(|op| split(graph, op, limits)).collect::<Result<Vec<_>>>()?;
        let turns = schedule(graph, &chunks);
        let mut layout = Self {
            turns,
            buffers: Vec::new(),
            places: vec![Place::Nowhere; graph.tensors.len()],
            chunks,
            scratch: Vec::new(),
            weight_ends: Vec::new(),
            live_bytes: 0,
        };
        layout.place(graph, limits)?;
        layout.reserve_scratch(graph);
        Ok(layout)
    }

    /// Bytes of all buffers but the weights'.
    pub fn buffer_bytes(&self) -> u64 {
        self.buffers.iter().map(|b| b.bytes).sum::<u64>() + self.scratch.iter().sum::<u64>()
    }

    /// Bytes of the largest buffer, those of weights counted as far as the graph reads them.
    pub fn largest_buffer(&self) -> u64 {
        let own = self.buffers.iter().map(|b| b.bytes).chain(self.scratch.iter().copied());
        own.chain(self.weight_ends.iter().copied()).max().unwrap_or(0)
    }

    /// Tensors that lie in several bands.
    pub fn banded(&self) -> usize {
        let several = |p: &&Place| matches!(p, Place::Bands { buffers, .. } if buffers.len() > 1);
        self.places.iter().filter(several).count()
    }

    /// The pieces that `rows` of a tensor lie in, in order.
    pub fn pieces(&self, tensor: Tensor, rows: &Range<u32>) -> Vec<Piece> {
        let row = tensor.row_bytes();
        let piece = |source, rows: Range<u32>, offset: u64| Piece {
            source,
            offset,
            bytes: row * u64::from(rows.end - rows.start),
        };
        match &self.places[tensor.id as usize] {
            Place::Nowhere => Vec::new(),
            _ if rows.is_empty() => Vec::new(),
            Place::Weight { slab, offset } => {
                let offset = offset + row * u64::from(rows.start);
                vec![piece(Source::Slab(*slab), rows.clone(), offset)]
            }
            Place::Bands { rows: size, buffers } => {
                let bands = rows.start / size..=(rows.end - 1) / size;
                let of = |band: u32| {
                    let first = band * size;
                    let part = rows.start.max(first)..rows.end.min(first.saturating_add(*size));
                    let offset = row * u64::from(part.start - first);
                    piece(Source::Buffer(buffers[band as usize]), part, offset)
                };
                bands.map(of).collect()
            }
        }
    }

    /// Whether the rows bound by a chunk have to be gathered first.
    pub fn is_gathered(&self, tensor: Tensor, rows: &Range<u32>) -> bool {
        match &self.places[tensor.id as usize] {
            Place::Bands { rows: size, .. } => crosses(rows, *size),
            _ => false,
        }
    }

    fn place(&mut self, graph: &Graph, limits: &Limits) -> Result<()> {
        let bands_of = |tensor: Tensor, name: &str| -> Result<(u32, Vec<u64>)> {
            let limit = graph.band_bytes(tensor, limits.buffer_bytes);
            let size = band_rows(tensor, graph.origin(tensor), limit).map_err(|e| e.at(name))?;
            let rows = tensor.shape.rows();
            let starts = (0..rows.div_ceil(size)).map(|b| b * size);
            let bytes = starts.map(|s| u64::from(size.min(rows - s)) * tensor.row_bytes());
            Ok((size, bytes.collect()))
        };
        let mut bands = vec![(1, Vec::new()); graph.tensors.len()];
        let mut spans: Vec<Vec<Option<(usize, usize)>>> = vec![Vec::new(); graph.tensors.len()];
        for (tensor, origin, name) in &graph.tensors {
            if *origin == Origin::Planned {
                let of = bands_of(*tensor, name)?;
                spans[tensor.id as usize] = vec![None; of.1.len()];
                bands[tensor.id as usize] = of;
            }
        }
        for (now, turn) in self.turns.iter().enumerate() {
            let bound = &self.chunks[turn.op][turn.chunk].bound;
            for (operand, rows) in graph.ops[turn.op].operands.iter().zip(bound) {
                let Some(tensor) = operand.tensor.filter(|_| !rows.is_empty()) else { continue };
                let size = bands[tensor.id as usize].0;
                let touched = (rows.start / size) as usize..=((rows.end - 1) / size) as usize;
                for span in spans[tensor.id as usize].get_mut(touched).into_iter().flatten() {
                    *span = Some((span.map_or(now, |s| s.0), now));
                }
            }
        }

        let mut shared = Vec::new();
        let mut owners = Vec::new();
        for (tensor, origin, _) in &graph.tensors {
            let spans = &spans[tensor.id as usize];
            if *origin == Origin::Planned && spans.iter().any(Option::is_some) {
                let (rows, bytes) = std::mem::take(&mut bands[tensor.id as usize]);
                self.places[tensor.id as usize] = Place::Bands { rows, buffers: Vec::new() };
                for (bytes, span) in bytes.into_iter().zip(spans) {
                    // A band that nothing touches takes any buffer.
                    let (first, last, bytes) = span.map_or((0, 0, 0), |(a, b)| (a, b, bytes));
                    shared.push(Lifetime { first, last, bytes });
                    owners.push(tensor.id as usize);
                }
            }
        }
        let (slots, sizes) = assign(&shared);
        self.buffers =
            sizes.iter().map(|bytes| BufferSpec { label: String::new(), bytes: *bytes }).collect();
        for (slot, owner) in slots.iter().zip(&owners) {
            if let Place::Bands { buffers, .. } = &mut self.places[*owner] {
                buffers.push(*slot);
            }
            if self.buffers[*slot].label.is_empty() {
                self.buffers[*slot].label = graph.tensors[*owner].2.clone();
            }
        }
        self.live_bytes = most_alive(&shared, self.turns.len());

        for (tensor, origin, name) in &graph.tensors {
            self.places[tensor.id as usize] = match origin {
                Origin::Planned => continue,
                Origin::Weight { slab, offset } => {
                    self.weight_ends.push(offset + tensor.bytes());
                    Place::Weight { slab: *slab, offset: *offset }
                }
                Origin::Input | Origin::Output => {
                    let (rows, bytes) = bands_of(*tensor, name)?;
                    let first = self.buffers.len();
                    self.live_bytes += tensor.bytes();
                    let specs = bytes.iter().map(|b| BufferSpec { label: name.clone(), bytes: *b });
                    self.buffers.extend(specs);
                    Place::Bands { rows, buffers: (first..self.buffers.len()).collect() }
                }
            };
        }
        Ok(())
    }

    fn reserve_scratch(&mut self, graph: &Graph) {
        let mut scratch: Vec<u64> = Vec::new();
        for (op, chunks) in graph.ops.iter().zip(&self.chunks) {
            for chunk in chunks {
                for (i, (operand, bound)) in op.operands.iter().zip(&chunk.bound).enumerate() {
                    let Some(tensor) = operand.tensor else { continue };
                    if self.is_gathered(tensor, bound) {
                        let bytes = tensor.row_bytes() * u64::from(bound.end - bound.start);
                        scratch.resize(scratch.len().max(i + 1), 0);
                        scratch[i] = bytes.max(scratch[i]);
                    }
                }
            }
        }
        self.scratch = scratch;
    }
}

/// The largest sum of bytes of lifetimes that share a turn.
fn most_alive(lifetimes: &[Lifetime], turns: usize) -> u64 {
    let mut begins = vec![0u64; turns + 1];
    let mut ends = vec![0u64; turns + 1];
    for l in lifetimes {
        begins[l.first] += l.bytes;
        ends[l.last + 1] += l.bytes;
    }
    let (mut alive, mut most) = (0, 0);
    for (begin, end) in begins.iter().zip(&ends) {
        alive = alive + begin - end;
        most = alive.max(most);
    }
    most
}

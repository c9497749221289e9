//! From recorded ops to buffers, bind groups and dispatches on a device.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use super::layout::{Layout, Piece, Source};
use super::record::{Graph, Op};
use super::replay::Pulse;
use super::rows::{decode_rows, encode_rows};
use super::schedule::Turn;
use super::split::Chunk;
use crate::error::{Error, Result};
use crate::gpu::{DeviceTensor, Gpu, Pipeline, Slabs, Storage};
use crate::shader::Access;
use crate::tensor::Tensor;

/// A range of bytes of a buffer.
#[derive(Clone)]
pub(super) struct BufferRange {
    pub buffer: Storage,
    pub offset: u64,
    pub bytes: u64,
}

/// Rows that a dispatch needs copied before it, to bring them together: they lie in different bands.
pub(super) struct Gather {
    pub from: BufferRange,
    pub to: Storage,
    pub at: u64,
}

/// One chunk of an op, ready to encode.
pub(super) struct Step {
    pub pipeline: Arc<Pipeline>,
    pub gathers: Vec<Gather>,
    pub bind_group: wgpu::BindGroup,
    pub params: Vec<u8>,
    pub groups: u32,
    pub flops: f64,
    /// Bytes bound.
    pub bytes: f64,
    /// The number of its op.
    pub op: usize,
}

impl Step {
    /// Estimated cost in flops, bytes counted at [`FLOPS_PER_BYTE`].
    pub fn cost(&self) -> f64 {
        self.flops + FLOPS_PER_BYTE * self.bytes
    }
}

/// What a byte moved costs in flops, for estimates of time only.
const FLOPS_PER_BYTE: f64 = 4.0;

/// A compiled graph: buffers, bind groups and dispatches for one device and one set of shapes.
pub struct Plan {
    pub(super) steps: Vec<Step>,
    /// Label and flops of every op.
    pub(super) ops: Vec<(String, u64)>,
    /// For every tensor the ranges it lies in, one per band.
    places: Vec<Vec<BufferRange>>,
    buffer_bytes: u64,
    /// Ops at the front that need not run again before one of the `fixed` inputs is written.
    pub(super) settled: usize,
    fixed: HashSet<u32>,
    /// Whether they have run since.
    pub(super) is_settled: AtomicBool,
}

impl Plan {
    /// Compiles `graph` for `gpu`, with its weights in `slabs`.
    ///
    /// # Errors
    /// A binding, buffer or device limit that no cut can meet, or a shader that does not compile.
    pub fn compile(gpu: &Gpu, graph: &Graph, slabs: &Slabs) -> Result<Self> {
        let layout = Layout::new(graph, &gpu.caps().limits)?;
        gpu.prepare(graph.ops.iter().map(|op| (op.spec, &op.variant)));
        let scope = gpu.device.push_error_scope(wgpu::ErrorFilter::Validation);
        let site = Site::new(gpu, &layout, slabs)?;
        let steps = site.steps(graph)?;
        let place = |(t, _, _): &(Tensor, _, _)| site.ranges(*t, &(0..t.shape.rows()));
        let places = graph.tensors.iter().map(place).collect::<Result<_>>()?;
        if let Some(error) = pollster::block_on(scope.pop()) {
            return Err(Error::internal("the plan does not validate").with_source(error));
        }
        let ops = graph.ops.iter().map(|op| (op.label.clone(), op.flops)).collect();
        Ok(Self {
            steps,
            ops,
            places,
            buffer_bytes: layout.buffer_bytes(),
            settled: graph.settled,
            fixed: graph.fixed.clone(),
            is_settled: AtomicBool::new(false),
        })
    }

    /// Compiles, writes `inputs` and runs: for what is computed a single time.
    ///
    /// # Errors
    /// As [`Plan::compile`] and [`Plan::run`].
    pub fn once(
        gpu: &Gpu,
        graph: &Graph,
        slabs: &Slabs,
        inputs: &[(Tensor, Vec<f32>)],
        pulse: Pulse,
    ) -> Result<Self> {
        let plan = Self::compile(gpu, graph, slabs)?;
        for (tensor, values) in inputs {
            plan.write(gpu, *tensor, values)?;
        }
        plan.run(gpu, pulse)?;
        Ok(plan)
    }

    /// Bytes of all activation buffers.
    pub fn buffer_bytes(&self) -> u64 {
        self.buffer_bytes
    }

    /// Dispatches of the first replay, before time slicing.
    pub fn dispatches(&self) -> usize {
        self.steps.len()
    }

    /// Writes an input: `values` channels-last without padding, converted to the tensor's type.
    pub fn write(&self, gpu: &Gpu, tensor: Tensor, values: &[f32]) -> Result<()> {
        if values.len() as u64 != tensor.shape.elems() {
            return Err(Error::internal(format!(
                "an input of shape {} got {} values",
                tensor.shape,
                values.len()
            )));
        }
        if self.fixed.contains(&tensor.id) {
            self.is_settled.store(false, Ordering::Relaxed);
        }
        let mut bytes = encode_rows(values, tensor.shape.channels, tensor.dtype);
        for range in self.place(tensor)? {
            let rest = bytes.split_off(range.bytes as usize);
            gpu.write(&range.buffer, range.offset, &bytes);
            bytes = rest;
        }
        Ok(())
    }

    /// Reads a tensor that was kept: channels last, without padding.
    pub fn read(&self, gpu: &Gpu, tensor: Tensor) -> Result<Vec<f32>> {
        let mut bytes = Vec::with_capacity(tensor.bytes() as usize);
        for range in self.place(tensor)? {
            bytes.extend(gpu.read(&range.buffer, range.offset, range.bytes)?);
        }
        Ok(decode_rows(&bytes, tensor.shape.channels, tensor.dtype))
    }

    /// Where a kept tensor lies; the buffers outlive the plan.
    pub fn device_tensor(&self, tensor: Tensor) -> Result<DeviceTensor> {
        let bands = self.buffers(tensor)?.into_iter().map(|(b, range)| (b.clone(), range));
        Ok(DeviceTensor { bands: bands.collect(), shape: tensor.shape, dtype: tensor.dtype })
    }

    /// Copies a kept tensor onto another of the same shape and type, on the device.
    pub fn copy(&self, gpu: &Gpu, from: Tensor, to: Tensor) -> Result<()> {
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        for (from, to) in self.place(from)?.iter().zip(self.place(to)?) {
            let (source, target) = (&from.buffer, &to.buffer);
            encoder.copy_buffer_to_buffer(source, from.offset, target, to.offset, from.bytes);
        }
        gpu.queue.submit([encoder.finish()]);
        Ok(())
    }

    fn place(&self, tensor: Tensor) -> Result<&[BufferRange]> {
        match self.places.get(tensor.id as usize).map(Vec::as_slice) {
            None | Some([]) => Err(Error::internal("a tensor without a place in this plan")),
            Some(ranges) => Ok(ranges),
        }
    }

    /// The buffers that a tensor lies in, with the range it takes of each.
    pub(super) fn buffers(&self, tensor: Tensor) -> Result<Vec<(&wgpu::Buffer, Range<u64>)>> {
        let ranges = self.place(tensor)?;
        Ok(ranges.iter().map(|r| (&*r.buffer, r.offset..r.offset + r.bytes)).collect())
    }
}

/// What realises a layout on a device: its buffers, and the weights.
struct Site<'a> {
    gpu: &'a Gpu,
    layout: &'a Layout,
    slabs: &'a Slabs,
    buffers: Vec<Storage>,
    scratch: Vec<Storage>,
    /// Textures by buffer, offset and bytes: many ops read the same tensor.
    texels: RefCell<HashMap<(wgpu::Buffer, u64, u64), wgpu::TextureView>>,
}

impl<'a> Site<'a> {
    fn new(gpu: &'a Gpu, layout: &'a Layout, slabs: &'a Slabs) -> Result<Self> {
        let make = |label: &str, bytes: u64| gpu.buffer(label, bytes);
        let buffers = layout.buffers.iter().map(|b| make(&b.label, b.bytes));
        let scratch = layout.scratch.iter().map(|bytes| make("gathered rows", *bytes));
        Ok(Self {
            gpu,
            layout,
            slabs,
            buffers: buffers.collect::<Result<_>>()?,
            scratch: scratch.collect::<Result<_>>()?,
            texels: RefCell::default(),
        })
    }

    /// The texture that a range is read through.
    fn texels(&self, range: &BufferRange) -> Result<wgpu::TextureView> {
        let key = (wgpu::Buffer::clone(&range.buffer), range.offset, range.bytes);
        if let Some(view) = self.texels.borrow().get(&key) {
            return Ok(view.clone());
        }
        let view = range.buffer.texels(&self.gpu.device, range.offset, range.bytes)?;
        self.texels.borrow_mut().insert(key, view.clone());
        Ok(view)
    }

    fn ranges(&self, tensor: Tensor, rows: &Range<u32>) -> Result<Vec<BufferRange>> {
        let of = |piece: &Piece| {
            let buffer = match piece.source {
                Source::Buffer(i) => self.buffers[i].clone(),
                Source::Slab(slab) => self.slabs.buffer(slab)?.clone(),
            };
            Ok(BufferRange { buffer, offset: piece.offset, bytes: piece.bytes })
        };
        self.layout.pieces(tensor, rows).iter().map(of).collect()
    }

    /// Binds the operands of an op. What it reads through a texture must not lie in a buffer that it writes: wgpu does not see
    /// that they are one.
    fn bind(&self, pipeline: &Pipeline, op: &Op, bound: &[BufferRange]) -> Result<wgpu::BindGroup> {
        let is_written = |range: &BufferRange| {
            op.operands.iter().zip(bound).any(|(o, r)| o.writes && *r.buffer == *range.buffer)
        };
        let views = pipeline.bindings.iter().zip(bound).map(|(binding, range)| {
            if binding.access != Access::ReadTexels {
                return Ok(None);
            }
            if is_written(range) {
                let message =
                    format!("{}: {} lies in a buffer that is written", op.label, binding.name);
                return Err(Error::internal(message));
            }
            self.texels(range).map(Some)
        });
        let views = views.collect::<Result<Vec<_>>>()?;
        let entries: Vec<_> = (0u32..)
            .zip(bound.iter().zip(&views))
            .map(|(binding, (range, view))| wgpu::BindGroupEntry {
                binding,
                resource: match view {
                    Some(view) => wgpu::BindingResource::TextureView(view),
                    None => wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                        buffer: &range.buffer,
                        offset: range.offset,
                        size: wgpu::BufferSize::new(range.bytes),
                    }),
                },
            })
            .collect();
        Ok(self.gpu.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(&op.label),
            layout: &pipeline.layout,
            entries: &entries,
        }))
    }

    /// Makes the step of one chunk, or none where it launches nothing. `gathered` are the rows that the steps
    /// of this op before it brought together for each operand: nothing writes them meanwhile.
    fn step(
        &self,
        pipeline: &Arc<Pipeline>,
        op: &Op,
        chunk: &Chunk,
        gathered: &mut [Range<u32>],
    ) -> Result<Option<Step>> {
        let launch = (op.launch)(chunk);
        if launch.groups == 0 {
            return Ok(None);
        }
        let mut gathers = Vec::new();
        let mut bound = Vec::with_capacity(op.operands.len());
        for (i, (operand, rows)) in op.operands.iter().zip(&chunk.bound).enumerate() {
            let Some(tensor) = operand.tensor else {
                let (buffer, bytes) = (self.gpu.zeros.clone(), self.gpu.zeros.size());
                bound.push(BufferRange { buffer, offset: 0, bytes });
                continue;
            };
            let mut ranges = self.ranges(tensor, rows)?;
            if ranges.len() > 1 {
                let is_new = gathered[i] != *rows;
                gathered[i] = rows.clone();
                let mut whole =
                    BufferRange { buffer: self.scratch[i].clone(), offset: 0, bytes: 0 };
                for range in ranges {
                    let at = whole.bytes;
                    whole.bytes += range.bytes;
                    if is_new {
                        gathers.push(Gather { from: range, to: whole.buffer.clone(), at });
                    }
                }
                ranges = vec![whole];
            }
            let range = ranges
                .pop()
                .ok_or_else(|| Error::internal(format!("{}: unplaced operand", op.label)))?;
            bound.push(range);
        }
        let bind_group = self.bind(pipeline, op, &bound)?;
        let present =
            op.operands.iter().zip(&bound).filter(|(operand, _)| operand.tensor.is_some());
        let bytes: u64 = present.map(|(_, range)| range.bytes).sum();
        Ok(Some(Step {
            pipeline: Arc::clone(pipeline),
            gathers,
            bind_group,
            params: launch.params,
            groups: launch.groups,
            flops: 0.0,
            bytes: bytes as f64,
            op: 0,
        }))
    }

    fn steps(&self, graph: &Graph) -> Result<Vec<Step>> {
        let pipeline_of = |op: &Op| {
            let pipeline = self.gpu.pipeline(op.spec, &op.variant).map_err(|e| e.at(&op.label))?;
            if pipeline.bindings.len() != op.operands.len() {
                return Err(Error::internal(format!(
                    "{}: {} operands for {} bindings",
                    op.label,
                    op.operands.len(),
                    pipeline.bindings.len()
                )));
            }
            Ok(pipeline)
        };
        let pipelines = graph.ops.iter().map(pipeline_of).collect::<Result<Vec<_>>>()?;
        let mut steps = Vec::new();
        let cells: Vec<f64> =
            self.layout.chunks.iter().map(|chunks| chunks.iter().map(work_of).sum()).collect();
        let mut last = None;
        let mut gathered = Vec::new();
        for Turn { op: index, chunk } in &self.layout.turns {
            let op = &graph.ops[*index];
            let chunk = &self.layout.chunks[*index][*chunk];
            let pipeline = &pipelines[*index];
            if last.replace(*index) != Some(*index) {
                gathered = vec![0..0; op.operands.len()];
            }
            if let Some(mut step) = self.step(pipeline, op, chunk, &mut gathered)? {
                step.op = *index;
                step.flops = op.flops as f64 * work_of(chunk) / cells[*index].max(1.0);
                steps.push(step);
            }
        }
        Ok(steps)
    }
}

fn work_of(chunk: &Chunk) -> f64 {
    f64::from(chunk.row_count()) * f64::from(chunk.col_count().max(1))
}

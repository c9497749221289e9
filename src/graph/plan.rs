//! From recorded ops to buffers, bind groups and dispatches; and the loop that replays them.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::layout::{Layout, Piece, Source};
use super::record::{Graph, Op};
use super::split::Chunk;
use crate::error::{Error, Result};
use crate::gpu::{DeviceTensor, Gpu, Pipeline, Profile, Slabs, lock};
use crate::tensor::{DType, Tensor};

/// Called between submissions with the finished share of the replay, 0 to 1; an error stops it.
pub type Pulse<'a> = &'a mut dyn FnMut(f64) -> Result<()>;

/// Seconds of work in one submission: short enough that no watchdog and no desktop notices.
const SUBMIT_SECONDS: f64 = 0.1;

/// A range of bytes of a buffer.
struct BufferRange {
    buffer: wgpu::Buffer,
    offset: u64,
    bytes: u64,
}

/// Rows to bring together before a dispatch, since they lie in different bands.
struct Copy {
    from: BufferRange,
    to: wgpu::Buffer,
    at: u64,
}

/// One chunk of an op, ready to encode.
struct Step {
    pipeline: Arc<Pipeline>,
    copies: Vec<Copy>,
    bind_group: wgpu::BindGroup,
    params: Vec<u8>,
    groups: u32,
    flops: f64,
    /// Estimated cost of the step in flops, bytes counted at [`FLOPS_PER_BYTE`].
    cost: f64,
    op: usize,
}

/// What a byte moved costs in flops, for estimates of time only.
const FLOPS_PER_BYTE: f64 = 4.0;

/// A compiled graph: buffers, bind groups and dispatches for one device and one set of shapes.
pub struct Plan {
    steps: Vec<Step>,
    ops: Vec<(String, u64)>,
    /// For every tensor the ranges it lies in, one per band.
    places: Vec<Vec<BufferRange>>,
    buffer_bytes: u64,
    cost: f64,
}

impl Plan {
    /// Compiles `graph` for `gpu`, with its weights in `slabs`.
    ///
    /// # Errors
    /// A binding, buffer or device limit that no cut can meet, or a shader that does not compile.
    pub fn compile(gpu: &Gpu, graph: &Graph, slabs: &Slabs) -> Result<Self> {
        let layout = Layout::new(graph, &gpu.caps().limits)?;
        let scope = gpu.device.push_error_scope(wgpu::ErrorFilter::Validation);
        let site = Site::new(gpu, &layout, slabs)?;
        let steps = site.steps(graph)?;
        let place = |(t, _, _): &(Tensor, _, _)| site.ranges(*t, &(0..t.shape.rows()));
        let places = graph.tensors.iter().map(place).collect::<Result<_>>()?;
        if let Some(error) = pollster::block_on(scope.pop()) {
            return Err(Error::internal("the plan does not validate").with_source(error));
        }
        let cost = steps.iter().map(|s| s.cost).sum();
        let ops = graph.ops.iter().map(|op| (op.label.clone(), op.flops)).collect();
        Ok(Self { steps, ops, places, buffer_bytes: layout.buffer_bytes(), cost })
    }

    /// Bytes of all activation buffers.
    pub fn buffer_bytes(&self) -> u64 {
        self.buffer_bytes
    }

    /// Dispatches of one replay, before time slicing.
    pub fn dispatches(&self) -> usize {
        self.steps.len()
    }

    /// Floating point operations of one replay.
    pub fn flops(&self) -> u64 {
        self.ops.iter().map(|(_, flops)| flops).sum()
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
        Ok(ranges.iter().map(|r| (&r.buffer, r.offset..r.offset + r.bytes)).collect())
    }

    /// Replays the plan and waits for its end.
    ///
    /// Work goes to the device in submissions of about [`SUBMIT_SECONDS`], measured as it runs, with
    /// two in flight, so that the device never waits for the host and `pulse` can stop it.
    pub fn run(&self, gpu: &Gpu, pulse: Pulse) -> Result<()> {
        gpu.flops_done.fetch_add(self.flops(), Ordering::Relaxed);
        if let Some(profile) = &gpu.profile {
            self.run_profiled(gpu, &mut lock(profile))?;
            return pulse(1.0);
        }
        let mut in_flight: Vec<(wgpu::SubmissionIndex, f64)> = Vec::new();
        let mut finished = 0.0;
        let mut last_end = Instant::now();
        let mut retire = |in_flight: &mut Vec<(wgpu::SubmissionIndex, f64)>| -> Result<()> {
            let (index, cost) = in_flight.remove(0);
            gpu.wait(Some(index))?;
            gpu.governor.observe(cost, last_end.elapsed().as_secs_f64());
            last_end = Instant::now();
            finished += cost;
            pulse((finished / self.cost.max(1.0)).min(1.0))
        };

        let mut batch = Batch::new(gpu);
        for step in &self.steps {
            let per_group = step.cost / f64::from(step.groups.max(1));
            let mut first = 0;
            while first < step.groups {
                let budget = SUBMIT_SECONDS * gpu.governor.rate();
                let room = (((budget - batch.cost) / per_group) as u32).max(1);
                let count = room.min(step.groups - first);
                batch.dispatch(step, first, count);
                batch.cost += per_group * f64::from(count);
                first += count;
                if batch.cost >= budget {
                    let full = std::mem::replace(&mut batch, Batch::new(gpu));
                    in_flight.push(full.submit());
                    if in_flight.len() > 1 {
                        retire(&mut in_flight)?;
                    }
                }
            }
        }
        in_flight.push(batch.submit());
        while !in_flight.is_empty() {
            retire(&mut in_flight)?;
        }
        Ok(())
    }

    /// Replays the plan step by step, waiting after each, and adds the times to `profile`.
    fn run_profiled(&self, gpu: &Gpu, profile: &mut Profile) -> Result<()> {
        for step in &self.steps {
            let start = Instant::now();
            let mut batch = Batch::new(gpu);
            batch.dispatch(step, 0, step.groups);
            let (index, _) = batch.submit();
            gpu.wait(Some(index))?;
            profile.add(&step.pipeline.label, start.elapsed(), step.flops as u64);
        }
        Ok(())
    }
}

/// A command buffer in the making: one compute pass, or more where rows are gathered between them.
struct Batch<'a> {
    gpu: &'a Gpu,
    encoder: wgpu::CommandEncoder,
    pass: Option<wgpu::ComputePass<'static>>,
    cost: f64,
}

impl<'a> Batch<'a> {
    fn new(gpu: &'a Gpu) -> Self {
        let encoder = gpu.device.create_command_encoder(&Default::default());
        Self { gpu, encoder, pass: None, cost: 0.0 }
    }

    /// Encodes `count` groups from `first` on, in grids that fit the limit per axis exactly.
    fn dispatch(&mut self, step: &Step, first: u32, count: u32) {
        if first == 0 && !step.copies.is_empty() {
            self.pass = None;
            for Copy { from, to, at } in &step.copies {
                let BufferRange { buffer, offset, bytes } = from;
                self.encoder.copy_buffer_to_buffer(buffer, *offset, to, *at, *bytes);
            }
        }
        let begin = || self.encoder.begin_compute_pass(&Default::default()).forget_lifetime();
        let pass = self.pass.get_or_insert_with(begin);
        pass.set_pipeline(&step.pipeline.pipeline);
        pass.set_bind_group(0, &step.bind_group, &[]);
        let mut params = step.params.clone();
        let most = self.gpu.caps().limits.groups_per_axis;
        let end = first + count;
        let mut first = first;
        while first < end {
            let x = (end - first).min(most);
            let y = ((end - first) / x).min(most);
            let z = ((end - first) / (x * y)).min(most);
            params[..4].copy_from_slice(&first.to_le_bytes());
            pass.set_immediates(0, &params);
            pass.dispatch_workgroups(x, y, z);
            first += x * y * z;
        }
    }

    fn submit(self) -> (wgpu::SubmissionIndex, f64) {
        drop(self.pass);
        (self.gpu.queue.submit([self.encoder.finish()]), self.cost)
    }
}

/// What realises a layout on a device: its buffers, and the weights.
struct Site<'a> {
    gpu: &'a Gpu,
    layout: &'a Layout,
    slabs: &'a Slabs,
    buffers: Vec<wgpu::Buffer>,
    scratch: Vec<wgpu::Buffer>,
}

impl<'a> Site<'a> {
    fn new(gpu: &'a Gpu, layout: &'a Layout, slabs: &'a Slabs) -> Result<Self> {
        let make = |label: &str, bytes: u64| gpu.buffer(label, bytes);
        let buffers = layout.buffers.iter().map(|b| make(&b.label, b.bytes));
        let scratch = layout.scratch.iter().map(|bytes| make("gathered rows", (*bytes).max(4)));
        Ok(Self {
            gpu,
            layout,
            slabs,
            buffers: buffers.collect::<Result<_>>()?,
            scratch: scratch.collect::<Result<_>>()?,
        })
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

    /// Makes the step of one chunk, or none where it launches nothing.
    fn step(&self, pipeline: &Arc<Pipeline>, op: &Op, chunk: &Chunk) -> Result<Option<Step>> {
        let launch = (op.launch)(chunk);
        if launch.groups == 0 {
            return Ok(None);
        }
        let mut copies = Vec::new();
        let mut bound = Vec::with_capacity(op.operands.len());
        for (i, (operand, rows)) in op.operands.iter().zip(&chunk.bound).enumerate() {
            let Some(tensor) = operand.tensor else {
                bound.push(None);
                continue;
            };
            let mut ranges = self.ranges(tensor, rows)?;
            if ranges.len() > 1 {
                let mut whole =
                    BufferRange { buffer: self.scratch[i].clone(), offset: 0, bytes: 0 };
                for range in ranges {
                    let at = whole.bytes;
                    whole.bytes += range.bytes;
                    copies.push(Copy { from: range, to: whole.buffer.clone(), at });
                }
                ranges = vec![whole];
            }
            let range = ranges
                .pop()
                .ok_or_else(|| Error::internal(format!("{}: unplaced operand", op.label)))?;
            bound.push(Some(range));
        }
        let entries: Vec<_> = (0u32..)
            .zip(&bound)
            .map(|(binding, range)| wgpu::BindGroupEntry {
                binding,
                resource: match range {
                    None => self.gpu.zeros.as_entire_binding(),
                    Some(range) => wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                        buffer: &range.buffer,
                        offset: range.offset,
                        size: wgpu::BufferSize::new(range.bytes),
                    }),
                },
            })
            .collect();
        let bind_group = self.gpu.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(&op.label),
            layout: &pipeline.layout,
            entries: &entries,
        });
        let bytes: u64 = bound.iter().flatten().map(|r| r.bytes).sum();
        Ok(Some(Step {
            pipeline: Arc::clone(pipeline),
            copies,
            bind_group,
            params: launch.params,
            groups: launch.groups,
            flops: 0.0,
            cost: FLOPS_PER_BYTE * bytes as f64,
            op: 0,
        }))
    }

    fn steps(&self, graph: &Graph) -> Result<Vec<Step>> {
        let mut steps = Vec::new();
        for (index, (op, chunks)) in graph.ops.iter().zip(&self.layout.chunks).enumerate() {
            let pipeline = self.gpu.pipeline(op.spec, &op.variant).map_err(|e| e.at(&op.label))?;
            if pipeline.bindings.len() != op.operands.len() {
                return Err(Error::internal(format!(
                    "{}: {} operands for {} bindings",
                    op.label,
                    op.operands.len(),
                    pipeline.bindings.len()
                )));
            }
            let cells: f64 = chunks.iter().map(work_of).sum();
            for chunk in chunks {
                if let Some(mut step) = self.step(&pipeline, op, chunk)? {
                    step.op = index;
                    step.flops = op.flops as f64 * work_of(chunk) / cells.max(1.0);
                    step.cost += step.flops;
                    steps.push(step);
                }
            }
        }
        Ok(steps)
    }
}

fn work_of(chunk: &Chunk) -> f64 {
    f64::from(chunk.row_count()) * f64::from(chunk.col_count().max(1))
}

/// Pads rows to whole vec4s and converts; f16 values are clamped to ±65504.
pub(crate) fn encode_rows(values: &[f32], channels: u32, dtype: DType) -> Vec<u8> {
    let channels = channels as usize;
    let stride = channels.next_multiple_of(4);
    let rows = values.len() / channels.max(1);
    let mut out = vec![0u8; rows * stride * dtype.bytes() as usize];
    for (row, source) in values.chunks_exact(channels.max(1)).enumerate() {
        for (c, v) in source.iter().enumerate() {
            let i = row * stride + c;
            match dtype {
                DType::F32 => out[4 * i..4 * i + 4].copy_from_slice(&v.to_le_bytes()),
                DType::F16 => {
                    let half = half::f16::from_f32(v.clamp(-65504.0, 65504.0));
                    out[2 * i..2 * i + 2].copy_from_slice(&half.to_le_bytes());
                }
            }
        }
    }
    out
}

/// The inverse of [`encode_rows`].
pub(crate) fn decode_rows(bytes: &[u8], channels: u32, dtype: DType) -> Vec<f32> {
    let channels = channels as usize;
    let stride = channels.next_multiple_of(4);
    let row_bytes = stride * dtype.bytes() as usize;
    let mut out = Vec::with_capacity(bytes.len() / row_bytes.max(1) * channels);
    for row in bytes.chunks_exact(row_bytes.max(1)) {
        match dtype {
            DType::F32 => out.extend(
                row.chunks_exact(4)
                    .take(channels)
                    .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])),
            ),
            DType::F16 => out.extend(
                row.chunks_exact(2)
                    .take(channels)
                    .map(|b| half::f16::from_le_bytes([b[0], b[1]]).to_f32()),
            ),
        }
    }
    out
}

//! From recorded ops to buffers, bind groups and dispatches; and the loop that replays them.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use super::liveness::{Lifetime, assign};
use super::record::{Graph, Op, Origin};
use super::split::split;
use crate::error::{Error, Result};
use crate::gpu::{Gpu, Pipeline, Profile, Slabs, lock};
use crate::tensor::{DType, Tensor};

/// Called between submissions with the finished share of the replay, 0 to 1; an error stops it.
pub type Pulse<'a> = &'a mut dyn FnMut(f64) -> Result<()>;

/// Seconds of work in one submission: short enough that no watchdog and no desktop notices.
const SUBMIT_SECONDS: f64 = 0.1;

/// One chunk of an op, ready to encode.
struct Step {
    pipeline: Arc<Pipeline>,
    bind_group: wgpu::BindGroup,
    params: Vec<u8>,
    groups: u32,
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
    /// For every tensor the buffer it lies in and its first byte there.
    places: Vec<Option<(wgpu::Buffer, u64)>>,
    buffer_bytes: u64,
    cost: f64,
}

impl Plan {
    /// Compiles `graph` for `gpu`, with its weights in `slabs`.
    ///
    /// # Errors
    /// A binding, buffer or device limit that no cut can meet, or a shader that does not compile.
    pub fn compile(gpu: &Gpu, graph: &Graph, slabs: &Slabs) -> Result<Self> {
        let scope = gpu.device.push_error_scope(wgpu::ErrorFilter::Validation);
        let (places, buffer_bytes) = place_tensors(gpu, graph, slabs)?;
        let mut steps = Vec::new();
        for (index, op) in graph.ops.iter().enumerate() {
            build_steps(gpu, op, index, &places, &mut steps)?;
        }
        if let Some(error) = pollster::block_on(scope.pop()) {
            return Err(Error::internal("the plan does not validate").with_source(error));
        }
        let cost = steps.iter().map(|s| s.cost).sum();
        let ops = graph.ops.iter().map(|op| (op.label.clone(), op.flops)).collect();
        Ok(Self { steps, ops, places, buffer_bytes, cost })
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
        let (buffer, offset) = self.place(tensor)?;
        gpu.write(buffer, *offset, &encode_rows(values, tensor.shape.channels, tensor.dtype));
        Ok(())
    }

    /// Reads a tensor that was kept: channels last, without padding.
    pub fn read(&self, gpu: &Gpu, tensor: Tensor) -> Result<Vec<f32>> {
        let (buffer, offset) = self.place(tensor)?;
        let bytes = gpu.read(buffer, *offset, tensor.bytes())?;
        Ok(decode_rows(&bytes, tensor.shape.channels, tensor.dtype))
    }

    /// Copies a kept tensor onto another of the same size, on the device.
    pub fn copy(&self, gpu: &Gpu, from: Tensor, to: Tensor) -> Result<()> {
        let (source, from_offset) = self.place(from)?;
        let (target, to_offset) = self.place(to)?;
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        encoder.copy_buffer_to_buffer(source, *from_offset, target, *to_offset, from.bytes());
        gpu.queue.submit([encoder.finish()]);
        Ok(())
    }

    pub(super) fn place(&self, tensor: Tensor) -> Result<&(wgpu::Buffer, u64)> {
        self.places
            .get(tensor.id as usize)
            .and_then(Option::as_ref)
            .ok_or_else(|| Error::internal("a tensor without a place in this plan"))
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
            let chunks = self.steps.iter().filter(|s| s.op == step.op).count() as u64;
            profile.add(&step.pipeline.label, start.elapsed(), self.ops[step.op].1 / chunks);
        }
        Ok(())
    }
}

/// A command buffer in the making: one compute pass.
struct Batch<'a> {
    gpu: &'a Gpu,
    encoder: wgpu::CommandEncoder,
    pass: wgpu::ComputePass<'static>,
    cost: f64,
}

impl<'a> Batch<'a> {
    fn new(gpu: &'a Gpu) -> Self {
        let mut encoder = gpu.device.create_command_encoder(&Default::default());
        let pass = encoder.begin_compute_pass(&Default::default()).forget_lifetime();
        Self { gpu, encoder, pass, cost: 0.0 }
    }

    /// Encodes `count` groups from `first` on, in grids that fit the limit per axis exactly.
    fn dispatch(&mut self, step: &Step, first: u32, count: u32) {
        self.pass.set_pipeline(&step.pipeline.pipeline);
        self.pass.set_bind_group(0, &step.bind_group, &[]);
        let mut params = step.params.clone();
        let most = self.gpu.caps().limits.groups_per_axis;
        let end = first + count;
        let mut first = first;
        while first < end {
            let x = (end - first).min(most);
            let y = ((end - first) / x).min(most);
            let z = ((end - first) / (x * y)).min(most);
            params[..4].copy_from_slice(&first.to_le_bytes());
            self.pass.set_immediates(0, &params);
            self.pass.dispatch_workgroups(x, y, z);
            first += x * y * z;
        }
    }

    fn submit(self) -> (wgpu::SubmissionIndex, f64) {
        drop(self.pass);
        (self.gpu.queue.submit([self.encoder.finish()]), self.cost)
    }
}

type Places = Vec<Option<(wgpu::Buffer, u64)>>;

/// Gives every tensor of the graph a buffer; returns the bytes allocated.
fn place_tensors(gpu: &Gpu, graph: &Graph, slabs: &Slabs) -> Result<(Places, u64)> {
    let mut spans: Vec<Option<(usize, usize)>> = vec![None; graph.tensors.len()];
    for (i, op) in graph.ops.iter().enumerate() {
        for tensor in op.operands.iter().filter_map(|o| o.tensor) {
            let span = &mut spans[tensor.id as usize];
            *span = Some((span.map_or(i, |s| s.0), i));
        }
    }
    let mut shared = Vec::new();
    let mut owners = Vec::new();
    for (tensor, origin, _) in &graph.tensors {
        if let (Origin::Planned, Some((first, last))) = (origin, spans[tensor.id as usize]) {
            shared.push(Lifetime { first, last, bytes: tensor.bytes() });
            owners.push(tensor.id as usize);
        }
    }
    let (slots, sizes) = assign(&shared);
    let mut label_of = vec!["activations"; sizes.len()];
    for (slot, owner) in slots.iter().zip(&owners).rev() {
        label_of[*slot] = &graph.tensors[*owner].2;
    }
    let buffers = sizes
        .iter()
        .zip(&label_of)
        .map(|(bytes, label)| gpu.buffer(label, *bytes))
        .collect::<Result<Vec<_>>>()?;
    let mut total: u64 = sizes.iter().sum();

    let mut places: Places = vec![None; graph.tensors.len()];
    for (slot, owner) in slots.iter().zip(&owners) {
        places[*owner] = Some((buffers[*slot].clone(), 0));
    }
    for (tensor, origin, name) in &graph.tensors {
        places[tensor.id as usize] = match origin {
            Origin::Planned => continue,
            Origin::Input | Origin::Output => {
                total += tensor.bytes();
                Some((gpu.buffer(name, tensor.bytes())?, 0))
            }
            Origin::Weight { slab, offset } => Some((slabs.buffer(*slab)?.clone(), *offset)),
        };
    }
    Ok((places, total))
}

fn build_steps(
    gpu: &Gpu,
    op: &Op,
    index: usize,
    places: &Places,
    steps: &mut Vec<Step>,
) -> Result<()> {
    let pipeline = gpu.pipeline(op.spec, &op.variant).map_err(|e| e.at(&op.label))?;
    if pipeline.bindings.len() != op.operands.len() {
        return Err(Error::internal(format!(
            "{}: {} operands for {} bindings",
            op.label,
            op.operands.len(),
            pipeline.bindings.len()
        )));
    }
    let chunks = split(op, gpu.caps().limits.binding_bytes)?;
    let cells: f64 = chunks.iter().map(work_of).sum();
    for chunk in &chunks {
        let launch = (op.launch)(chunk);
        if launch.groups == 0 {
            continue;
        }
        let mut bytes = 0.0;
        let mut entries = Vec::with_capacity(op.operands.len());
        for (binding, (operand, bound)) in (0u32..).zip(op.operands.iter().zip(&chunk.bound)) {
            let resource = match operand.tensor {
                None => gpu.zeros.as_entire_binding(),
                Some(tensor) => {
                    let (buffer, offset) =
                        places[tensor.id as usize].as_ref().ok_or_else(|| {
                            Error::internal(format!("{}: unplaced operand", op.label))
                        })?;
                    let size = tensor.row_bytes() * u64::from(bound.end - bound.start);
                    bytes += size as f64;
                    wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                        buffer,
                        offset: offset + tensor.row_bytes() * u64::from(bound.start),
                        size: wgpu::BufferSize::new(size),
                    })
                }
            };
            entries.push(wgpu::BindGroupEntry { binding, resource });
        }
        let bind_group = gpu.device.create_bind_group(&wgpu::BindGroupDescriptor {
            label: Some(&op.label),
            layout: &pipeline.layout,
            entries: &entries,
        });
        let share = work_of(chunk) / cells.max(1.0);
        steps.push(Step {
            pipeline: Arc::clone(&pipeline),
            bind_group,
            params: launch.params,
            groups: launch.groups,
            cost: op.flops as f64 * share + FLOPS_PER_BYTE * bytes,
            op: index,
        });
    }
    Ok(())
}

fn work_of(chunk: &super::split::Chunk) -> f64 {
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

//! The list of operations that a model records.

use std::collections::{HashMap, HashSet};
use std::ops::Range;

use bytemuck::{NoUninit, bytes_of};

use super::split::{Chunk, STEP, wanted};
use crate::error::{Error, Result};
use crate::gpu::Caps;
use crate::shader::{KernelSpec, Variant};
use crate::tensor::{DType, Shape, Tensor};

/// Where a weight lies: a range of one of the slabs that hold a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct WeightRef {
    pub slab: u32,
    pub offset: u64,
    pub shape: Shape,
    pub dtype: DType,
}

/// Where the bytes of a tensor come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// Made by an op; its buffer is shared with tensors that live at other times.
    Planned,
    /// Written by the host; keeps its buffer.
    Input,
    /// Made by an op and read by the host; keeps its buffer.
    Output,
    /// Part of a model.
    Weight { slab: u32, offset: u64 },
}

/// Finds rows of an operand from the chunk's.
pub type RowMap = Box<dyn Fn(&Range<u32>) -> Range<u32>>;

/// Which rows of an operand a chunk of the work touches.
pub enum Window {
    /// All rows, whatever the chunk.
    Whole,
    /// The rows of the chunk itself.
    Rows,
    /// Rows found from the chunk's rows, such as those of a convolution with its halo.
    Map(RowMap),
    /// Weight rows found from the chunk's columns: `times` for each output column.
    Cols { times: u32 },
}

impl Window {
    /// Whether the operand's rows are those of the chunk.
    pub(super) fn is_rows(&self) -> bool {
        matches!(self, Window::Rows)
    }
}

/// One operand in binding order; `None` is an absent one.
pub struct Operand {
    pub tensor: Option<Tensor>,
    pub window: Window,
    pub writes: bool,
}

/// What one chunk dispatches: parameters and a number of workgroups.
pub struct Launch {
    pub(crate) params: Vec<u8>,
    pub(crate) groups: u32,
}

impl Launch {
    /// `params` starts with `first_group`, which the replay fills in.
    pub fn new<P: NoUninit>(params: &P, groups: u32) -> Self {
        Self { params: bytes_of(params).to_vec(), groups }
    }

    /// The bytes of the parameters.
    pub fn params(&self) -> &[u8] {
        &self.params
    }

    /// Workgroups.
    pub fn groups(&self) -> u32 {
        self.groups
    }
}

/// Makes the launch of one chunk.
pub type LaunchFn = Box<dyn Fn(&Chunk) -> Launch>;

/// One recorded kernel call.
pub struct Op {
    /// Path of the layer, then the kernel: `unet.mid_block.resnets.0.norm1/group_norm_apply`.
    pub label: String,
    pub spec: &'static KernelSpec,
    pub variant: Variant,
    pub operands: Vec<Operand>,
    /// Rows of work, cut at multiples of `row_step`.
    pub rows: u32,
    pub row_step: u32,
    /// Columns of work, cut at multiples of 64; 0 for kernels that take all columns at once.
    pub cols: u32,
    /// Two per multiply-add; 0 where bytes dominate.
    pub flops: u64,
    pub launch: LaunchFn,
}

/// How a graph of large tensors does with little memory; see [`Graph::stream`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stream {
    /// Bytes of a band at most.
    pub band_bytes: u64,
    /// Larger tensors should be computed again for each use.
    pub kept_bytes: u64,
}

/// Tensors and the ops that make them, in order.
pub struct Graph {
    caps: Caps,
    pub(crate) tensors: Vec<(Tensor, Origin, String)>,
    pub(crate) ops: Vec<Op>,
    weights: HashMap<WeightRef, Tensor>,
    path: Vec<String>,
    stream: Option<Stream>,
    /// Tensors that some op reads most of at once.
    read_at_once: HashSet<u32>,
    /// Ops at the front that [`Graph::settle`] moved there.
    pub(super) settled: usize,
    /// Numbers of the inputs that those depend on.
    pub(super) fixed: HashSet<u32>,
}

impl Graph {
    /// An empty graph for a device with these facts.
    pub fn new(caps: Caps) -> Self {
        Self {
            caps,
            tensors: Vec::new(),
            ops: Vec::new(),
            weights: HashMap::new(),
            path: Vec::new(),
            stream: None,
            read_at_once: HashSet::new(),
            settled: 0,
            fixed: HashSet::new(),
        }
    }

    /// Lets tensors between ops lie in bands, unless an op reads most of one at once, each alive only from the first to the last chunk
    /// that touches it, and chunks run when they are needed: more dispatches for less memory.
    pub fn stream(&mut self, stream: Stream) {
        self.stream = Some(stream);
    }

    pub(super) fn is_streamed(&self) -> bool {
        self.stream.is_some()
    }

    /// Bytes of the largest tensor that a model should keep rather than compute again.
    pub fn kept_bytes(&self) -> u64 {
        self.stream.map_or(u64::MAX, |s| s.kept_bytes)
    }

    /// Bytes of the largest buffer that a tensor may lie in, of a device whose largest is `buffer_bytes`.
    pub(super) fn band_bytes(&self, tensor: Tensor, buffer_bytes: u64) -> u64 {
        match (self.origin(tensor), self.stream) {
            (Origin::Planned, Some(s)) if !self.read_at_once.contains(&tensor.id) => {
                s.band_bytes.min(buffer_bytes)
            }
            _ => buffer_bytes,
        }
    }

    /// The facts that kernels choose variants from.
    pub fn caps(&self) -> &Caps {
        &self.caps
    }

    /// Records with `name` added to the path of labels and errors.
    pub fn scope<T>(
        &mut self,
        name: impl ToString,
        f: impl FnOnce(&mut Self) -> Result<T>,
    ) -> Result<T> {
        self.path.push(name.to_string());
        let out = f(self);
        self.path.pop();
        out
    }

    /// The current path, for labels and errors.
    pub fn path(&self) -> String {
        self.path.join(".")
    }

    /// An error at the current path.
    pub fn error(&self, message: impl Into<String>) -> Error {
        Error::model(message).at(self.path())
    }

    /// A tensor that the host writes.
    pub fn input(&mut self, name: &str, shape: Shape, dtype: DType) -> Tensor {
        self.push(shape, dtype, Origin::Input, name.to_string())
    }

    /// A tensor that an op will make.
    pub fn tensor(&mut self, shape: Shape, dtype: DType) -> Tensor {
        let name = self.path();
        self.push(shape, dtype, Origin::Planned, name)
    }

    /// The tensor of a weight.
    pub fn weight(&mut self, weight: WeightRef) -> Tensor {
        if let Some(tensor) = self.weights.get(&weight) {
            return *tensor;
        }
        let origin = Origin::Weight { slab: weight.slab, offset: weight.offset };
        let name = self.path();
        let tensor = self.push(weight.shape, weight.dtype, origin, name);
        self.weights.insert(weight, tensor);
        tensor
    }

    /// Keeps a made tensor for the host to read; inputs are kept anyway.
    pub fn output(&mut self, tensor: Tensor) -> Tensor {
        let origin = &mut self.tensors[tensor.id as usize].1;
        if *origin == Origin::Planned {
            *origin = Origin::Output;
        }
        tensor
    }

    /// Moves the ops that depend on nothing but weights and the `fixed` inputs to the front, and keeps what the others read of
    /// theirs: a [`Plan`](super::Plan) runs them again only when such an input was written. For a graph that is recorded and not streamed.
    pub fn settle(&mut self, fixed: impl IntoIterator<Item = Tensor>) {
        self.fixed = fixed.into_iter().map(|tensor| tensor.id).collect();
        let mut writers = vec![0; self.tensors.len()];
        let written = |op: &Op| {
            let tensors = op.operands.iter().filter(|o| o.writes).filter_map(|o| o.tensor);
            tensors.map(|tensor| tensor.id).collect::<Vec<u32>>()
        };
        self.ops.iter().flat_map(written).for_each(|id| writers[id as usize] += 1);
        let mut known = self.fixed.clone();
        let (mut front, rest): (Vec<Op>, Vec<Op>) =
            std::mem::take(&mut self.ops).into_iter().partition(|op| {
                let settled = op.operands.iter().all(|operand| match operand.tensor {
                    None => true,
                    Some(tensor) if operand.writes => writers[tensor.id as usize] == 1,
                    Some(tensor) => {
                        let origin = self.origin(tensor);
                        matches!(origin, Origin::Weight { .. }) || known.contains(&tensor.id)
                    }
                });
                if settled {
                    known.extend(written(op));
                }
                settled
            });
        for tensor in rest.iter().flat_map(|op| &op.operands).filter_map(|o| o.tensor) {
            if known.contains(&tensor.id) {
                self.output(tensor);
            }
        }
        self.settled = front.len();
        front.extend(rest);
        self.ops = front;
    }

    /// Starts recording an op; see [`OpBuilder`].
    pub fn op(&mut self, spec: &'static KernelSpec, variant: Variant) -> OpBuilder<'_> {
        let path = self.path();
        let label =
            if path.is_empty() { spec.name.to_string() } else { format!("{path}/{}", spec.name) };
        OpBuilder {
            op: Op {
                label,
                spec,
                variant,
                operands: Vec::new(),
                rows: 0,
                row_step: STEP,
                cols: 0,
                flops: 0,
                launch: Box::new(|_| Launch { params: Vec::new(), groups: 0 }),
            },
            graph: self,
        }
    }

    /// The recorded ops, in order.
    pub fn ops(&self) -> &[Op] {
        &self.ops
    }

    pub(super) fn origin(&self, tensor: Tensor) -> Origin {
        self.tensors[tensor.id as usize].1
    }

    /// Tensors that are no weights, with the paths that made them.
    pub fn activations(&self) -> impl Iterator<Item = (Tensor, &str)> {
        self.tensors
            .iter()
            .filter(|(_, origin, _)| !matches!(origin, Origin::Weight { .. }))
            .map(|(tensor, _, name)| (*tensor, name.as_str()))
    }

    /// Floating point operations of one replay, without the [settled](Graph::settle) ops.
    pub fn flops(&self) -> u64 {
        self.ops[self.settled..].iter().map(|op| op.flops).sum()
    }

    fn push(&mut self, shape: Shape, dtype: DType, origin: Origin, name: String) -> Tensor {
        let tensor = Tensor { id: self.tensors.len() as u32, shape, dtype };
        self.tensors.push((tensor, origin, name));
        tensor
    }
}

/// Collects the operands of an op in the order of the kernel's `#bind` lines.
pub struct OpBuilder<'a> {
    graph: &'a mut Graph,
    op: Op,
}

impl OpBuilder<'_> {
    /// An operand that is read.
    #[must_use]
    pub fn read(self, tensor: Tensor, window: Window) -> Self {
        self.read_opt(Some(tensor), window)
    }

    /// An operand that may be absent.
    #[must_use]
    pub fn read_opt(mut self, tensor: Option<Tensor>, window: Window) -> Self {
        self.op.operands.push(Operand { tensor, window, writes: false });
        self
    }

    /// An operand that is written.
    #[must_use]
    pub fn write(mut self, tensor: Tensor, window: Window) -> Self {
        self.op.operands.push(Operand { tensor: Some(tensor), window, writes: true });
        self
    }

    /// The extent of the work: what chunks are cut from.
    #[must_use]
    pub fn over(mut self, rows: u32, cols: u32) -> Self {
        self.op.rows = rows;
        self.op.cols = cols;
        self
    }

    /// Lets rows be cut at every `step` of them, which must bring each operand bound by rows to a
    /// multiple of 256 bytes. Default: 64, which always does.
    #[must_use]
    pub fn row_step(mut self, step: u32) -> Self {
        self.op.row_step = step;
        self
    }

    /// Floating point operations of the whole op.
    #[must_use]
    pub fn flops(mut self, flops: u64) -> Self {
        self.op.flops = flops;
        self
    }

    /// Records the op; `launch` gives the parameters and groups of each chunk.
    pub fn launch(mut self, launch: impl Fn(&Chunk) -> Launch + 'static) {
        self.op.launch = Box::new(launch);
        let rows = 0..self.op.rows.min(self.op.row_step);
        for (tensor, window) in self.op.operands.iter().filter_map(|o| Some((o.tensor?, &o.window)))
        {
            let read = wanted(window, tensor, &rows, &(0..self.op.cols.min(STEP)));
            if 2 * read.len() as u64 > u64::from(tensor.shape.rows()) {
                self.graph.read_at_once.insert(tensor.id);
            }
        }
        self.graph.ops.push(self.op);
    }
}

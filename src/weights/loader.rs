//! From tensors of a checkpoint to weights on the device.
//!
//! Names are those of `diffusers`; a module walks them like folders, asks for what it needs by shape,
//! and gets the layout that the kernels read: rows padded to whole vec4s, convolutions with channels
//! last, matrices that one kernel call consumes joined into one.

use std::cell::RefCell;
use std::collections::BTreeSet;

use super::narrow::to_f16;
use super::rows::Rows;
use super::source::{Checkpoint, TensorView};
use crate::error::{Error, Result};
use crate::gpu::{Gpu, Limits, Slabs};
use crate::graph::WeightRef;
use crate::tensor::{DType, Shape};

/// Names that checkpoints carry and no module asks for.
const IGNORED: &[&str] = &["position_ids", "logit_scale", "embed_tokens.weight"];

/// Uploads one checkpoint and keeps account of what was used.
pub struct Loader<'a> {
    source: Source<'a>,
    component: &'a str,
    dtype: DType,
    state: RefCell<State>,
}

/// Where weights come from and go to.
#[derive(Clone, Copy)]
enum Source<'a> {
    Checkpoint(&'a Gpu, &'a Checkpoint),
    /// Only shapes: places are reserved, nothing is read or stored.
    Shapes(&'a Limits),
}

#[derive(Default)]
struct State {
    slabs: Slabs,
    used: BTreeSet<String>,
    /// Tensors kept in f32 since f16 cannot hold them.
    widened: Vec<String>,
}

impl<'a> Loader<'a> {
    /// A loader for `component` (such as `unet`, for messages) that stores matrices as `dtype`.
    pub fn new(gpu: &'a Gpu, checkpoint: &'a Checkpoint, component: &'a str, dtype: DType) -> Self {
        let source = Source::Checkpoint(gpu, checkpoint);
        Self { source, component, dtype, state: RefCell::default() }
    }

    /// A loader without a checkpoint, for planning from configs alone: every weight that is asked for
    /// exists, and only its place under `limits` is reserved.
    pub fn of_shapes(limits: &'a Limits, component: &'a str, dtype: DType) -> Self {
        let source = Source::Shapes(limits);
        Self { source, component, dtype, state: RefCell::default() }
    }

    fn names(&self) -> Box<dyn Iterator<Item = &'a str> + 'a> {
        match self.source {
            Source::Checkpoint(_, checkpoint) => Box::new(checkpoint.names()),
            Source::Shapes(_) => Box::new(std::iter::empty()),
        }
    }

    /// The root of the checkpoint's names.
    pub fn root(&self) -> Weights<'_> {
        Weights { loader: self, path: String::new(), factor: 1.0 }
    }

    /// Ends the upload. Tensors that nothing asked for are logged.
    pub fn finish(self) -> Result<Slabs> {
        let unread: Vec<&str> = self.names().collect();
        let mut state = self.state.into_inner();
        if let Source::Checkpoint(gpu, _) = self.source {
            state.slabs.flush(gpu, self.component)?;
        }
        let ignored = |name: &str| IGNORED.iter().any(|i| name.ends_with(i));
        // Half of an autoencoder may be all that was asked for.
        let head = |name: &str| name.split('.').next().unwrap_or(name).to_string();
        let heads: BTreeSet<String> = state.used.iter().map(|name| head(name)).collect();
        let asked = |name: &str| heads.contains(&head(name));
        let unused: Vec<&str> = unread
            .into_iter()
            .filter(|name| !state.used.contains(*name) && !ignored(name) && asked(name))
            .collect();
        if let Some(first) = unused.first() {
            log::warn!(
                "{}: {} tensors are not used, such as {first}",
                self.component,
                unused.len()
            );
        }
        if let Some(first) = state.widened.first() {
            log::info!(
                "{}: {} tensors exceed f16 and stay f32, such as {first}",
                self.component,
                state.widened.len()
            );
        }
        Ok(state.slabs)
    }
}

/// A place in the checkpoint's names.
#[derive(Clone)]
pub struct Weights<'a> {
    loader: &'a Loader<'a>,
    path: String,
    /// What values are multiplied by on their way to the device.
    factor: f32,
}

impl<'a> Weights<'a> {
    /// One step down: `w.at("resnets").at(0)`.
    #[must_use]
    pub fn at(&self, name: impl ToString) -> Weights<'a> {
        let name = name.to_string();
        let path = match (self.path.as_str(), name.as_str()) {
            (path, "") => path.to_string(),
            ("", name) => name.to_string(),
            (path, name) => format!("{path}.{name}"),
        };
        Weights { path, ..*self }
    }

    /// The same place, from which matrices and vectors are loaded times `factor`; several that are joined take the first
    /// one's. A power of two rounds only what becomes subnormal in f16.
    #[must_use]
    pub fn times(&self, factor: f32) -> Weights<'a> {
        Weights { path: self.path.clone(), factor: self.factor * factor, ..*self }
    }

    /// What matrices are stored in, where they fit.
    pub fn dtype(&self) -> DType {
        self.loader.dtype
    }

    /// The first of `names` below which tensors exist, for modules with an older spelling.
    #[must_use]
    pub fn at_any(&self, names: &[&str]) -> Weights<'a> {
        let found = names.iter().map(|name| self.at(name)).find(Weights::exists);
        found.unwrap_or_else(|| self.at(names[0]))
    }

    /// Whether any tensor lies at or below this place.
    pub fn exists(&self) -> bool {
        let below = format!("{}.", self.path);
        self.loader.names().any(|n| n == self.path || n.starts_with(&below))
    }

    /// `[n, k]` of a linear layer (a 1×1 convolution is one too).
    pub fn matrix(&self, n: u32, k: u32) -> Result<WeightRef> {
        self.joined(std::slice::from_ref(self), n, k)
    }

    /// Several `[n, k]` matrices with the same input, one above the other: one kernel call serves all.
    pub fn joined(&self, parts: &[Weights<'a>], n: u32, k: u32) -> Result<WeightRef> {
        self.push(parts.len() as u32 * n, 1, k, || {
            let mut rows = Vec::new();
            for part in parts {
                rows.extend(part.at("weight").values(&[n, k], &[n, k, 1, 1])?);
            }
            Ok(rows)
        })
    }

    /// The columns `from .. from + k` of a matrix `[n, of]`: the weights of one of several inputs that lie
    /// side by side.
    pub fn columns(&self, n: u32, of: u32, from: u32, k: u32) -> Result<WeightRef> {
        self.push(n, 1, k, || {
            let values = self.at("weight").values(&[n, of], &[])?;
            let rows = values.chunks_exact(of as usize);
            Ok(rows.flat_map(|row| &row[from as usize..][..k as usize]).copied().collect())
        })
    }

    /// A gated layer whose values and gates are matrices `[n, k]` of their own; see [`Weights::gated`].
    pub fn gated_parts(values: &Self, gates: &Self, n: u32, k: u32) -> Result<WeightRef> {
        values.push(2 * n.next_multiple_of(4), 1, k, || {
            let mut rows = values.at("weight").values(&[n, k], &[])?;
            rows.extend(gates.at("weight").values(&[n, k], &[])?);
            Ok(interleave(&rows, n as usize, k as usize))
        })
    }

    /// The `[2n, k]` matrix of a gated layer, value rows and gate rows interleaved in blocks of four,
    /// so that whoever owns eight columns of the product owns both sides of four gates.
    pub fn gated(&self, n: u32, k: u32) -> Result<WeightRef> {
        self.push(2 * n.next_multiple_of(4), 1, k, || {
            let values = self.at("weight").values(&[2 * n, k], &[])?;
            Ok(interleave(&values, n as usize, k as usize))
        })
    }

    /// The bias that belongs to [`Weights::gated`].
    pub fn gated_vector(&self, n: u32) -> Result<WeightRef> {
        self.push_vector(2 * n.next_multiple_of(4), || {
            Ok(interleave(&self.values(&[2 * n], &[])?, n as usize, 1))
        })
    }

    /// `[c_out, c_in, size, size]` of a convolution, stored `[c_out][y][x][c_in]`. Only the first
    /// `keep` output channels are loaded.
    pub fn conv(&self, c_out: u32, c_in: u32, size: u32, keep: u32) -> Result<WeightRef> {
        let linear: &[u32] = if size == 1 { &[c_out, c_in] } else { &[] };
        self.push(keep, size * size, c_in, || {
            let values = self.at("weight").values(&[c_out, c_in, size, size], linear)?;
            let (taps, c_in_len) = ((size * size) as usize, c_in as usize);
            let mut rows = Vec::with_capacity(values.len());
            for filter in values.chunks_exact(taps * c_in_len).take(keep as usize) {
                for tap in 0..taps {
                    rows.extend((0..c_in_len).map(|c| filter[c * taps + tap]));
                }
            }
            Ok(rows)
        })
    }

    /// A vector of `n` values at this very name, kept f32. Only the first `keep` are loaded.
    pub fn vector(&self, n: u32, keep: u32) -> Result<WeightRef> {
        self.push_vector(keep, || {
            let mut values = self.values(&[n], &[])?;
            values.truncate(keep as usize);
            Ok(values)
        })
    }

    /// Several vectors of `n` values, one after the other.
    pub fn joined_vector(&self, parts: &[Weights<'a>], n: u32) -> Result<WeightRef> {
        self.push_vector(parts.len() as u32 * n, || {
            let mut all = Vec::new();
            for part in parts {
                all.extend(part.values(&[n], &[])?);
            }
            Ok(all)
        })
    }

    /// The table `[rows, width]` at this name, left in its file.
    ///
    /// # Errors
    /// As [`Weights::values`].
    pub fn rows(&self, rows: u32, width: u32) -> Result<Rows> {
        let Source::Checkpoint(_, checkpoint) = self.loader.source else {
            return Ok(Rows::blank(width));
        };
        self.view(checkpoint, &[rows, width], &[])?;
        checkpoint.rows(&self.path, width).ok_or_else(|| self.missing())
    }

    /// The values of the tensor at this name, for use on the host; zeros where only shapes are known.
    ///
    /// # Errors
    /// A missing tensor (with the nearest names) or another shape than `shape` or `or`.
    pub fn values(&self, shape: &[u32], or: &[u32]) -> Result<Vec<f32>> {
        let Source::Checkpoint(_, checkpoint) = self.loader.source else {
            return Ok(vec![0.0; shape.iter().map(|d| *d as usize).product()]);
        };
        let view = self.view(checkpoint, shape, or)?;
        view.to_f32().map_err(|e| e.at(&self.path).at(self.loader.component))
    }

    /// The tensor at this name, which must have the shape `shape` or `or`.
    fn view<'c>(
        &self,
        checkpoint: &'c Checkpoint,
        shape: &[u32],
        or: &[u32],
    ) -> Result<TensorView<'c>> {
        let view = checkpoint.get(&self.path).ok_or_else(|| self.missing())?;
        let same = |want: &[u32]| {
            view.shape.iter().map(|d| *d as u64).eq(want.iter().map(|d| u64::from(*d)))
        };
        if !same(shape) && (or.is_empty() || !same(or)) {
            return Err(self
                .error(format!("shape is {:?}, expected {shape:?}", view.shape))
                .with_hint("the config and the weights belong to different models"));
        }
        self.loader.state.borrow_mut().used.insert(self.path.clone());
        Ok(view)
    }

    /// An error at this name.
    pub fn error(&self, message: impl Into<String>) -> Error {
        self.locate(Error::model(message))
    }

    fn locate(&self, error: Error) -> Error {
        error.at(format!("{}.{}", self.loader.component, self.path))
    }

    fn missing(&self) -> Error {
        let leaf = self.path.rsplit('.').next().unwrap_or(&self.path);
        let parent = &self.path[..self.path.len() - leaf.len()];
        let near: Vec<&str> =
            self.loader.names().filter(|n| n.starts_with(parent)).take(3).collect();
        let hint = if near.is_empty() {
            "the checkpoint lacks this whole module: is it the file of another model?".to_string()
        } else {
            format!("the checkpoint has {} there", near.join(", "))
        };
        self.error("tensor is missing").with_hint(hint)
    }

    /// Stores `n` rows of `taps × c` values, channels padded to whole vec4s and rows to a multiple of four.
    fn push(
        &self,
        n: u32,
        taps: u32,
        c: u32,
        rows: impl FnOnce() -> Result<Vec<f32>>,
    ) -> Result<WeightRef> {
        let padded = c.next_multiple_of(4);
        let shape = Shape::matrix(n.next_multiple_of(4), taps * padded);
        let mut dtype = self.loader.dtype;
        let gpu = match self.loader.source {
            Source::Checkpoint(gpu, _) => gpu,
            Source::Shapes(limits) => return self.reserve(limits, shape, dtype),
        };
        let rows = rows()?;
        let mut values = vec![0.0f32; shape.elems() as usize];
        for (to, from) in
            values.chunks_exact_mut(padded as usize).zip(rows.chunks_exact(c as usize))
        {
            to.iter_mut().zip(from).for_each(|(to, from)| *to = from * self.factor);
        }
        let bytes = match dtype {
            DType::F32 => bytemuck::cast_slice(&values).to_vec(),
            DType::F16 => {
                let (halves, overflow) = to_f16(&values);
                if overflow.above_max > 0 {
                    dtype = DType::F32;
                    self.loader.state.borrow_mut().widened.push(self.path.clone());
                    bytemuck::cast_slice(&values).to_vec()
                } else {
                    bytemuck::cast_slice(&halves).to_vec()
                }
            }
        };
        self.upload(gpu, &bytes, shape, dtype)
    }

    /// Stores `n` values in f32, padded to whole vec4s.
    fn push_vector(&self, n: u32, values: impl FnOnce() -> Result<Vec<f32>>) -> Result<WeightRef> {
        let shape = Shape::matrix(1, n.next_multiple_of(4));
        let gpu = match self.loader.source {
            Source::Checkpoint(gpu, _) => gpu,
            Source::Shapes(limits) => return self.reserve(limits, shape, DType::F32),
        };
        let mut values: Vec<f32> = values()?.iter().map(|v| v * self.factor).collect();
        values.resize(shape.channels as usize, 0.0);
        self.upload(gpu, bytemuck::cast_slice(&values), shape, DType::F32)
    }

    fn reserve(&self, limits: &Limits, shape: Shape, dtype: DType) -> Result<WeightRef> {
        let bytes = shape.elems() * dtype.bytes();
        let reserved = self.loader.state.borrow_mut().slabs.reserve(limits, bytes);
        let (slab, offset) = reserved.map_err(|e| self.locate(e))?;
        Ok(WeightRef { slab, offset, shape, dtype })
    }

    fn upload(&self, gpu: &Gpu, bytes: &[u8], shape: Shape, dtype: DType) -> Result<WeightRef> {
        let loader = self.loader;
        let pushed = loader.state.borrow_mut().slabs.push(gpu, loader.component, bytes);
        let (slab, offset) = pushed.map_err(|e| self.locate(e))?;
        Ok(WeightRef { slab, offset, shape, dtype })
    }
}

/// Rows `v0..vn, g0..gn` as `v0..v3, g0..g3, v4..v7, …`, the last block padded with zeros.
fn interleave(values: &[f32], n: usize, k: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(2 * n.next_multiple_of(4) * k);
    for block in (0..n).step_by(4) {
        for side in [0, n] {
            for row in block..block + 4 {
                if row < n {
                    out.extend_from_slice(&values[(side + row) * k..(side + row + 1) * k]);
                } else {
                    out.extend(std::iter::repeat_n(0.0, k));
                }
            }
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::interleave;

    #[test]
    fn gates_stand_beside_their_values() {
        let rows: Vec<f32> = (0..12).map(|v| v as f32).collect();
        let out = interleave(&rows, 6, 1);
        let want = [0., 1., 2., 3., 6., 7., 8., 9., 4., 5., 0., 0., 10., 11., 0., 0.];
        assert_eq!(out, want);
    }
}

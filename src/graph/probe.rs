//! What the kernel tests must see of a plan: the bytes between and behind the values.

use super::plan::Plan;
use super::record::{Graph, Origin};
use crate::error::Result;
use crate::gpu::Gpu;
use crate::tensor::Tensor;

/// NaN as f32 and as a pair of f16.
pub const POISON: u32 = 0x7fff_7fff;

impl Plan {
    /// Fills the buffers of all activations of `graph`, from which this plan was made, with NaN:
    /// inputs are written after this.
    pub fn poison(&self, gpu: &Gpu, graph: &Graph) -> Result<()> {
        for (tensor, origin, _) in &graph.tensors {
            // Tensors that no op touches have no place.
            if let (false, Ok((buffer, _))) =
                (matches!(origin, Origin::Weight { .. }), self.place(*tensor))
            {
                let words = vec![POISON; (buffer.size() / 4) as usize];
                gpu.write(buffer, 0, bytemuck::cast_slice(&words));
            }
        }
        Ok(())
    }

    /// The bytes of a kept tensor as stored, and those behind it up to its buffer's end.
    pub fn raw(&self, gpu: &Gpu, tensor: Tensor) -> Result<(Vec<u8>, Vec<u8>)> {
        let (buffer, offset) = self.place(tensor)?;
        let mut bytes = gpu.read(buffer, *offset, buffer.size() - offset)?;
        let tail = bytes.split_off(tensor.bytes() as usize);
        Ok((bytes, tail))
    }
}

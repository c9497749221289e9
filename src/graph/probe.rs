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
            if let (false, Ok(buffers)) =
                (matches!(origin, Origin::Weight { .. }), self.buffers(*tensor))
            {
                for (buffer, _) in buffers {
                    let words = vec![POISON; (buffer.size() / 4) as usize];
                    gpu.write(buffer, 0, bytemuck::cast_slice(&words));
                }
            }
        }
        Ok(())
    }

    /// The bytes of a kept tensor as stored, and those behind its bands up to their buffers' ends.
    pub fn raw(&self, gpu: &Gpu, tensor: Tensor) -> Result<(Vec<u8>, Vec<u8>)> {
        let (mut bytes, mut tail) = (Vec::new(), Vec::new());
        for (buffer, range) in self.buffers(tensor)? {
            bytes.extend(gpu.read(buffer, range.start, range.end - range.start)?);
            tail.extend(gpu.read(buffer, range.end, buffer.size() - range.end)?);
        }
        Ok((bytes, tail))
    }
}

//! Shared by kernels that give one lane to each vec4 (or each row) of the work.

use crate::error::{Error, Result};
use crate::graph::Graph;
use crate::tensor::{Shape, Tensor};

/// Invocations of a workgroup in such kernels.
pub(super) const WG: u32 = 64;

/// Workgroups for `lanes` lanes.
pub(super) fn groups_for(lanes: u32) -> u32 {
    lanes.div_ceil(WG)
}

/// Lanes of `rows` rows of a tensor.
///
/// # Errors
/// More than 2^32 lanes: such a tensor has to be cut first.
pub(super) fn check_lanes(g: &Graph, tensor: Tensor) -> Result<()> {
    let lanes = u64::from(tensor.shape.rows()) * u64::from(tensor.shape.stride4());
    if lanes > u64::from(u32::MAX) {
        return Err(Error::usage(format!(
            "{}: a tensor of shape {} is too large",
            g.path(),
            tensor.shape
        ))
        .with_hint("make the picture smaller (-W, -H)"));
    }
    Ok(())
}

/// Refuses an operand whose shape is not what the kernel will index: shaders do not check bounds.
pub(super) fn fits(g: &Graph, what: &str, got: Shape, want: Shape) -> Result<()> {
    if got == want {
        return Ok(());
    }
    Err(g
        .error(format!("{what} has shape {got}, expected {want}"))
        .with_hint("the configs of this model contradict each other or its weights"))
}

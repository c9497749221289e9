//! What stands for `alias.rs` on systems without Vulkan.

use std::sync::Arc;

use crate::error::{Error, Result};

/// There is none.
#[derive(Debug)]
pub(super) enum Memory {}

pub(super) fn buffer(
    _: &wgpu::Device,
    _: &wgpu::Queue,
    _: &wgpu::BufferDescriptor,
    _: u64,
) -> Result<(Arc<Memory>, wgpu::Buffer)> {
    Err(Error::internal("textures in the memory of buffers are for Vulkan only"))
}

pub(super) fn texture(
    _: &wgpu::Device,
    memory: &Arc<Memory>,
    _: u64,
    _: &wgpu::TextureDescriptor,
) -> Result<wgpu::Texture> {
    match **memory {}
}

//! Buffers of tensors and weights.
//!
//! Mesa's software Vulkan reads texels ten times as fast as words of buffers, and keeps linear images as the lines they
//! are. There kernels read all that they do not write through textures of 16-byte texels that lie in the memory of their buffers
//! (`lib/texels.wgsl`): nothing is copied.

use std::ops::Deref;
use std::sync::Arc;

use super::alias;
use super::caps::Caps;
use crate::error::{Error, ErrorKind, Result};

/// Bytes of a texel: four 32-bit words.
const TEXEL: u64 = 16;
/// Texels of a line, as `lib/texels.wgsl` has it.
const LINE: u32 = 4096;
const LINE_BYTES: u64 = LINE as u64 * TEXEL;
/// Lines that a texture has on every device.
const MOST_LINES: u64 = 8191;
/// Lines that the texture of a buffer's last bytes may reach beyond it: up to three of [`lines_of`], and drivers pad.
const ROOM_LINES: u64 = 8;

/// Bytes that an operand may have which is read through a texture.
pub(crate) const MOST_BYTES: u64 = MOST_LINES * LINE_BYTES;

const FORMAT: wgpu::TextureFormat = wgpu::TextureFormat::Rgba32Uint;

/// How shaders see such a texture.
pub(super) const TEXELS: wgpu::BindingType = wgpu::BindingType::StorageTexture {
    access: wgpu::StorageTextureAccess::ReadOnly,
    format: FORMAT,
    view_dimension: wgpu::TextureViewDimension::D2,
};

/// Lines that hold `bytes`; never a power of two, since lavapipe compiles a pipeline again for each set of textures of
/// which some are.
fn lines_of(bytes: u64) -> u64 {
    let lines = bytes.div_ceil(LINE_BYTES).max(3);
    lines + u64::from(lines.is_power_of_two())
}

/// Whether buffers can be read through textures: on the driver that is known to keep their memory as it is and to end each
/// dispatch, copy and fill before it begins the next, since wgpu, which cannot know that both are the same memory, orders
/// none of them. [`texels::test`](super::texels::test) sees that it does.
pub(super) fn offers_texels(adapter: &wgpu::Adapter) -> bool {
    let info = adapter.get_info();
    let flags = adapter.get_texture_format_features(FORMAT).flags;
    info.backend == wgpu::Backend::Vulkan
        && info.driver == "llvmpipe"
        && flags.contains(wgpu::TextureFormatFeatureFlags::STORAGE_READ_ONLY)
}

/// A buffer for tensors or weights.
#[derive(Debug, Clone)]
pub(crate) struct Storage {
    /// Where it can be read through textures. Before the buffer: the last owner frees the memory, and that has to be one
    /// which wgpu drops, while the device lives.
    memory: Option<Arc<alias::Memory>>,
    buffer: wgpu::Buffer,
}

impl Deref for Storage {
    type Target = wgpu::Buffer;

    fn deref(&self) -> &wgpu::Buffer {
        &self.buffer
    }
}

impl Storage {
    /// A buffer of zeros for a device with these facts.
    ///
    /// # Errors
    /// Out of memory: says whether the buffer limit or the device's memory is short.
    pub fn new(
        device: &wgpu::Device,
        queue: &wgpu::Queue,
        caps: &Caps,
        label: &str,
        bytes: u64,
    ) -> Result<Self> {
        let limit = caps.limits.buffer_bytes;
        let out_of_memory = |why: String| {
            Error::new(ErrorKind::OutOfMemory, why)
                .with_hint("make the picture smaller (-W, -H), or use --precision f16")
        };
        if bytes > limit {
            return Err(out_of_memory(format!(
                "{label}: needs a buffer of {bytes} bytes, the device's buffer limit is {limit}"
            )));
        }
        let no_room =
            || out_of_memory(format!("{label}: the device's memory has no room for {bytes} bytes"));
        let descriptor = wgpu::BufferDescriptor {
            label: Some(label),
            size: bytes.max(4).next_multiple_of(256),
            usage: wgpu::BufferUsages::STORAGE
                | wgpu::BufferUsages::COPY_DST
                | wgpu::BufferUsages::COPY_SRC,
            mapped_at_creation: false,
        };
        if caps.reads_textures() {
            let room = ROOM_LINES * LINE_BYTES;
            let (memory, buffer) =
                alias::buffer(device, queue, &descriptor, room).map_err(|e| match e.kind() {
                    ErrorKind::OutOfMemory => no_room().with_source(e),
                    _ => e.at(label),
                })?;
            return Ok(Self { memory: Some(memory), buffer });
        }
        let scope = device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let buffer = device.create_buffer(&descriptor);
        match pollster::block_on(scope.pop()) {
            Some(error) => Err(no_room().with_source(error)),
            None => Ok(Self { memory: None, buffer }),
        }
    }

    /// `bytes` of a buffer from `offset` on, a multiple of 256, as texels.
    ///
    /// # Errors
    /// A driver that does not lay out textures as it should.
    pub fn texels(
        &self,
        device: &wgpu::Device,
        offset: u64,
        bytes: u64,
    ) -> Result<wgpu::TextureView> {
        let height = lines_of(bytes) as u32;
        let descriptor = wgpu::TextureDescriptor {
            label: Some("texels"),
            size: wgpu::Extent3d { width: LINE, height, depth_or_array_layers: 1 },
            mip_level_count: 1,
            sample_count: 1,
            dimension: wgpu::TextureDimension::D2,
            format: FORMAT,
            usage: wgpu::TextureUsages::STORAGE_BINDING,
            view_formats: &[],
        };
        let memory = self.memory.as_ref();
        let memory = memory.ok_or_else(|| Error::internal("a buffer without textures"))?;
        let texture = alias::texture(device, memory, offset, &descriptor).map_err(|e| {
            e.at("a texture for a buffer's memory")
                .with_hint("try --tier plain; please report it, with the driver's version")
        })?;
        Ok(texture.create_view(&Default::default()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_hold_the_bytes_and_are_no_power_of_two() {
        for bytes in
            [0, 1, 16, LINE_BYTES, LINE_BYTES + 1, 4 * LINE_BYTES, 7 * LINE_BYTES + 8, MOST_BYTES]
        {
            let lines = lines_of(bytes);
            assert!(lines * LINE_BYTES >= bytes && !lines.is_power_of_two(), "{bytes}: {lines}");
        }
        assert_eq!(lines_of(MOST_BYTES), MOST_LINES);
    }

    #[test]
    fn shaders_have_the_same_lines() {
        let text = crate::shader::Sources::default().get("lib/texels.wgsl").unwrap().to_string();
        assert!(text.contains(&format!("TEXEL_LINE: u32 = {LINE}u;")));
    }
}

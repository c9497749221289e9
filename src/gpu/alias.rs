//! A buffer and textures in one piece of memory, on Vulkan.

use std::fmt;
use std::sync::Arc;

use ash::vk;
use wgpu::hal::api::Vulkan;
use wgpu::hal::vulkan::{Buffer, TextureMemory};

use crate::error::{Error, ErrorKind, Result};

/// Memory that a buffer takes from its start, with room behind it for textures that end in whole lines.
pub(super) struct Memory {
    device: ash::Device,
    raw: vk::DeviceMemory,
    type_index: u32,
    bytes: u64,
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "{} bytes of {:?}", self.bytes, self.raw)
    }
}

impl Drop for Memory {
    fn drop(&mut self) {
        // SAFETY: all that lies in it owned it, and is gone.
        unsafe { self.device.free_memory(self.raw, None) };
    }
}

/// What went wrong in Vulkan: memory that is short, or the driver.
fn failed(e: vk::Result) -> Error {
    let kind = match e {
        vk::Result::ERROR_OUT_OF_DEVICE_MEMORY
        | vk::Result::ERROR_OUT_OF_HOST_MEMORY
        | vk::Result::ERROR_TOO_MANY_OBJECTS => ErrorKind::OutOfMemory,
        _ => ErrorKind::Device,
    };
    Error::new(kind, format!("Vulkan: {e}"))
}

fn no_vulkan() -> Error {
    Error::internal("textures in the memory of buffers are for Vulkan only")
}

/// Usages of buffers as Vulkan has them.
const USAGES: [(wgpu::BufferUsages, vk::BufferUsageFlags); 3] = [
    (wgpu::BufferUsages::STORAGE, vk::BufferUsageFlags::STORAGE_BUFFER),
    (wgpu::BufferUsages::COPY_SRC, vk::BufferUsageFlags::TRANSFER_SRC),
    (wgpu::BufferUsages::COPY_DST, vk::BufferUsageFlags::TRANSFER_DST),
];

/// A buffer of zeros, of one of those usages or more, in memory of its own that has `room` bytes more.
///
/// # Errors
/// Out of memory, or a driver that has no such buffer.
pub(super) fn buffer(
    device: &wgpu::Device,
    queue: &wgpu::Queue,
    descriptor: &wgpu::BufferDescriptor,
    room: u64,
) -> Result<(Arc<Memory>, wgpu::Buffer)> {
    // SAFETY: only the function pointers are kept, by what lives no longer than the device.
    let hal = unsafe { device.as_hal::<Vulkan>() };
    let raw = hal.ok_or_else(no_vulkan)?.raw_device().clone();
    let usages = USAGES.iter().filter(|(usage, _)| descriptor.usage.contains(*usage));
    let info = vk::BufferCreateInfo::default()
        .size(descriptor.size)
        .usage(usages.fold(vk::BufferUsageFlags::empty(), |all, (_, usage)| all | *usage));
    // SAFETY: buffer and memory are of this device, and nothing else is bound there.
    let (buffer, memory) = unsafe {
        let buffer = raw.create_buffer(&info, None).map_err(failed)?;
        let memory = bound_memory(&raw, buffer, room);
        (buffer, memory.inspect_err(|_| raw.destroy_buffer(buffer, None))?)
    };
    let owner = Arc::clone(&memory);
    // SAFETY: wgpu calls this when nothing uses the buffer any more. The buffer is as described, and zero before it is used.
    let buffer = unsafe {
        let drop = Box::new(move || owner.device.destroy_buffer(buffer, None));
        let buffer = Buffer::from_raw_externally_owned(buffer, drop);
        device.create_buffer_from_hal::<Vulkan>(buffer, descriptor)
    };
    let mut encoder = device.create_command_encoder(&Default::default());
    encoder.clear_buffer(&buffer, 0, None);
    queue.submit([encoder.finish()]);
    Ok((memory, buffer))
}

unsafe fn bound_memory(device: &ash::Device, buffer: vk::Buffer, room: u64) -> Result<Arc<Memory>> {
    unsafe {
        let needs = device.get_buffer_memory_requirements(buffer);
        let bytes = needs.size + room;
        let type_index = needs.memory_type_bits.trailing_zeros();
        let info =
            vk::MemoryAllocateInfo::default().allocation_size(bytes).memory_type_index(type_index);
        let raw = device.allocate_memory(&info, None).map_err(failed)?;
        let memory = Memory { device: device.clone(), raw, type_index, bytes };
        device.bind_buffer_memory(buffer, raw, 0).map_err(failed)?;
        Ok(Arc::new(memory))
    }
}

/// What lies in `memory` from byte `offset` on as a texture of 16-byte texels, for shaders to read.
///
/// # Errors
/// A driver that does not lay out textures as whole lines one after the other, or wants more room for them.
pub(super) fn texture(
    device: &wgpu::Device,
    memory: &Arc<Memory>,
    offset: u64,
    descriptor: &wgpu::TextureDescriptor,
) -> Result<wgpu::Texture> {
    let wgpu::TextureDescriptor { label, size, dimension, format, .. } = *descriptor;
    let usage = wgpu::TextureUses::STORAGE_READ_ONLY;
    let described = wgpu::hal::TextureDescriptor {
        label,
        size,
        mip_level_count: 1,
        sample_count: 1,
        dimension,
        format,
        usage,
        memory_flags: wgpu::hal::MemoryFlags::empty(),
        view_formats: Vec::new(),
    };
    let owner = Arc::clone(memory);
    // SAFETY: the image is as described and, for a driver without layouts, in the state that is named. Memory and device
    // outlive it: wgpu calls `drop` when nothing uses it any more.
    unsafe {
        let hal = device.as_hal::<Vulkan>().ok_or_else(no_vulkan)?;
        let image = memory.image(offset, size)?;
        let drop: wgpu::hal::DropCallback =
            Box::new(move || owner.device.destroy_image(image, None));
        let texture = hal.texture_from_raw(image, &described, Some(drop), TextureMemory::External);
        Ok(device.create_texture_from_hal::<Vulkan>(texture, descriptor, usage))
    }
}

impl Memory {
    /// Lines of texels that lie one after the other from byte `offset` on.
    unsafe fn image(&self, offset: u64, size: wgpu::Extent3d) -> Result<vk::Image> {
        let info = vk::ImageCreateInfo::default()
            .image_type(vk::ImageType::TYPE_2D)
            .format(vk::Format::R32G32B32A32_UINT)
            .extent(vk::Extent3D { width: size.width, height: size.height, depth: 1 })
            .mip_levels(1)
            .array_layers(1)
            .samples(vk::SampleCountFlags::TYPE_1)
            .tiling(vk::ImageTiling::LINEAR)
            .usage(vk::ImageUsageFlags::STORAGE)
            .initial_layout(vk::ImageLayout::PREINITIALIZED);
        let whole = vk::ImageSubresource {
            aspect_mask: vk::ImageAspectFlags::COLOR,
            mip_level: 0,
            array_layer: 0,
        };
        unsafe {
            let image = self.device.create_image(&info, None).map_err(failed)?;
            let needs = self.device.get_image_memory_requirements(image);
            let layout = self.device.get_image_subresource_layout(image, whole);
            let fits = needs.memory_type_bits & (1 << self.type_index) != 0
                && offset.is_multiple_of(needs.alignment)
                && offset + needs.size <= self.bytes
                && (layout.offset, layout.row_pitch) == (0, 16 * u64::from(size.width));
            let bound = match fits {
                true => self.device.bind_image_memory(image, self.raw, offset).map_err(failed),
                false => Err(Error::device(format!(
                    "an image of {} × {} texels at byte {offset} of {}, in memory of type {}: the driver wants {} bytes of \
                     types {:#b} at multiples of {}, and lines of {} bytes from {} on",
                    size.width,
                    size.height,
                    self.bytes,
                    self.type_index,
                    needs.size,
                    needs.memory_type_bits,
                    needs.alignment,
                    layout.row_pitch,
                    layout.offset,
                ))),
            };
            bound.inspect_err(|_| self.device.destroy_image(image, None))?;
            Ok(image)
        }
    }
}

//! The handle on a device that callers hold.

use std::ops::{Deref, Range};
use std::sync::Arc;

use super::device::{Gpu, GpuOptions, device_descriptor};
use crate::error::Result;
use crate::tensor::{DType, Shape};

/// A device, ready to compute. Clones share it; the device is released with the last of them.
///
/// Several pipelines may use one engine. There is no state beside it: two engines know nothing of
/// each other.
#[derive(Clone)]
pub struct Engine(Arc<Gpu>);

impl Engine {
    /// Opens a device of its own.
    ///
    /// # Errors
    /// As [`Gpu::open`]: no adapter, none of that name, or one without what every kernel needs.
    pub fn open(options: GpuOptions) -> Result<Self> {
        Gpu::open(&options).map(|gpu| Self(Arc::new(gpu)))
    }

    /// Becomes a guest on the caller's device, which goes on working for its host: handlers of errors
    /// and of device loss stay the host's, and submissions of both may interleave. Pipelines are compiled on several threads,
    /// where error scopes that the host holds open do not reach. On Mesa's software Vulkan a device with fewer than seven
    /// storage textures to a shader stage makes kernels read buffers, at a fraction of the speed.
    ///
    /// # Errors
    /// A device opened without `Features::IMMEDIATES` or with less than 64 bytes of them:
    /// [`Engine::device_descriptor`] asks for what is useful.
    pub fn from_device(
        adapter: &wgpu::Adapter,
        device: wgpu::Device,
        queue: wgpu::Queue,
    ) -> Result<Self> {
        Gpu::from_device(adapter, device, queue, &GpuOptions::default())
            .map(|gpu| Self(Arc::new(gpu)))
    }

    /// What [`Engine::open`] would request of an adapter; a host adds its own features and limits.
    pub fn device_descriptor(adapter: &wgpu::Adapter) -> wgpu::DeviceDescriptor<'static> {
        device_descriptor(adapter)
    }
}

impl Deref for Engine {
    type Target = Gpu;

    fn deref(&self) -> &Gpu {
        &self.0
    }
}

/// A tensor left on the device.
#[derive(Debug, Clone)]
pub struct DeviceTensor {
    /// The buffers (usages `STORAGE | COPY_SRC | COPY_DST`) and the bytes of each, which one after the other
    /// make up the tensor: a single one unless the tensor exceeds the device's largest buffer.
    pub bands: Vec<(wgpu::Buffer, Range<u64>)>,
    /// Channels last; a row of channels is padded with zeros to whole vec4s.
    pub shape: Shape,
    /// Element type.
    pub dtype: DType,
}

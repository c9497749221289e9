//! Moving bytes between the host and buffers, in chunks.

use super::device::Gpu;
use crate::error::{Error, Result};

/// Bytes per chunk: staging memory stays small, and no submission carries more.
const CHUNK_BYTES: usize = 32 << 20;

impl Gpu {
    /// Writes `bytes` at `offset`, both multiples of four.
    pub(crate) fn write(&self, buffer: &wgpu::Buffer, offset: u64, bytes: &[u8]) {
        for (i, chunk) in bytes.chunks(CHUNK_BYTES).enumerate() {
            self.queue.write_buffer(buffer, offset + (i * CHUNK_BYTES) as u64, chunk);
            if bytes.len() > CHUNK_BYTES {
                // Staging memory is freed by submissions only.
                self.queue.submit([]);
            }
        }
    }

    /// Reads `size` bytes from `offset`, both multiples of four, after all submitted work.
    pub(crate) fn read(&self, buffer: &wgpu::Buffer, offset: u64, size: u64) -> Result<Vec<u8>> {
        let mut out = Vec::with_capacity(size as usize);
        let staging = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some("readback"),
            size: size.clamp(4, CHUNK_BYTES as u64),
            usage: wgpu::BufferUsages::COPY_DST | wgpu::BufferUsages::MAP_READ,
            mapped_at_creation: false,
        });
        let mut done = 0;
        while done < size {
            let count = (size - done).min(CHUNK_BYTES as u64);
            let mut encoder = self.device.create_command_encoder(&Default::default());
            encoder.copy_buffer_to_buffer(buffer, offset + done, &staging, 0, count);
            let submission = self.queue.submit([encoder.finish()]);
            let slice = staging.slice(..count);
            slice.map_async(wgpu::MapMode::Read, |_| {});
            self.wait(Some(submission))?;
            let mapped = slice
                .get_mapped_range()
                .map_err(|e| Error::device("reading back failed").with_source(e))?;
            out.extend_from_slice(&mapped);
            drop(mapped);
            staging.unmap();
            done += count;
        }
        Ok(out)
    }

    /// A buffer for tensors.
    ///
    /// # Errors
    /// Out of memory: says whether the buffer limit or the device's memory is short.
    pub(crate) fn buffer(&self, label: &str, bytes: u64) -> Result<wgpu::Buffer> {
        let limit = self.caps().limits.buffer_bytes;
        let out_of_memory = |why: String| {
            Error::new(crate::error::ErrorKind::OutOfMemory, why)
                .with_hint("make the picture smaller (-W, -H), or use --precision f16")
        };
        if bytes > limit {
            return Err(out_of_memory(format!(
                "{label}: needs a buffer of {bytes} bytes, the device's buffer limit is {limit}"
            )));
        }
        let scope = self.device.push_error_scope(wgpu::ErrorFilter::OutOfMemory);
        let buffer = self.device.create_buffer(&wgpu::BufferDescriptor {
            label: Some(label),
            size: bytes.next_multiple_of(256),
            usage: wgpu::BufferUsages::STORAGE
                | wgpu::BufferUsages::COPY_DST
                | wgpu::BufferUsages::COPY_SRC,
            mapped_at_creation: false,
        });
        match pollster::block_on(scope.pop()) {
            Some(error) => Err(out_of_memory(format!(
                "{label}: the device's memory has no room for {bytes} bytes"
            ))
            .with_source(error)),
            None => Ok(buffer),
        }
    }
}

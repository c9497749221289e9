//! Moving bytes between the host and buffers, in chunks.

use super::device::Gpu;
use super::storage::Storage;
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
    /// As [`Storage::new`].
    pub(crate) fn buffer(&self, label: &str, bytes: u64) -> Result<Storage> {
        Storage::new(&self.device, &self.queue, self.caps(), label, bytes)
    }
}

//! Weights on the device, and the governor that sizes submissions.

use std::sync::{Mutex, PoisonError};

use super::caps::{DeviceClass, Limits};
use super::device::Gpu;
use super::storage::Storage;
use crate::error::{Error, ErrorKind, Result};

/// Bytes of an ordinary slab. A weight larger than that gets one of its own.
const SLAB_BYTES: u64 = 64 << 20;

/// The weights of one model: read-only buffers, filled one after the other.
#[derive(Default)]
pub struct Slabs {
    slabs: Vec<Storage>,
    /// Weights collected for the next slab.
    pending: Vec<u8>,
    /// Bytes of every slab, the one that is being filled last.
    sizes: Vec<u64>,
}

impl Slabs {
    /// No weights.
    pub fn new() -> Self {
        Self::default()
    }

    /// Finds the slab and the offset there for the next weight of so many bytes, under `limits`.
    ///
    /// # Errors
    /// [`ErrorKind::OutOfMemory`] for a weight larger than a buffer may be.
    pub fn reserve(&mut self, limits: &Limits, bytes: u64) -> Result<(u32, u64)> {
        let padded = bytes.next_multiple_of(256);
        if padded > limits.buffer_bytes {
            return Err(Error::new(
                ErrorKind::OutOfMemory,
                format!(
                    "a weight needs a buffer of {padded} bytes, the device's buffer limit is {}",
                    limits.buffer_bytes
                ),
            )
            .with_hint("use --precision f16, or raise --limits buffer="));
        }
        let room = SLAB_BYTES.min(limits.buffer_bytes);
        match self.sizes.last_mut() {
            Some(size) if *size + padded <= room => {
                *size += padded;
                Ok((self.sizes.len() as u32 - 1, self.sizes[self.sizes.len() - 1] - padded))
            }
            _ => {
                self.sizes.push(padded);
                Ok((self.sizes.len() as u32 - 1, 0))
            }
        }
    }

    /// Appends the bytes of one weight and returns its slab and its offset there.
    ///
    /// # Errors
    /// As [`Slabs::reserve`], and where the device has no room.
    pub fn push(&mut self, gpu: &Gpu, label: &str, bytes: &[u8]) -> Result<(u32, u64)> {
        let (slab, offset) = self.reserve(&gpu.caps().limits, bytes.len() as u64)?;
        if offset == 0 {
            self.flush(gpu, label)?;
        }
        self.pending.extend_from_slice(bytes);
        self.pending.resize(self.pending.len().next_multiple_of(256), 0);
        Ok((slab, offset))
    }

    /// Uploads what is pending; to be called after the last weight.
    pub fn flush(&mut self, gpu: &Gpu, label: &str) -> Result<()> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let slab = gpu.buffer(label, self.pending.len() as u64).map_err(|e| e.at("weights"))?;
        gpu.write(&slab, 0, &self.pending);
        gpu.queue.submit([]);
        self.slabs.push(slab);
        self.pending = Vec::new();
        Ok(())
    }

    /// Bytes of all weights, as they lie in the slabs.
    pub fn bytes(&self) -> u64 {
        self.sizes.iter().sum()
    }

    pub(crate) fn buffer(&self, slab: u32) -> Result<&Storage> {
        self.slabs
            .get(slab as usize)
            .ok_or_else(|| Error::internal(format!("weight slab {slab} was not uploaded")))
    }
}

/// Knows how fast the device works, so that submissions last about as long as they should.
pub(crate) struct Governor {
    rate: Mutex<f64>,
}

impl Governor {
    pub(crate) fn new(class: DeviceClass) -> Self {
        let flops_per_second = match class {
            DeviceClass::Cpu => 5e9,
            DeviceClass::Integrated => 100e9,
            DeviceClass::Discrete => 1e12,
        };
        Self { rate: Mutex::new(flops_per_second) }
    }

    /// Cost units per second.
    pub(crate) fn rate(&self) -> f64 {
        *self.rate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Learns from a finished submission. Short ones say more about overhead than about speed, but a device is at least as
    /// fast as they say: it is believed step by step, since one may have ended before anyone looked.
    pub(crate) fn observe(&self, cost: f64, seconds: f64) {
        let mut rate = self.rate.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = cost / seconds.max(1e-9);
        if seconds > 0.01 && cost > 0.0 {
            *rate = 0.7 * *rate + 0.3 * seen;
        } else if seconds > 2e-4 && seen > *rate {
            *rate = seen.min(1.2 * *rate);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fast_device_is_believed_step_by_step() {
        let governor = Governor::new(DeviceClass::Discrete);
        governor.observe(1e11, 1e-5);
        assert_eq!(governor.rate(), 1e12, "too short to say anything");
        governor.observe(1e11, 1e-3);
        assert!((governor.rate() / 1.2e12 - 1.0).abs() < 1e-9);
        (0..40).for_each(|_| governor.observe(1e11, 1e-3));
        assert_eq!(governor.rate(), 1e14);
        governor.observe(1e12, 0.1);
        assert!(governor.rate() < 0.8e14);
    }
}

//! The device's own clock: a pair of stamps around each of many pieces of work.

use super::device::Gpu;
use crate::error::Result;

/// Pairs in one set: Metal allows about 32 live sets of 4096 stamps.
const PAIRS: u32 = 1024;

/// How pieces of work are timed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Clock {
    /// Stamps written inside a compute pass.
    InPass,
    /// Stamps at the two ends of a pass, one pass to a piece.
    PassEnds,
    /// The host's clock around a submission, one submission to a piece.
    Host,
}

impl Clock {
    /// The best that the device offers.
    pub(crate) fn of(features: wgpu::Features) -> Self {
        if features.contains(wgpu::Features::TIMESTAMP_QUERY_INSIDE_PASSES) {
            Self::InPass
        } else if features.contains(wgpu::Features::TIMESTAMP_QUERY) {
            Self::PassEnds
        } else {
            Self::Host
        }
    }
}

/// The stamps of one submission.
pub(crate) struct Stamps {
    set: wgpu::QuerySet,
    resolved: wgpu::Buffer,
    pairs: u32,
    clock: Clock,
}

impl Stamps {
    /// None where the device has no clock.
    pub(crate) fn new(gpu: &Gpu) -> Option<Self> {
        let clock = gpu.clock();
        (clock != Clock::Host).then(|| Self {
            set: gpu.device.create_query_set(&wgpu::QuerySetDescriptor {
                label: Some("stamps"),
                ty: wgpu::QueryType::Timestamp,
                count: 2 * PAIRS,
            }),
            resolved: gpu.device.create_buffer(&wgpu::BufferDescriptor {
                label: Some("stamps"),
                size: u64::from(2 * PAIRS) * 8,
                usage: wgpu::BufferUsages::QUERY_RESOLVE | wgpu::BufferUsages::COPY_SRC,
                mapped_at_creation: false,
            }),
            pairs: 0,
            clock,
        })
    }

    pub(crate) fn is_full(&self) -> bool {
        self.pairs == PAIRS
    }

    /// Whether each piece needs a pass of its own.
    pub(crate) fn by_pass(&self) -> bool {
        self.clock == Clock::PassEnds
    }

    /// The stamps that the next piece's pass writes at its ends, where it has one of its own.
    pub(crate) fn pass_ends(&self) -> Option<wgpu::ComputePassTimestampWrites<'_>> {
        self.by_pass().then(|| wgpu::ComputePassTimestampWrites {
            query_set: &self.set,
            beginning_of_pass_write_index: Some(2 * self.pairs),
            end_of_pass_write_index: Some(2 * self.pairs + 1),
        })
    }

    /// Before a piece.
    pub(crate) fn begin(&self, pass: &mut wgpu::ComputePass) {
        if self.clock == Clock::InPass {
            pass.write_timestamp(&self.set, 2 * self.pairs);
        }
    }

    /// After it.
    pub(crate) fn end(&mut self, pass: &mut wgpu::ComputePass) {
        if self.clock == Clock::InPass {
            pass.write_timestamp(&self.set, 2 * self.pairs + 1);
        }
        self.pairs += 1;
    }

    /// At the end of the submission, outside of passes.
    pub(crate) fn resolve(&self, encoder: &mut wgpu::CommandEncoder) {
        if self.pairs > 0 {
            encoder.resolve_query_set(&self.set, 0..2 * self.pairs, &self.resolved, 0);
        }
    }

    /// Seconds of each piece, once the submission is done; none where a stamp is missing (drivers
    /// are known to leave zeros, or ends before their beginnings).
    pub(crate) fn seconds(&self, gpu: &Gpu) -> Result<Vec<Option<f64>>> {
        if self.pairs == 0 {
            return Ok(Vec::new());
        }
        let bytes = gpu.read(&self.resolved, 0, u64::from(2 * self.pairs) * 8)?;
        let period = f64::from(gpu.queue.get_timestamp_period()) * 1e-9;
        let stamps: Vec<u64> = bytes
            .chunks_exact(8)
            .map(|b| u64::from_le_bytes([b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7]]))
            .collect();
        let pair = |p: &[u64]| {
            let valid = p[0] != 0 && p[1] >= p[0];
            valid.then(|| (p[1] - p[0]) as f64 * period)
        };
        Ok(stamps.chunks_exact(2).map(pair).collect())
    }
}

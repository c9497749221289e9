//! The loop that replays a plan.

use std::sync::atomic::Ordering;
use std::time::Instant;

use super::plan::{Gather, Plan, Step};
use crate::error::Result;
use crate::gpu::{Gpu, Stamps, lock};

/// Called between submissions with the finished share of the replay, 0 to 1; an error stops it.
pub type Pulse<'a> = &'a mut dyn FnMut(f64) -> Result<()>;

/// Seconds of work in one submission: short enough that no watchdog and no desktop notices.
const SUBMIT_SECONDS: f64 = 0.1;

/// Share of that in the first submission of a replay, doubled from one to the next: the device begins while most is
/// still to be encoded.
const FIRST_SHARE: f64 = 1.0 / 32.0;

/// Submissions under way at a time, so that the device never waits for the host.
const IN_FLIGHT: usize = 2;

impl Plan {
    /// Replays the plan and waits for its end.
    ///
    /// Work goes to the device in submissions of about a tenth of a second, measured as it runs;
    /// `pulse` can stop it between them. [Settled](super::Graph::settle) ops run where an input of theirs was written since.
    pub fn run(&self, gpu: &Gpu, pulse: Pulse) -> Result<()> {
        // Ops that have nothing new to compute are left out.
        let from = if self.is_settled.load(Ordering::Relaxed) { self.settled } else { 0 };
        let steps = || self.steps.iter().enumerate().filter(|(_, step)| step.op >= from);
        let cost: f64 = steps().map(|(_, step)| step.cost()).sum();
        let flops = self.ops[from..].iter().map(|(_, flops)| flops).sum();
        gpu.flops_done.fetch_add(flops, Ordering::Relaxed);
        let mut in_flight: Vec<Submitted> = Vec::new();
        let mut finished = 0.0;
        let start = Instant::now();
        let mut last_end = start;
        let mut retire = |in_flight: &mut Vec<Submitted>| -> Result<()> {
            let done = in_flight.remove(0);
            gpu.wait(Some(done.index.clone()))?;
            let seconds = last_end.elapsed().as_secs_f64();
            gpu.governor.observe(done.cost, seconds);
            self.add_to_profile(gpu, &done, seconds)?;
            last_end = Instant::now();
            finished += done.cost;
            pulse((finished / cost.max(1.0)).min(1.0))
        };

        let mut batch = Batch::new(gpu);
        let mut share = FIRST_SHARE;
        for (number, step) in steps() {
            let per_group = step.cost() / f64::from(step.groups.max(1));
            let mut first = 0;
            while first < step.groups {
                let budget = SUBMIT_SECONDS * gpu.governor.rate();
                let room = (((budget - batch.cost) / per_group) as u32).max(1);
                let count = room.min(step.groups - first);
                batch.dispatch(number, step, first, count);
                batch.cost += per_group * f64::from(count);
                first += count;
                if batch.cost >= share * budget || batch.is_full() {
                    share = (2.0 * share).min(1.0);
                    let full = std::mem::replace(&mut batch, Batch::new(gpu));
                    in_flight.push(full.submit());
                    if in_flight.len() >= IN_FLIGHT {
                        retire(&mut in_flight)?;
                    }
                }
            }
        }
        in_flight.push(batch.submit());
        while !in_flight.is_empty() {
            retire(&mut in_flight)?;
        }
        self.is_settled.store(true, Ordering::Relaxed);
        if let Some(profile) = &gpu.profile {
            lock(profile).add_wall(start.elapsed().as_secs_f64());
        }
        Ok(())
    }

    /// Encodes the whole replay and drops it: what a replay costs the host before its submissions.
    pub fn encode(&self, gpu: &Gpu) {
        let mut batch = Batch::new(gpu);
        for (number, step) in self.steps.iter().enumerate() {
            batch.dispatch(number, step, 0, step.groups);
        }
        drop(batch.pass);
        drop(batch.encoder.finish());
    }

    fn add_to_profile(&self, gpu: &Gpu, done: &Submitted, wall: f64) -> Result<()> {
        let Some(profile) = &gpu.profile else { return Ok(()) };
        let mut profile = lock(profile);
        let times = match &done.stamps {
            Some(stamps) => stamps.seconds(gpu)?,
            // One piece to a submission.
            None => vec![Some(wall)],
        };
        for ((number, share), seconds) in done.pieces.iter().zip(times) {
            let step = &self.steps[*number];
            let layer = &self.ops[step.op].0;
            let (flops, bytes) = (share * step.flops, share * step.bytes);
            profile.add(&step.pipeline.label, layer, seconds, flops, bytes);
        }
        Ok(())
    }
}

/// A submission under way.
struct Submitted {
    index: wgpu::SubmissionIndex,
    cost: f64,
    stamps: Option<Stamps>,
    /// When profiling: number of the step, and the share of it.
    pieces: Vec<(usize, f64)>,
}

/// A command buffer in the making: one compute pass, or more where rows are gathered between them.
struct Batch<'a> {
    gpu: &'a Gpu,
    encoder: wgpu::CommandEncoder,
    pass: Option<wgpu::ComputePass<'static>>,
    cost: f64,
    stamps: Option<Stamps>,
    pieces: Vec<(usize, f64)>,
}

impl<'a> Batch<'a> {
    fn new(gpu: &'a Gpu) -> Self {
        let encoder = gpu.device.create_command_encoder(&Default::default());
        let stamps = gpu.profile.as_ref().and_then(|_| Stamps::new(gpu));
        Self { gpu, encoder, pass: None, cost: 0.0, stamps, pieces: Vec::new() }
    }

    /// Whether profiling allows no more pieces.
    fn is_full(&self) -> bool {
        match &self.stamps {
            Some(stamps) => stamps.is_full(),
            None => self.gpu.profile.is_some(),
        }
    }

    /// Encodes `count` groups of step `number` from `first` on, in grids that fit the limit per axis
    /// exactly.
    fn dispatch(&mut self, number: usize, step: &Step, first: u32, count: u32) {
        if first == 0 && !step.gathers.is_empty() {
            self.pass = None;
            for Gather { from, to, at } in &step.gathers {
                self.encoder.copy_buffer_to_buffer(&from.buffer, from.offset, to, *at, from.bytes);
            }
        }
        if self.stamps.as_ref().is_some_and(Stamps::by_pass) {
            self.pass = None;
        }
        let descriptor = wgpu::ComputePassDescriptor {
            label: None,
            timestamp_writes: self.stamps.as_ref().and_then(Stamps::pass_ends),
        };
        let begin = || self.encoder.begin_compute_pass(&descriptor).forget_lifetime();
        let pass = self.pass.get_or_insert_with(begin);
        pass.set_pipeline(&step.pipeline.pipeline);
        pass.set_bind_group(0, &step.bind_group, &[]);
        if let Some(stamps) = &self.stamps {
            stamps.begin(pass);
        }
        let mut params = step.params.clone();
        let most = self.gpu.caps().limits.groups_per_axis;
        let end = first + count;
        let mut at = first;
        while at < end {
            let x = (end - at).min(most);
            let y = ((end - at) / x).min(most);
            let z = ((end - at) / (x * y)).min(most);
            params[..4].copy_from_slice(&at.to_le_bytes());
            pass.set_immediates(0, &params);
            pass.dispatch_workgroups(x, y, z);
            at += x * y * z;
        }
        if let Some(stamps) = &mut self.stamps {
            stamps.end(pass);
        }
        if self.gpu.profile.is_some() {
            self.pieces.push((number, f64::from(count) / f64::from(step.groups)));
        }
    }

    fn submit(mut self) -> Submitted {
        drop(self.pass);
        if let Some(stamps) = &self.stamps {
            stamps.resolve(&mut self.encoder);
        }
        Submitted {
            index: self.gpu.queue.submit([self.encoder.finish()]),
            cost: self.cost,
            stamps: self.stamps,
            pieces: self.pieces,
        }
    }
}

//! Opening an adapter, or becoming a guest on a device that the caller owns.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::caps::{Caps, DeviceClass, Limits, Tier};
use super::coop;
use super::memory::Governor;
use super::pipeline::Pipeline;
use super::profile::Profile;
use super::storage::{self, Storage};
use super::texels;
use super::timestamps::Clock;
use super::tuning::{Tiles, Tuning};
use crate::error::{Error, ErrorKind, Result};
use crate::shader::{Access, Sources, Variant};

/// Which device to open, and how much of it to use.
#[derive(Debug, Clone, Default)]
pub struct GpuOptions {
    /// A part of the adapter's name, or its number in [`list_adapters`]. Default: the first there.
    pub device: Option<String>,
    /// Use no more than this tier, with the kernels of GPUs on any device. Default: all the device has.
    pub tier: Option<Tier>,
    /// Lower limits, as [`Limits::lowered_to`] reads them.
    pub limits: Option<String>,
    /// Keep bounds checks and loop bounds in the shaders: slower, for bug reports and tests.
    pub shader_checks: bool,
    /// Time every kernel and layer: see [`Gpu::profile_report`].
    pub profile: bool,
    /// Measured tiles, used where they are of this device. Default: the kernels choose.
    pub tuning: Tuning,
    /// What kernels are composed from. Default: the shaders that are compiled in.
    pub sources: Sources,
}

/// What is known of an adapter before it is opened.
#[derive(Debug, Clone)]
pub struct AdapterFacts {
    /// As the driver calls it.
    pub name: String,
    /// Vulkan, Metal or Dx12.
    pub backend: String,
    /// Driver and its version.
    pub driver: String,
    /// What it can do.
    pub caps: Caps,
}

/// An open device with its facts and its pipelines.
pub struct Gpu {
    pub(crate) device: wgpu::Device,
    pub(crate) queue: wgpu::Queue,
    facts: AdapterFacts,
    pub(super) shader_checks: bool,
    pub(super) sources: Sources,
    pub(super) pipelines: Mutex<HashMap<(&'static str, Variant), Arc<Pipeline>>>,
    pub(super) layouts: Mutex<HashMap<Vec<Access>, (wgpu::BindGroupLayout, wgpu::PipelineLayout)>>,
    /// Bound in place of an absent operand.
    pub(crate) zeros: Storage,
    pub(crate) governor: Governor,
    pub(crate) flops_done: AtomicU64,
    pub(crate) profile: Option<Mutex<Profile>>,
    failure: Arc<Mutex<Option<Error>>>,
}

/// Bytes of parameters that every kernel may take: half of what DX12 offers.
pub(crate) const PARAM_BYTES: u32 = 64;

/// All adapters, best first: discrete, integrated, software; Vulkan and Metal before DX12.
pub fn list_adapters() -> Vec<AdapterFacts> {
    adapters().iter().map(facts_of).collect()
}

fn adapters() -> Vec<wgpu::Adapter> {
    let mut descriptor = wgpu::InstanceDescriptor::new_without_display_handle();
    descriptor.backends = wgpu::Backends::VULKAN | wgpu::Backends::METAL | wgpu::Backends::DX12;
    descriptor.flags = wgpu::InstanceFlags::empty();
    let backends = descriptor.backends;
    let instance = wgpu::Instance::new(descriptor);
    let mut all = pollster::block_on(instance.enumerate_adapters(backends));
    let rank = |a: &wgpu::Adapter| {
        let info = a.get_info();
        let kind = match info.device_type {
            wgpu::DeviceType::DiscreteGpu => 0,
            wgpu::DeviceType::IntegratedGpu => 1,
            wgpu::DeviceType::VirtualGpu | wgpu::DeviceType::Other => 2,
            wgpu::DeviceType::Cpu => 3,
        };
        (kind, info.backend == wgpu::Backend::Dx12)
    };
    all.sort_by_key(rank);
    all
}

fn facts_of(adapter: &wgpu::Adapter) -> AdapterFacts {
    let info = adapter.get_info();
    let features = adapter.features();
    let caps = Caps {
        limits: Limits::WEBGPU,
        class: match info.device_type {
            wgpu::DeviceType::Cpu => DeviceClass::Cpu,
            wgpu::DeviceType::IntegratedGpu => DeviceClass::Integrated,
            _ => DeviceClass::Discrete,
        },
        f16: features.contains(wgpu::Features::SHADER_F16),
        subgroups: features.contains(wgpu::Features::SUBGROUP),
        int64: features.contains(wgpu::Features::SHADER_INT64),
        texels: storage::offers_texels(adapter),
        subgroup_min: info.subgroup_min_size,
        coop: coop::offered(adapter),
        tiles: Tiles::NONE,
    };
    let driver = format!("{} {}", info.driver, info.driver_info);
    AdapterFacts {
        name: info.name,
        backend: format!("{:?}", info.backend),
        driver: driver.trim().to_string(),
        caps: caps.with_limits(&adapter.limits()),
    }
}

/// The device that [`Gpu::open`] asks of an adapter: all its limits, and what the kernels can use.
pub(super) fn device_descriptor(adapter: &wgpu::Adapter) -> wgpu::DeviceDescriptor<'static> {
    let usable = wgpu::Features::IMMEDIATES
        | wgpu::Features::SHADER_F16
        | wgpu::Features::SUBGROUP
        | wgpu::Features::SHADER_INT64
        | wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX
        | wgpu::Features::TIMESTAMP_QUERY
        | wgpu::Features::TIMESTAMP_QUERY_INSIDE_PASSES;
    wgpu::DeviceDescriptor {
        label: Some("scalediff"),
        required_features: usable & adapter.features(),
        required_limits: adapter.limits(),
        // SAFETY: the one experimental feature asked for is that of matrix units, which are tested before they are used.
        experimental_features: unsafe { wgpu::ExperimentalFeatures::enabled() },
        ..Default::default()
    }
}

impl GpuOptions {
    /// What is known of the adapter that these options ask for, before it is opened.
    ///
    /// # Errors
    /// No adapter, or none of that name.
    pub fn choose(&self) -> Result<AdapterFacts> {
        self.adapter().map(|adapter| facts_of(&adapter))
    }

    fn adapter(&self) -> Result<wgpu::Adapter> {
        let mut all = adapters();
        let index = match &self.device {
            None if all.is_empty() => {
                return Err(Error::device("no GPU adapter found").with_hint(
                    "install a Vulkan driver; Mesa's lavapipe (mesa-vulkan-drivers) runs on any processor",
                ));
            }
            None => 0,
            Some(wanted) => {
                let names: Vec<String> = all.iter().map(|a| a.get_info().name).collect();
                let number = wanted.parse::<usize>().ok().filter(|i| *i < all.len());
                let part = wanted.to_lowercase();
                let named = || names.iter().position(|n| n.to_lowercase().contains(&part));
                number.or_else(named).ok_or_else(|| {
                    Error::device(format!("no device {wanted:?} among: {}", names.join(", ")))
                        .with_hint("list them with: scalediff devices")
                })?
            }
        };
        Ok(all.swap_remove(index))
    }

    /// The tier and the limits asked for, on a device with the facts `caps`; `limits` reads the latter,
    /// by [`Limits::lowered_to`] to run and by [`Limits::replaced_by`] to plan.
    ///
    /// # Errors
    /// A tier that the device lacks, limits that cannot be read or are below what the kernels need.
    pub fn apply(
        &self,
        mut caps: Caps,
        limits: fn(Limits, &str) -> Result<Limits>,
    ) -> Result<Caps> {
        if let Some(tier) = self.tier {
            if !caps.tiers().contains(&tier) {
                let tiers: Vec<_> = caps.tiers().iter().map(Tier::to_string).collect();
                return Err(Error::device(format!("the device has no tier {tier}"))
                    .with_hint(format!("its tiers are: {}", tiers.join(", "))));
            }
            caps = caps.clamped(tier);
            // A forced tier runs the kernels that GPUs run: that is what it is forced for.
            caps.class = DeviceClass::Discrete;
        }
        if let Some(text) = &self.limits {
            caps.limits = limits(caps.limits, text)?;
        }
        if caps.limits.storage_buffers < Limits::WEBGPU.storage_buffers {
            return Err(Error::usage(format!(
                "{} storage buffers per kernel are too few: the kernels need {}",
                caps.limits.storage_buffers,
                Limits::WEBGPU.storage_buffers
            )));
        }
        Ok(caps)
    }
}

impl Gpu {
    /// Opens the adapter that `options` asks for.
    ///
    /// # Errors
    /// No adapter, none of that name, or one without what every kernel needs.
    pub fn open(options: &GpuOptions) -> Result<Self> {
        let chosen = options.adapter()?;
        let facts = facts_of(&chosen);
        let descriptor = device_descriptor(&chosen);
        let (device, queue) =
            pollster::block_on(chosen.request_device(&descriptor)).map_err(|e| {
                Error::device(format!("{}: cannot be opened", facts.name)).with_source(e)
            })?;
        Self::new(facts, device, queue, options).map(Self::watch)?.tested(options)
    }

    /// Becomes a guest on a device of the caller's, which must have been opened with
    /// `Features::IMMEDIATES` and at least 64 bytes of immediates.
    pub fn from_device(
        adapter: &wgpu::Adapter,
        device: wgpu::Device,
        queue: wgpu::Queue,
        options: &GpuOptions,
    ) -> Result<Self> {
        let mut facts = facts_of(adapter);
        facts.caps.f16 &= device.features().contains(wgpu::Features::SHADER_F16);
        facts.caps.subgroups &= device.features().contains(wgpu::Features::SUBGROUP);
        facts.caps.int64 &= device.features().contains(wgpu::Features::SHADER_INT64);
        let units = wgpu::Features::EXPERIMENTAL_COOPERATIVE_MATRIX;
        facts.caps.coop = facts.caps.coop.filter(|_| device.features().contains(units));
        facts.caps = facts.caps.with_limits(&device.limits());
        Self::new(facts, device, queue, options)?.tested(options)
    }

    fn new(
        mut facts: AdapterFacts,
        device: wgpu::Device,
        queue: wgpu::Queue,
        options: &GpuOptions,
    ) -> Result<Self> {
        if !device.features().contains(wgpu::Features::IMMEDIATES)
            || device.limits().max_immediate_size < PARAM_BYTES
        {
            return Err(Error::device(format!(
                "{}: the device offers no {PARAM_BYTES} bytes of immediates (push constants)",
                facts.name
            ))
            .with_hint("update the driver, or choose another device with --device"));
        }
        let named = |e: Error| e.at(&facts.name);
        facts.caps = options.apply(facts.caps.clone(), Limits::lowered_to).map_err(named)?;

        let zeros = Storage::new(&device, &queue, &facts.caps, "zeros", 256)?;
        let governor = Governor::new(facts.caps.class);
        let profile =
            options.profile.then(|| Mutex::new(Profile::new(Clock::of(device.features()))));
        Ok(Self {
            device,
            queue,
            facts,
            shader_checks: options.shader_checks,
            sources: options.sources.clone(),
            pipelines: Mutex::default(),
            layouts: Mutex::default(),
            zeros,
            governor,
            flops_done: AtomicU64::new(0),
            profile,
            failure: Arc::default(),
        })
    }

    /// Collects the device's errors. Only for a device of our own: a guest leaves its host's handlers.
    fn watch(self) -> Self {
        let slot = Arc::clone(&self.failure);
        self.device.on_uncaptured_error(Arc::new(move |error: wgpu::Error| {
            let kind = match &error {
                wgpu::Error::OutOfMemory { .. } => ErrorKind::OutOfMemory,
                _ => ErrorKind::Device,
            };
            let text = error.to_string();
            lock(&slot).get_or_insert(Error::new(kind, text));
        }));
        let slot = Arc::clone(&self.failure);
        self.device.set_device_lost_callback(move |reason, message| {
            if reason != wgpu::DeviceLostReason::Destroyed {
                let text = format!("the device was lost: {message}");
                lock(&slot).get_or_insert(Error::device(text));
            }
        });
        self
    }

    /// Keeps textures of buffers only if they pass [`texels::test`], and matrix units only if they pass [`coop::test`] and
    /// where kernels use them; then takes the tiles that were measured on such a device.
    fn tested(mut self, options: &GpuOptions) -> Result<Self> {
        if self.facts.caps.reads_textures()
            && let Err(e) = texels::test(&self)
        {
            log::warn!(
                "{}: kernels read words of buffers, which is slower, and not textures: {e}; please report it, with the \
                 driver's version",
                self.facts.name
            );
            self.facts.caps.texels = false;
        }
        // The kernels for processors know none.
        let offered = self.facts.caps.coop.filter(|_| self.facts.caps.class != DeviceClass::Cpu);
        self.facts.caps.coop = match offered.map(|units| coop::test(&self, units)) {
            None => None,
            Some(Ok(units)) => Some(units),
            Some(Err(e)) if options.tier == Some(Tier::Coop) => {
                return Err(e.at(&self.facts.name).with_hint("run without --tier coop"));
            }
            Some(Err(e)) => {
                log::warn!("{}: matrix units are not used: {e}", self.facts.name);
                None
            }
        };
        self.facts.caps.tiles = options.tuning.tiles(&self.facts);
        Ok(self)
    }

    /// The device's facts, lowered to what the options allow.
    pub fn caps(&self) -> &Caps {
        &self.facts.caps
    }

    /// Floating point operations of all plans replayed since the device was opened.
    pub fn flops_done(&self) -> u64 {
        self.flops_done.load(Ordering::Relaxed)
    }

    /// How pieces of work can be timed here.
    pub fn clock(&self) -> Clock {
        Clock::of(self.device.features())
    }

    /// Time per kernel and layer since the device was opened, when it was opened with `profile`.
    pub fn profile_report(&self) -> Option<String> {
        self.profile.as_ref().map(|p| lock(p).to_string())
    }

    /// Name, backend and driver.
    pub fn facts(&self) -> &AdapterFacts {
        &self.facts
    }

    /// Waits for a submission (`None`: for all), or reports why that will never happen.
    pub(crate) fn wait(&self, submission: Option<wgpu::SubmissionIndex>) -> Result<()> {
        // A dispatch takes at most about half a second; minutes without an end mean a hung driver.
        let poll = wgpu::PollType::Wait {
            submission_index: submission,
            timeout: Some(Duration::from_secs(300)),
        };
        self.device.poll(poll).map_err(|e| {
            self.take_failure().unwrap_or_else(|| {
                Error::device("the device did not finish its work").with_source(e)
            })
        })?;
        self.take_failure().map_or(Ok(()), Err)
    }

    /// The first error that the device reported since the last call.
    pub(crate) fn take_failure(&self) -> Option<Error> {
        lock(&self.failure).take()
    }
}

/// A poisoned lock only means that another thread panicked; the data are replaced whole, never half.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

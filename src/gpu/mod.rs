//! The device: choosing it, its facts, its pipelines, and moving data to and from it.
//!
//! Together with the plan and replay half of [`graph`](crate::graph) this is the only place that
//! names `wgpu`.

#[cfg_attr(target_vendor = "apple", path = "no_alias.rs")]
mod alias;
mod caps;
mod coop;
mod device;
mod engine;
mod memory;
mod pipeline;
mod profile;
mod storage;
mod texels;
mod timestamps;
mod transfer;
mod tuning;

pub(crate) use caps::LANES;
pub use caps::{Caps, Coop, DeviceClass, Limits, Tier};
pub(crate) use device::lock;
pub use device::{AdapterFacts, Gpu, GpuOptions, list_adapters};
pub use engine::{DeviceTensor, Engine};
pub use memory::Slabs;
pub use pipeline::Pipeline;
pub use profile::Profile;
pub(crate) use storage::Storage;
pub use timestamps::Clock;
pub(crate) use timestamps::Stamps;
pub use tuning::{Tile, TileKind, Tiles, Tuning};
/// The version of wgpu that [`Engine::from_device`] takes its device from.
pub use wgpu;

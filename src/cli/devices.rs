//! `scalediff devices`.

use crate::error::{Error, Result};
use crate::gpu::{DeviceClass, list_adapters};

/// Prints every adapter with its tiers and limits.
pub fn run() -> Result<()> {
    let adapters = list_adapters();
    if adapters.is_empty() {
        return Err(Error::device("no GPU adapter found").with_hint(
            "install a Vulkan driver; Mesa's lavapipe (mesa-vulkan-drivers) runs on any processor",
        ));
    }
    for (index, a) in adapters.iter().enumerate() {
        let class = match a.caps.class {
            DeviceClass::Cpu => "software",
            DeviceClass::Integrated => "integrated",
            DeviceClass::Discrete => "discrete",
        };
        let tiers: Vec<String> = a.caps.tiers().iter().map(ToString::to_string).collect();
        let l = &a.caps.limits;
        outln!("{index}: {} ({class}, {}, {})", a.name, a.backend, a.driver);
        outln!("   tiers: {}", tiers.join(" "));
        outln!(
            "   limits: binding {} MiB, buffer {} MiB, {} groups per axis, {} storage buffers, {} KiB workgroup memory",
            l.binding_bytes >> 20,
            l.buffer_bytes >> 20,
            l.groups_per_axis,
            l.storage_buffers,
            l.workgroup_bytes >> 10
        );
    }
    Ok(())
}

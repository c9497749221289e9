//! Facts of a device and what was measured of it, as plain data: what kernels choose their variants from.

use std::fmt;
use std::str::FromStr;

use super::storage;
use super::tuning::Tiles;
use crate::error::{Error, Result};
use crate::shader::Elem;
use crate::tensor::DType;

/// What kind of processor runs the kernels; decides tile shapes, never correctness.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DeviceClass {
    /// A software driver: few threads, wide vectors, expensive barriers.
    Cpu,
    /// A GPU that shares the system's memory.
    Integrated,
    /// A GPU with memory of its own, or one whose kind is not known.
    Discrete,
}

/// Lowers a device to less than it can do, so that one machine tests the path of every GPU.
///
/// Which kernels are for processors is a matter of [`DeviceClass::Cpu`], not of a tier: they run where no tier is
/// forced, since a forced tier runs the kernels of GPUs on any device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Tier {
    /// No f16 arithmetic types, no subgroups: WebGPU's floor.
    Plain,
    /// With f16 storage types.
    F16,
    /// With subgroup operations; with f16 and 64-bit integers where the device has them.
    Subgroup,
    /// With matrix units, for products of f16.
    Coop,
}

impl Tier {
    /// All tiers, lowest first.
    pub const ALL: [Tier; 4] = [Tier::Plain, Tier::F16, Tier::Subgroup, Tier::Coop];
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Tier::Plain => "plain",
            Tier::F16 => "f16",
            Tier::Subgroup => "subgroup",
            Tier::Coop => "coop",
        })
    }
}

impl FromStr for Tier {
    type Err = Error;
    fn from_str(s: &str) -> Result<Self> {
        Tier::ALL.into_iter().find(|t| t.to_string() == s).ok_or_else(|| {
            Error::usage(format!("unknown tier {s:?}, expected plain, f16, subgroup or coop"))
        })
    }
}

/// The limits that decide how work is cut. They can be set below the device's own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes that one binding may cover.
    pub binding_bytes: u64,
    /// Bytes that one buffer may have.
    pub buffer_bytes: u64,
    /// Workgroups along one axis of a dispatch.
    pub groups_per_axis: u32,
    /// Storage buffers that one kernel may bind.
    pub storage_buffers: u32,
    /// Invocations of one workgroup.
    pub invocations: u32,
    /// Bytes of workgroup memory.
    pub workgroup_bytes: u32,
}

impl Limits {
    /// What every WebGPU device has.
    pub const WEBGPU: Limits = Limits {
        binding_bytes: 128 << 20,
        buffer_bytes: 256 << 20,
        groups_per_axis: 65_535,
        storage_buffers: 8,
        invocations: 256,
        workgroup_bytes: 16 << 10,
    };

    /// Lowers these limits to `text`: `webgpu`, or a list such as `binding=1MiB,groups=64,storage=8`.
    ///
    /// # Errors
    /// An unknown key, or a value that is no size or is zero.
    pub fn lowered_to(self, text: &str) -> Result<Self> {
        Ok(self.min(self.replaced_by(text)?))
    }

    /// Sets these limits to `text`, which may also raise them: for plans.
    ///
    /// # Errors
    /// As [`Limits::lowered_to`].
    pub fn replaced_by(mut self, text: &str) -> Result<Self> {
        let hint = "write webgpu, or a list of binding=SIZE, buffer=SIZE, groups=N, storage=N, \
                    with sizes such as 1MiB or 65536";
        for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            if part == "webgpu" {
                self = Limits::WEBGPU;
                continue;
            }
            let bad = || Error::usage(format!("--limits: cannot read {part:?}")).with_hint(hint);
            let (key, value) = part.split_once('=').ok_or_else(bad)?;
            let value = parse_size(value).filter(|v| *v > 0).ok_or_else(bad)?;
            let narrow = |v: u64| u32::try_from(v).unwrap_or(u32::MAX);
            match key {
                "binding" => self.binding_bytes = value,
                "buffer" => self.buffer_bytes = value,
                "groups" => self.groups_per_axis = narrow(value),
                "storage" => self.storage_buffers = narrow(value),
                _ => return Err(bad()),
            }
        }
        Ok(self)
    }

    /// Those of an adapter or a device.
    pub(super) fn of(limits: &wgpu::Limits) -> Limits {
        Limits {
            binding_bytes: limits.max_storage_buffer_binding_size,
            buffer_bytes: limits.max_buffer_size,
            groups_per_axis: limits.max_compute_workgroups_per_dimension,
            storage_buffers: limits.max_storage_buffers_per_shader_stage,
            invocations: limits.max_compute_invocations_per_workgroup,
            workgroup_bytes: limits.max_compute_workgroup_storage_size,
        }
    }

    fn min(self, other: Limits) -> Limits {
        Limits {
            binding_bytes: self.binding_bytes.min(other.binding_bytes),
            buffer_bytes: self.buffer_bytes.min(other.buffer_bytes),
            groups_per_axis: self.groups_per_axis.min(other.groups_per_axis),
            storage_buffers: self.storage_buffers.min(other.storage_buffers),
            invocations: self.invocations.min(other.invocations),
            workgroup_bytes: self.workgroup_bytes.min(other.workgroup_bytes),
        }
    }
}

/// Reads `4096`, `64KiB`, `1MiB`, `2GiB`.
fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    let number: u64 = text[..digits].parse().ok()?;
    let shift = match text[digits..].trim() {
        "" | "B" => 0,
        "KiB" => 10,
        "MiB" => 20,
        "GiB" => 30,
        _ => return None,
    };
    number.checked_mul(1 << shift)
}

/// Matrix units (cooperative matrices) that multiply square matrices of f16 and add in f32.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Coop {
    /// Rows and columns of each matrix: 8 or 16.
    pub side: u32,
    /// Invocations of the subgroups that share a matrix, as measured; a multiple of `side`.
    pub subgroup: u32,
    /// Matrices load from arrays of f16 only, not of vec4s (Metal).
    pub scalars: bool,
}

/// Everything a kernel may base a choice on.
#[derive(Debug, Clone, PartialEq)]
pub struct Caps {
    /// What kind of device it is.
    pub class: DeviceClass,
    /// Shaders may use f16 types.
    pub f16: bool,
    /// Shaders may use subgroup operations. No size is promised.
    pub subgroups: bool,
    /// Shaders may use 64-bit integers. Only kernels for processors do.
    pub int64: bool,
    /// Shaders may read operands through textures in their buffers' memory. Only kernels for processors do.
    pub texels: bool,
    /// The fewest invocations that a subgroup has: a workgroup no larger is one subgroup.
    pub subgroup_min: u32,
    /// Matrix units that passed a test of their results.
    pub coop: Option<Coop>,
    /// The most of each resource that a kernel may use.
    pub limits: Limits,
    /// Measured tiles.
    pub tiles: Tiles,
}

/// Invocations that kernels for processors run as one vector; a subgroup must hold them.
pub(crate) const LANES: u32 = 8;

impl Caps {
    /// The most operands that a kernel only reads: textures of a shader where it reads through them.
    pub const MOST_READ: u32 = 7;

    /// The floor: WebGPU's limits and nothing optional.
    pub const FLOOR: Caps = Caps {
        class: DeviceClass::Discrete,
        f16: false,
        subgroups: false,
        int64: false,
        texels: false,
        subgroup_min: 1,
        coop: None,
        limits: Limits::WEBGPU,
        tiles: Tiles::NONE,
    };

    /// The same device, used no higher than `tier`.
    #[must_use]
    pub fn clamped(mut self, tier: Tier) -> Self {
        self.f16 &= tier >= Tier::F16;
        self.subgroups &= tier >= Tier::Subgroup;
        self.int64 &= tier >= Tier::Subgroup;
        self.coop = self.coop.filter(|_| tier >= Tier::Coop);
        self
    }

    /// The tiers that differ on this device, lowest first.
    pub fn tiers(&self) -> Vec<Tier> {
        Tier::ALL
            .into_iter()
            .filter(|t| match t {
                Tier::Plain => true,
                Tier::F16 => self.f16,
                Tier::Subgroup => self.subgroups,
                Tier::Coop => self.coop.is_some(),
            })
            .collect()
    }

    /// Whether kernels for processors run that exchange numbers within a vector of [`LANES`] invocations.
    pub fn has_vectors(&self) -> bool {
        self.class == DeviceClass::Cpu && self.subgroups && self.subgroup_min >= LANES
    }

    /// Whether operands that are only read are read through textures.
    pub(super) fn reads_textures(&self) -> bool {
        self.texels && self.has_vectors()
    }

    /// These with the limits of an adapter or a device; where operands are read through textures, no binding is larger than
    /// one of those.
    pub(super) fn with_limits(mut self, limits: &wgpu::Limits) -> Self {
        self.limits = Limits::of(limits);
        self.texels &= limits.max_storage_textures_per_shader_stage >= Self::MOST_READ;
        if self.reads_textures() {
            self.limits.binding_bytes = self.limits.binding_bytes.min(storage::MOST_BYTES);
        }
        self
    }

    /// Bytes of the largest operand that every kernel can read.
    pub fn operand_bytes(&self) -> u64 {
        self.limits.binding_bytes.min(self.limits.buffer_bytes)
    }

    /// How shaders write `dtype` here, and read what they write too.
    pub fn elem(&self, dtype: DType) -> Elem {
        match dtype {
            // A software driver fetches every component of every lane by itself, and unpacks halves faster than it
            // converts f16 types.
            DType::F32 if self.class == DeviceClass::Cpu && self.int64 => Elem::Wide,
            DType::F16 if self.class == DeviceClass::Cpu && self.int64 => Elem::Words,
            DType::F32 => Elem::F32,
            DType::F16 if self.f16 && self.class != DeviceClass::Cpu => Elem::F16,
            DType::F16 => Elem::Packed,
        }
    }

    /// The same where the shader, if `paired`, accesses two vec4s at a time and rows hold an even number of them.
    pub fn elem_paired(&self, dtype: DType, paired: bool) -> Elem {
        match self.elem(dtype) {
            Elem::Words if paired => Elem::Pairs,
            other => other,
        }
    }

    /// How shaders read `dtype` here where they do not write it too.
    pub fn elem_in(&self, dtype: DType) -> Elem {
        self.elem_texels(dtype).unwrap_or(self.elem(dtype))
    }

    /// The same, accessed as [`Caps::elem_paired`] says.
    pub fn elem_in_paired(&self, dtype: DType, paired: bool) -> Elem {
        self.elem_texels(dtype).unwrap_or(self.elem_paired(dtype, paired))
    }

    fn elem_texels(&self, dtype: DType) -> Option<Elem> {
        self.reads_textures().then_some(match dtype {
            DType::F16 => Elem::Texels,
            DType::F32 => Elem::TexelsWide,
        })
    }

    /// The implementation of the slot `reduce`, and the lanes that share a row.
    pub fn reduce(&self) -> (&'static str, u32) {
        match (self.class, self.subgroups) {
            (DeviceClass::Cpu, _) => ("serial", 1),
            (_, true) => ("subgroup", 64),
            (_, false) => ("shared", 64),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_vectors_of_processors_read_textures() {
        let gpu = Caps { texels: true, subgroups: true, subgroup_min: 32, ..Caps::FLOOR };
        assert_eq!(gpu.elem_texels(DType::F16), None);
        let limits = Limits { binding_bytes: 4 << 30, buffer_bytes: 4 << 30, ..Limits::WEBGPU };
        assert_eq!(Caps { limits, ..gpu.clone() }.operand_bytes(), 4 << 30);
        let processor = Caps { class: DeviceClass::Cpu, subgroup_min: 8, ..gpu };
        assert_eq!(processor.elem_texels(DType::F16), Some(Elem::Texels));
        assert_eq!(Caps { subgroup_min: 4, ..processor }.elem_texels(DType::F16), None);
    }

    #[test]
    fn limits_are_lowered_and_never_raised() {
        let l = Limits::WEBGPU.lowered_to("binding=1MiB, groups=64,storage=99").unwrap();
        assert_eq!((l.binding_bytes, l.groups_per_axis, l.storage_buffers), (1 << 20, 64, 8));
        for bad in ["x", "binding", "binding=0", "binding=1XB", "colour=3", "groups=-1"] {
            assert!(Limits::WEBGPU.lowered_to(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_tier_takes_away_what_lies_above_it() {
        let all = Caps { f16: true, subgroups: true, int64: true, ..Caps::FLOOR };
        let plain = all.clone().clamped(Tier::Plain);
        assert!(!plain.f16 && !plain.subgroups && !plain.int64);
        let f16 = all.clone().clamped(Tier::F16);
        assert!(f16.f16 && !f16.subgroups && !f16.int64);
        assert_eq!(all.clone().clamped(Tier::Subgroup), all);
        let coop = Some(Coop { side: 16, subgroup: 32, scalars: false });
        let most = Caps { coop, ..all.clone() };
        assert_eq!(most.clone().clamped(Tier::Subgroup), all);
        assert_eq!(most.clone().clamped(Tier::Coop), most);
        assert_eq!(Caps::FLOOR.elem(DType::F16), Elem::Packed);
    }
}

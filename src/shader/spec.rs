//! What identifies a kernel, and what a variant of it may choose.

use std::fmt;

/// How the elements of one operand are stored, and thus how the shader reads them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Elem {
    /// `array<vec4<f32>>`.
    F32,
    /// The same as `array<vec2<u64>>`, for processors; needs 64-bit integers.
    Wide,
    /// `array<vec4<f16>>`; needs shader-f16.
    F16,
    /// f16 storage as `array<vec2<u32>>`, unpacked by hand: works everywhere.
    Packed,
    /// f16 storage as `array<u64>`, for processors; needs 64-bit integers.
    Words,
    /// The same as `array<vec2<u64>>`, two vec4s of elements to an access: for rows of an even number.
    Pairs,
    /// f16 storage as `array<mat2x4<f16>>`, eight halves to an access, for matrix units: for rows of a multiple of eight.
    Octets,
    /// f16 storage read through a texture, two vec4s to a texel; for processors.
    Texels,
    /// f32 storage read through a texture; for processors.
    TexelsWide,
}

impl Elem {
    /// Whether the operand is a texture, and not a buffer.
    pub fn is_texture(self) -> bool {
        matches!(self, Elem::Texels | Elem::TexelsWide)
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Elem::F32 => "f32",
            Elem::Wide => "wide",
            Elem::F16 => "f16",
            Elem::Packed => "packed",
            Elem::Words => "words",
            Elem::Pairs => "pairs",
            Elem::Octets => "octets",
            Elem::Texels => "texels",
            Elem::TexelsWide => "texels_wide",
        }
    }
}

/// The fixed part of a kernel: its name and its file. One name serves the WGSL file, the launcher,
/// the reference, the test cases and the label.
#[derive(Debug, PartialEq, Eq, Hash)]
pub struct KernelSpec {
    /// The kernel's name, as in labels.
    pub name: &'static str,
    /// Its file below `shaders/`.
    pub file: &'static str,
}

/// A constant of the generated prelude.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Const {
    Bool(bool),
    U32(u32),
}

impl fmt::Display for Const {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Const::Bool(v) => write!(f, "{v}"),
            Const::U32(v) => write!(f, "{v}"),
        }
    }
}

/// Everything a kernel's `choose` decides: constants, slot implementations, element types.
///
/// The text of the shader, the label and the key of the pipeline cache all derive from it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Variant {
    pub(crate) consts: Vec<(&'static str, Const)>,
    pub(crate) slots: Vec<(&'static str, &'static str)>,
    pub(crate) elems: Vec<(&'static str, Elem)>,
}

impl Variant {
    /// A variant that chooses nothing yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the prelude constant `name` to a number.
    #[must_use]
    pub fn num(mut self, name: &'static str, value: u32) -> Self {
        self.consts.push((name, Const::U32(value)));
        self
    }

    /// Sets the prelude constant `name` to a flag.
    #[must_use]
    pub fn flag(mut self, name: &'static str, value: bool) -> Self {
        self.consts.push((name, Const::Bool(value)));
        self
    }

    /// Fills the slot `name` with `shaders/lib/<name>/<implementation>.wgsl`.
    #[must_use]
    pub fn slot(mut self, name: &'static str, implementation: &'static str) -> Self {
        self.slots.push((name, implementation));
        self
    }

    /// Stores the operand bound as `name` as `elem`.
    #[must_use]
    pub fn elem(mut self, name: &'static str, elem: Elem) -> Self {
        self.elems.push((name, elem));
        self
    }

    /// The element type of the operand `name`.
    pub fn elem_of(&self, name: &str) -> Option<Elem> {
        self.elems.iter().find(|(n, _)| *n == name).map(|(_, e)| *e)
    }

    /// The implementation chosen for the slot `name`.
    pub fn slot_of(&self, name: &str) -> Option<&'static str> {
        self.slots.iter().find(|(n, _)| *n == name).map(|(_, s)| *s)
    }

    /// Whether the module needs `enable f16`.
    pub fn needs_f16(&self) -> bool {
        self.elems.iter().any(|(_, e)| matches!(e, Elem::F16 | Elem::Octets))
    }

    /// Whether the module uses matrix units.
    pub fn needs_coop(&self) -> bool {
        self.slot_of("side").is_some()
    }

    /// Sets the slots and constants that go with matrix units.
    #[must_use]
    pub fn coop(self, side: u32, subgroup: u32, scalars: bool) -> Self {
        self.slot("side", if side == 8 { "8" } else { "16" })
            .slot("cells", if scalars { "scalar" } else { "vec4" })
            .num("SUBGROUP", subgroup)
    }
}

/// `[x:f32,y:f16,mma=direct,TILE_M=8,HAS_BIAS]`: false flags are left out.
impl fmt::Display for Variant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut parts: Vec<String> = Vec::new();
        parts.extend(self.elems.iter().map(|(n, e)| format!("{n}:{}", e.name())));
        parts.extend(self.slots.iter().map(|(n, s)| format!("{n}={s}")));
        for (name, value) in &self.consts {
            match value {
                Const::Bool(true) => parts.push((*name).to_string()),
                Const::Bool(false) => {}
                Const::U32(v) => parts.push(format!("{name}={v}")),
            }
        }
        write!(f, "[{}]", parts.join(","))
    }
}

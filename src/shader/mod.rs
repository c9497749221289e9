//! WGSL: the embedded sources, and the composer that turns a kernel file and a [`Variant`] into one
//! module. No GPU here, so every variant can be checked by naga alone.

mod compose;
mod constants;
mod sources;
mod spec;

pub use compose::{Access, Binding, Composed, compose};
pub use sources::{SOURCES, Sources, fingerprint};
pub use spec::{Const, Elem, KernelSpec, Variant};

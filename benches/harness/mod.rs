//! Measuring kernels: time, the device's own peaks, and how results are shown.

pub mod args;
pub mod peak;
pub mod report;
pub mod timer;

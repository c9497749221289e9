//! SiLU in f64.

/// `x / (1 + exp(-x))`.
pub fn silu(x: &[f32]) -> Vec<f32> {
    x.iter().map(|v| one(f64::from(*v)) as f32).collect()
}

pub(super) fn one(v: f64) -> f64 {
    v / (1.0 + (-v).exp())
}

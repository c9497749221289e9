//! Rounding to f16.

use half::f16;
use half::slice::HalfFloatSliceExt;

/// What was lost in a conversion to f16.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Overflow {
    /// Values with a magnitude above 65504, the largest f16 (infinities included, NaN not).
    pub above_max: usize,
    /// Values other than 0 with a magnitude below 2⁻¹⁴, which keep fewer digits or become 0.
    pub subnormal: usize,
}

/// Rounds to f16, counting what does not fit. Values far above the range become infinite, so a tensor with
/// `above_max > 0` should stay f32.
pub fn to_f16(values: &[f32]) -> (Vec<f16>, Overflow) {
    let mut lost = Overflow::default();
    for v in values.iter().map(|v| v.abs()) {
        lost.above_max += usize::from(v > 65504.0);
        lost.subnormal += usize::from(v > 0.0 && v < f16::MIN_POSITIVE.to_f32_const());
    }
    let mut out = vec![f16::ZERO; values.len()];
    out.convert_from_f32_slice(values);
    (out, lost)
}

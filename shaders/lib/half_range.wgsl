// Values as f16 storage takes them: what overflows becomes the largest half, not an infinity, and NaN stays NaN, for the check
// after each stage to find. By bits: `clamp` may make a number of NaN, and compilers may drop `v != v`.
fn half_range(v: vec4<f32>) -> vec4<f32> {
    let u = bitcast<vec4<u32>>(v);
    let sign = u & vec4(0x80000000u);
    let a = u ^ sign;
    return bitcast<vec4<f32>>(sign | select(min(a, vec4(0x477fe000u)), vec4(0x7fc00000u), a > vec4(0x7f800000u)));
}

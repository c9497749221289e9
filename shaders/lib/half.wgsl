// Four halves in one word. `packed` clamps as half_range.wgsl does and rounds to nearest, ties to even: software drivers
// do not use the processor's own conversion for it, and their code takes five times as long as this.
fn unpacked(w: u64) -> vec4<f32> { return vec4(unpack2x16float(u32(w)), unpack2x16float(u32(w >> 32u))); }
fn packed(v: vec4<f32>) -> u64 {
    let u = bitcast<vec4<u32>>(v);
    let sign = u & vec4(0x80000000u);
    let b = u ^ sign;
    // The largest half; or for NaN what comes out as a half's NaN below.
    let a = select(min(b, vec4(0x477fe000u)), vec4(0x47c00000u), b > vec4(0x7f800000u));
    // Normal halves: round off 13 bits, move the exponent's bias from 127 to 15. Smaller ones are multiples of 2^-24, as
    // is what follows one half in f32.
    let normal = a + vec4(0xfffu) + ((a >> vec4(13u)) & vec4(1u)) - vec4(0x38000000u);
    let small = bitcast<vec4<u32>>(bitcast<vec4<f32>>(a) + vec4(0.5)) - vec4(0x3f000000u);
    // Selects come last: LLVM would move anything simpler into its loop over lanes that stores the result.
    let is_small = a < vec4(0x38800000u);
    let low = sign.xz >> vec2(16u);
    let h = select((normal.xz >> vec2(13u)) | low, small.xz + low, is_small.xz)
        | select(((normal.yw << vec2(3u)) & vec2(0xffff0000u)) | sign.yw, (small.yw << vec2(16u)) + sign.yw, is_small.yw);
    return u64(h.x) | (u64(h.y) << 32u);
}

// f32 storage on a processor: a vec4 in two words, for an access costs by the number of its components.
DECLARE NAME: array<vec2<u64>>;
fn load_NAME(i: u32) -> vec4<f32> { let w = NAME[i]; let lo = vec2<u32>(w); let hi = vec2<u32>(w >> vec2(32u)); return bitcast<vec4<f32>>(vec4(lo.x, hi.x, lo.y, hi.y)); }
fn load2_NAME(i: u32) -> mat2x4<f32> { return mat2x4(load_NAME(i), load_NAME(i + 1u)); }
fn store_NAME(i: u32, v: vec4<f32>) { let u = bitcast<vec4<u32>>(v); NAME[i] = vec2<u64>(u.xz) | (vec2<u64>(u.yw) << vec2(32u)); }
fn store2_NAME(i: u32, v: mat2x4<f32>) { store_NAME(i, v[0]); store_NAME(i + 1u, v[1]); }

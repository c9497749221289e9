// f16 storage on a processor, accessed by pairs of vec4s: an access costs more than what it moves.
// Rows hold an even number of vec4s; load2 and store2 take even i.
DECLARE NAME: array<vec2<u64>>;
fn load_NAME(i: u32) -> vec4<f32> { let w = NAME[i / 2u]; return unpacked(select(w.y, w.x, i % 2u == 0u)); }
fn load2_NAME(i: u32) -> mat2x4<f32> { let w = NAME[i / 2u]; return mat2x4(unpacked(w.x), unpacked(w.y)); }
fn store_NAME(i: u32, v: vec4<f32>) { NAME[i / 2u][i % 2u] = packed(v); }
fn store2_NAME(i: u32, v: mat2x4<f32>) { NAME[i / 2u] = vec2(packed(v[0]), packed(v[1])); }

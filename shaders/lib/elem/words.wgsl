// f16 storage on a processor: a vec4 to a word, for an access costs by the number of its components.
DECLARE NAME: array<u64>;
fn load_NAME(i: u32) -> vec4<f32> { return unpacked(NAME[i]); }
fn load2_NAME(i: u32) -> mat2x4<f32> { return mat2x4(unpacked(NAME[i]), unpacked(NAME[i + 1u])); }
fn store_NAME(i: u32, v: vec4<f32>) { NAME[i] = packed(v); }
fn store2_NAME(i: u32, v: mat2x4<f32>) { NAME[i] = packed(v[0]); NAME[i + 1u] = packed(v[1]); }

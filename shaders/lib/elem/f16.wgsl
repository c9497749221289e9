// f16 storage on a device with shader-f16.
DECLARE NAME: array<vec4<f16>>;
fn load_NAME(i: u32) -> vec4<f32> { return vec4<f32>(NAME[i]); }
fn store_NAME(i: u32, v: vec4<f32>) { NAME[i] = vec4<f16>(half_range(v)); }
fn load2_NAME(i: u32) -> mat2x4<f32> { return mat2x4(load_NAME(i), load_NAME(i + 1u)); }
fn store2_NAME(i: u32, v: mat2x4<f32>) { store_NAME(i, v[0]); store_NAME(i + 1u, v[1]); }

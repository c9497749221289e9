// f16 storage on a device without shader-f16: two halves to a u32.
DECLARE NAME: array<vec2<u32>>;
fn load_NAME(i: u32) -> vec4<f32> { let w = NAME[i]; return vec4<f32>(unpack2x16float(w.x), unpack2x16float(w.y)); }
fn load2_NAME(i: u32) -> mat2x4<f32> { return mat2x4(load_NAME(i), load_NAME(i + 1u)); }
fn store_NAME(i: u32, v: vec4<f32>) { let c = half_range(v); NAME[i] = vec2<u32>(pack2x16float(c.xy), pack2x16float(c.zw)); }
fn store2_NAME(i: u32, v: mat2x4<f32>) { store_NAME(i, v[0]); store_NAME(i + 1u, v[1]); }

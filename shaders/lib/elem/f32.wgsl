// f32 storage. The composer replaces DECLARE by the binding and NAME by the operand.
DECLARE NAME: array<vec4<f32>>;
fn load_NAME(i: u32) -> vec4<f32> { return NAME[i]; }
fn load2_NAME(i: u32) -> mat2x4<f32> { return mat2x4(NAME[i], NAME[i + 1u]); }
fn store_NAME(i: u32, v: vec4<f32>) { NAME[i] = v; }
fn store2_NAME(i: u32, v: mat2x4<f32>) { NAME[i] = v[0]; NAME[i + 1u] = v[1]; }

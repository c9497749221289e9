// f16 storage read eight halves at a time as they are, for matrix units: rows of whole octets.
DECLARE NAME: array<mat2x4<f16>>;
fn load8_NAME(i: u32) -> mat2x4<f16> { return NAME[i]; }
fn load2_NAME(i: u32) -> mat2x4<f32> { let v = NAME[i / 2u]; return mat2x4(vec4<f32>(v[0]), vec4<f32>(v[1])); }
fn load_NAME(i: u32) -> vec4<f32> { return vec4<f32>(NAME[i / 2u][i % 2u]); }

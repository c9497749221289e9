// f16 storage read as halves, for matrix units.
DECLARE NAME: array<vec4<f16>>;
fn load_NAME(i: u32) -> vec4<f16> { return NAME[i]; }
fn load2_NAME(i: u32) -> mat2x4<f16> { return mat2x4(NAME[i], NAME[i + 1u]); }

// f32 storage read through a texture, a vec4 to a texel.
DECLARE NAME: texture_storage_2d<rgba32uint, read>;
fn load_NAME(i: u32) -> vec4<f32> { return bitcast<vec4<f32>>(textureLoad(NAME, texel_at(i))); }
fn load2_NAME(i: u32) -> mat2x4<f32> { return mat2x4(load_NAME(i), load_NAME(i + 1u)); }

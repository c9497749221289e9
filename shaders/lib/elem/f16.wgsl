// f16 storage on a device with shader-f16. Stores clamp: an overflow must not become an infinity.
DECLARE NAME: array<vec4<f16>>;
fn load_NAME(i: u32) -> vec4<f32> { return vec4<f32>(NAME[i]); }
fn store_NAME(i: u32, v: vec4<f32>) { NAME[i] = vec4<f16>(clamp(v, vec4<f32>(-65504.0), vec4<f32>(65504.0))); }

// silu(v) = v / (1 + exp(-v)), elementwise.
fn silu(v: vec4<f32>) -> vec4<f32> { return v / (vec4<f32>(1.0) + exp(-v)); }

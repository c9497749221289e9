// Tokens without a place.
fn turned(v: vec4<f32>, d4: u32, y: u32, x: u32, way: f32) -> vec4<f32> { return v; }

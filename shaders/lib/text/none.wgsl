// The picture's keys alone.
const TEXT: bool = false;
const TURNED: bool = false;
fn load_text_k(i: u32) -> vec4<f32> { return vec4(0.0); }
fn load_text_v(i: u32) -> vec4<f32> { return vec4(0.0); }
fn load2_text_k(i: u32) -> mat2x4<f32> { return mat2x4(vec4(0.0), vec4(0.0)); }
fn load2_text_v(i: u32) -> mat2x4<f32> { return mat2x4(vec4(0.0), vec4(0.0)); }
#when attend coop coop_wide
fn load8_text_k(i: u32) -> mat2x4<f16> { return mat2x4<f16>(); }
fn load8_text_v(i: u32) -> mat2x4<f16> { return mat2x4<f16>(); }
#end
fn turned(v: vec4<f32>, d4: u32, y: u32, x: u32, way: f32) -> vec4<f32> { return v; }

// Text queries whose own keys came with an earlier part: the picture's alone are left.
#bind read turn
const TEXT: bool = false;
const TURNED: bool = true;
fn load_text_k(i: u32) -> vec4<f32> { return vec4(0.0); }
fn load_text_v(i: u32) -> vec4<f32> { return vec4(0.0); }
fn load2_text_k(i: u32) -> mat2x4<f32> { return mat2x4(vec4(0.0), vec4(0.0)); }
fn load2_text_v(i: u32) -> mat2x4<f32> { return mat2x4(vec4(0.0), vec4(0.0)); }
#when attend coop coop_wide
fn load8_text_k(i: u32) -> mat2x4<f16> { return mat2x4<f16>(); }
fn load8_text_v(i: u32) -> mat2x4<f16> { return mat2x4<f16>(); }
#end
#import turn

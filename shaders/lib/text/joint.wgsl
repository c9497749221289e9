// Text keys join the softmax of a picture that is seen whole.
#bind read text_k
#bind read text_v
const TEXT: bool = true;
const TURNED: bool = false;
fn turned(v: vec4<f32>, d4: u32, y: u32, x: u32, way: f32) -> vec4<f32> { return v; }

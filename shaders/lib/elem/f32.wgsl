// f32 storage. The composer replaces DECLARE by the binding and NAME by the operand.
DECLARE NAME: array<vec4<f32>>;
fn load_NAME(i: u32) -> vec4<f32> { return NAME[i]; }
fn store_NAME(i: u32, v: vec4<f32>) { NAME[i] = v; }

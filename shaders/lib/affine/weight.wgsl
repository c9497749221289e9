// A weight alone.
#bind read weight
const BY_ITEM: bool = false;
fn gain(item: u32, c4: u32) -> vec4<f32> { return load_weight(c4); }
fn offset(item: u32, c4: u32) -> vec4<f32> { return vec4(0.0); }

// A layer norm's own weight and bias.
#bind read weight
#bind read bias
const BY_ITEM: bool = false;
fn gain(item: u32, c4: u32) -> vec4<f32> { return load_weight(c4); }
fn offset(item: u32, c4: u32) -> vec4<f32> { return load_bias(c4); }

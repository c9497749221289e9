// A diffusion transformer's modulation: 1 + scale and shift are columns of the batch item's row of a table.
#bind read table
const BY_ITEM: bool = true;
fn gain(item: u32, c4: u32) -> vec4<f32> { return vec4(1.0) + load_table(item * params.table4 + params.scale4 + c4); }
fn offset(item: u32, c4: u32) -> vec4<f32> { return load_table(item * params.table4 + params.shift4 + c4); }

// f16 storage read through a texture, eight halves to a texel.
DECLARE NAME: texture_storage_2d<rgba32uint, read>;
fn load2_NAME(i: u32) -> mat2x4<f32> {
    let w = textureLoad(NAME, texel_at(i / 2u));
    return mat2x4(vec4(unpack2x16float(w.x), unpack2x16float(w.y)), vec4(unpack2x16float(w.z), unpack2x16float(w.w)));
}
fn load_NAME(i: u32) -> vec4<f32> {
    let t = textureLoad(NAME, texel_at(i / 2u));
    let w = select(t.zw, t.xy, i % 2u == 0u);
    return vec4(unpack2x16float(w.x), unpack2x16float(w.y));
}

// Rotary position embedding on a grid: pairs of channels 2i, 2i+1 of a head turn by the angle of their row (pairs before
// X_PAIR) or of their column. Row p of `turn` holds cos and sin of all pairs at position p.
// Vec4 d4 of a head, turned from the origin to (y, x) for way = 1, back for -1.
fn turned(v: vec4<f32>, d4: u32, y: u32, x: u32, way: f32) -> vec4<f32> {
    var t = load_turn(select(y, x, 2u * d4 >= X_PAIR) * D4 + d4);
    if (2u * d4 + 1u == X_PAIR) { t = vec4(t.xy, load_turn(x * D4 + d4).zw); }
    let a = t.xy * vec2(1.0, way);
    let b = t.zw * vec2(1.0, way);
    return vec4(v.x * a.x - v.y * a.y, v.y * a.x + v.x * a.y, v.z * b.x - v.w * b.y, v.w * b.x + v.z * b.y);
}

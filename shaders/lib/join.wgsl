// Two tensors read as one, joined on channels: [x | x2]. Needs params.{x_row0, x2_row0, c1, c2}.
// Where c1 is no multiple of four a vec4 may straddle the seam: that slow path picks lane by lane.
fn load_joined(row: u32, c4: u32) -> vec4<f32> {
    let s1 = (params.c1 + 3u) / 4u;
    let r1 = (row - params.x_row0) * s1;
    if (!HAS_X2) { return load_x(r1 + c4); }
    let r2 = (row - params.x2_row0) * ((params.c2 + 3u) / 4u);
    if (ALIGNED_JOIN) {
        if (c4 < s1) { return load_x(r1 + c4); }
        return load_x2(r2 + c4 - s1);
    }
    var v = vec4(0.0);
    for (var i = 0u; i < 4u; i++) {
        let c = 4u * c4 + i;
        if (c < params.c1) {
            v[i] = load_x(r1 + c / 4u)[c % 4u];
        } else if (c < params.c1 + params.c2) {
            v[i] = load_x2(r2 + (c - params.c1) / 4u)[(c - params.c1) % 4u];
        }
    }
    return v;
}
// Vec4s c4 and c4 + 1, where c4 and c1 / 4 are even.
fn load2_joined(row: u32, c4: u32) -> mat2x4<f32> {
    let s1 = (params.c1 + 3u) / 4u;
    let r1 = (row - params.x_row0) * s1;
    if (!HAS_X2 || c4 < s1) { return load2_x(r1 + c4); }
    return load2_x2((row - params.x2_row0) * ((params.c2 + 3u) / 4u) + c4 - s1);
}
#when mma coop
// Octet c8, where both inputs have rows of whole octets.
fn load8_joined(row: u32, c8: u32) -> mat2x4<f16> {
    let s1 = params.c1 / 8u;
    if (!HAS_X2 || c8 < s1) { return load8_x((row - params.x_row0) * s1 + c8); }
    return load8_x2((row - params.x2_row0) * (params.c2 / 8u) + c8 - s1);
}
#end

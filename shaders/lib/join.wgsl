// Two tensors read as one, joined on channels: [x | x2]. Needs params.{x_row0, x2_row0, c1, c2}.
// Where c1 is no multiple of four a vec4 may straddle the seam: that slow path picks lane by lane.

// First bound rows and vec4s of a row. A kernel sets them at its start: a software driver fetches a parameter that is read
// inside a loop for one lane after the other.
struct Seam { row1: u32, wide1: u32, row2: u32, wide2: u32 }
var<private> seam: Seam;
fn begin_joined() { seam = Seam(params.x_row0, (params.c1 + 3u) / 4u, params.x2_row0, (params.c2 + 3u) / 4u); }
// A row that both tensors hold.
fn any_joined() -> u32 { return max(seam.row1, seam.row2); }

fn load_joined(row: u32, c4: u32) -> vec4<f32> {
    let r1 = (row - seam.row1) * seam.wide1;
    if (!HAS_X2) { return load_x(r1 + c4); }
    let r2 = (row - seam.row2) * seam.wide2;
    if (ALIGNED_JOIN) {
        if (c4 < seam.wide1) { return load_x(r1 + c4); }
        return load_x2(r2 + c4 - seam.wide1);
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
    if (!HAS_X2 || c4 < seam.wide1) { return load2_x((row - seam.row1) * seam.wide1 + c4); }
    return load2_x2((row - seam.row2) * seam.wide2 + c4 - seam.wide1);
}
#when mma coop
// Octet c8, where both inputs have rows of whole octets.
fn load8_joined(row: u32, c8: u32) -> mat2x4<f16> {
    let wide1 = seam.wide1 / 2u;
    if (!HAS_X2 || c8 < wide1) { return load8_x((row - seam.row1) * wide1 + c8); }
    return load8_x2((row - seam.row2) * (seam.wide2 / 2u) + c8 - wide1);
}
#end

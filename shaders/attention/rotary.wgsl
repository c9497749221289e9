// y[r,h,:] = turn(x[r,h,:] / sqrt(mean(x[r,h,:]²) + eps) * weight[:])      q and k of a diffusion transformer, before attention
//   x [rows, ..], of which the heads start at `column`;  weight [HEAD_DIM] f32;  turn [positions, HEAD_DIM] f32;  y [rows, heads*HEAD_DIM].
//   Tokens lie on a grid, where TURNED; text is not turned. A lane per row and head; heads are whole vec4s.
#bind read x
#bind read weight
#import table
#bind write y
#import grid
#import quotient
struct Params {
    first_group: u32,
    lanes: u32,    // rows of this launch × heads
    heads: u32,
    x4: u32,       // vec4s of a row of x, and where the heads start
    column4: u32,
    row0: u32,     // first row of this launch
    height: u32,   // of the grid
    width: u32,
    eps: f32,
}
var<immediate> params: Params;
const D4: u32 = HEAD_DIM / 4u;

@compute @workgroup_size(WG)
fn main(@builtin(local_invocation_index) lid: u32, @builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>) {
    let lane = group_index(wid, nwg) * WG + lid;
    if (lane >= params.lanes) { return; }
    let row = quotient(lane, params.heads);
    let head = lane - row * params.heads;
    let from_x = row * params.x4 + params.column4 + head * D4;
    var sum = vec4(0.0);
    for (var d = 0u; d < D4; d++) {
        let v = load_x(from_x + d);
        sum += v * v;
    }
    let rstd = inverseSqrt((sum.x + sum.y + sum.z + sum.w) / f32(HEAD_DIM) + params.eps);
    let line = quotient(params.row0 + row, params.width);
    let y = line - quotient(line, params.height) * params.height;
    let x = params.row0 + row - line * params.width;
    for (var d = 0u; d < D4; d++) {
        let v = load_x(from_x + d) * rstd * load_weight(d);
        store_y(lane * D4 + d, turned(v, d, y, x, 1.0));
    }
}

// y = silu(x), elementwise over vec4s.   x, y [rows, channels]
#bind read x
#bind write y
#import grid
#import silu
struct Params {
    first_group: u32,
    lanes: u32, // vec4s of this launch
}
var<immediate> params: Params;

@compute @workgroup_size(WG)
fn main(@builtin(local_invocation_index) lid: u32, @builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>) {
    let i = group_index(wid, nwg) * WG + lid;
    if (i >= params.lanes) { return; }
    store_y(i, silu(load_x(i)));
}

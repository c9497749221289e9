// y = x: what memory can do, and whether textures show it (`gpu/texels.rs`).   x, y [rows, 4] f32, one vec4 per lane.
#bind read x
#bind write y
#import grid
struct Params {
    first_group: u32,
    lanes: u32,
}
var<immediate> params: Params;

@compute @workgroup_size(WG)
fn main(@builtin(local_invocation_index) lid: u32, @builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>) {
    let lane = group_index(wid, nwg) * WG + lid;
    if (lane >= params.lanes) { return; }
    store_y(lane, load_x(lane));
}

// y = act((x - mean) * scale + bias), with mean and scale per item and channel from group_norm_merge.
//   x = [x | x2] joined on channels;  fold [items, 2, channels] f32;  bias [channels] f32;  y [rows, channels].
// One lane per vec4; reads x once, writes y once. act = SiLU when SILU.
#bind read x
#bind read x2
#bind read fold
#bind read bias
#bind write y
#import grid
struct Params {
    first_group: u32,
    lanes: u32,          // rows of this launch × c4
    row0: u32,           // first row of this launch; y is bound there
    rows_per_item: u32,
    x_row0: u32,
    x2_row0: u32,
    c1: u32,
    c2: u32,
}
var<immediate> params: Params;
#import join

@compute @workgroup_size(WG)
fn main(@builtin(local_invocation_index) lid: u32, @builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>) {
    let lane = group_index(wid, nwg) * WG + lid;
    if (lane >= params.lanes) { return; }
    let c4s = (params.c1 + params.c2 + 3u) / 4u;
    let row = params.row0 + lane / c4s;
    let c4 = lane % c4s;
    let f = (row / params.rows_per_item) * 2u * c4s + c4;
    var v = (load_joined(row, c4) - load_fold(f)) * load_fold(f + c4s) + load_bias(c4);
    if (SILU) { v = v / (vec4<f32>(1.0) + exp(-v)); }
    store_y(lane, v);
}

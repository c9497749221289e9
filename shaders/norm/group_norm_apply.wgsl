// y = act((x - mean) * scale + bias), with mean and scale per item and channel from group_norm_merge.
//   x = [x | x2] joined on channels;  fold [items, 2, channels] f32;  bias [channels] f32;  y [rows, channels].
// One lane per vec4 (two where PAIRED) of EACH rows of one item; reads x once, writes y once. act = SiLU when SILU.
#bind read x
#bind read x2
#bind read fold
#bind read bias
#bind write y
#import grid
#import quotient
struct Params {
    first_group: u32,
    lanes: u32,          // rows of this launch / EACH × lanes per row
    row0: u32,           // first row of this launch; y is bound there
    rows_per_item: u32,
    x_row0: u32,
    x2_row0: u32,
    c1: u32,
    c2: u32,
}
var<immediate> params: Params;
#import join
#import act

@compute @workgroup_size(WG)
fn main(@builtin(local_invocation_index) lid: u32, @builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>) {
    begin_joined();
    let lane = group_index(wid, nwg) * WG + lid;
    if (lane >= params.lanes) { return; }
    let c4s = (params.c1 + params.c2 + 3u) / 4u;
    let per_row = select(c4s, c4s / 2u, PAIRED);
    let block = quotient(lane, per_row);
    let c4 = (lane - block * per_row) * select(1u, 2u, PAIRED);
    let first = block * EACH;
    let f = quotient(params.row0 + first, params.rows_per_item) * 2u * c4s + c4;
    let mean = load_fold(f);
    let scale = load_fold(f + c4s);
    let bias = load_bias(c4);
    if (PAIRED) {
        let mean_b = load_fold(f + 1u);
        let scale_b = load_fold(f + c4s + 1u);
        let bias_b = load_bias(c4 + 1u);
        for (var r = first; r < first + EACH; r++) {
            let v = load2_joined(params.row0 + r, c4);
            store2_y(r * c4s + c4, mat2x4(act((v[0] - mean) * scale + bias), act((v[1] - mean_b) * scale_b + bias_b)));
        }
    } else {
        for (var r = first; r < first + EACH; r++) {
            store_y(r * c4s + c4, act((load_joined(params.row0 + r, c4) - mean) * scale + bias));
        }
    }
}

// Partial statistics of a group norm, per channel and chunk of rows:
//   part[chunk, 0, c] = mean of x over the chunk;  part[chunk, 1, c] = sum of (x - mean)^2.
//   x = [x | x2] joined on channels (skip connections are never copied); part [chunks, 2, channels] f32.
// One lane per chunk and vec4 of channels (two where PAIRED). Welford's recurrence reads x once, and nothing cancels at
// any size of picture.
#bind read x
#bind read x2
#bind write part
#import grid
#import quotient
struct Params {
    first_group: u32,
    lanes: u32,          // chunks of this launch × lanes per row
    chunk0: u32,         // first chunk of this launch
    chunks_per_item: u32,
    rows_per_chunk: u32,
    rows_per_item: u32,
    x_row0: u32,         // first bound row of x and x2
    x2_row0: u32,
    c1: u32,             // channels of x
    c2: u32,             // channels of x2; 0 when absent
}
var<immediate> params: Params;
#import join
#import welford

@compute @workgroup_size(WG)
fn main(@builtin(local_invocation_index) lid: u32, @builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>) {
    begin_joined();
    let lane = group_index(wid, nwg) * WG + lid;
    if (lane >= params.lanes) { return; }
    let c4s = (params.c1 + params.c2 + 3u) / 4u;
    let per_row = select(c4s, c4s / 2u, PAIRED);
    let local = quotient(lane, per_row);
    let c4 = (lane - local * per_row) * select(1u, 2u, PAIRED);
    let chunk = params.chunk0 + local;
    let item = quotient(chunk, params.chunks_per_item);
    let begin = (chunk - item * params.chunks_per_item) * params.rows_per_chunk;
    let count = min(params.rows_per_chunk, params.rows_per_item - begin);
    let row = item * params.rows_per_item + begin;
    var a: Stats;
    var b: Stats;
    for (var r = 0u; r < count; r++) {
        let share = 1.0 / f32(r + 1u);
        if (PAIRED) {
            let v = load2_joined(row + r, c4);
            a = with_value(a, v[0], share);
            b = with_value(b, v[1], share);
        } else {
            a = with_value(a, load_joined(row + r, c4), share);
        }
    }
    let at = local * 2u * c4s + c4;
    if (PAIRED) {
        store2_part(at, mat2x4(a.mean, b.mean));
        store2_part(at + c4s, mat2x4(a.square, b.square));
    } else {
        store_part(at, a.mean);
        store_part(at + c4s, a.square);
    }
}

// Partial statistics of a group norm, per channel and chunk of rows:
//   part[chunk, 0, c] = mean of x over the chunk;  part[chunk, 1, c] = sum of (x - mean)^2.
//   x = [x | x2] joined on channels (skip connections are never copied); part [chunks, 2, channels] f32.
// One lane per chunk and vec4 of channels; the chunk is read twice (the second time from cache), so no
// sum of squares ever cancels, at any size of picture.
#bind read x
#bind read x2
#bind write part
#import grid
struct Params {
    first_group: u32,
    lanes: u32,          // chunks of this launch × c4
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

@compute @workgroup_size(WG)
fn main(@builtin(local_invocation_index) lid: u32, @builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>) {
    let lane = group_index(wid, nwg) * WG + lid;
    if (lane >= params.lanes) { return; }
    let c4s = (params.c1 + params.c2 + 3u) / 4u;
    let local = lane / c4s;
    let c4 = lane % c4s;
    let chunk = params.chunk0 + local;
    let item = chunk / params.chunks_per_item;
    let begin = (chunk % params.chunks_per_item) * params.rows_per_chunk;
    let count = min(params.rows_per_chunk, params.rows_per_item - begin);
    let row = item * params.rows_per_item + begin;
    var sum = vec4<f32>(0.0);
    for (var r = 0u; r < count; r++) { sum += load_joined(row + r, c4); }
    let mean = sum / f32(count);
    var square = vec4<f32>(0.0);
    for (var r = 0u; r < count; r++) {
        let d = load_joined(row + r, c4) - mean;
        square += d * d;
    }
    store_part((local * 2u) * c4s + c4, mean);
    store_part((local * 2u + 1u) * c4s + c4, square);
}

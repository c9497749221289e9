// Merges the partial statistics of a group norm and folds the affine weight in:
//   fold[item, 0, c] = mean of c's group;  fold[item, 1, c] = weight[c] / sqrt(var of c's group + eps).
//   part [items × chunks, 2, channels] f32 (see group_norm_stats);  weight [channels] f32;  fold [items, 2, channels] f32.
// One group of channels per LANES lanes. Chan's merge in two passes: the mean of the means, then
// sum(part) + count · (part mean - mean)^2, so nothing cancels.
#bind raw read part: array<f32>
#bind raw read weight: array<f32>
#bind raw read_write fold: array<f32>
#import reduce
#import grid
#import quotient
struct Params {
    first_group: u32,
    groups_in_all: u32,   // items of this launch × groups
    item0: u32,           // first item of this launch
    part_row0: u32,       // first row of part that is bound, of 2 for each chunk
    channels: u32,
    groups: u32,
    chunks: u32,          // chunks per item
    rows_per_chunk: u32,
    rows_per_item: u32,
    eps: f32,
}
var<immediate> params: Params;

const ROWS: u32 = WG / LANES;

fn count_of(chunk: u32) -> f32 {
    return f32(min(params.rows_per_chunk, params.rows_per_item - chunk * params.rows_per_chunk));
}

@compute @workgroup_size(WG)
fn main(at: Invocation) {
    let id = group_index(at.wid, at.nwg) * ROWS + at.index / LANES;
    let lane = at.index % LANES;
    let group = min(id, params.groups_in_all - 1u);
    let of_launch = quotient(group, params.groups);
    let item = params.item0 + of_launch;
    let cpg = quotient(params.channels, params.groups);
    let c0 = (group - of_launch * params.groups) * cpg;
    let stride = ((params.channels + 3u) / 4u) * 4u;
    let start = (item * params.chunks * 2u - params.part_row0) * stride + c0;
    let entries = params.chunks * cpg;
    let n = f32(params.rows_per_item) * f32(cpg);

    var sum = 0.0;
    for (var e = lane; e < entries; e += LANES) {
        let chunk = quotient(e, cpg);
        sum += part[start + chunk * 2u * stride + e - chunk * cpg] * count_of(chunk);
    }
    let mean = lanes_sum(sum, at) / n;
    var square = 0.0;
    for (var e = lane; e < entries; e += LANES) {
        let chunk = quotient(e, cpg);
        let p = start + chunk * 2u * stride + e - chunk * cpg;
        let d = part[p] - mean;
        square += part[p + stride] + count_of(chunk) * d * d;
    }
    let rstd = inverseSqrt(lanes_sum(square, at) / n + params.eps);
    if (id >= params.groups_in_all) { return; }
    let out = item * 2u * stride;
    for (var c = c0 + lane; c < c0 + cpg; c += LANES) {
        fold[out + c] = mean;
        fold[out + stride + c] = weight[c] * rstd;
    }
    // The lane that ends the row keeps its padding zero.
    if (c0 + cpg == params.channels && lane == 0u) {
        for (var c = params.channels; c < stride; c++) {
            fold[out + c] = 0.0;
            fold[out + stride + c] = 0.0;
        }
    }
}

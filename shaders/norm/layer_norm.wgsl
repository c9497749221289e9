// y[r,:] = (x[r,:] - mean(x[r,:])) / sqrt(var(x[r,:]) + eps) * weight[:] + bias[:]
//   x, y [rows, channels];  weight, bias [channels] f32.
// One row per LANES lanes (slot `reduce`): a workgroup per row on GPUs, a lane per row on CPU-class
// devices. Mean first, then the squared distances: two reads of x, no cancellation.
#bind read x
#bind read weight
#bind read bias
#bind write y
#import reduce
#import grid
struct Params {
    first_group: u32,
    rows: u32,     // rows of this launch; x and y are bound at its first row
    channels: u32,
    eps: f32,
}
var<immediate> params: Params;

const ROWS: u32 = WG / LANES;

@compute @workgroup_size(WG)
fn main(at: Invocation) {
    let row = group_index(at.wid, at.nwg) * ROWS + at.index / LANES;
    let lane = at.index % LANES;
    // Barriers in the reduction need every lane: a row past the end reads the last one and stores nothing.
    let base = min(row, params.rows - 1u) * ((params.channels + 3u) / 4u);
    let c4 = (params.channels + 3u) / 4u;
    let n = f32(params.channels);

    var sum = vec4<f32>(0.0);
    for (var c = lane; c < c4; c += LANES) { sum += load_x(base + c); }
    let mean = lanes_sum(sum.x + sum.y + sum.z + sum.w, at) / n;

    var square = 0.0;
    for (var c = lane; c < c4; c += LANES) {
        let d = load_x(base + c) - vec4<f32>(mean);
        let inside = vec4<f32>(vec4<u32>(4u * c) + vec4<u32>(0u, 1u, 2u, 3u) < vec4<u32>(params.channels));
        square += dot(d * inside, d);
    }
    let rstd = inverseSqrt(lanes_sum(square, at) / n + params.eps);
    if (row >= params.rows) { return; }
    for (var c = lane; c < c4; c += LANES) {
        let d = load_x(base + c) - vec4<f32>(mean);
        // Padding lanes: weight and bias are zero there, so zero stays zero.
        store_y(base + c, d * rstd * load_weight(c) + load_bias(c));
    }
}

// Resampling along one axis with a table of taps (bicubic, antialiased bilinear: made on the CPU in f64):
//   y[.., i, ..] = sum_t weights[i, t] · (x - minus)[.., first[i] + t, ..]      ALONG_X: i runs over the width
//   or base - that, when HAS_BASE.
//   x, minus [items, in_h, in_w, channels] f32;  y, base [items, out_h, out_w, channels] f32, equal to x's
//   shape but for the axis;  taps [out, 1 + tap_count] f32: the first index, then the weights.
// One lane per output vec4.
#bind read x
#bind read minus
#bind read base
#bind raw read taps: array<f32>
#bind write y
#import grid
struct Params {
    first_group: u32,
    lanes: u32,     // rows of this launch × c4
    row0: u32,      // first output row of this launch; y and base are bound there
    x_row0: u32,    // first bound row of x and minus
    channels: u32,
    in_h: u32,
    in_w: u32,
    out_h: u32,
    out_w: u32,
    tap_count: u32,
}
var<immediate> params: Params;

@compute @workgroup_size(WG)
fn main(@builtin(local_invocation_index) lid: u32, @builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>) {
    let lane = group_index(wid, nwg) * WG + lid;
    if (lane >= params.lanes) { return; }
    let c4s = (params.channels + 3u) / 4u;
    let row = params.row0 + lane / c4s;
    let c4 = lane % c4s;
    let item = row / (params.out_h * params.out_w);
    let y = (row / params.out_w) % params.out_h;
    let x = row % params.out_w;
    let i = select(y, x, ALONG_X);
    let entry = i * (params.tap_count + 1u);
    let first = u32(taps[entry]);
    // The input pixel of the first tap and the distance between taps, in rows of x.
    var source = item * params.in_h * params.in_w;
    var hop = 1u;
    if (ALONG_X) {
        source += y * params.in_w + first;
    } else {
        source += first * params.in_w + x;
        hop = params.in_w;
    }
    var sum = vec4<f32>(0.0);
    for (var t = 0u; t < params.tap_count; t++) {
        let w = taps[entry + 1u + t];
        // Rows of the table are padded with zero weights: those taps may lie outside and are not read.
        if (w != 0.0) {
            let p = (source + t * hop - params.x_row0) * c4s + c4;
            var v = load_x(p);
            if (HAS_MINUS) { v -= load_minus(p); }
            sum += w * v;
        }
    }
    if (HAS_BASE) { sum = load_base(lane) - sum; }
    store_y(lane, sum);
}

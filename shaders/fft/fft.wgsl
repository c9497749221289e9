// One pass of a discrete Fourier transform of n values along one axis, Stockham's mixed radix: a pass for
// each factor `radix` of n, `hop` falling from n / radix to 1. With j = i mod hop and t = i - j:
//   y[.., i, ..] = sum_s w^(s·t) · x[.., t mod (n / radix) · radix + j + s·hop, ..]     s = 0 … radix - 1
//   w = exp(-2πi / n) for turn = 1, its conjugate for turn = -1; nothing is normalised.
// The first pass may take x - minus for x; the last may multiply y by mask, and give base - y.
//   x, minus, base, y [items, h, w, channels] f32: channels 2c and 2c + 1 are the real and the imaginary
//   part of a complex value;  roots [n] f32: real and imaginary part of w^k;  mask [h·w] f32.
// One lane per output vec4, which is two complex values.
#bind read x
#bind read minus
#bind read base
#bind raw read roots: array<vec2<f32>>
#bind raw read mask: array<f32>
#bind write y
#import grid
struct Params {
    first_group: u32,
    lanes: u32,    // rows of this launch × c4
    row0: u32,     // first output row of this launch; y and base are bound there
    x_row0: u32,   // first bound row of x and minus
    channels: u32, // of y: lanes beyond are padding
    pixels: u32,   // h·w
    n: u32,
    stride: u32,   // rows from one value of the axis to the next
    radix: u32,
    hop: u32,
    turn: f32,
}
var<immediate> params: Params;

@compute @workgroup_size(WG)
fn main(@builtin(local_invocation_index) lid: u32, @builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>) {
    let lane = group_index(wid, nwg) * WG + lid;
    if (lane >= params.lanes) { return; }
    let c4s = (params.channels + 3u) / 4u;
    let row = params.row0 + lane / c4s;
    let c4 = lane % c4s;
    let n = params.n;
    let i = (row / params.stride) % n;
    let j = i % params.hop;
    let t = i - j;
    let first = t % (n / params.radix) * params.radix + j;
    // i's row minus i, so that no step falls below zero.
    let line = row - i * params.stride;
    var p = (line + first * params.stride - params.x_row0) * c4s + c4;
    let step = params.hop * params.stride * c4s;
    var k = 0u; // s·t mod n
    var sum = vec4<f32>(0.0);
    for (var s = 0u; s < params.radix; s++) {
        var v = load_x(p);
        if (HAS_MINUS) { v -= load_minus(p); }
        let w = roots[k];
        let im = params.turn * w.y;
        sum += w.x * v + vec4<f32>(-im, im, -im, im) * v.yxwz;
        p += step;
        k += t;
        if (k >= n) { k -= n; }
    }
    if (HAS_MASK) { sum *= mask[row % params.pixels]; }
    if (HAS_BASE) { sum = load_base(lane) - sum; }
    // The partner of an odd last channel is padding again once the transform is back.
    let channel = vec4<u32>(4u * c4) + vec4<u32>(0u, 1u, 2u, 3u);
    store_y(lane, select(sum, vec4<f32>(0.0), channel >= vec4<u32>(params.channels)));
}

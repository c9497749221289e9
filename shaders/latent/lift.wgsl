// The low band returns to full size and joins the update:
//   y = a · x + b · x2 + c · x3 + g · U(low)      U: bilinear, half-pixel centres, clamped, no antialiasing
//   low [items, low_h, low_w, channels] f32;  x, x2, x3, y [items, h, w, channels] f32;  step [1, 8] f32: a, b, g, c from 4 on.
// Every operand is optional. It is the low-pass itself (g), latent frequency mixing (a, g), structure
// guidance fused with a sampler's step (a, b, g), or the step alone; c is a sampler's third term.
#bind read x
#bind read x2
#bind read x3
#bind read low
#bind read step
#bind write y
#import grid
struct Params {
    first_group: u32,
    lanes: u32,   // rows of this launch × c4
    row0: u32,    // first row of this launch; x, x2, x3 and y are bound there
    channels: u32,
    h: u32,
    w: u32,
    low_h: u32,
    low_w: u32,
}
var<immediate> params: Params;

// Source coordinate and the two taps of one axis.
fn taps(i: u32, n: u32, low: u32) -> vec3<f32> {
    let at = max((f32(i) + 0.5) * (f32(low) / f32(n)) - 0.5, 0.0);
    let first = min(u32(at), low - 1u);
    return vec3<f32>(f32(first), f32(min(first + 1u, low - 1u)), at - f32(first));
}

@compute @workgroup_size(WG)
fn main(@builtin(local_invocation_index) lid: u32, @builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>) {
    let lane = group_index(wid, nwg) * WG + lid;
    if (lane >= params.lanes) { return; }
    let step = load_step(1u);
    var v = vec4<f32>(0.0);
    if (HAS_X) { v += step.x * load_x(lane); }
    if (HAS_X2) { v += step.y * load_x2(lane); }
    if (HAS_X3) { v += step.w * load_x3(lane); }
    if (HAS_LOW) {
        let c4s = (params.channels + 3u) / 4u;
        let row = params.row0 + lane / c4s;
        let c4 = lane % c4s;
        let item = (row / (params.h * params.w)) * params.low_h * params.low_w;
        let ty = taps((row / params.w) % params.h, params.h, params.low_h);
        let tx = taps(row % params.w, params.w, params.low_w);
        let y0 = item + u32(ty.x) * params.low_w;
        let y1 = item + u32(ty.y) * params.low_w;
        let top = mix(load_low((y0 + u32(tx.x)) * c4s + c4), load_low((y0 + u32(tx.y)) * c4s + c4), tx.z);
        let bottom = mix(load_low((y1 + u32(tx.x)) * c4s + c4), load_low((y1 + u32(tx.y)) * c4s + c4), tx.z);
        v += step.z * mix(top, bottom, ty.z);
    }
    store_y(lane, v);
}

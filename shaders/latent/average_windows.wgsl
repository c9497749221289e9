// Windows (see lib/windows.wgsl) back to a picture, averaged where they overlap:
//   y[b, i, j, :] = before[b, i, j, :] + 1/n · sum over the windows k of this group that hold (i, j) of p[b · count + k, .., ..]
//   n is the number of windows of all groups that hold (i, j), so that groups simply add up.
//   p [items × count, window_h, window_w, channels];  before, y [items, h, w, channels].
#bind read p
#bind read before
#bind write y
#import grid
#import windows

// The windows of one axis that hold `at`: the first, and the one after the last.
fn holders(at: u32, stride: u32, window: u32, len: u32, windows: u32) -> vec2<u32> {
    var begin = 0u;
    if (at >= window) { begin = (at - window) / stride + 1u; }
    var end = begin;
    while (end < windows && corner(end, stride, window, len) <= at) { end++; }
    return vec2(begin, end);
}

@compute @workgroup_size(WG)
fn main(@builtin(local_invocation_index) lid: u32, @builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>) {
    let lane = group_index(wid, nwg) * WG + lid;
    if (lane >= params.lanes) { return; }
    let c4s = (params.channels + 3u) / 4u;
    let row = params.row0 + lane / c4s;
    let item = row / (params.h * params.w);
    let y = row / params.w % params.h;
    let x = row % params.w;
    let ky = holders(y, params.stride_h, params.window_h, params.h, params.rows);
    let kx = holders(x, params.stride_w, params.window_w, params.w, params.columns);
    var sum = vec4<f32>(0.0);
    for (var i = ky.x; i < ky.y; i++) {
        for (var j = kx.x; j < kx.y; j++) {
            let k = i * params.columns + j;
            if (k < params.first || k >= params.first + params.count) { continue; }
            let window = item * params.count + k - params.first;
            let dy = y - corner_y(i);
            let dx = x - corner_x(j);
            let source = (window * params.window_h + dy) * params.window_w + dx;
            sum += load_p(source * c4s + lane % c4s);
        }
    }
    var v = sum / f32((ky.y - ky.x) * (kx.y - kx.x));
    if (HAS_BEFORE) { v += load_before(lane); }
    store_y(lane, v);
}

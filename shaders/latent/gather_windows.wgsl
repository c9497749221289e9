// Overlapping windows of a picture (see lib/windows.wgsl) as items of a batch:
//   y[b · count + k, i, j, :] = x[b, y0 + i, x0 + j, :]      (y0, x0): corner of window first + k
//   x [items, h, w, channels];  y [items × count, window_h, window_w, channels].
#bind read x
#bind write y
#import grid
#import windows

@compute @workgroup_size(WG)
fn main(@builtin(local_invocation_index) lid: u32, @builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>) {
    let lane = group_index(wid, nwg) * WG + lid;
    if (lane >= params.lanes) { return; }
    let c4s = (params.channels + 3u) / 4u;
    let row = params.row0 + lane / c4s;
    let item = row / (params.window_h * params.window_w);
    let k = params.first + item % params.count;
    let y = corner_y(k / params.columns) + row / params.window_w % params.window_h;
    let x = corner_x(k % params.columns) + row % params.window_w;
    let source = (item / params.count * params.h + y) * params.w + x;
    store_y(lane, load_x(source * c4s + lane % c4s));
}

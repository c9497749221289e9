// Overlapping windows of a picture as items of a batch:
//   y[b · count + k, i, j, :] = x[b, y0 + i, x0 + j, :]      (y0, x0): corner of window first + k
//   x [items, h, w, channels];  y [items × count, window_h, window_w, channels].
// Windows are numbered in row order, a stride apart; the last of an axis ends at the border.
#bind read x
#bind write y
#import grid
struct Params {
    first_group: u32,
    lanes: u32,    // rows of this launch × c4
    row0: u32,     // first row of this launch; y is bound there
    channels: u32,
    h: u32,
    w: u32,
    window_h: u32,
    window_w: u32,
    stride_h: u32, // from window to window
    stride_w: u32,
    columns: u32,  // windows along the width
    first: u32,    // number of the first window of this group
    count: u32,    // windows of this group
}
var<immediate> params: Params;

fn corner(k: u32, stride: u32, window: u32, len: u32) -> u32 { return min(k * stride, len - window); }

@compute @workgroup_size(WG)
fn main(@builtin(local_invocation_index) lid: u32, @builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>) {
    let lane = group_index(wid, nwg) * WG + lid;
    if (lane >= params.lanes) { return; }
    let c4s = (params.channels + 3u) / 4u;
    let row = params.row0 + lane / c4s;
    let item = row / (params.window_h * params.window_w);
    let k = params.first + item % params.count;
    let y = corner(k / params.columns, params.stride_h, params.window_h, params.h) + row / params.window_w % params.window_h;
    let x = corner(k % params.columns, params.stride_w, params.window_w, params.w) + row % params.window_w;
    let source = (item / params.count * params.h + y) * params.w + x;
    store_y(lane, load_x(source * c4s + lane % c4s));
}

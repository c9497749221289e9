// Overlapping windows of a picture [items, h, w, channels] as items of a batch [items × count, window_h, window_w, channels].
// Windows are numbered in row order, a stride apart; the last of an axis ends at the border.
struct Params {
    first_group: u32,
    lanes: u32,    // rows of this launch × c4
    row0: u32,     // first row of this launch; what is bound by rows is bound there
    channels: u32,
    h: u32,
    w: u32,
    window_h: u32,
    window_w: u32,
    stride_h: u32, // from window to window
    stride_w: u32,
    rows: u32,     // windows along the height
    columns: u32,  // windows along the width
    first: u32,    // number of the first window of this group
    count: u32,    // windows of this group
}
var<immediate> params: Params;

fn corner(k: u32, stride: u32, window: u32, len: u32) -> u32 { return min(k * stride, len - window); }
fn corner_y(row: u32) -> u32 { return corner(row, params.stride_h, params.window_h, params.h); }
fn corner_x(column: u32) -> u32 { return corner(column, params.stride_w, params.window_w, params.w); }

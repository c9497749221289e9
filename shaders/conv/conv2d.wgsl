// y[b, oy, ox, :] = epilogue(sum over taps of x[b, oy·stride + ty - pad, ox·stride + tx - pad, :] · w[:, ty, tx, :])
//   x = [x | x2] joined on channels, [items, in_h, in_w, c1 (+ c2)];  w [n, SIZE, SIZE, c];  y, res [items, out_h, out_w, n].
// With DOUBLED the input is read at (iy/2, ix/2): nearest-neighbour upsampling without the copy. Of 3 × 3 taps several then read the
// same pixel, which ones depends on whether oy and ox are odd. With FOLDED an engine whose tiles have rows of one kind only takes each
// pixel once, with the sum of its weights: 4 of 9 products.
#bind read x
#bind read x2
#bind read w
#bind read bias
#bind read vector
#bind read res
#bind write y
#import grid
#import quotient
struct Params {
    first_group: u32,
    rows: u32,
    cols: u32,
    c4: u32,
    row0: u32,
    rows_per_item: u32, // out_h × out_w
    col0_4: u32,
    n4: u32,
    x_row0: u32,
    x2_row0: u32,
    c1: u32,
    c2: u32,
    in_h: u32,
    in_w: u32,
    out_w: u32,
    stride_pad: u32,    // stride in the low half, padding above and left in the high half
}
var<immediate> params: Params;
const TAPS: u32 = SIZE * SIZE;
fn vector_at(item: u32) -> u32 { return item * params.n4; }
#import epilogue
#import join

// A row of the implicit matrix: an output position, as the input position under its first tap.
struct ARow { item: u32, y: i32, x: i32 }
const OUTSIDE: u32 = 0xffffffffu;
fn a_begin(row: u32) -> ARow {
    let r = params.row0 + row;
    let stride = i32(params.stride_pad & 0xffffu);
    let pad = i32(params.stride_pad >> 16u);
    let item = quotient(r, params.rows_per_item);
    let at = r - item * params.rows_per_item;
    let y = quotient(at, params.out_w);
    return ARow(item, i32(y) * stride - pad, i32(at - y * params.out_w) * stride - pad);
}
// The input row under a tap, or OUTSIDE in the padding.
fn a_tap(a: ARow, tap: u32) -> u32 {
    var iy = a.y + i32(tap / SIZE);
    var ix = a.x + i32(tap % SIZE);
    if (FOLDED) {
        iy = (a.y >> 1u) + i32(tap / 2u);
        ix = (a.x >> 1u) + i32(tap % 2u);
    }
    var inside = iy >= 0 && ix >= 0 && iy < i32(params.in_h) && ix < i32(params.in_w);
    if (DOUBLED && !FOLDED) {
        // The doubled picture may be cropped by one: beyond the crop lies padding, not the rest of it.
        inside = iy >= 0 && ix >= 0 && iy < i32(params.rows_per_item / params.out_w) && ix < i32(params.out_w);
        iy = iy >> 1u;
        ix = ix >> 1u;
    }
    let row = (a.item * params.in_h + u32(iy)) * params.in_w + u32(ix);
    return select(OUTSIDE, row, inside || SIZE == 1u);
}
// Of the four pixels that FOLDED reads: 1 along x and y where the middle tap reads it too.
fn a_fold(a: ARow, tap: u32) -> vec2<f32> {
    let odd = (vec2(a.x, a.y) & vec2(1)) == vec2(0); // of the output: the first tap lies one to the left and above
    let second = vec2(tap % 2u, tap / 2u) == vec2(1u);
    return select(vec2(0.0), vec2(1.0), odd != second);
}
fn a_load(row: u32, c: u32) -> vec4<f32> {
    if (SIZE == 1u) { return load_joined(row, c); }
    // In the padding some row is read and dropped: cheaper than a branch.
    let inside = row != OUTSIDE;
    let v = load_joined(select(any_joined(), row, inside), c);
    return select(vec4(0.0), v, inside);
}
// Two vec4s, the first one even: on the same side of an even seam.
fn a_load2(row: u32, c: u32) -> mat2x4<f32> {
    if (SIZE == 1u) { return load2_joined(row, c); }
    let inside = row != OUTSIDE;
    let v = load2_joined(select(any_joined(), row, inside), c);
    return mat2x4(select(vec4(0.0), v[0], inside), select(vec4(0.0), v[1], inside));
}
#when mma coop
// Octet c, where both inputs have rows of whole octets.
fn a_load8(row: u32, c: u32) -> mat2x4<f16> {
    if (SIZE == 1u) { return load8_joined(row, c); }
    let inside = row != OUTSIDE;
    let v = load8_joined(select(any_joined(), row, inside), c);
    return mat2x4(select(vec4<f16>(), v[0], inside), select(vec4<f16>(), v[1], inside));
}
#end
#import mma

@compute @workgroup_size(WG)
fn main(@builtin(local_invocation_index) lid: u32, @builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>) {
    begin_joined();
    gemm(group_index(wid, nwg), lid);
}

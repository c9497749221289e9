// Engine `coop`: for GPUs with matrix units. A workgroup of SM × SN subgroups makes a tile of BM rows × BN weight columns,
// each subgroup TM × TN matrices of it. It walks along k in steps of BK4 vec4s: the slices of both operands go through
// workgroup memory as halves, the next ones are on their way in registers meanwhile. Sums are f32.
// A pitch of two vec4s more than a slice starts rows at multiples of 16 bytes, as matrix loads ask for, in other banks.
// Matrices are opaque: for the epilogue each goes through workgroup memory once more, as f32.
#import side
#import cells
const BK4: u32 = 8u;
const PITCH: u32 = BK4 + 2u;
const BM: u32 = SM * TM * SIDE;
const BN: u32 = SN * TN * SIDE;
const THREADS: u32 = SM * SN * SUBGROUP;
const STRIDE: u32 = THREADS / BK4;
const A_LOADS: u32 = (BM + STRIDE - 1u) / STRIDE;
const W_LOADS: u32 = (BN + STRIDE - 1u) / STRIDE;
const BAND: u32 = 8u;            // rows of tiles that are worked on side by side, for what they share in the cache
const OUT_PITCH: u32 = SIDE + 4u;
var<workgroup> a_slice: array<Cell, BM * PITCH * CELLS>;
var<workgroup> w_slice: array<Cell, BN * PITCH * CELLS>;
var<workgroup> results: array<f32, SM * SN * SIDE * OUT_PITCH>;

fn put_a(row: u32, k: u32, v: vec4<f16>) {
    let c = cells(v);
    for (var i = 0u; i < CELLS; i++) { a_slice[(row * PITCH + k) * CELLS + i] = c[i]; }
}
fn put_w(row: u32, k: u32, v: vec4<f16>) {
    let c = cells(v);
    for (var i = 0u; i < CELLS; i++) { w_slice[(row * PITCH + k) * CELLS + i] = c[i]; }
}
fn result4(i: u32) -> vec4<f32> { return vec4(results[i], results[i + 1u], results[i + 2u], results[i + 3u]); }

fn steps_per_tap() -> u32 { return (params.c4 + BK4 - 1u) / BK4; }

// A thread's part of the slices of one step, zero beyond the end of k.
struct Slices { a: array<vec4<f16>, A_LOADS>, w: array<vec4<f16>, W_LOADS> }
fn send(next: ptr<function, Slices>, a: array<ARow, A_LOADS>, w: array<u32, W_LOADS>, step: u32, kk: u32) {
    let tap = step / steps_per_tap();
    let c = (step % steps_per_tap()) * BK4 + kk;
    let inside = c < params.c4;
    for (var i = 0u; i < A_LOADS; i++) {
        (*next).a[i] = vec4<f16>();
        if (inside) { (*next).a[i] = a_load(a_tap(a[i], tap), c); }
    }
    for (var i = 0u; i < W_LOADS; i++) {
        (*next).w[i] = vec4<f16>();
        if (inside) { (*next).w[i] = load_w(w[i] + tap * params.c4 + c); }
    }
}

fn gemm(group: u32, lid: u32) {
    let pair = select(1u, 2u, GATED);
    let cols4 = pair * ((params.cols + 3u) / 4u);   // vec4s of weight columns
    let tiles_n = (4u * cols4 + BN - 1u) / BN;
    let tiles_m = (params.rows + BM - 1u) / BM;
    // No group is beyond the last tile, and a return would break the uniform flow that matrix operations need.
    let band = group / (BAND * tiles_n);
    let in_band = group % (BAND * tiles_n);
    let band_rows = min(BAND, tiles_m - band * BAND);
    let row0 = (band * BAND + in_band % band_rows) * BM;
    let col0 = (in_band / band_rows) * BN;
    let kk = lid % BK4;       // the vec4 of each step that this thread loads
    let first = lid / BK4;    // the first of the rows and columns that it loads
    let k4 = TAPS * params.c4;
    let subgroup = lid / SUBGROUP;
    let lane = lid % SUBGROUP;
    let own_row = (subgroup / SN) * TM * SIDE;
    let own_col = (subgroup % SN) * TN * SIDE;

    var a: array<ARow, A_LOADS>;
    for (var i = 0u; i < A_LOADS; i++) { a[i] = a_begin(min(row0 + first + i * STRIDE, params.rows - 1u)); }
    var w: array<u32, W_LOADS>;
    for (var i = 0u; i < W_LOADS; i++) { w[i] = min(col0 + first + i * STRIDE, 4u * cols4 - 1u) * k4; }

    var acc: array<array<Sum, TN>, TM>;
    var next: Slices;
    let steps = TAPS * steps_per_tap();
    let stride = PITCH * CELLS;
    send(&next, a, w, 0u, kk);
    // Round s stores slice s, sends for the next one and multiplies slice s.
    for (var s = 0u; s < steps; s++) {
        workgroupBarrier();
        for (var i = 0u; i < A_LOADS; i++) {
            if (BM % STRIDE == 0u || first + i * STRIDE < BM) { put_a(first + i * STRIDE, kk, next.a[i]); }
        }
        for (var i = 0u; i < W_LOADS; i++) {
            if (BN % STRIDE == 0u || first + i * STRIDE < BN) { put_w(first + i * STRIDE, kk, next.w[i]); }
        }
        workgroupBarrier();
        if (s + 1u < steps) { send(&next, a, w, s + 1u, kk); }
        for (var k = 0u; k < BK4; k += SIDE / 4u) {
            var right: array<Right, TN>;
            for (var n = 0u; n < TN; n++) {
                let at = (own_col + n * SIDE) * stride + k * CELLS;
                right[n] = coopLoad<Right>(&w_slice[at], stride);
            }
            for (var m = 0u; m < TM; m++) {
                let at = (own_row + m * SIDE) * stride + k * CELLS;
                let left = coopLoadT<Left>(&a_slice[at], stride);
                for (var n = 0u; n < TN; n++) { acc[m][n] = coopMultiplyAdd(left, right[n], acc[m][n]); }
            }
        }
    }

    let base = subgroup * SIDE * OUT_PITCH;
    let out_pitch = OUT_PITCH;
    let quads = SIDE / (4u * pair);   // vec4s of the result in a row of a matrix
    for (var m = 0u; m < TM; m++) {
        for (var n = 0u; n < TN; n++) {
            workgroupBarrier();
            coopStoreT(acc[m][n], &results[base], out_pitch);
            workgroupBarrier();
            for (var i = lane; i < SIDE * quads; i += SUBGROUP) {
                let row = row0 + own_row + m * SIDE + i / quads;
                let col4 = (col0 + own_col + n * SIDE) / (4u * pair) + i % quads;
                if (row < params.rows && col4 < cols4 / pair) {
                    let at = base + (i / quads) * OUT_PITCH + (i % quads) * 4u * pair;
                    let column = column_begin(col4);
                    finish(row, column, finished(row, column, result4(at), result4(at + 4u * (pair - 1u))));
                }
            }
        }
    }
}

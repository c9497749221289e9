// Engine `coop`: for GPUs with matrix units. A workgroup of SM × SN subgroups makes a tile of BM rows × BN weight columns,
// each subgroup TM × TN matrices of it. It walks along k in steps of K8 octets: the slices of both operands go through
// workgroup memory as halves, the next ones are on their way in registers meanwhile. Sums are f32.
// Rows of a slice begin an octet later in the banks than the row before. Loops over matrices and loads are unrolled here:
// drivers that keep an index at run time keep the array in memory too, at a third of the speed.
// Matrices are opaque: for the epilogue each goes through workgroup memory once more, as f32.
#import side
#import cells
const PITCH: u32 = K8 + 1u;
const BM: u32 = SM * TM * SIDE;
const BN: u32 = SN * TN * SIDE;
const STRIDE: u32 = WG / K8;
const BAND: u32 = 8u;            // rows of tiles that are worked on side by side, for what they share in the cache
const OUT_PITCH: u32 = SIDE + 8u;
var<workgroup> a_slice: array<Cell, BM * PITCH * CELLS>;
var<workgroup> w_slice: array<Cell, BN * PITCH * CELLS>;
var<workgroup> results: array<f32, SM * SN * SIDE * OUT_PITCH>;

fn put_a(row: u32, k: u32, v: mat2x4<f16>) {
    let c = cells(v);
    #unroll i CELLS
        a_slice[(row * PITCH + k) * CELLS + i] = c[i];
    #end
}
fn put_w(row: u32, k: u32, v: mat2x4<f16>) {
    let c = cells(v);
    #unroll i CELLS
        w_slice[(row * PITCH + k) * CELLS + i] = c[i];
    #end
}
fn result4(i: u32) -> vec4<f32> { return vec4(results[i], results[i + 1u], results[i + 2u], results[i + 3u]); }

// What a thread loads of the slices: octet c of rows under a tap, and of weights.
struct Loader { tap: u32, c: u32, row: array<ARow, A_LOADS>, a: array<u32, A_LOADS>, w: array<u32, W_LOADS> }
struct Slices { a: array<mat2x4<f16>, A_LOADS>, w: array<mat2x4<f16>, W_LOADS> }

// Sends for a thread's part of the next slices. Beyond the end of k rows are zero, and weights whatever is finite.
fn send(loader: ptr<function, Loader>, next: ptr<function, Slices>, kk: u32) {
    let c8 = params.c4 / 2u;
    let c = select(min((*loader).c, c8 - 1u), (*loader).c, WHOLE_STEPS);
    #unroll i A_LOADS
        (*next).a[i] = a_load8((*loader).a[i], c);
        if (!WHOLE_STEPS && (*loader).c >= c8) { (*next).a[i] = mat2x4<f16>(); }
    #end
    #unroll i W_LOADS
        (*next).w[i] = load8_w((*loader).w[i] + c);
    #end
    (*loader).c += K8;
    if (TAPS > 1u && (*loader).c - kk >= c8) {
        (*loader).c = kk;
        (*loader).tap += 1u;
        #unroll i A_LOADS
            (*loader).a[i] = a_tap((*loader).row[i], (*loader).tap);
        #end
        #unroll i W_LOADS
            (*loader).w[i] += c8;
        #end
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
    let kk = lid % K8;       // the octet of each step that this thread loads
    let first = lid / K8;    // the first of the rows and columns that it loads
    let c8 = params.c4 / 2u;
    let subgroup = lid / SUBGROUP;
    let lane = lid % SUBGROUP;
    let own_row = (subgroup / SN) * TM * SIDE;
    let own_col = (subgroup % SN) * TN * SIDE;

    var loader: Loader;
    loader.c = kk;
    #unroll i A_LOADS
        loader.row[i] = a_begin(min(row0 + first + i * STRIDE, params.rows - 1u));
        loader.a[i] = a_tap(loader.row[i], 0u);
    #end
    #unroll i W_LOADS
        loader.w[i] = min(col0 + first + i * STRIDE, 4u * cols4 - 1u) * TAPS * c8;
    #end

    var acc: array<array<Sum, TN>, TM>;
    var next: Slices;
    let steps = TAPS * ((c8 + K8 - 1u) / K8);
    let stride = PITCH * CELLS;
    send(&loader, &next, kk);
    // Round s stores slice s, sends for the next one and multiplies slice s.
    for (var s = 0u; s < steps; s++) {
        workgroupBarrier();
        #unroll i A_LOADS
            if (BM % STRIDE == 0u || first + i * STRIDE < BM) { put_a(first + i * STRIDE, kk, next.a[i]); }
        #end
        #unroll i W_LOADS
            if (BN % STRIDE == 0u || first + i * STRIDE < BN) { put_w(first + i * STRIDE, kk, next.w[i]); }
        #end
        workgroupBarrier();
        if (s + 1u < steps) { send(&loader, &next, kk); }
        #unroll k K_TILES
            let at_k = k * (SIDE / 8u) * CELLS;
            var right: array<Right, TN>;
            #unroll n TN
                let at = (own_col + n * SIDE) * stride + at_k;
                right[n] = coopLoad<Right>(&w_slice[at], stride);
            #end
            #unroll m TM
                let at = (own_row + m * SIDE) * stride + at_k;
                let left = coopLoadT<Left>(&a_slice[at], stride);
                #unroll n TN
                    acc[m][n] = coopMultiplyAdd(left, right[n], acc[m][n]);
                #end
            #end
        #end
    }

    let base = subgroup * SIDE * OUT_PITCH;
    let out_pitch = OUT_PITCH;
    let quads = SIDE / (4u * pair);   // vec4s of the result in a row of a matrix
    #unroll n TN
        let col4 = (col0 + own_col + n * SIDE) / (4u * pair) + lane % quads;
        let inside = col4 < cols4 / pair;
        let column = column_begin(min(col4, cols4 / pair - 1u));
        #unroll m TM
            workgroupBarrier();
            coopStoreT(acc[m][n], &results[base], out_pitch);
            workgroupBarrier();
            for (var i = lane / quads; i < SIDE; i += SUBGROUP / quads) {
                let row = row0 + own_row + m * SIDE + i;
                if (inside && row < params.rows) {
                    let at = base + i * OUT_PITCH + (lane % quads) * 4u * pair;
                    finish(row, column, finished(row, column, result4(at), result4(at + 4u * (pair - 1u))));
                }
            }
        #end
    #end
}

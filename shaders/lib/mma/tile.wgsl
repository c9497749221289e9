// Engine `tile`: for GPUs. A workgroup of TX × TY threads makes a tile of BM rows × BN weight columns. It walks along k in
// steps of four vec4s: the slices of both operands go through workgroup memory, the next ones are on their way in
// registers meanwhile, and each thread multiplies RM rows by CV vec4s of columns out of registers.
// Workgroup memory holds vec4s along k. A pitch of five, not four, spreads a subgroup's reads over all banks; columns lie
// so that neighbouring threads read neighbouring entries though each owns consecutive columns.
// When GATED a thread owns pairs of vec4s, value and gate: CV is even.
const BK4: u32 = 4u;
const PITCH: u32 = BK4 + 1u;
const TX: u32 = BN / (4u * CV);
const TY: u32 = BM / RM;
const THREADS: u32 = TX * TY;
const STRIDE: u32 = THREADS / BK4;
const A_LOADS: u32 = BM / STRIDE;
const W_LOADS: u32 = BN / STRIDE;
var<workgroup> a_slice: array<vec4<f32>, BM * PITCH>;
var<workgroup> w_slice: array<vec4<f32>, BN * PITCH>;

fn gemm(group: u32, lid: u32) {
    const pair = select(1u, 2u, GATED);
    let cols4 = pair * ((params.cols + 3u) / 4u);   // vec4s of weight columns
    let tiles_n = (4u * cols4 + BN - 1u) / BN;
    let tiles_m = (params.rows + BM - 1u) / BM;
    if (group >= tiles_n * tiles_m) { return; }
    let row0 = (group / tiles_n) * BM;
    let col0 = (group % tiles_n) * BN;
    let tx = lid % TX;
    let ty = lid / TX;
    let kk = lid % BK4;       // the vec4 of each step that this thread loads
    let first = lid / BK4;    // the first of the rows and columns that it loads
    let k4 = TAPS * params.c4;

    var a: array<ARow, A_LOADS>;
    #unroll i A_LOADS
        a[i] = a_begin(min(row0 + first + i * STRIDE, params.rows - 1u));
    #end
    var w: array<u32, W_LOADS>;
    #unroll i W_LOADS
        let p = first + i * STRIDE;
        w[i] = min(col0 + 4u * CV * (p % TX) + p / TX, 4u * cols4 - 1u) * k4;
    #end

    var acc: array<array<vec4<f32>, CV>, RM>;
    var next_a: array<vec4<f32>, A_LOADS>;
    var next_w: array<vec4<f32>, W_LOADS>;
    let steps_per_tap = (params.c4 + BK4 - 1u) / BK4;
    let steps = TAPS * steps_per_tap;
    // Round s stores slice s - 1, sends for slice s and multiplies slice s - 1.
    for (var s = 0u; s <= steps; s++) {
        if (s > 0u) {
            workgroupBarrier();
            #unroll i A_LOADS
                a_slice[(first + i * STRIDE) * PITCH + kk] = next_a[i];
            #end
            #unroll i W_LOADS
                w_slice[(first + i * STRIDE) * PITCH + kk] = next_w[i];
            #end
            workgroupBarrier();
        }
        if (s < steps) {
            let tap = s / steps_per_tap;
            let c = (s % steps_per_tap) * BK4 + kk;
            let inside = c < params.c4;
            #unroll i A_LOADS
                next_a[i] = vec4(0.0);
                if (inside) { next_a[i] = a_load(a_tap(a[i], tap), c); }
            #end
            #unroll i W_LOADS
                next_w[i] = vec4(0.0);
                if (inside) { next_w[i] = load_w(w[i] + tap * params.c4 + c); }
            #end
        }
        if (s > 0u) {
            for (var k = 0u; k < BK4; k++) {
                var columns: array<mat4x4<f32>, CV>;
                #unroll v CV
                    let p = 4u * v * TX + tx;
                    columns[v] = transpose(mat4x4(w_slice[p * PITCH + k], w_slice[(p + TX) * PITCH + k],
                                                  w_slice[(p + 2u * TX) * PITCH + k], w_slice[(p + 3u * TX) * PITCH + k]));
                #end
                #unroll r RM
                    let x = a_slice[(r * TY + ty) * PITCH + k];
                    #unroll v CV
                        let m = columns[v];
                        acc[r][v] = fma(vec4(x.w), m[3], fma(vec4(x.z), m[2], fma(vec4(x.y), m[1], fma(vec4(x.x), m[0], acc[r][v]))));
                    #end
                #end
            }
        }
    }

    #unroll v CV
        let col4 = (col0 / 4u + tx * CV + v) / pair;
        if (v % pair == 0u && col4 < cols4 / pair) {
            let column = column_begin(col4);
            #unroll r RM
                let row = row0 + r * TY + ty;
                if (row < params.rows) { finish(row, column, finished(row, column, acc[r][v], acc[r][min(v + pair - 1u, CV - 1u)])); }
            #end
        }
    #end
}

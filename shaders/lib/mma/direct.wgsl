// Slot `mma`: each lane owns TM rows and one vec4 of output columns (two when gated) and reads
// everything straight from storage. No workgroup memory, no barriers: good on CPU-class devices.
// Needs from the kernel: params.{rows, cols, c4, n_rows}, TAPS, a_begin, a_load; from the epilogue: finish.
const TM: u32 = 4u;

fn gemm(lane: u32) {
    let cols4 = (params.cols + 3u) / 4u;
    let row_blocks = (params.rows + TM - 1u) / TM;
    if (lane >= cols4 * row_blocks) { return; }
    let col4 = lane % cols4;
    let row0 = (lane / cols4) * TM;
    var a: array<ARow, TM>;
    var acc: array<vec4<f32>, TM>;
    var gate: array<vec4<f32>, TM>;
    for (var r = 0u; r < TM; r++) {
        a[r] = a_begin(min(row0 + r, params.rows - 1u));
        acc[r] = vec4<f32>(0.0);
        gate[r] = vec4<f32>(0.0);
    }
    let k4 = TAPS * params.c4;
    // A gated weight holds four value rows, then their four gate rows.
    let w0 = select(4u, 8u, GATED) * col4 * k4;
    for (var tap = 0u; tap < TAPS; tap++) {
        for (var c = 0u; c < params.c4; c++) {
            let w = w0 + tap * params.c4 + c;
            let b0 = load_w(w);
            let b1 = load_w(w + k4);
            let b2 = load_w(w + 2u * k4);
            let b3 = load_w(w + 3u * k4);
            for (var r = 0u; r < TM; r++) {
                let x = a_load(a[r], tap, c);
                acc[r] += vec4<f32>(dot(x, b0), dot(x, b1), dot(x, b2), dot(x, b3));
                if (GATED) {
                    gate[r] += vec4<f32>(dot(x, load_w(w + 4u * k4)), dot(x, load_w(w + 5u * k4)),
                                         dot(x, load_w(w + 6u * k4)), dot(x, load_w(w + 7u * k4)));
                }
            }
        }
    }
    for (var r = 0u; r < TM; r++) {
        if (row0 + r < params.rows) { finish(row0 + r, col4, acc[r], gate[r]); }
    }
}

// Engine `direct`: each lane owns ROWS rows and one vec4 of output columns (two when gated) and reads everything straight
// from storage. No workgroup memory, no barriers, no subgroups: the plain engine of software devices.
const ROWS: u32 = 8u;

fn gemm(group: u32, lid: u32) {
    let cols4 = (params.cols + 3u) / 4u;
    let lane = group * WG + lid;
    let row0 = (lane / cols4) * ROWS;
    if (row0 >= params.rows) { return; }
    let col4 = lane % cols4;
    var a: array<ARow, ROWS>;
    var acc: array<vec4<f32>, ROWS>;
    var gate: array<vec4<f32>, ROWS>;
    #unroll r ROWS
        a[r] = a_begin(min(row0 + r, params.rows - 1u));
    #end
    let k4 = TAPS * params.c4;
    // A gated weight holds four value rows, then their four gate rows.
    let w0 = select(4u, 8u, GATED) * col4 * k4;
    var t: array<u32, ROWS>;
    for (var tap = 0u; tap < TAPS; tap++) {
        #unroll r ROWS
            t[r] = a_tap(a[r], tap);
        #end
        for (var c = 0u; c < params.c4; c++) {
            let w = w0 + tap * params.c4 + c;
            let value_rows = mat4x4(load_w(w), load_w(w + k4), load_w(w + 2u * k4), load_w(w + 3u * k4));
            var gate_rows: mat4x4<f32>;
            if (GATED) { gate_rows = mat4x4(load_w(w + 4u * k4), load_w(w + 5u * k4), load_w(w + 6u * k4), load_w(w + 7u * k4)); }
            #unroll r ROWS
                let x = a_load(t[r], c);
                acc[r] += x * value_rows;
                if (GATED) { gate[r] += x * gate_rows; }
            #end
        }
    }
    let column = column_begin(col4);
    #unroll r ROWS
        if (row0 + r < params.rows) { finish(row0 + r, column, finished(row0 + r, column, acc[r], gate[r])); }
    #end
}

// Engine `lanes`: for processors that run LANES invocations as one wide vector, where an exchange between lanes costs
// an instruction and a load from memory tens of them (every lane is fetched by itself), and barriers more.
// One subgroup of LANES invocations takes BLOCK_Q queries of one head, RQ per lane. In each step a lane loads one key and its
// value, and all lanes receive them by broadcasts out of registers: a loaded number serves LANES * RQ queries.
// Every loop over an array runs over exactly its length, so that compilers unroll it into registers.
//   state: per row and head (max, sum, 0, 0) and D4 vec4s of accumulator.
const LANES: u32 = 8u;
const RQ: u32 = BLOCK_Q / LANES;
const STATE4: u32 = D4 + 1u;

// 2^x for x <= 0 to 2 ulp, in a third of the time of the driver's own.
fn exp2_of(x: vec4<f32>) -> vec4<f32> {
    let c = max(x, vec4(-126.0));
    let n = round(c);
    let f = c - n;
    var p = fma(f, vec4(1.535336188e-4), vec4(1.339887440e-3));
    p = fma(p, f, vec4(9.618437358e-3));
    p = fma(p, f, vec4(5.550332471e-2));
    p = fma(p, f, vec4(2.402264791e-1));
    p = fma(p, f, vec4(6.931472029e-1));
    p = fma(p, f, vec4(1.0));
    return bitcast<vec4<f32>>(bitcast<vec4<i32>>(p) + (vec4<i32>(n) << vec4(23u)));
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let tile0 = first_tile_at(params.y_row0);
    let tiles = end_tile_at(params.y_row0 + params.y_rows - 1u) - tile0;
    let group = group_index(wid, nwg);
    let head = group / tiles;
    if (head >= high(params.items_heads)) { return; }
    let tile = tile_at(tile0 + group % tiles);

    var rows: array<u32, RQ>;
    var q: array<array<vec4<f32>, D4>, RQ>;
    var acc: array<array<vec4<f32>, D4>, RQ>;
    var m: array<f32, RQ>;
    var l: array<f32, RQ>;
    for (var r = 0u; r < RQ; r++) {
        let row = tile_row(tile, r * LANES + lane);
        rows[r] = row;
        m[r] = LOWEST;
        l[r] = 0.0;
        // A lane without a query computes on the chunk's first one and drops the result.
        let from_row = select(row, params.y_row0, row == NO_ROW);
        for (var d = 0u; d < D4; d++) {
            q[r][d] = query(from_row, head, d);
            acc[r][d] = vec4(0.0);
        }
        if (CARRY_IN) {
            let at = ((from_row - params.y_row0) * high(params.items_heads) + head) * STATE4;
            let state = load_state(at);
            m[r] = state.x;
            l[r] = state.y;
            for (var d = 0u; d < D4; d++) { acc[r][d] = load_state(at + 1u + d); }
        }
    }

    // One source of keys today; text tokens that join image tokens would be a second pass of this loop.
    for (var t0 = tile.keys.begin; t0 < tile.keys.end; t0 += LANES) {
        let at = key_row(tile.keys, min(t0 + lane, tile.keys.end - 1u));
        // kb[j], vb[j]: key and value j of this step, the same in all lanes.
        var kb: array<array<vec4<f32>, D4>, LANES>;
        for (var d = 0u; d < D4; d++) {
            let k = key(at, head, d);
            for (var j = 0u; j < LANES; j++) { kb[j][d] = subgroupShuffle(k, j); }
        }
        var s: array<array<vec4<f32>, 2>, RQ>;
        for (var r = 0u; r < RQ; r++) {
            var a = vec4(0.0);
            var b = vec4(0.0);
            for (var d = 0u; d < D4; d++) {
                let x = q[r][d];
                a = fma(vec4(x.x), vec4(kb[0][d].x, kb[1][d].x, kb[2][d].x, kb[3][d].x), a);
                b = fma(vec4(x.x), vec4(kb[4][d].x, kb[5][d].x, kb[6][d].x, kb[7][d].x), b);
                a = fma(vec4(x.y), vec4(kb[0][d].y, kb[1][d].y, kb[2][d].y, kb[3][d].y), a);
                b = fma(vec4(x.y), vec4(kb[4][d].y, kb[5][d].y, kb[6][d].y, kb[7][d].y), b);
                a = fma(vec4(x.z), vec4(kb[0][d].z, kb[1][d].z, kb[2][d].z, kb[3][d].z), a);
                b = fma(vec4(x.z), vec4(kb[4][d].z, kb[5][d].z, kb[6][d].z, kb[7][d].z), b);
                a = fma(vec4(x.w), vec4(kb[0][d].w, kb[1][d].w, kb[2][d].w, kb[3][d].w), a);
                b = fma(vec4(x.w), vec4(kb[4][d].w, kb[5][d].w, kb[6][d].w, kb[7][d].w), b);
            }
            s[r][0] = a;
            s[r][1] = b;
        }
        let t_a = vec4(t0) + vec4(0u, 1u, 2u, 3u);
        let t_b = t_a + vec4(4u);
        var keep: array<f32, RQ>;
        for (var r = 0u; r < RQ; r++) {
            var seen_a = t_a < vec4(tile.keys.end);
            var seen_b = t_b < vec4(tile.keys.end);
            if (SCOPE == CAUSAL) {
                seen_a = seen_a & (t_a <= vec4(tile.first + r * LANES + lane));
                seen_b = seen_b & (t_b <= vec4(tile.first + r * LANES + lane));
            }
            let a = select(vec4(LOWEST), s[r][0], seen_a);
            let b = select(vec4(LOWEST), s[r][1], seen_b);
            let top = max(a, b);
            let new_m = max(max(m[r], max(top.x, top.y)), max(top.z, top.w));
            keep[r] = exp2_of(vec4(m[r] - new_m)).x;
            m[r] = new_m;
            // A query that has seen no key yet has new_m = LOWEST, and masked keys would weigh 1.
            let p_a = select(vec4(0.0), exp2_of(a - new_m), seen_a);
            let p_b = select(vec4(0.0), exp2_of(b - new_m), seen_b);
            let sum = p_a + p_b;
            l[r] = fma(l[r], keep[r], (sum.x + sum.y) + (sum.z + sum.w));
            s[r][0] = p_a;
            s[r][1] = p_b;
        }
        var vb: array<array<vec4<f32>, D4>, LANES>;
        for (var d = 0u; d < D4; d++) {
            let v = value(at, head, d);
            for (var j = 0u; j < LANES; j++) { vb[j][d] = subgroupShuffle(v, j); }
        }
        for (var r = 0u; r < RQ; r++) {
            let p_a = s[r][0];
            let p_b = s[r][1];
            for (var d = 0u; d < D4; d++) {
                var o = acc[r][d] * keep[r];
                o = fma(vec4(p_a.x), vb[0][d], o);
                o = fma(vec4(p_a.y), vb[1][d], o);
                o = fma(vec4(p_a.z), vb[2][d], o);
                o = fma(vec4(p_a.w), vb[3][d], o);
                o = fma(vec4(p_b.x), vb[4][d], o);
                o = fma(vec4(p_b.y), vb[5][d], o);
                o = fma(vec4(p_b.z), vb[6][d], o);
                o = fma(vec4(p_b.w), vb[7][d], o);
                acc[r][d] = o;
            }
        }
    }

    for (var r = 0u; r < RQ; r++) {
        if (rows[r] != NO_ROW) {
            if (CARRY_OUT) {
                let at = ((rows[r] - params.y_row0) * high(params.items_heads) + head) * STATE4;
                store_state(at, vec4(m[r], l[r], 0.0, 0.0));
                for (var d = 0u; d < D4; d++) { store_state(at + 1u + d, acc[r][d]); }
            } else {
                let norm = select(0.0, 1.0 / l[r], l[r] > 0.0);
                for (var d = 0u; d < D4; d++) { put(rows[r], head, d, acc[r][d] * norm); }
            }
        }
    }
}

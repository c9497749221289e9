// Engine `coop`: for GPUs with matrix units. A workgroup takes BLOCK_Q queries of one head, SIDE to a subgroup, and streams
// the keys in tiles of BLOCK_K through workgroup memory as halves. QKᵀ and PV run on matrix units with f32 sums.
// Matrices are opaque, so scores pass through workgroup memory to the lanes that own their row: LANES lanes to a row.
// For the same reason a sum is not rescaled whenever a maximum rises, but only when it rises by more than 2^RISE: until then
// probabilities exceed one, which f16 holds and the division at the end takes back.
//   state: per row and head (max, 0, 0, 0), the sums of its lanes, and D4 vec4s of accumulator.
#import side
#import cells
const Q_SCALE: f32 = 1.0;   // halves of scaled queries would lose digits: scores are scaled
const RISE: f32 = 8.0;
const BLOCK_K: u32 = 32u;
const SUBGROUPS: u32 = BLOCK_Q / SIDE;
const WG: u32 = SUBGROUPS * SUBGROUP;
const LANES: u32 = SUBGROUP / SIDE;
const OWN4: u32 = BLOCK_K / (4u * LANES);          // vec4s of scores that a lane owns
const D_TILES: u32 = (HEAD_DIM + SIDE - 1u) / SIDE;
const K_TILES: u32 = BLOCK_K / SIDE;
const ROW4: u32 = D_TILES * SIDE / 4u;             // vec4s of a head, padded
// Rows start at multiples of 16 bytes, as matrix loads ask for, in other banks.
const KV_PITCH: u32 = ROW4 + 2u;
const P_PITCH: u32 = BLOCK_K / 4u + 2u;
const S_PITCH: u32 = BLOCK_K + 4u;
const Q_CHUNKS: u32 = (D_TILES + K_TILES - 1u) / K_TILES;
const STATE4: u32 = D4 + 2u;

var<workgroup> tile_kv: array<Cell, BLOCK_K * KV_PITCH * CELLS>;
var<workgroup> weights: array<Cell, BLOCK_Q * P_PITCH * CELLS>;  // probabilities; before them the queries, by chunks
var<workgroup> scores: array<f32, BLOCK_Q * S_PITCH>;
var<workgroup> raised: u32;   // whether this tile raised some maximum

fn put_kv(row: u32, d4: u32, v: vec4<f16>) {
    let c = cells(v);
    for (var i = 0u; i < CELLS; i++) { tile_kv[(row * KV_PITCH + d4) * CELLS + i] = c[i]; }
}
fn put_weights(row: u32, k4: u32, v: vec4<f16>) {
    let c = cells(v);
    for (var i = 0u; i < CELLS; i++) { weights[(row * P_PITCH + k4) * CELLS + i] = c[i]; }
}
fn score4(row: u32, k4: u32) -> vec4<f32> {
    let i = row * S_PITCH + 4u * k4;
    return vec4(scores[i], scores[i + 1u], scores[i + 2u], scores[i + 3u]);
}
fn put_score4(row: u32, k4: u32, v: vec4<f32>) {
    let i = row * S_PITCH + 4u * k4;
    scores[i] = v.x;
    scores[i + 1u] = v.y;
    scores[i + 2u] = v.z;
    scores[i + 3u] = v.w;
}
// Over the lanes of a row, which lie side by side.
fn row_max(v: f32) -> f32 {
    var m = v;
    for (var i = 1u; i < LANES; i *= 2u) { m = max(m, subgroupShuffleXor(m, i)); }
    return m;
}
fn row_sum(v: f32) -> f32 {
    var s = v;
    for (var i = 1u; i < LANES; i *= 2u) { s += subgroupShuffleXor(s, i); }
    return s;
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let tile0 = first_tile_at(params.y_row0);
    let tiles = end_tile_at(params.y_row0 + params.y_rows - 1u) - tile0;
    let group = group_index(wid, nwg);
    let head = group / tiles;
    // No group is beyond the last head, and a return would break the uniform flow that matrix operations need.
    let tile = tile_at(tile0 + group % tiles);
    let subgroup = lid / SUBGROUP;
    let query0 = subgroup * SIDE;                              // the subgroup's first
    let own = query0 + (lid % SUBGROUP) / LANES;               // the lane's
    let part = lid % LANES;                                    // its share of it
    let row = tile_row(tile, own);
    let state = (select(row, params.y_row0, row == NO_ROW) - params.y_row0) * high(params.items_heads) * STATE4 + head * STATE4;

    var m = LOWEST;
    var l = 0.0;   // this lane's keys only, until the end
    var acc: array<Sum, D_TILES>;
    let base = query0 * S_PITCH;
    let s_pitch = S_PITCH;
    if (CARRY_IN) {
        m = load_state(state).x;
        l = load_state(state + 1u)[part];
        for (var d = 0u; d < D_TILES; d++) {
            workgroupBarrier();
            for (var c = part; c < SIDE / 4u; c += LANES) {
                let d4 = d * SIDE / 4u + c;
                put_score4(own, c, select(vec4(0.0), load_state(state + 2u + min(d4, D4 - 1u)), d4 < D4));
            }
            workgroupBarrier();
            acc[d] = coopLoadT<Sum>(&scores[base], s_pitch);
        }
    }

    let kv_pitch = KV_PITCH * CELLS;
    let p_pitch = P_PITCH * CELLS;
    for (var source = 0u; source < SOURCES; source++) {
        let keys = keys_of(tile, source);
        var q: array<Left, Q_CHUNKS * K_TILES>;
        for (var chunk = 0u; chunk < Q_CHUNKS; chunk++) {
            workgroupBarrier();
            for (var e = lid; e < BLOCK_Q * BLOCK_K / 4u; e += WG) {
                let n = e / (BLOCK_K / 4u);
                let d4 = chunk * BLOCK_K / 4u + e % (BLOCK_K / 4u);
                let at = tile_row(tile, n);
                var v = vec4<f16>();
                if (at != NO_ROW && d4 < D4) { v = vec4<f16>(query_for(tile, keys.text, at, head, d4)); }
                put_weights(n, e % (BLOCK_K / 4u), v);
            }
            workgroupBarrier();
            for (var n = 0u; n < K_TILES; n++) {
                let at = query0 * p_pitch + n * SIDE / 4u * CELLS;
                q[chunk * K_TILES + n] = coopLoadT<Left>(&weights[at], p_pitch);
            }
        }

        for (var t0 = keys.begin; t0 < keys.end; t0 += BLOCK_K) {
            workgroupBarrier();
            if (lid == 0u) { raised = 0u; }
            for (var e = lid; e < BLOCK_K * ROW4; e += WG) {
                let d4 = e % ROW4;
                let t = t0 + e / ROW4;
                var k = vec4<f16>();
                if (t < keys.end && d4 < D4) { k = key(keys.text, key_row(keys, t), head, d4); }
                put_kv(e / ROW4, d4, k);
            }
            workgroupBarrier();
            for (var n = 0u; n < K_TILES; n++) {
                var s: Sum;
                for (var d = 0u; d < D_TILES; d++) {
                    let from_k = n * SIDE * kv_pitch + d * SIDE / 4u * CELLS;
                    s = coopMultiplyAdd(q[d], coopLoad<Right>(&tile_kv[from_k], kv_pitch), s);
                }
                let at = base + n * SIDE;
                coopStoreT(s, &scores[at], s_pitch);
            }
            workgroupBarrier();
            for (var e = lid; e < BLOCK_K * ROW4; e += WG) {
                let d4 = e % ROW4;
                let t = t0 + e / ROW4;
                var v = vec4<f16>();
                if (t < keys.end && d4 < D4) { v = value(keys.text, key_row(keys, t), head, d4); }
                put_kv(e / ROW4, d4, v);
            }

            // Keys beyond the end, or after the query, get a score that no maximum takes.
            var s: array<vec4<f32>, OWN4>;
            var top = LOWEST;
            for (var i = 0u; i < OWN4; i++) {
                let k4 = i * LANES + part;
                let t = vec4(t0 + 4u * k4) + vec4(0u, 1u, 2u, 3u);
                var seen = t < vec4(keys.end);
                if (SCOPE == CAUSAL) { seen = seen & (t <= vec4(tile.first + own)); }
                s[i] = select(vec4(LOWEST), score4(own, k4) * SCALE + bias_of(head, tile.first + own, t.x), seen);
                top = max(top, max(max(s[i].x, s[i].y), max(s[i].z, s[i].w)));
            }
            top = row_max(top);
            var keep = 1.0;
            if (top > m + RISE) {
                if (m > LOWEST) {
                    keep = exp2(m - top);
                    raised = 1u;
                }
                m = top;
                l *= keep;
            }
            for (var i = 0u; i < OWN4; i++) {
                let p = vec4<f16>(select(exp2(s[i] - m), vec4(0.0), s[i] == vec4(LOWEST)));
                put_weights(own, i * LANES + part, p);
                l += dot(vec4<f32>(p), vec4(1.0));
            }
            if (workgroupUniformLoad(&raised) != 0u) {
                for (var d = 0u; d < D_TILES; d++) {
                    workgroupBarrier();
                    coopStoreT(acc[d], &scores[base], s_pitch);
                    workgroupBarrier();
                    for (var c = part; c < SIDE / 4u; c += LANES) { put_score4(own, c, score4(own, c) * keep); }
                    workgroupBarrier();
                    acc[d] = coopLoadT<Sum>(&scores[base], s_pitch);
                }
            }
            for (var n = 0u; n < K_TILES; n++) {
                let from_p = query0 * p_pitch + n * SIDE / 4u * CELLS;
                let p = coopLoadT<Left>(&weights[from_p], p_pitch);
                for (var d = 0u; d < D_TILES; d++) {
                    let from_v = n * SIDE * kv_pitch + d * SIDE / 4u * CELLS;
                    acc[d] = coopMultiplyAdd(p, coopLoadT<Right>(&tile_kv[from_v], kv_pitch), acc[d]);
                }
            }
        }
    }

    if (CARRY_OUT) {
        var sums: vec4<f32>;
        for (var i = 0u; i < LANES; i++) { sums[i] = subgroupShuffle(l, lid % SUBGROUP - part + i); }
        if (row != NO_ROW && part == 0u) {
            store_state(state, vec4(m, 0.0, 0.0, 0.0));
            store_state(state + 1u, sums);
        }
    }
    let sum = row_sum(l);
    let norm = select(0.0, 1.0 / sum, sum > 0.0);
    for (var d = 0u; d < D_TILES; d++) {
        workgroupBarrier();
        coopStoreT(acc[d], &scores[base], s_pitch);
        workgroupBarrier();
        for (var c = part; c < SIDE / 4u; c += LANES) {
            let d4 = d * SIDE / 4u + c;
            if (row != NO_ROW && d4 < D4) {
                if (CARRY_OUT) { store_state(state + 2u + d4, score4(own, c)); } else { put(row, head, d4, score4(own, c) * norm); }
            }
        }
    }
}

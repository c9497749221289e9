// Engine `tile`: a workgroup of WG invocations takes BLOCK_Q queries of one head and streams the keys in tiles of
// BLOCK_K through workgroup memory. LANES invocations share RQ queries: each owns RK keys of the scores and every
// LANES-th vec4 of the output. Heads wider than 4*SLICE4 are cut into slices, one workgroup each, which repeat the
// scores: an accumulator must fit the registers. QK^T and PV are the two functions a matrix engine would replace.
//   state: per row, head and slice (max, 0, 0, 0), the sums of the LANES and SLICE4 vec4s of accumulator.
const Q_SCALE: f32 = SCALE; // scaled first, so that no product overflows
const LANES: u32 = 8u;
const RQ: u32 = 4u;
const RK: u32 = 4u;
const BLOCK_K: u32 = LANES * RK;
const WG: u32 = BLOCK_Q / RQ * LANES;
const SLICES: u32 = (D4 + SLICE4 - 1u) / SLICE4;
const OWN4: u32 = (SLICE4 + LANES - 1u) / LANES; // vec4s of the output that an invocation owns, per query
const CHUNKS: u32 = (D4 + LANES - 1u) / LANES;   // a chunk: LANES vec4s of every row
const PAD: u32 = LANES + 1u;                     // row stride in workgroup memory, odd against bank conflicts

var<workgroup> tile_q: array<vec4<f32>, BLOCK_Q * PAD>; // a chunk of q, then the probabilities
var<workgroup> tile_kv: array<vec4<f32>, BLOCK_K * PAD>;
var<workgroup> part: array<f32, BLOCK_Q * LANES>;

// A key's row in the tile: the RK keys of a lane lie LANES rows apart, so that lanes read other banks.
fn key_slot(key: u32) -> u32 { return key % RK * LANES + key / RK; }

fn state_at(row: u32, head: u32, slice: u32) -> u32 {
    return (((row - params.y_row0) * high(params.items_heads) + head) * SLICES + slice) * (SLICE4 + 3u);
}

// s[r][n] + q[r] · k[n] over one chunk.
fn scores(s: array<vec4<f32>, RQ>, first_query: u32, lane: u32) -> array<vec4<f32>, RQ> {
    var sum = s;
    for (var d = 0u; d < LANES; d++) {
        let k0 = tile_kv[lane * PAD + d];
        let k1 = tile_kv[(LANES + lane) * PAD + d];
        let k2 = tile_kv[(2u * LANES + lane) * PAD + d];
        let k3 = tile_kv[(3u * LANES + lane) * PAD + d];
        #unroll r RQ
            let q = tile_q[(first_query + r) * PAD + d];
            sum[r] += vec4(dot(q, k0), dot(q, k1), dot(q, k2), dot(q, k3));
        #end
    }
    return sum;
}

// o[r] + p[r] · v over one tile.
fn weighted(o: array<vec4<f32>, RQ>, first_query: u32, lane: u32) -> array<vec4<f32>, RQ> {
    var sum = o;
    for (var j = 0u; j < LANES; j++) {
        let v0 = tile_kv[(RK * j) * PAD + lane];
        let v1 = tile_kv[(RK * j + 1u) * PAD + lane];
        let v2 = tile_kv[(RK * j + 2u) * PAD + lane];
        let v3 = tile_kv[(RK * j + 3u) * PAD + lane];
        #unroll r RQ
            let p = tile_q[(first_query + r) * PAD + j];
            sum[r] = fma(vec4(p.x), v0, fma(vec4(p.y), v1, fma(vec4(p.z), v2, fma(vec4(p.w), v3, sum[r]))));
        #end
    }
    return sum;
}

// Takes LANES vec4s, from `own0` of the slice on, of the values of a tile.
fn take_values(keys: Keys, t0: u32, head: u32, slice: u32, own0: u32, lid: u32) {
    for (var e = lid; e < BLOCK_K * LANES; e += WG) {
        let own = own0 + e % LANES;
        let d4 = slice * SLICE4 + own;
        let t = t0 + e / LANES;
        var v = vec4(0.0);
        if (t < keys.end && own < SLICE4 && d4 < D4) { v = value(keys.text, key_row(keys, t), head, d4); }
        tile_kv[e / LANES * PAD + e % LANES] = v;
    }
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let tile0 = first_tile_at(params.y_row0);
    let tiles = end_tile_at(params.y_row0 + params.y_rows - 1u) - tile0;
    let group = group_index(wid, nwg);
    let slice = group / tiles % SLICES;
    let head = group / tiles / SLICES;
    if (head >= high(params.items_heads)) { return; }
    let tile = tile_at(tile0 + group % tiles);
    let lane = lid % LANES;
    let first_query = lid / LANES * RQ;

    var rows: array<u32, RQ>;
    var m: array<f32, RQ>;
    var l: array<f32, RQ>; // this invocation's keys only, until the end
    var acc: array<array<vec4<f32>, RQ>, OWN4>;
    #unroll r RQ
        rows[r] = tile_row(tile, first_query + r);
        m[r] = LOWEST;
        if (CARRY_IN && rows[r] != NO_ROW) {
            let at = state_at(rows[r], head, slice);
            m[r] = load_state(at).x;
            l[r] = load_state(at + 1u + lane / 4u)[lane % 4u];
            #unroll n OWN4
                let d4 = n * LANES + lane;
                if (d4 < SLICE4) { acc[n][r] = load_state(at + 3u + d4); }
            #end
        }
    #end

    for (var source = 0u; source < SOURCES; source++) {
        let keys = keys_of(tile, source);
        for (var t0 = keys.begin; t0 < keys.end; t0 += BLOCK_K) {
            var s: array<vec4<f32>, RQ>;
            for (var chunk = 0u; chunk < CHUNKS; chunk++) {
                workgroupBarrier();
                for (var e = lid; e < BLOCK_Q * LANES; e += WG) {
                    let d4 = chunk * LANES + e % LANES;
                    let row = tile_row(tile, e / LANES);
                    var q = vec4(0.0);
                    if (row != NO_ROW && d4 < D4) { q = query_for(tile, keys.text, row, head, d4); }
                    tile_q[e / LANES * PAD + e % LANES] = q;
                }
                for (var e = lid; e < BLOCK_K * LANES; e += WG) {
                    let d4 = chunk * LANES + e % LANES;
                    let t = t0 + e / LANES;
                    var k = vec4(0.0);
                    if (t < keys.end && d4 < D4) { k = key(keys.text, key_row(keys, t), head, d4); }
                    tile_kv[key_slot(e / LANES) * PAD + e % LANES] = k;
                }
                workgroupBarrier();
                s = scores(s, first_query, lane);
            }

            // Keys beyond the end, or after the query, get a score that no maximum takes.
            #unroll r RQ
                let t = vec4(t0 + lane * RK) + vec4(0u, 1u, 2u, 3u);
                var seen = t < vec4(keys.end);
                if (SCOPE == CAUSAL) { seen = seen & (t <= vec4(tile.first + first_query + r)); }
                s[r] = select(vec4(LOWEST), s[r] + bias_of(head, tile.first + first_query + r, t.x), seen);
                part[(first_query + r) * LANES + lane] = max(max(s[r].x, s[r].y), max(s[r].z, s[r].w));
            #end
            workgroupBarrier();
            #unroll r RQ
                var new_m = m[r];
                for (var j = 0u; j < LANES; j++) { new_m = max(new_m, part[(first_query + r) * LANES + j]); }
                let keep = exp2(m[r] - new_m);
                let p = select(exp2(s[r] - new_m), vec4(0.0), s[r] == vec4(LOWEST));
                m[r] = new_m;
                l[r] = fma(l[r], keep, p.x + p.y + p.z + p.w);
                #unroll n OWN4
                    acc[n][r] *= keep;
                #end
                tile_q[(first_query + r) * PAD + lane] = p;
            #end

            #unroll n OWN4
                workgroupBarrier();
                take_values(keys, t0, head, slice, n * LANES, lid);
                workgroupBarrier();
                acc[n] = weighted(acc[n], first_query, lane);
            #end
        }
    }

    #unroll r RQ
        part[(first_query + r) * LANES + lane] = l[r];
    #end
    workgroupBarrier();
    #unroll r RQ
        if (rows[r] != NO_ROW) {
            var sum = 0.0;
            for (var j = 0u; j < LANES; j++) { sum += part[(first_query + r) * LANES + j]; }
            let at = state_at(rows[r], head, slice);
            if (CARRY_OUT && lane == 0u) {
                let p = (first_query + r) * LANES;
                store_state(at, vec4(m[r], 0.0, 0.0, 0.0));
                store_state(at + 1u, vec4(part[p], part[p + 1u], part[p + 2u], part[p + 3u]));
                store_state(at + 2u, vec4(part[p + 4u], part[p + 5u], part[p + 6u], part[p + 7u]));
            }
            let norm = select(0.0, 1.0 / sum, sum > 0.0);
            #unroll n OWN4
                let own = n * LANES + lane;
                let d4 = slice * SLICE4 + own;
                if (own < SLICE4 && d4 < D4) {
                    if (CARRY_OUT) { store_state(at + 3u + own, acc[n][r]); } else { put(rows[r], head, d4, acc[n][r] * norm); }
                }
            #end
        }
    #end
}

// Engine `coop_wide`: for GPUs with matrix units as `coop`, and heads too wide for it. Here the subgroups of a workgroup share
// each head of its BLOCK_Q queries. For the scores each takes one matrix of them over one of PARTS parts of the head, with its
// queries in registers; for the result it owns OWN_TILES matrices of channels of all queries. Keys, then their values, go
// through the same workgroup memory, each on its way in registers while the other is used.
// Sums are rescaled as in `coop`; LANES lanes own each row of scores.
//   state: per row and head (max, 0, 0, 0), the sums of its lanes, and D4 vec4s of accumulator.
#import side
#import cells
#import operand_octets
#import probabilities
const Q_SCALE: f32 = 1.0;   // as in `coop`
const RISE: f32 = 8.0;
const LANES: u32 = BLOCK_K / (8u * OWN8);
const SUBGROUPS: u32 = WG / SUBGROUP;
const D8: u32 = HEAD_DIM / 8u;
const ROW8: u32 = SUBGROUPS * OWN_TILES * SIDE / 8u;   // octets of a head, padded
// Rows begin at other banks than the row before.
const KV_PITCH: u32 = ROW8 + 1u;
const P_PITCH: u32 = BLOCK_K / 8u + 1u;
const S_PITCH: u32 = BLOCK_K + 8u;
const SCRATCH_PITCH: u32 = SIDE + 4u;                  // of a matrix on its way through `scores`, one per subgroup
const STATE4: u32 = D4 + 2u;

var<workgroup> tile_kv: array<Cell, BLOCK_K * KV_PITCH * CELLS>;   // before them the queries
var<workgroup> weights: array<Cell, BLOCK_Q * P_PITCH * CELLS>;
var<workgroup> scores: array<f32, PARTS * BLOCK_Q * S_PITCH>;
var<workgroup> factors: array<vec4<f32>, BLOCK_Q>;                 // x: what a row is multiplied by
var<workgroup> raised: vec4<u32>;                                  // x: whether this tile raised some maximum

fn put_octet(row: u32, d8: u32, v: mat2x4<f16>) {
    let c = cells(v);
    #unroll i CELLS
        tile_kv[(row * KV_PITCH + d8) * CELLS + i] = c[i];
    #end
}

// A thread's part of a tile of keys or of values, zero beyond their end.
struct Next { octets: array<mat2x4<f16>, KV_LOADS> }
fn send(next: ptr<function, Next>, values: bool, keys: Keys, t0: u32, head: u32, lid: u32) {
    #unroll i KV_LOADS
        let e = lid + i * WG;
        let t = t0 + e / ROW8;
        (*next).octets[i] = mat2x4<f16>();
        if (t < keys.end && e % ROW8 < D8) {
            let row = key_row(keys, t);
            if (values) { (*next).octets[i] = value8(keys.text, row, head, e % ROW8); } else { (*next).octets[i] = key8(keys.text, row, head, e % ROW8); }
        }
    #end
}
fn put_tile(next: ptr<function, Next>, lid: u32) {
    #unroll i KV_LOADS
        let e = lid + i * WG;
        if (BLOCK_K * ROW8 % WG == 0u || e < BLOCK_K * ROW8) { put_octet(e / ROW8, e % ROW8, (*next).octets[i]); }
    #end
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
    let lane = lid % SUBGROUP;
    // Its matrix of scores, and its part of the head.
    let q_row = subgroup / PARTS / K_TILES * SIDE;
    let k_col = subgroup / PARTS % K_TILES * SIDE;
    let part = subgroup % PARTS;
    let own_d = subgroup * OWN_TILES * SIDE;               // the first of its channels of the result
    // Lanes beyond those that own rows repeat the last row and store nothing.
    let own = min(lid / LANES, BLOCK_Q - 1u);
    let owns = lid < BLOCK_Q * LANES;
    let share = lid % LANES;
    let scratch = subgroup * SIDE * SCRATCH_PITCH;
    let s_pitch = S_PITCH;
    let kv_pitch = KV_PITCH * CELLS;
    let p_pitch = P_PITCH * CELLS;
    let scratch_pitch = SCRATCH_PITCH;

    let heads = high(params.items_heads);
    var top = LOWEST;
    var sum = 0.0;                                         // of this lane's keys only, until the end
    var acc: array<array<Sum, OWN_TILES>, Q_ROWS>;
    if (CARRY_IN) {
        let row = tile_row(tile, own);
        let state = ((select(row, params.y_row0, row == NO_ROW) - params.y_row0) * heads + head) * STATE4;
        top = load_state(state).x;
        sum = load_state(state + 1u)[share];
        #unroll m Q_ROWS
            #unroll d OWN_TILES
                workgroupBarrier();
                for (var e = lane; e < SIDE * SIDE / 4u; e += SUBGROUP) {
                    let at = tile_row(tile, m * SIDE + e / (SIDE / 4u));
                    let d4 = (own_d + d * SIDE) / 4u + e % (SIDE / 4u);
                    let from_state = ((select(at, params.y_row0, at == NO_ROW) - params.y_row0) * heads + head) * STATE4 + 2u;
                    put_score4_at(scratch + e / (SIDE / 4u) * SCRATCH_PITCH + e % (SIDE / 4u) * 4u,
                        select(vec4(0.0), load_state(from_state + min(d4, D4 - 1u)), d4 < D4));
                }
                workgroupBarrier();
                acc[m][d] = coopLoadT<Sum>(&scores[scratch], scratch_pitch);
            #end
        #end
    }

    for (var source = 0u; source < SOURCES; source++) {
        let keys = keys_of(tile, source);
        workgroupBarrier();
        for (var e = lid; e < BLOCK_Q * ROW8; e += WG) {
            let at = tile_row(tile, e / ROW8);
            var v = mat2x4<f16>();
            if (at != NO_ROW && e % ROW8 < D8) {
                let d4 = 2u * (e % ROW8);
                v = mat2x4(vec4<f16>(query_for(tile, keys.text, at, head, d4)), vec4<f16>(query_for(tile, keys.text, at, head, d4 + 1u)));
            }
            put_octet(e / ROW8, e % ROW8, v);
        }
        workgroupBarrier();
        var q: array<Left, PART_TILES>;
        #unroll d PART_TILES
            let at = (q_row * KV_PITCH + (part * PART_TILES + d) * SIDE / 8u) * CELLS;
            q[d] = coopLoadT<Left>(&tile_kv[at], kv_pitch);
        #end

        var next: Next;
        send(&next, false, keys, keys.begin, head, lid);
        for (var t0 = keys.begin; t0 < keys.end; t0 += BLOCK_K) {
            workgroupBarrier();
            if (lid == 0u) { raised.x = 0u; }
            put_tile(&next, lid);
            workgroupBarrier();
            send(&next, true, keys, t0, head, lid);
            var s: Sum;
            #unroll d PART_TILES
                let at = (k_col * KV_PITCH + (part * PART_TILES + d) * SIDE / 8u) * CELLS;
                let k = coopLoad<Right>(&tile_kv[at], kv_pitch);
                s = coopMultiplyAdd(q[d], k, s);
            #end
            let s_at = (part * BLOCK_Q + q_row) * S_PITCH + k_col;
            coopStoreT(s, &scores[s_at], s_pitch);
            workgroupBarrier();

            put_tile(&next, lid);
            var own_scores: array<vec4<f32>, OWN4>;
            var highest = LOWEST;
            #unroll i OWN4
                let k4 = (i / 2u * LANES + share) * 2u + i % 2u;
                let t = vec4(t0 + 4u * k4) + vec4(0u, 1u, 2u, 3u);
                var score = vec4(0.0);
                for (var p = 0u; p < PARTS; p++) { score += score4_at((p * BLOCK_Q + own) * S_PITCH + 4u * k4); }
                score = score * SCALE + bias_of(head, tile.first + own, t.x);
                let v = seen_or_lowest(score, t, keys.end, tile.first + own);
                highest = max(highest, max(max(v.x, v.y), max(v.z, v.w)));
                own_scores[i] = v;
            #end
            highest = row_max(highest);
            var keep = 1.0;
            if (highest > top + RISE) {
                if (top > LOWEST) {
                    keep = exp2(top - highest);
                    raised.x = 1u;
                }
                top = highest;
                sum *= keep;
            }
            if (owns) {
                if (share == 0u) { factors[own] = vec4(keep); }
                #unroll i OWN8
                    sum += weigh(own_scores[2u * i], own_scores[2u * i + 1u], top, own, i * LANES + share);
                #end
            }
            workgroupBarrier();
            if (workgroupUniformLoad(&raised).x != 0u) {
                #unroll m Q_ROWS
                    #unroll d OWN_TILES
                        workgroupBarrier();
                        coopStoreT(acc[m][d], &scores[scratch], scratch_pitch);
                        workgroupBarrier();
                        for (var e = lane; e < SIDE * SIDE / 4u; e += SUBGROUP) {
                            let at = scratch + e / (SIDE / 4u) * SCRATCH_PITCH + e % (SIDE / 4u) * 4u;
                            put_score4_at(at, score4_at(at) * factors[m * SIDE + e / (SIDE / 4u)].x);
                        }
                        workgroupBarrier();
                        acc[m][d] = coopLoadT<Sum>(&scores[scratch], scratch_pitch);
                    #end
                #end
            }
            send(&next, false, keys, t0 + BLOCK_K, head, lid);
            #unroll n K_TILES
                var p: array<Left, Q_ROWS>;
                #unroll m Q_ROWS
                    let at = (m * SIDE * P_PITCH + n * SIDE / 8u) * CELLS;
                    p[m] = coopLoadT<Left>(&weights[at], p_pitch);
                #end
                #unroll d OWN_TILES
                    let at = (n * SIDE * KV_PITCH + (own_d + d * SIDE) / 8u) * CELLS;
                    let v = coopLoadT<Right>(&tile_kv[at], kv_pitch);
                    #unroll m Q_ROWS
                        acc[m][d] = coopMultiplyAdd(p[m], v, acc[m][d]);
                    #end
                #end
            #end
        }
    }

    let row = tile_row(tile, own);
    if (CARRY_OUT) {
        var sums: vec4<f32>;
        #unroll i LANES
            sums[i] = subgroupShuffle(sum, lane - share + i);
        #end
        if (owns && row != NO_ROW && share == 0u) {
            let state = ((row - params.y_row0) * heads + head) * STATE4;
            store_state(state, vec4(top, 0.0, 0.0, 0.0));
            store_state(state + 1u, sums);
        }
    }
    let whole = row_sum(sum);
    workgroupBarrier();
    if (owns && share == 0u) { factors[own] = vec4(select(0.0, 1.0 / whole, whole > 0.0)); }
    #unroll m Q_ROWS
        #unroll d OWN_TILES
            workgroupBarrier();
            coopStoreT(acc[m][d], &scores[scratch], scratch_pitch);
            workgroupBarrier();
            for (var e = lane; e < SIDE * SIDE / 4u; e += SUBGROUP) {
                let in_tile = m * SIDE + e / (SIDE / 4u);
                let at = tile_row(tile, in_tile);
                let d4 = (own_d + d * SIDE) / 4u + e % (SIDE / 4u);
                if (at != NO_ROW && d4 < D4) {
                    let v = score4_at(scratch + e / (SIDE / 4u) * SCRATCH_PITCH + e % (SIDE / 4u) * 4u);
                    if (CARRY_OUT) {
                        store_state(((at - params.y_row0) * heads + head) * STATE4 + 2u + d4, v);
                    } else {
                        put(at, head, d4, v * factors[in_tile].x);
                    }
                }
            }
        #end
    #end
}

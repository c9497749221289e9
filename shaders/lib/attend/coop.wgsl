// Engine `coop`: for GPUs with matrix units, and heads of at most 128 channels. A workgroup takes BLOCK_Q queries of one head, SIDE to a subgroup,
// and streams the keys in tiles of BLOCK_K through workgroup memory as halves; the next tile is on its way in
// registers meanwhile. QKᵀ and PV run on matrix units with f32 sums.
// Matrices are opaque, so scores pass through workgroup memory to the lanes that own their row, LANES lanes to a row; each
// subgroup has room for those of one matrix of queries.
// For the same reason a sum is not rescaled whenever a maximum rises, but only when it rises by more than 2^RISE: until then
// probabilities exceed one, which f16 holds and the division at the end takes back.
//   state: per row and head (max, 0, 0, 0), the sums of its lanes, and D4 vec4s of accumulator.
#import side
#import cells
#import operand_octets
#import probabilities
const Q_SCALE: f32 = 1.0;   // halves of scaled queries would lose digits: scores are scaled
const RISE: f32 = 8.0;
const LANES: u32 = SUBGROUP / SIDE;
const SUBGROUPS: u32 = WG / SUBGROUP;
const D8: u32 = HEAD_DIM / 8u;
const ROW8: u32 = D_TILES * SIDE / 8u;             // octets of a head, padded
const P8: u32 = BLOCK_K / 8u;
// Rows begin at other banks than the row before.
const KV_PITCH: u32 = ROW8 + 1u;
const P_PITCH: u32 = P8 + 1u;
const S_PITCH: u32 = BLOCK_K + 8u;
const STATE4: u32 = D4 + 2u;

var<workgroup> tile_k: array<Cell, BLOCK_K * KV_PITCH * CELLS>;
var<workgroup> tile_v: array<Cell, BLOCK_K * KV_PITCH * CELLS>;
var<workgroup> weights: array<Cell, SUBGROUPS * SIDE * P_PITCH * CELLS>;  // probabilities; before them the queries, by chunks
var<workgroup> scores: array<f32, SUBGROUPS * SIDE * S_PITCH>;
var<workgroup> raised: vec4<u32>;   // x: whether this tile raised some maximum; 16 bytes, as lib/cells asks

fn put_k(row: u32, d8: u32, v: mat2x4<f16>) {
    let c = cells(v);
    #unroll i CELLS
        tile_k[(row * KV_PITCH + d8) * CELLS + i] = c[i];
    #end
}
fn put_v(row: u32, d8: u32, v: mat2x4<f16>) {
    let c = cells(v);
    #unroll i CELLS
        tile_v[(row * KV_PITCH + d8) * CELLS + i] = c[i];
    #end
}
fn score4(row: u32, k4: u32) -> vec4<f32> { return score4_at(row * S_PITCH + 4u * k4); }
fn put_score4(row: u32, k4: u32, v: vec4<f32>) { put_score4_at(row * S_PITCH + 4u * k4, v); }

// A thread's part of the next tile of keys and values, zero beyond their end.
struct Next { k: array<mat2x4<f16>, KV_LOADS>, v: array<mat2x4<f16>, KV_LOADS> }
fn send(next: ptr<function, Next>, keys: Keys, t0: u32, head: u32, lid: u32) {
    #unroll i KV_LOADS
        let e = lid + i * WG;
        let t = t0 + e / ROW8;
        (*next).k[i] = mat2x4<f16>();
        (*next).v[i] = mat2x4<f16>();
        if (t < keys.end && e % ROW8 < D8) {
            let row = key_row(keys, t);
            (*next).k[i] = key8(keys.text, row, head, e % ROW8);
            (*next).v[i] = value8(keys.text, row, head, e % ROW8);
        }
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
    let part = lane % LANES;                      // a lane's share of its row
    let own = subgroup * SIDE + lane / LANES;     // its row: number in the tile, and place in `scores` and `weights`
    let base = subgroup * SIDE * S_PITCH;
    let s_pitch = S_PITCH;
    let kv_pitch = KV_PITCH * CELLS;
    let p_pitch = P_PITCH * CELLS;

    let row = tile_row(tile, own);
    let state = ((select(row, params.y_row0, row == NO_ROW) - params.y_row0) * high(params.items_heads) + head) * STATE4;
    var top = LOWEST;
    var sum = 0.0;                                // of this lane's keys only, until the end
    var acc: array<Sum, ACC>;
    if (CARRY_IN) {
        top = load_state(state).x;
        sum = load_state(state + 1u)[part];
        #unroll chunk Q_CHUNKS
            workgroupBarrier();
            for (var c = part; c < BLOCK_K / 4u; c += LANES) {
                let d4 = chunk * BLOCK_K / 4u + c;
                put_score4(own, c, select(vec4(0.0), load_state(state + 2u + min(d4, D4 - 1u)), d4 < D4));
            }
            workgroupBarrier();
            #unroll n K_TILES
                let at = base + n * SIDE;
                acc[chunk * K_TILES + n] = coopLoadT<Sum>(&scores[at], s_pitch);
            #end
        #end
    }

    for (var source = 0u; source < SOURCES; source++) {
        let keys = keys_of(tile, source);
        var q: array<Left, ACC>;
        #unroll chunk Q_CHUNKS
            workgroupBarrier();
            for (var e = lane; e < SIDE * P8; e += SUBGROUP) {
                let at = tile_row(tile, subgroup * SIDE + e / P8);
                let d8 = chunk * P8 + e % P8;
                var a = vec4(0.0);
                var b = vec4(0.0);
                if (at != NO_ROW && d8 < D8) {
                    a = query_for(tile, keys.text, at, head, 2u * d8);
                    b = query_for(tile, keys.text, at, head, 2u * d8 + 1u);
                }
                put_weights(subgroup * SIDE + e / P8, e % P8, a, b);
            }
            workgroupBarrier();
            #unroll n K_TILES
                let at = (subgroup * SIDE * P_PITCH + n * SIDE / 8u) * CELLS;
                q[chunk * K_TILES + n] = coopLoadT<Left>(&weights[at], p_pitch);
            #end
        #end

        var next: Next;
        send(&next, keys, keys.begin, head, lid);
        for (var t0 = keys.begin; t0 < keys.end; t0 += BLOCK_K) {
            workgroupBarrier();
            if (lid == 0u) { raised.x = 0u; }
            #unroll i KV_LOADS
                let e = lid + i * WG;
                if (BLOCK_K * ROW8 % WG == 0u || e < BLOCK_K * ROW8) {
                    put_k(e / ROW8, e % ROW8, next.k[i]);
                    put_v(e / ROW8, e % ROW8, next.v[i]);
                }
            #end
            workgroupBarrier();
            send(&next, keys, t0 + BLOCK_K, head, lid);

            var s: array<Sum, K_TILES>;
            #unroll n K_TILES
                #unroll d D_TILES
                    let at = (n * SIDE * KV_PITCH + d * SIDE / 8u) * CELLS;
                    let k = coopLoad<Right>(&tile_k[at], kv_pitch);
                    s[n] = coopMultiplyAdd(q[d], k, s[n]);
                #end
            #end
            var p: array<Left, K_TILES>;
            #unroll n K_TILES
                let at = base + n * SIDE;
                coopStoreT(s[n], &scores[at], s_pitch);
            #end
            workgroupBarrier();
            var own_scores: array<vec4<f32>, OWN4>;
            var highest = LOWEST;
            #unroll i OWN4
                let k4 = (i / 2u * LANES + part) * 2u + i % 2u;
                let t = vec4(t0 + 4u * k4) + vec4(0u, 1u, 2u, 3u);
                let score = score4(own, k4) * SCALE + bias_of(head, tile.first + own, t.x);
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
            #unroll i OWN8
                sum += weigh(own_scores[2u * i], own_scores[2u * i + 1u], top, own, i * LANES + part);
            #end
            workgroupBarrier();
            #unroll n K_TILES
                let at = (subgroup * SIDE * P_PITCH + n * SIDE / 8u) * CELLS;
                p[n] = coopLoadT<Left>(&weights[at], p_pitch);
            #end
            if (workgroupUniformLoad(&raised).x != 0u) {
                #unroll chunk Q_CHUNKS
                    workgroupBarrier();
                    #unroll n K_TILES
                        let at = base + n * SIDE;
                        coopStoreT(acc[chunk * K_TILES + n], &scores[at], s_pitch);
                    #end
                    workgroupBarrier();
                    for (var c = part; c < BLOCK_K / 4u; c += LANES) { put_score4(own, c, score4(own, c) * keep); }
                    workgroupBarrier();
                    #unroll n K_TILES
                        let at = base + n * SIDE;
                        acc[chunk * K_TILES + n] = coopLoadT<Sum>(&scores[at], s_pitch);
                    #end
                #end
            }
            #unroll n K_TILES
                #unroll d D_TILES
                    let at = (n * SIDE * KV_PITCH + d * SIDE / 8u) * CELLS;
                    let v = coopLoadT<Right>(&tile_v[at], kv_pitch);
                    acc[d] = coopMultiplyAdd(p[n], v, acc[d]);
                #end
            #end
        }
    }

    if (CARRY_OUT) {
        var sums: vec4<f32>;
        #unroll i LANES
            sums[i] = subgroupShuffle(sum, lane - part + i);
        #end
        if (row != NO_ROW && part == 0u) {
            store_state(state, vec4(top, 0.0, 0.0, 0.0));
            store_state(state + 1u, sums);
        }
    }
    let whole = row_sum(sum);
    let norm = select(0.0, 1.0 / whole, whole > 0.0);
    #unroll chunk Q_CHUNKS
        workgroupBarrier();
        #unroll n K_TILES
            let at = base + n * SIDE;
            coopStoreT(acc[chunk * K_TILES + n], &scores[at], s_pitch);
        #end
        workgroupBarrier();
        for (var c = part; c < BLOCK_K / 4u; c += LANES) {
            let d4 = chunk * BLOCK_K / 4u + c;
            if (row != NO_ROW && d4 < D4) {
                if (CARRY_OUT) { store_state(state + 2u + d4, score4(own, c)); } else { put(row, head, d4, score4(own, c) * norm); }
            }
        }
    #end
}

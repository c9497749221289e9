// Engine `wide`: for processors as `lanes`, and heads too wide for it. Here the lanes of a subgroup share each head: lane i
// owns every LANES-th pair of vec4s of BLOCK_Q queries, of the keys, the values and the output. Nothing is broadcast but the
// probabilities: the lanes sum their shares of a score by shuffles, and lane j keeps that of key j of a step.
//   state: per row and head (max, sum, 0, 0) and D4 vec4s of accumulator.
const LANES: u32 = 8u;
const D8: u32 = (D4 + 1u) / 2u;
const OWN8: u32 = (D8 + LANES - 1u) / LANES;
const STATE4: u32 = D4 + 1u;
const KEYS: u32 = 4u; // values taken at a time: an accumulator is loaded and stored once for all of them

#import operand_pairs
#import softmax

// Sum and maximum over the lanes, the same in all of them.
fn sum_of(v: f32, lane: u32) -> f32 {
    let a = v + subgroupShuffle(v, lane ^ 1u);
    let b = a + subgroupShuffle(a, lane ^ 2u);
    return b + subgroupShuffle(b, lane ^ 4u);
}
fn max_of(v: f32, lane: u32) -> f32 {
    let a = max(v, subgroupShuffle(v, lane ^ 1u));
    let b = max(a, subgroupShuffle(a, lane ^ 2u));
    return max(b, subgroupShuffle(b, lane ^ 4u));
}
// Pair n of a lane, and whether the head has it.
fn own(n: u32, lane: u32) -> u32 { return min(n * LANES + lane, D8 - 1u); }
fn owned(n: u32, lane: u32) -> bool { return D8 % LANES == 0u || n * LANES + lane < D8; }

// In place of a query that is not there the chunk's first one is computed, and the result dropped.
fn some_row(row: u32) -> u32 { return select(row, params.y_row0, row == NO_ROW); }

// A lane's shares of the products with one key, more by those of its pair n.
fn products(part: array<f32, BLOCK_Q>, q: array<mat2x4<f32>, BLOCK_Q>, k: mat2x4<f32>) -> array<f32, BLOCK_Q> {
    var s = part;
    #unroll r BLOCK_Q
        s[r] = plus_dot(q[r][1], k[1], plus_dot(q[r][0], k[0], s[r]));
    #end
    return s;
}
// A lane's share of one query's accumulator, times `keep`, and of KEYS weighted values.
fn weighted(acc: array<mat2x4<f32>, OWN8>, keep: f32, p: array<f32, KEYS>, v: array<array<mat2x4<f32>, OWN8>, KEYS>) -> array<mat2x4<f32>, OWN8> {
    var o = acc;
    #unroll n OWN8
        o[n] *= keep;
        #unroll i KEYS
            o[n][0] = fma(vec4(p[i]), v[i][n][0], o[n][0]);
            o[n][1] = fma(vec4(p[i]), v[i][n][1], o[n][1]);
        #end
    #end
    return o;
}

@compute @workgroup_size(LANES)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lane: u32) {
    let tile0 = first_tile_at(params.y_row0);
    let tiles = end_tile_at(params.y_row0 + params.y_rows - 1u) - tile0;
    let group = divided(group_index(wid, nwg), tiles);
    let head = group.quotient;
    if (head >= high(params.items_heads)) { return; }
    let tile = tile_at(tile0 + group.rest);

    var rows: array<u32, BLOCK_Q>;
    var q: array<array<mat2x4<f32>, BLOCK_Q>, OWN8>;
    var acc: array<array<mat2x4<f32>, OWN8>, BLOCK_Q>;
    var m: array<f32, BLOCK_Q>;
    var l: array<f32, BLOCK_Q>;
    #unroll r BLOCK_Q
        let row = tile_row(tile, r);
        rows[r] = row;
        m[r] = LOWEST;
        if (CARRY_IN) {
            let at = ((some_row(row) - params.y_row0) * high(params.items_heads) + head) * STATE4;
            let state = load_state(at);
            m[r] = state.x;
            l[r] = state.y;
            #unroll n OWN8
                let from_state = at + 1u + 2u * own(n, lane);
                acc[r][n] = mat2x4(load_state(from_state), load_state(min(from_state + 1u, at + D4)));
            #end
        }
    #end

    for (var source = 0u; source < SOURCES; source++) {
        let keys = keys_of(tile, source);
        #unroll r BLOCK_Q
            #unroll n OWN8
                q[n][r] = query2(tile, keys.text, some_row(rows[r]), head, own(n, lane)) * select(0.0, 1.0, owned(n, lane));
            #end
        #end
        for (var t0 = keys.begin; t0 < keys.end; t0 += LANES) {
            let count = min(keys.end - t0, LANES);
            var s: array<f32, BLOCK_Q>;
            for (var j = 0u; j < count; j++) {
                let at = key_row(keys, t0 + j);
                var part: array<f32, BLOCK_Q>;
                #unroll n OWN8
                    part = products(part, q[n], key2(keys.text, at, head, own(n, lane)));
                #end
                #unroll r BLOCK_Q
                    s[r] = select(s[r], sum_of(part[r], lane), lane == j);
                #end
            }
            var keep: array<f32, BLOCK_Q>;
            #unroll r BLOCK_Q
                let seen = lane < count && (SCOPE != CAUSAL || t0 + lane <= tile.first + r);
                let score = select(LOWEST, s[r] + score_bias(head, tile.first + r, t0 + lane), seen);
                let new_m = max(m[r], max_of(score, lane));
                // A query that has seen no key yet has new_m = LOWEST, and masked keys would weigh 1.
                let weights = exp2_of(vec4(m[r] - new_m, score - new_m, 0.0, 0.0));
                keep[r] = weights.x;
                m[r] = new_m;
                s[r] = select(0.0, weights.y, seen);
                l[r] = fma(l[r], keep[r], sum_of(s[r], lane));
            #end
            for (var j = 0u; j < count; j += KEYS) {
                var v: array<array<mat2x4<f32>, OWN8>, KEYS>;
                #unroll i KEYS
                    let at = key_row(keys, min(t0 + j + i, keys.end - 1u));
                    #unroll n OWN8
                        v[i][n] = value2(keys.text, at, head, own(n, lane));
                    #end
                #end
                #unroll r BLOCK_Q
                    var p: array<f32, KEYS>;
                    #unroll i KEYS
                        p[i] = subgroupShuffle(s[r], j + i);
                    #end
                    acc[r] = weighted(acc[r], keep[r], p, v);
                    keep[r] = 1.0;
                #end
            }
        }
    }

    #unroll r BLOCK_Q
        if (rows[r] != NO_ROW) {
            let at = ((rows[r] - params.y_row0) * high(params.items_heads) + head) * STATE4;
            if (CARRY_OUT && lane == 0u) { store_state(at, vec4(m[r], l[r], 0.0, 0.0)); }
            let norm = select(0.0, 1.0 / l[r], l[r] > 0.0);
            #unroll n OWN8
                if (owned(n, lane)) {
                    if (CARRY_OUT) {
                        let to_state = at + 1u + 2u * own(n, lane);
                        store_state(to_state, acc[r][n][0]);
                        if (2u * own(n, lane) + 1u < D4) { store_state(to_state + 1u, acc[r][n][1]); }
                    } else {
                        put2(rows[r], head, own(n, lane), acc[r][n] * norm);
                    }
                }
            #end
        }
    #end
}

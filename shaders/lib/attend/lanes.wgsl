// Engine `lanes`: for processors that run LANES invocations as one wide vector, where an exchange between lanes costs
// an instruction and a load from memory tens of them (every lane is fetched by itself), and barriers more.
// One subgroup of LANES invocations takes BLOCK_Q queries of one head, RQ per lane. In each step a lane loads one key and its
// value, and all lanes receive them by broadcasts out of registers: a loaded number serves LANES * RQ queries.
// A head is taken by pairs of vec4s, D8 of them. Products are ordered so that what is broadcast is used up at once.
//   state: per row and head (max, sum, 0, 0) and D4 vec4s of accumulator.
const LANES: u32 = 8u;
const RQ: u32 = BLOCK_Q / LANES;
const STATE4: u32 = D4 + 1u;
const D8: u32 = (D4 + 1u) / 2u;

#import operand_pairs
#import softmax

// Zero, but not known to be: a shuffle from a lane that is only known when it runs is one instruction, from a constant one two.
// It comes out of a loop that ends after one round, which is not known either. So shuffles from lanes counted from it are not
// moved up to before this point: compilers like to have all of them first, and hundreds of results on the stack.
fn zero_from_here() -> u32 {
    var at = params.lq >> 31u;
    loop {
        at += LANES;
        if (at >= params.q_k_stride >> 29u) { break; }
    }
    return at % LANES;
}

// A lane without a query computes on the chunk's first one and drops the result.
fn some_row(row: u32) -> u32 { return select(row, params.y_row0, row == NO_ROW); }

// Products of a lane's queries, which lie by pairs of vec4s and then by query, and the key that lane j holds.
fn scores(q: array<array<mat2x4<f32>, RQ>, D8>, k: array<mat2x4<f32>, D8>, j: u32) -> array<f32, RQ> {
    // Two sums to a score: one alone would wait for itself.
    var even: array<f32, RQ>;
    var odd: array<f32, RQ>;
    #unroll d D8
        let k_even = subgroupShuffle(k[d][0], j);
        let k_odd = subgroupShuffle(k[d][1], j);
        #unroll r RQ
            even[r] = plus_dot(q[d][r][0], k_even, even[r]);
            if (2u * d + 1u < D4) { odd[r] = plus_dot(q[d][r][1], k_odd, odd[r]); }
        #end
    #end
    #unroll r RQ
        even[r] += odd[r];
    #end
    return even;
}
// One vec4 of the accumulators, times `keep`, and of the values that the lanes hold, weighted.
fn weighted(acc: array<vec4<f32>, RQ>, keep: array<f32, RQ>, p: array<array<f32, LANES>, RQ>, v: vec4<f32>, lane0: u32) -> array<vec4<f32>, RQ> {
    var o = acc;
    #unroll r RQ
        o[r] *= keep[r];
    #end
    #unroll j LANES
        let v_j = subgroupShuffle(v, lane0 + j);
        #unroll r RQ
            o[r] = fma(vec4(p[r][j]), v_j, o[r]);
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

    var rows: array<u32, RQ>;
    var q: array<array<mat2x4<f32>, RQ>, D8>;
    var acc: array<array<vec4<f32>, RQ>, 2u * D8>;
    var m: array<f32, RQ>;
    var l: array<f32, RQ>;
    #unroll r RQ
        let row = tile_row(tile, r * LANES + lane);
        rows[r] = row;
        m[r] = LOWEST;
        if (CARRY_IN) {
            let at = ((some_row(row) - params.y_row0) * high(params.items_heads) + head) * STATE4;
            let state = load_state(at);
            m[r] = state.x;
            l[r] = state.y;
            #unroll d D4
                acc[d][r] = load_state(at + 1u + d);
            #end
        }
    #end

    for (var source = 0u; source < SOURCES; source++) {
        let keys = keys_of(tile, source);
        #unroll r RQ
            #unroll d D8
                q[d][r] = query2(tile, keys.text, some_row(rows[r]), head, d);
            #end
        #end
        for (var t0 = keys.begin; t0 < keys.end; t0 += LANES) {
            let at = key_row(keys, min(t0 + lane, keys.end - 1u));
            var k: array<mat2x4<f32>, D8>;
            #unroll d D8
                k[d] = key2(keys.text, at, head, d);
            #end
            let key0 = zero_from_here();
            var s: array<array<f32, RQ>, LANES>;
            #unroll j LANES
                s[j] = scores(q, k, key0 + j);
                #unroll r RQ
                    s[j][r] += score_bias(head, tile.first + r * LANES + lane, t0 + j);
                #end
            #end
            let value0 = zero_from_here();
            let t_a = vec4(t0) + vec4(0u, 1u, 2u, 3u);
            let t_b = t_a + vec4(4u);
            var p: array<array<f32, LANES>, RQ>;
            var keep: array<f32, RQ>;
            #unroll r RQ
                var seen_a = t_a < vec4(keys.end);
                var seen_b = t_b < vec4(keys.end);
                if (SCOPE == CAUSAL) {
                    seen_a = seen_a & (t_a <= vec4(tile.first + r * LANES + lane));
                    seen_b = seen_b & (t_b <= vec4(tile.first + r * LANES + lane));
                }
                let a = select(vec4(LOWEST), vec4(s[0][r], s[1][r], s[2][r], s[3][r]), seen_a);
                let b = select(vec4(LOWEST), vec4(s[4][r], s[5][r], s[6][r], s[7][r]), seen_b);
                let top = max(a, b);
                let new_m = max(max(m[r], max(top.x, top.y)), max(top.z, top.w));
                keep[r] = exp2_of(vec4(m[r] - new_m)).x;
                m[r] = new_m;
                var p_a = exp2_of(a - new_m);
                var p_b = exp2_of(b - new_m);
                // A query that has seen no key yet has new_m = LOWEST, and keys beyond it would weigh 1. Others are there in each step.
                if (SCOPE == CAUSAL) {
                    p_a = select(vec4(0.0), p_a, seen_a);
                    p_b = select(vec4(0.0), p_b, seen_b);
                }
                let sum = p_a + p_b;
                l[r] = fma(l[r], keep[r], (sum.x + sum.y) + (sum.z + sum.w));
                p[r] = array(p_a.x, p_a.y, p_a.z, p_a.w, p_b.x, p_b.y, p_b.z, p_b.w);
            #end
            #unroll d D8
                let v = value2(keys.text, at, head, d);
                acc[2u * d] = weighted(acc[2u * d], keep, p, v[0], value0);
                if (2u * d + 1u < D4) { acc[2u * d + 1u] = weighted(acc[2u * d + 1u], keep, p, v[1], value0); }
            #end
        }
    }

    #unroll r RQ
        if (rows[r] != NO_ROW) {
            if (CARRY_OUT) {
                let at = ((rows[r] - params.y_row0) * high(params.items_heads) + head) * STATE4;
                store_state(at, vec4(m[r], l[r], 0.0, 0.0));
                #unroll d D4
                    store_state(at + 1u + d, acc[d][r]);
                #end
            } else {
                let norm = select(0.0, 1.0 / l[r], l[r] > 0.0);
                #unroll d D8
                    put2(rows[r], head, d, mat2x4(acc[2u * d][r], acc[2u * d + 1u][r]) * norm);
                #end
            }
        }
    #end
}

// Engine `columns`: one invocation per vec4 of y, whatever the alignment of heads, and so whatever number of
// heads that vec4 touches. It repeats the scores for every vec4: for odd head sizes of small models only.
//   state: per vec4 of y three vec4s (max, sum, accumulator), one head per component.
const Q_SCALE: f32 = SCALE; // scaled first, so that no product overflows
const WG: u32 = 64u;

fn dot_head(tile: Tile, text: bool, row: u32, at: u32, head: u32) -> f32 {
    var s = 0.0;
    for (var d4 = 0u; d4 < D4; d4++) { s += dot(query_for(tile, text, row, head, d4), key(text, at, head, d4)); }
    return s;
}

// The tile of one query alone.
fn tile_of(row: u32) -> Tile {
    let run = divided(row, params.lq);
    if (SCOPE == PATCHES) {
        let at = divided(run.rest, high(params.grid));
        let y0 = block_y0(quotient(at.quotient + jitter_h(), patch_h()));
        let x0 = block_x0(quotient(at.rest + jitter_w(), patch_w()));
        return Tile(run.quotient, row, 0u, 0, 0, y0, x0, keys_at(run.quotient, y0, x0));
    }
    if (SCOPE == WINDOWS) { return tile_at(run.quotient * ceil_div(params.lq, BLOCK_Q) + run.rest / BLOCK_Q); }
    return Tile(run.quotient, row, run.rest, 0, 0, 0u, 0u, keys_of_run(run.quotient, run.rest));
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let stride = high(params.v_y_stride);
    let lane = group_index(wid, nwg) * WG + lid;
    if (lane >= params.y_rows * stride) { return; }
    let row = params.y_row0 + lane / stride;
    let tile = tile_of(row);
    let first_col = 4u * (lane % stride);
    let cols = high(params.items_heads) * HEAD_DIM;
    var m = vec4(LOWEST);
    var l = vec4(0.0);
    var acc = vec4(0.0);
    if (CARRY_IN) {
        m = load_state(3u * lane);
        l = load_state(3u * lane + 1u);
        acc = load_state(3u * lane + 2u);
    }
    for (var source = 0u; source < SOURCES; source++) {
        let keys = keys_of(tile, source);
        for (var t = keys.begin; t < keys.end; t++) {
            let at = key_row(keys, t);
            var s = vec4(0.0);
            var v = vec4(0.0);
            var scored = NO_ROW; // the head whose score is at hand
            var score = 0.0;
            for (var c = 0u; c < 4u; c++) {
                let col = min(first_col + c, cols - 1u);
                let head = col / HEAD_DIM;
                if (head != scored) {
                    score = dot_head(tile, keys.text, row, at, head) + score_bias(head, tile.first, t);
                    scored = head;
                }
                let d = col % HEAD_DIM;
                let four = value(keys.text, at, head, d / 4u);
                s[c] = score;
                v[c] = four[d % 4u];
            }
            let new_m = max(m, s);
            let keep = exp2(m - new_m);
            let p = exp2(s - new_m);
            l = fma(l, keep, p);
            acc = fma(acc, keep, p * v);
            m = new_m;
        }
    }
    if (CARRY_OUT) {
        store_state(3u * lane, m);
        store_state(3u * lane + 1u, l);
        store_state(3u * lane + 2u, acc);
    } else {
        let used = vec4(first_col) + vec4(0u, 1u, 2u, 3u) < vec4(cols);
        store_y(lane, select(vec4(0.0), acc / l, used & (l > vec4(0.0))));
    }
}

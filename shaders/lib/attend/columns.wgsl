// Engine `columns`: one invocation per vec4 of y, whatever the alignment of heads, and so whatever number of
// heads that vec4 touches. It repeats the scores for every vec4: for odd head sizes of small models only.
//   state: per vec4 of y three vec4s (max, sum, accumulator), one head per component.
const WG: u32 = 64u;

fn dot_head(row: u32, at: u32, head: u32) -> f32 {
    var s = 0.0;
    for (var d4 = 0u; d4 < D4; d4++) { s += dot(query(row, head, d4), key(at, head, d4)); }
    return s;
}

@compute @workgroup_size(WG)
fn main(@builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>, @builtin(local_invocation_index) lid: u32) {
    let stride = high(params.v_y_stride);
    let lane = group_index(wid, nwg) * WG + lid;
    if (lane >= params.y_rows * stride) { return; }
    let row = params.y_row0 + lane / stride;
    let item = row / params.lq;
    let i = row % params.lq;
    var keys: Keys;
    if (SCOPE == PATCHES) {
        let by = (i / high(params.grid) + jitter_h()) / patch_h();
        let bx = (i % high(params.grid) + jitter_w()) / patch_w();
        keys = keys_of_block(item, by, bx);
    } else {
        keys = keys_of_run(item, i);
    }

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
                score = dot_head(row, at, head);
                scored = head;
            }
            let d = col % HEAD_DIM;
            let four = value(at, head, d / 4u);
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
    if (CARRY_OUT) {
        store_state(3u * lane, m);
        store_state(3u * lane + 1u, l);
        store_state(3u * lane + 2u, acc);
    } else {
        let used = vec4(first_col) + vec4(0u, 1u, 2u, 3u) < vec4(cols);
        store_y(lane, select(vec4(0.0), acc / l, used & (l > vec4(0.0))));
    }
}

// Operands of attention as its engines see them: vec4 number d4 of a head, zero beyond HEAD_DIM, and pairs of them.

// Columns from..from+4 of a row whose vec4s i and i+1 are a and b.
fn shifted(a: vec4<f32>, b: vec4<f32>, by: u32) -> vec4<f32> {
    switch by {
        case 0u: { return a; }
        case 1u: { return vec4(a.yzw, b.x); }
        case 2u: { return vec4(a.zw, b.xy); }
        default: { return vec4(a.w, b.xyz); }
    }
}
fn within(v: vec4<f32>, d4: u32) -> vec4<f32> {
    return select(vec4(0.0), v, vec4(4u * d4) + vec4(0u, 1u, 2u, 3u) < vec4(HEAD_DIM));
}
// Does vec4 d4 of a head that starts at column col reach into the next vec4 of the row?
fn spills(col: u32, d4: u32) -> bool { return col % 4u + min(HEAD_DIM - 4u * d4, 4u) > 4u; }

const SCALE: f32 = select(1.0, inverseSqrt(f32(HEAD_DIM)), SCALED) * LOG2_E;

// `row` of a query is that of its result; windows share the text's queries.
fn query_at(row: u32) -> u32 {
    if (SCOPE == WINDOWS) {
        let run = divided(row, params.lq);
        return (item_of_run(run.quotient) * params.lq + run.rest - params.q_row0) * low(params.q_k_stride);
    }
    return (row - params.q_row0) * low(params.q_k_stride);
}
fn query(row: u32, head: u32, d4: u32) -> vec4<f32> {
    let col = low(params.q_k_col) + head * HEAD_DIM + 4u * d4;
    let i = query_at(row) + col / 4u;
    var v = load_q(i);
    if (!ALIGNED) {
        var next = vec4(0.0);
        if (spills(col, d4)) { next = load_q(i + 1u); }
        v = within(shifted(v, next, col % 4u), d4);
    }
    return vec4<f32>(v) * Q_SCALE;
}
// The query as keys of this kind see it: positions of text count from the window's corner, of pixels from the grid's.
fn query_for(tile: Tile, text: bool, row: u32, head: u32, d4: u32) -> vec4<f32> {
    return query_turned(tile, text, query(row, head, d4), d4);
}
fn query_turned(tile: Tile, text: bool, v: vec4<f32>, d4: u32) -> vec4<f32> {
    if (TURNED && text != (SCOPE == WINDOWS)) { return turned(v, d4, tile.y0, tile.x0, select(1.0, -1.0, text)); }
    return v;
}
// `row` of key and value counts from the first bound row.
fn key(text: bool, row: u32, head: u32, d4: u32) -> vec4<f32> {
    let col = high(params.q_k_col) + head * HEAD_DIM + 4u * d4;
    let i = row * high(params.q_k_stride) + col / 4u;
    let v = load_key(text, i);
    if (ALIGNED) { return v; }
    var next = vec4(0.0);
    if (spills(col, d4)) { next = load_key(text, i + 1u); }
    return within(shifted(v, next, col % 4u), d4);
}
fn value(text: bool, row: u32, head: u32, d4: u32) -> vec4<f32> {
    let col = low(params.v_col_jitter) + head * HEAD_DIM + 4u * d4;
    let i = row * low(params.v_y_stride) + col / 4u;
    let v = load_value(text, i);
    if (ALIGNED) { return v; }
    var next = vec4(0.0);
    if (spills(col, d4)) { next = load_value(text, i + 1u); }
    return within(shifted(v, next, col % 4u), d4);
}
fn load_key(text: bool, i: u32) -> vec4<f32> {
    if (TEXT && text) { return load_text_k(i); }
    return load_k(i);
}
fn load_value(text: bool, i: u32) -> vec4<f32> {
    if (TEXT && text) { return load_text_v(i); }
    return load_v(i);
}
// Only for heads of whole vec4s.
fn put(row: u32, head: u32, d4: u32, v: vec4<f32>) {
    store_y((row - params.y_row0) * high(params.v_y_stride) + head * D4 + d4, v);
}
// Of keys t..t+4.
fn bias_of(head: u32, i: u32, t: u32) -> vec4<f32> {
    return vec4(score_bias(head, i, t), score_bias(head, i, t + 1u), score_bias(head, i, t + 2u), score_bias(head, i, t + 3u));
}

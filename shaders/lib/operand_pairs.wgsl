// Operands of the engines of attention on processors: two vec4s at a time.

// Pairs d8 of vec4s, which lie together where PAIRED; the second is zero beyond an odd head.
fn query2(tile: Tile, text: bool, row: u32, head: u32, d8: u32) -> mat2x4<f32> {
    if (PAIRED) {
        let col = low(params.q_k_col) + head * HEAD_DIM + 8u * d8;
        let v = load2_q(query_at(row) + col / 4u) * SCALE;
        return mat2x4(query_turned(tile, text, v[0], 2u * d8), query_turned(tile, text, v[1], 2u * d8 + 1u));
    }
    let v = query_for(tile, text, row, head, 2u * d8);
    if (2u * d8 + 1u < D4) { return mat2x4(v, query_for(tile, text, row, head, 2u * d8 + 1u)); }
    return mat2x4(v, vec4(0.0));
}
fn key2(text: bool, row: u32, head: u32, d8: u32) -> mat2x4<f32> {
    if (PAIRED) {
        let i = row * high(params.q_k_stride) + (high(params.q_k_col) + head * HEAD_DIM) / 4u + 2u * d8;
        if (TEXT && text) { return load2_text_k(i); }
        return load2_k(i);
    }
    if (2u * d8 + 1u < D4) { return mat2x4(key(text, row, head, 2u * d8), key(text, row, head, 2u * d8 + 1u)); }
    return mat2x4(key(text, row, head, 2u * d8), vec4(0.0));
}
fn value2(text: bool, row: u32, head: u32, d8: u32) -> mat2x4<f32> {
    if (PAIRED) {
        let i = row * low(params.v_y_stride) + (low(params.v_col_jitter) + head * HEAD_DIM) / 4u + 2u * d8;
        if (TEXT && text) { return load2_text_v(i); }
        return load2_v(i);
    }
    if (2u * d8 + 1u < D4) { return mat2x4(value(text, row, head, 2u * d8), value(text, row, head, 2u * d8 + 1u)); }
    return mat2x4(value(text, row, head, 2u * d8), vec4(0.0));
}
fn put2(row: u32, head: u32, d8: u32, v: mat2x4<f32>) {
    let at = (row - params.y_row0) * high(params.v_y_stride) + head * D4 + 2u * d8;
    if (PAIRED) {
        store2_y(at, v);
    } else {
        store_y(at, v[0]);
        if (2u * d8 + 1u < D4) { store_y(at + 1u, v[1]); }
    }
}

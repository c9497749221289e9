// Operands of the engines of attention on matrix units: halves as they are stored.

// Octet d8 of a head, where heads begin at whole octets.
fn key8(text: bool, row: u32, head: u32, d8: u32) -> mat2x4<f16> {
    let i = (row * high(params.q_k_stride) + (high(params.q_k_col) + head * HEAD_DIM) / 4u) / 2u + d8;
    if (TEXT && text) { return load8_text_k(i); }
    return load8_k(i);
}
fn value8(text: bool, row: u32, head: u32, d8: u32) -> mat2x4<f16> {
    let i = (row * low(params.v_y_stride) + (low(params.v_col_jitter) + head * HEAD_DIM) / 4u) / 2u + d8;
    if (TEXT && text) { return load8_text_v(i); }
    return load8_v(i);
}

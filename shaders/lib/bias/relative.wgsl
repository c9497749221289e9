// A bias by head and distance: row `head` of `bias` holds that of key t and query i at t - i + lq - 1.
#bind read bias
fn score_bias(head: u32, i: u32, t: u32) -> f32 {
    let stride = 4u * ((params.lq + params.lk + 2u) / 4u);
    let at = head * stride + min(t, params.lk - 1u) + params.lq - 1u - min(i, params.lq - 1u);
    return load_bias(at / 4u)[at % 4u] * LOG2_E;
}

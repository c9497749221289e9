// Scores and probabilities on their way through workgroup memory, for the engines of attention on matrix units, whose
// matrices are opaque: LANES lanes side by side own each row. Needs `scores`, rows S_PITCH apart, and `weights`, rows
// P_PITCH octets apart.

// Eight probabilities as halves, to `row` and octet k8.
fn put_weights(row: u32, k8: u32, a: vec4<f32>, b: vec4<f32>) {
    let c = cells(mat2x4(vec4<f16>(a), vec4<f16>(b)));
    #unroll i CELLS
        weights[(row * P_PITCH + k8) * CELLS + i] = c[i];
    #end
}
fn score4_at(i: u32) -> vec4<f32> { return vec4(scores[i], scores[i + 1u], scores[i + 2u], scores[i + 3u]); }
fn put_score4_at(i: u32, v: vec4<f32>) {
    scores[i] = v.x;
    scores[i + 1u] = v.y;
    scores[i + 2u] = v.z;
    scores[i + 3u] = v.w;
}
// Over the lanes of a row.
fn row_max(v: f32) -> f32 {
    var m = v;
    for (var i = 1u; i < LANES; i *= 2u) { m = max(m, subgroupShuffleXor(m, i)); }
    return m;
}
fn row_sum(v: f32) -> f32 {
    var s = v;
    for (var i = 1u; i < LANES; i *= 2u) { s += subgroupShuffleXor(s, i); }
    return s;
}
// Keys t..t+4 beyond the end, or after the query, get a score that no maximum takes.
fn seen_or_lowest(score: vec4<f32>, t: vec4<u32>, end: u32, query: u32) -> vec4<f32> {
    var seen = t < vec4(end);
    if (SCOPE == CAUSAL) { seen = seen & (t <= vec4(query)); }
    return select(vec4(LOWEST), score, seen);
}
// Stores eight probabilities of scores a and b and returns their sum.
fn weigh(a: vec4<f32>, b: vec4<f32>, top: f32, row: u32, k8: u32) -> f32 {
    let p = select(exp2(a - top), vec4(0.0), a == vec4(LOWEST));
    let q = select(exp2(b - top), vec4(0.0), b == vec4(LOWEST));
    put_weights(row, k8, p, q);
    return dot(p + q, vec4(1.0));
}

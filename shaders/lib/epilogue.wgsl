// What happens to four finished columns of a product, in this order:
//   + bias, + vector of the batch item, activation (or value · gelu(gate)), + residual, store.
// row counts from the launch's first row, col4 from its first column. Needs operands bias, vector,
// res, y and params.{row0, rows_per_item, col0_4, n4}.
fn erf4(x: vec4<f32>) -> vec4<f32> {
    // Abramowitz and Stegun 7.1.26 has 1.5e-7; this rational form of 7.1.28's kind keeps f32 accuracy
    // for |x| >= 1, and a Taylor series serves below, where relative accuracy matters.
    let a = abs(x);
    let t = 1.0 / (1.0 + 0.3275911 * a);
    let far = 1.0 - (((((1.061405429 * t - 1.453152027) * t) + 1.421413741) * t - 0.284496736) * t + 0.254829592) * t * exp(-a * a);
    let s = x * x;
    let near = a * 1.1283791671 * (1.0 + s * (-0.33333333333 + s * (0.1 + s * (-0.023809523810 + s * (0.0046296296296
        + s * (-0.00075757575758 + s * (0.00010683760684 + s * (-0.000013227513228 + s * 0.0000014589169)))))))); 
    return sign(x) * select(far, near, a < vec4<f32>(1.0));
}
fn gelu_erf(x: vec4<f32>) -> vec4<f32> { return 0.5 * x * (1.0 + erf4(x * 0.70710678118)); }
fn activate(x: vec4<f32>) -> vec4<f32> {
    if (ACTIVATION == 1u) { return x / (1.0 + exp(-x)); }
    if (ACTIVATION == 2u) { return gelu_erf(x); }
    if (ACTIVATION == 3u) { return 0.5 * x * (1.0 + tanh(0.7978845608 * (x + 0.044715 * x * x * x))); }
    if (ACTIVATION == 4u) { return x / (1.0 + exp(-1.702 * x)); }
    return x;
}
fn finish(row: u32, col4: u32, acc: vec4<f32>, gate: vec4<f32>) {
    let n4 = params.n4;
    let column = params.col0_4 + col4;
    var v = acc;
    if (GATED) {
        var other = gate;
        if (HAS_BIAS) { v += load_bias(2u * column); other += load_bias(2u * column + 1u); }
        v = v * gelu_erf(other);
    } else {
        if (HAS_BIAS) { v += load_bias(column); }
        if (HAS_VECTOR) { v += load_vector(((params.row0 + row) / params.rows_per_item) * n4 + column); }
        v = activate(v);
    }
    let at = row * n4 + column;
    if (HAS_RES) { v += load_res(at); }
    store_y(at, v);
}

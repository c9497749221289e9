// What happens to four finished columns of a product, in this order:
//   + bias, + vector of the batch item, activation (or value · gelu(gate)), or · vector, + residual, store.
// row counts from the launch's first row, col4 from its first column. Needs operands bias, vector,
// res, y, params.{row0, rows_per_item, col0_4, n4} and vector_at(item), where the vector of an item begins.

// 1 + erf(x) within 1.2e-7, and relatively so in the tail below zero: a Chebyshev fit of log(erfc(x)·(1 + x/2)) + x².
fn erf_plus_1(x: vec4<f32>) -> vec4<f32> {
    let a = abs(x);
    let t = 1.0 / (1.0 + 0.5 * a);
    let p = -1.26551223 + t * (1.00002368 + t * (0.37409196 + t * (0.09678418 + t * (-0.18628806
        + t * (0.27886807 + t * (-1.13520398 + t * (1.48851587 + t * (-0.82215223 + t * 0.17087277))))))));
    let tail = t * exp(p - a * a);
    return select(2.0 - tail, tail, x < vec4(0.0));
}
// (1 + tanh u) / 2 = sigmoid(2 u), without the tanh that overflows on some drivers.
fn gelu_tanh(x: vec4<f32>) -> vec4<f32> { return x * sigmoid(1.5957691216 * (x + 0.044715 * x * x * x)); }
fn gelu_erf(x: vec4<f32>) -> vec4<f32> { return 0.5 * x * erf_plus_1(x * 0.70710678118); }
fn sigmoid(x: vec4<f32>) -> vec4<f32> { return 1.0 / (1.0 + exp(-x)); }
fn activate(x: vec4<f32>) -> vec4<f32> {
    if (ACTIVATION == 1u) { return x * sigmoid(x); }
    if (ACTIVATION == 2u) { return gelu_erf(x); }
    if (ACTIVATION == 3u) { return gelu_tanh(x); }
    if (ACTIVATION == 4u) { return x * sigmoid(1.702 * x); }
    return x;
}

fn item_of(row: u32) -> u32 { return quotient(params.row0 + row, params.rows_per_item); }

// What all rows of a column share; `vector` only where ONE_ITEM says that a tile lies within one item.
struct Column { at: u32, bias: vec4<f32>, gate_bias: vec4<f32>, vector: vec4<f32> }
fn column_begin(col4: u32) -> Column {
    var c: Column;
    c.at = params.col0_4 + col4;
    if (HAS_BIAS && GATED) {
        c.bias = load_bias(2u * c.at);
        c.gate_bias = load_bias(2u * c.at + 1u);
    } else if (HAS_BIAS) {
        c.bias = load_bias(c.at);
    }
    return c;
}
fn finished(row: u32, c: Column, acc: vec4<f32>, gate: vec4<f32>) -> vec4<f32> {
    var v = acc + c.bias;
    if (GATED && ACTIVATION == 3u) { return v * gelu_tanh(gate + c.gate_bias); }
    if (GATED) { return v * gelu_erf(gate + c.gate_bias); }
    if (!HAS_VECTOR) { return activate(v); }
    var vector = c.vector;
    if (!ONE_ITEM) { vector = load_vector(vector_at(item_of(row)) + c.at); }
    if (VECTOR_GATES) { return activate(v) * vector; }
    return activate(v + vector);
}
fn finish(row: u32, c: Column, finished: vec4<f32>) {
    let at = row * params.n4 + c.at;
    var v = finished;
    if (HAS_RES) { v += load_res(at); }
    store_y(at, v);
}
// Two neighbouring columns of the launch, the first one even, in one access.
fn finish2(row: u32, col4: u32, finished: mat2x4<f32>) {
    let at = row * params.n4 + params.col0_4 + col4;
    var v = finished;
    if (HAS_RES) { v += load2_res(at); }
    store2_y(at, v);
}

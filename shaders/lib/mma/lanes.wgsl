// Engine `lanes`: for processors that run LANES invocations as one wide vector, where an exchange between lanes costs
// an instruction and a load from memory tens or hundreds (every lane of a buffer is fetched by itself; textures are better, so
// both operands come through them where a device has any: lib/texels.wgsl), and barriers more.
// One subgroup of LANES invocations takes a tile of 32·QUADS rows × 8·CB weight rows, CB at most 4. A lane owns one row of every eight. In each
// step over k it loads its rows of x, and one of eight weight rows, which all lanes receive by shuffles: what is loaded serves
// the whole tile. A step takes DEEP vec4s of k. Gated weights lie in blocks of eight: four values, then their four gates.
const LANES: u32 = 8u;
const RB: u32 = 4u * QUADS;
const TILE_ROWS: u32 = LANES * RB;
const TILE_COLS: u32 = LANES * CB;
const TAKEN: u32 = select(1u, 2u, GATED && PAIRED);   // eights of weight rows that make one access to the result
const READ_TAPS: u32 = select(TAPS, 4u, FOLDED);
const PANEL: u32 = 8u;   // tiles above each other that take the same weights, one after the other: they stay in a core's cache

// Sums of eight weight rows, each vec4 over four rows of x that lie LANES apart.
struct Sums { c0: vec4<f32>, c1: vec4<f32>, c2: vec4<f32>, c3: vec4<f32>, c4: vec4<f32>, c5: vec4<f32>, c6: vec4<f32>, c7: vec4<f32> }

fn madd(w: vec4<f32>, x: mat4x4<f32>, sum: vec4<f32>) -> vec4<f32> {
    return fma(vec4(w.w), x[3], fma(vec4(w.z), x[2], fma(vec4(w.y), x[1], fma(vec4(w.x), x[0], sum))));
}
// Zero, but not known to be: a shuffle from a lane that is only known when it runs is one instruction, from a constant one two.
var<private> lane0: u32;
// Four rows of x: column i of each matrix holds element i of one vec4 of k.
struct Rows { lo: mat4x4<f32>, hi: mat4x4<f32> }
// Adds the weight row that lane j holds. All of its k at once: a sum is in registers for no longer than that.
fn with_row(sum: vec4<f32>, w: mat2x4<f32>, x: Rows, j: u32) -> vec4<f32> {
    let lo = madd(subgroupShuffle(w[0], lane0 + j), x.lo, sum);
    if (DEEP == 1u) { return lo; }
    return madd(subgroupShuffle(w[1], lane0 + j), x.hi, lo);
}
fn added(s: Sums, w: mat2x4<f32>, x: Rows) -> Sums {
    var t = s;
    t.c0 = with_row(s.c0, w, x, 0u);
    t.c1 = with_row(s.c1, w, x, 1u);
    t.c2 = with_row(s.c2, w, x, 2u);
    t.c3 = with_row(s.c3, w, x, 3u);
    if (!HALF) {
        t.c4 = with_row(s.c4, w, x, 4u);
        t.c5 = with_row(s.c5, w, x, 5u);
        t.c6 = with_row(s.c6, w, x, 6u);
        t.c7 = with_row(s.c7, w, x, 7u);
    }
    return t;
}
// The sums with the next row in front: s's second, up to the first of those that follow.
fn shifted(s: Sums, next: Sums) -> Sums {
    return Sums(vec4(s.c0.yzw, next.c0.x), vec4(s.c1.yzw, next.c1.x), vec4(s.c2.yzw, next.c2.x), vec4(s.c3.yzw, next.c3.x),
        vec4(s.c4.yzw, next.c4.x), vec4(s.c5.yzw, next.c5.x), vec4(s.c6.yzw, next.c6.x), vec4(s.c7.yzw, next.c7.x));
}
// DEEP vec4s of a row.
fn x_at(place: u32, c: u32) -> mat2x4<f32> {
    if (DEEP == 2u) { return a_load2(place, c); }
    return mat2x4(a_load(place, c), vec4(0.0));
}
fn w_at(i: u32) -> mat2x4<f32> {
    if (DEEP == 2u) { return load2_w(i); }
    return mat2x4(load_w(i), vec4(0.0));
}
// Weights of a tap, from the row's first at this place of k. Where FOLDED, the sum of those taps of 3 × 3 that read the pixel: a corner
// and, as far as `fold` says so, its neighbours along x and y.
fn w_tap(base: u32, tap: u32, fold: vec2<f32>) -> mat2x4<f32> {
    if (!FOLDED) { return w_at(base + tap * params.c4); }
    let corner = 2u * vec2(tap % 2u, tap / 2u);
    let at = base + vec4(3u * corner.y + corner.x, 3u * corner.y + 1u, 3u + corner.x, 4u) * params.c4;
    let along_x = w_at(at.x) + fold.x * w_at(at.y);
    return along_x + fold.y * (w_at(at.z) + fold.x * w_at(at.w));
}
// Row i of the tile that begins at row0. Where FOLDED, two tiles share twice as many rows: one takes the even, one the odd ones.
fn row_of(row0: u32, i: u32) -> u32 {
    if (!FOLDED) { return row0 + i; }
    let odd = row0 / TILE_ROWS % 2u;
    return row0 - odd * TILE_ROWS + 2u * i + odd;
}

// What the epilogue needs of columns, each lane holding one vec4 of weight rows.
struct Held { bias: vec4<f32>, vector: vec4<f32> }
fn hold_columns(row: u32, w_row4: u32) -> Held {
    var h: Held;
    let times = select(1u, 2u, GATED);
    let at = min(times * params.col0_4 + w_row4, times * params.n4 - 1u);
    if (HAS_BIAS) { h.bias = load_bias(at); }
    if (HAS_VECTOR && ONE_ITEM) { h.vector = load_vector(vector_at(item_of(row)) + at); }
    return h;
}
fn held_column(h: Held, lane: u32, col4: u32) -> Column {
    var c: Column;
    c.at = params.col0_4 + col4;
    if (HAS_BIAS) { c.bias = subgroupShuffle(h.bias, lane); }
    if (HAS_BIAS && GATED) { c.gate_bias = subgroupShuffle(h.bias, lane + 1u); }
    if (HAS_VECTOR && ONE_ITEM) { c.vector = subgroupShuffle(h.vector, lane); }
    return c;
}

fn gemm(group: u32, lane: u32) {
    let w_rows = select(4u, 8u, GATED) * ((params.cols + 3u) / 4u);
    let tiles_n = (w_rows + TILE_COLS - 1u) / TILE_COLS;
    let tiles_m = (params.rows + TILE_ROWS - 1u) / TILE_ROWS;
    if (group >= tiles_n * tiles_m) { return; }
    let panel = quotient(group, PANEL * tiles_n);
    let inside = group - panel * PANEL * tiles_n;
    let high = min(PANEL, tiles_m - PANEL * panel);
    let tile_n = quotient(inside, high);
    let row0 = (PANEL * panel + inside - tile_n * high) * TILE_ROWS;
    let col0 = tile_n * TILE_COLS;

    var a: array<ARow, RB>;
    #unroll r RB
        a[r] = a_begin(min(row_of(row0, LANES * r + lane), params.rows - 1u));
    #end
    lane0 = params.c4 >> 31u;
    let k4 = TAPS * params.c4;
    var w_row: array<u32, CB>;
    #unroll c CB
        w_row[c] = min(col0 + LANES * c + lane, w_rows - 1u) * k4;
    #end

    var acc: array<array<Sums, QUADS>, CB>;
    var places: array<u32, RB>;
    var x: array<mat2x4<f32>, RB>;
    for (var tap = 0u; tap < READ_TAPS; tap++) {
        let fold = a_fold(a[0], tap);
        #unroll r RB
            places[r] = a_tap(a[r], tap);
        #end
        for (var kc = 0u; kc < params.c4; kc += DEEP) {
            #unroll r RB
                if (r == 0u || !ONE_EIGHT) { x[r] = x_at(places[r], kc); }
            #end
            #unroll c CB
                let w = w_tap(w_row[c] + kc, tap, fold);
                #unroll q QUADS
                    const r = 4u * q;
                    let lo = transpose(mat4x4(x[r][0], x[r + 1u][0], x[r + 2u][0], x[r + 3u][0]));
                    let hi = transpose(mat4x4(x[r][1], x[r + 1u][1], x[r + 2u][1], x[r + 3u][1]));
                    acc[c][q] = added(acc[c][q], w, Rows(lo, hi));
                #end
            #end
        }
    }

    // Rows and columns move up to the front one by one, so that one copy of the epilogue serves all.
    let held = hold_columns(row0, col0 / 4u + lane);
    for (var col = col0; col < min(col0 + TILE_COLS, w_rows); col += LANES * TAKEN) {
        let at = (col - col0) / 4u;
        let col4 = col / select(4u, 8u, GATED);
        let first = held_column(held, at, col4);
        let second = held_column(held, at + TAKEN, col4 + 1u);
        for (var block = row0; block < min(row0 + TILE_ROWS, params.rows); block += LANES) {
            let row = row_of(row0, block - row0 + lane);
            if (row < params.rows) {
                let s = acc[0][0];
                let t = acc[TAKEN - 1u][0];
                let lo = vec4(s.c0.x, s.c1.x, s.c2.x, s.c3.x);
                let hi = vec4(s.c4.x, s.c5.x, s.c6.x, s.c7.x);
                let a = finished(row, first, lo, hi);
                var b = hi;
                if (GATED) { b = vec4(t.c0.x, t.c1.x, t.c2.x, t.c3.x); }
                if (PAIRED) {
                    finish2(row, col4, mat2x4(a, finished(row, second, b, vec4(t.c4.x, t.c5.x, t.c6.x, t.c7.x))));
                } else {
                    finish(row, first, a);
                    if (!GATED && !HALF && col + 4u < w_rows) { finish(row, second, finished(row, second, b, b)); }
                }
            }
            #unroll q QUADS
                acc[0][q] = shifted(acc[0][q], acc[0][min(q + 1u, QUADS - 1u)]);
            #end
            if (TAKEN > 1u) {
                #unroll q QUADS
                    acc[TAKEN - 1u][q] = shifted(acc[TAKEN - 1u][q], acc[TAKEN - 1u][min(q + 1u, QUADS - 1u)]);
                #end
            }
        }
        #unroll c CB
            acc[c] = acc[min(c + TAKEN, CB - 1u)];
        #end
    }
}

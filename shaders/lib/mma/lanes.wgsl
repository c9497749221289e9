// Engine `lanes`: for processors that run LANES invocations as one wide vector, where an exchange between lanes costs
// an instruction and a load from memory tens of them (every lane is fetched by itself), and barriers more.
// One subgroup of LANES invocations takes a tile of 8·BLOCKS·LM rows × LN vec4s of columns: LN lanes side by side,
// LM below each other (2 for narrow products). In each step over k a lane loads the weight rows of its own columns
// and one row of x out of every eight; all lanes receive those rows by shuffles.
// The accumulators are structures written out by name: an array indexed in a loop that the driver does not unroll
// would go to memory, and costs it minutes of compilation.
const LANES: u32 = 8u;
const LN: u32 = LANES / LM;
const LOADS: u32 = BLOCKS * LM;
const TILE_ROWS: u32 = LANES * LOADS;

// Eight rows of one lane.
struct Rows { r0: vec4<f32>, r1: vec4<f32>, r2: vec4<f32>, r3: vec4<f32>, r4: vec4<f32>, r5: vec4<f32>, r6: vec4<f32>, r7: vec4<f32> }
// Four weight rows at one vec4 of k: column i of the matrix holds element i of all four.
struct Weights { value: mat4x4<f32>, gate: mat4x4<f32> }

fn four_rows(w: u32, k4: u32) -> mat4x4<f32> {
    return transpose(mat4x4(load_w(w), load_w(w + k4), load_w(w + 2u * k4), load_w(w + 3u * k4)));
}
fn madd(x: vec4<f32>, w: mat4x4<f32>, sum: vec4<f32>) -> vec4<f32> {
    return fma(vec4(x.w), w[3], fma(vec4(x.z), w[2], fma(vec4(x.y), w[1], fma(vec4(x.x), w[0], sum))));
}
// Adds to this lane's eight rows; their x lie in the lanes below, below + LM, … of xa, the last four in xb.
fn eight(s: ptr<function, Rows>, xa: vec4<f32>, xb: vec4<f32>, below: u32, w: mat4x4<f32>) {
    let half = (4u * LM) % LANES + below;
    (*s).r0 = madd(subgroupShuffle(xa, below), w, (*s).r0);
    (*s).r1 = madd(subgroupShuffle(xa, below + LM), w, (*s).r1);
    (*s).r2 = madd(subgroupShuffle(xa, below + 2u * LM), w, (*s).r2);
    (*s).r3 = madd(subgroupShuffle(xa, below + 3u * LM), w, (*s).r3);
    (*s).r4 = madd(subgroupShuffle(xb, half), w, (*s).r4);
    (*s).r5 = madd(subgroupShuffle(xb, half + LM), w, (*s).r5);
    (*s).r6 = madd(subgroupShuffle(xb, half + 2u * LM), w, (*s).r6);
    (*s).r7 = madd(subgroupShuffle(xb, half + 3u * LM), w, (*s).r7);
}
// One vec4 of k, as all blocks of the tile see it.
var<private> kc: u32;
var<private> weights: array<Weights, SHARE>;
var<private> places: array<u32, LOADS>;       // where the rows of x lie that this lane loads, under the (middle) tap
var<private> edges: array<u32, LOADS>;   // whether they start or end a line
// With shared loads: the x of the eight rows before, of the present ones, and of those beyond the ends of the tile.
var<private> x_before: vec4<f32>;
var<private> x_now: vec4<f32>;
var<private> x_ends: vec4<f32>;

// The x of eight rows under tap i of three, from those under the middle tap: moved by one lane, zero outside the line.
fn moved(before: vec4<f32>, x: vec4<f32>, after: vec4<f32>, edge: u32, lane: u32, i: u32) -> vec4<f32> {
    if (i == 0u) {
        let v = select(subgroupShuffle(x, (lane + LANES - 1u) % LANES), subgroupShuffle(before, LANES - 1u), lane == 0u);
        return select(v, vec4(0.0), (edge & 1u) != 0u);
    }
    if (i == 2u) {
        let v = select(subgroupShuffle(x, (lane + 1u) % LANES), subgroupShuffle(after, 0u), lane == LANES - 1u);
        return select(v, vec4(0.0), (edge & 4u) != 0u);
    }
    return x;
}
// Multiplies the 8·LM rows of block b. It loads its rows just before it uses them: the processor overlaps the two.
fn block(s: ptr<function, Rows>, g: ptr<function, Rows>, b: u32, lane: u32, below: u32) {
    if (SHARE == 1u) {
        let xa = a_load(places[b * LM], kc);
        var xb = xa;
        if (LM == 2u) { xb = a_load(places[b * LM + 1u], kc); }
        eight(s, xa, xb, below, weights[0].value);
        if (GATED) { eight(g, xa, xb, below, weights[0].gate); }
        return;
    }
    // Here x_now has been loaded, and what is loaded is what comes after.
    let ea = edges[b * LM];
    let eb = edges[b * LM + LM - 1u];
    let xa = x_now;
    var xb = xa;
    if (LM == 2u) { xb = a_load(places[b * LM + 1u], kc); }
    var after = x_ends;
    if (b + 1u < BLOCKS) { after = a_load(places[(b + 1u) * LM], kc); }
    for (var i = 0u; i < SHARE; i++) {
        if (LM == 2u) {
            eight(s, moved(x_before, xa, xb, ea, lane, i), moved(xa, xb, after, eb, lane, i), below, weights[i].value);
        } else {
            let x = moved(x_before, xa, after, ea, lane, i);
            eight(s, x, x, below, weights[i].value);
        }
    }
    x_before = xb;
    x_now = after;
}
fn shifted(s: Rows) -> Rows { return Rows(s.r1, s.r2, s.r3, s.r4, s.r5, s.r6, s.r7, s.r7); }

fn gemm(group: u32, lane: u32) {
    let cols4 = (params.cols + 3u) / 4u;
    let tiles_n = (cols4 + LN - 1u) / LN;
    let tiles_m = (params.rows + TILE_ROWS - 1u) / TILE_ROWS;
    if (group >= tiles_n * tiles_m) { return; }
    let col4 = (group % tiles_n) * LN + lane % LN;
    let below = select(0u, lane / LN, LM == 2u);
    let row0 = (group / tiles_n) * TILE_ROWS;
    // Every loop over an array runs over exactly its length, so that compilers unroll it into registers.
    var a: array<ARow, LOADS>;
    var ends: ARow;
    var last = params.rows - 1u;
    if (SHARE > 1u) {
        // The neighbours of the tile's ends, if they lie in the same line: lane 0 loads the right one, others the left.
        last += select(1u, 0u, (a_edges(a_begin(last)) & 4u) != 0u);
        let left = row0 - select(1u, 0u, (a_edges(a_begin(row0)) & 1u) != 0u);
        ends = a_begin(select(left, min(row0 + TILE_ROWS, last), lane == 0u));
    }
    for (var q = 0u; q < LOADS; q++) {
        a[q] = a_begin(min(row0 + LANES * q + lane, last));
        edges[q] = a_edges(a[q]);
    }
    let k4 = TAPS * params.c4;
    // A gated weight holds four value rows, then their four gate rows.
    let w0 = select(4u, 8u, GATED) * min(col4, cols4 - 1u) * k4;

    var s0: Rows; var s1: Rows; var s2: Rows; var s3: Rows; var s4: Rows; var s5: Rows; var s6: Rows; var s7: Rows;
    var g0: Rows; var g1: Rows; var g2: Rows; var g3: Rows; var none: Rows;
    for (var tap = 0u; tap < TAPS; tap += SHARE) {
        for (var q = 0u; q < LOADS; q++) { places[q] = a_tap(a[q], tap + SHARE / 2u); }
        var t_ends = 0u;
        if (SHARE > 1u) { t_ends = a_tap(ends, tap + SHARE / 2u); }
        for (kc = 0u; kc < params.c4; kc++) {
            for (var i = 0u; i < SHARE; i++) {
                let at = w0 + (tap + i) * params.c4 + kc;
                weights[i].value = four_rows(at, k4);
                if (GATED) { weights[i].gate = four_rows(at + 4u * k4, k4); }
            }
            if (SHARE > 1u) {
                x_ends = a_load(t_ends, kc);
                x_before = x_ends;
                x_now = a_load(places[0], kc);
            }
            block(&s0, &g0, 0u, lane, below);
            if (BLOCKS > 1u) { block(&s1, &g1, 1u, lane, below); }
            if (BLOCKS > 2u) {
                block(&s2, &g2, 2u, lane, below);
                block(&s3, &g3, 3u, lane, below);
            }
            if (BLOCKS > 4u) {
                block(&s4, &none, 4u, lane, below);
                block(&s5, &none, 5u, lane, below);
                block(&s6, &none, 6u, lane, below);
                block(&s7, &none, 7u, lane, below);
            }
        }
    }

    // Blocks and rows move up to the front one by one, so that one copy of the epilogue serves all.
    if (col4 >= cols4) { return; }
    let column = column_begin(col4);
    for (var block0 = row0; block0 < min(row0 + TILE_ROWS, params.rows); block0 += LANES * LM) {
        for (var row = block0 + below; row < min(block0 + LANES * LM, params.rows); row += LM) {
            finish(row, column, s0.r0, g0.r0);
            s0 = shifted(s0);
            if (GATED) { g0 = shifted(g0); }
        }
        if (BLOCKS > 1u) { s0 = s1; g0 = g1; }
        if (BLOCKS > 2u) { s1 = s2; s2 = s3; g1 = g2; g2 = g3; }
        if (BLOCKS > 4u) { s3 = s4; s4 = s5; s5 = s6; s6 = s7; }
    }
}

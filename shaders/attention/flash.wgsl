// attention/flash.wgsl      y[b,i,h,:] = softmax_j(scale · q[b,i,h,:] · k[b,j,h,:]) v[b,j,h,:]
//   q [items*lq, ..]  k, v [items*lk, ..]  y [items*lq, heads*HEAD_DIM]: token-major rows; a head is a slice of columns.
//   Online softmax in f32: no lq × lk matrix. q is scaled first, so that no product overflows; the scale
//   carries log2(e), so that every exponential is an exp2.
//   SCOPE says which keys a query sees:
//     0 full      all lk keys of its item
//     1 causal    keys j <= i
//     2 patches   Neighborhood Patch Attention on a grid: queries of one block of P_y × P_x (half a window per axis) share
//                 one key window; its origin follows from the block, so nothing is gathered or copied. ISOLATED blocks
//                 are their own windows.
//   The keys of a dispatch are those in the bound rows of k and v; with the slot `carry` not `none`,
//   several dispatches see one segment of the keys each.
//   The slot `attend` is the engine: tile (GPUs), lanes (wide CPU vectors), columns (any alignment, slow).
#bind read q
#bind read k
#bind read v
#bind write y
#import carry
struct Params {
    first_group: u32,
    items_heads: u32,   // two u16, the first one low, here and below
    q_k_stride: u32,    // vec4s per row
    v_y_stride: u32,
    q_k_col: u32,       // first column of head 0, in elements
    v_col_jitter: u32,  // u16 column, u8 jitter_h, u8 jitter_w
    lq: u32,
    lk: u32,
    q_row0: u32,        // first bound row
    kv_row0: u32,       // first row of the segment of keys and values
    kv_rows: u32,       // its rows; the top 5 bits: rows bound before it
    y_row0: u32,        // first row of this chunk of queries, and its rows
    y_rows: u32,
    grid: u32,          // height, width
    window: u32,        // height, width of the base grid: the window where the grid is larger
    scale: f32,         // softmax scale × log2(e)
}
var<immediate> params: Params;
#import grid
#import quotient

const FULL = 0u;
const CAUSAL = 1u;
const PATCHES = 2u;
const D4: u32 = (HEAD_DIM + 3u) / 4u;
const LOWEST: f32 = -3.0e38;

fn low(pair: u32) -> u32 { return pair & 0xffffu; }
fn high(pair: u32) -> u32 { return pair >> 16u; }
fn ceil_div(a: u32, b: u32) -> u32 { return quotient(a + b - 1u, b); }
struct Division { quotient: u32, rest: u32 }
fn divided(a: u32, b: u32) -> Division { let q = quotient(a, b); return Division(q, a - q * b); }

// ---- which queries and keys -------------------------------------------------------------------

// Patches: queries of one block, per axis half a window (all of it where ISOLATED).
fn block_side(window: u32) -> u32 { return select(max(window / 2u, 1u), window, ISOLATED); }
fn patch_h() -> u32 { return block_side(low(params.window)); }
fn patch_w() -> u32 { return block_side(high(params.window)); }
fn jitter_h() -> u32 { return (params.v_col_jitter >> 16u) & 0xffu; }
fn jitter_w() -> u32 { return params.v_col_jitter >> 24u; }
fn blocks_h() -> u32 { return quotient(low(params.grid) - 1u + jitter_h(), patch_h()) + 1u; }
fn blocks_w() -> u32 { return quotient(high(params.grid) - 1u + jitter_w(), patch_w()) + 1u; }

// First key of the window of query block `block` along one axis.
fn window_origin(block: u32, queries: u32, window: u32, len: u32, jitter: u32) -> u32 {
    let last = i32(max(len, window) - window);
    let margin = select(window / 4u, 0u, ISOLATED);
    return u32(clamp(i32(block * queries) - i32(jitter) - i32(margin), 0, last));
}

// The keys that one block of queries sees, numbered t = 0.. in row order; begin..end are those bound here.
struct Keys {
    row: u32,    // row of key 0 in k and v
    width: u32,  // keys per run of consecutive rows
    stride: u32, // rows from run to run
    begin: u32,
    end: u32,
}

// The number of keys before the first one at `row` or later.
fn keys_before(keys: Keys, row: u32) -> u32 {
    let runs = divided(max(row, keys.row) - keys.row, keys.stride);
    return runs.quotient * keys.width + min(runs.rest, keys.width);
}

fn bound_keys(row: u32, width: u32, stride: u32, count: u32) -> Keys {
    var keys = Keys(row, width, stride, 0u, count);
    keys.begin = min(keys_before(keys, params.kv_row0), count);
    keys.end = min(keys_before(keys, params.kv_row0 + (params.kv_rows & 0x7ffffffu)), count);
    return keys;
}

// Keys of queries first..=last of an item (full, causal), or of one block of its grid (patches).
fn keys_of_run(item: u32, last: u32) -> Keys {
    let seen = select(params.lk, min(params.lk, last + 1u), SCOPE == CAUSAL);
    return bound_keys(item * params.lk, params.lk, params.lk, seen);
}
fn keys_of_block(item: u32, by: u32, bx: u32) -> Keys {
    let h = low(params.grid);
    let w = high(params.grid);
    let y0 = window_origin(by, patch_h(), low(params.window), h, jitter_h());
    let x0 = window_origin(bx, patch_w(), high(params.window), w, jitter_w());
    let wh = min(low(params.window), h);
    let ww = min(high(params.window), w);
    return bound_keys(item * h * w + y0 * w + x0, ww, w, wh * ww);
}

// Row of key t, counted from the first bound row.
fn key_row(keys: Keys, t: u32) -> u32 {
    let first = keys.row - params.kv_row0 + (params.kv_rows >> 27u);
    if (SCOPE == PATCHES) {
        let run = divided(t, keys.width);
        return first + run.quotient * keys.stride + run.rest;
    }
    return first + t;
}

// A tile: up to BLOCK_Q queries that share their keys. Tiles are numbered over items and blocks, so that the
// tiles of a chunk of rows are consecutive.
fn tiles_per_block() -> u32 { return ceil_div(patch_h() * patch_w(), BLOCK_Q); }
fn first_tile_at(row: u32) -> u32 {
    let at = divided(row, params.lq);
    if (SCOPE == PATCHES) {
        let by = quotient(quotient(at.rest, high(params.grid)) + jitter_h(), patch_h());
        return (at.quotient * blocks_h() + by) * blocks_w() * tiles_per_block();
    }
    return at.quotient * ceil_div(params.lq, BLOCK_Q) + at.rest / BLOCK_Q;
}
fn end_tile_at(row: u32) -> u32 {
    if (SCOPE == PATCHES) { return first_tile_at(row) + blocks_w() * tiles_per_block(); }
    return first_tile_at(row) + 1u;
}

struct Tile {
    item: u32,
    first: u32, // number within the item (full, causal) or the block (patches) of its first query
    y: i32,     // patches: the block's corner on the grid, negative where the jitter shifts it out
    x: i32,
    keys: Keys,
}

fn tile_at(number: u32) -> Tile {
    if (SCOPE == PATCHES) {
        let block = divided(number, tiles_per_block());
        let row = divided(block.quotient, blocks_w());
        let by = divided(row.quotient, blocks_h());
        let y = i32(by.rest * patch_h()) - i32(jitter_h());
        let x = i32(row.rest * patch_w()) - i32(jitter_w());
        return Tile(by.quotient, block.rest * BLOCK_Q, y, x, keys_of_block(by.quotient, by.rest, row.rest));
    }
    let at = divided(number, ceil_div(params.lq, BLOCK_Q));
    let first = at.rest * BLOCK_Q;
    return Tile(at.quotient, first, 0, 0, keys_of_run(at.quotient, min(first + BLOCK_Q, params.lq) - 1u));
}

// Row of the tile's query n, or NO_ROW where it lies outside of the block, the grid or the chunk.
const NO_ROW: u32 = 0xffffffffu;
fn tile_row(tile: Tile, n: u32) -> u32 {
    let m = tile.first + n;
    var i = m;
    var inside = m < params.lq;
    if (SCOPE == PATCHES) {
        let at = divided(m, patch_w());
        let y = tile.y + i32(at.quotient);
        let x = tile.x + i32(at.rest);
        inside = m < patch_h() * patch_w() && y >= 0 && x >= 0 && y < i32(low(params.grid)) && x < i32(high(params.grid));
        i = u32(y) * high(params.grid) + u32(x);
    }
    let row = tile.item * params.lq + i;
    return select(NO_ROW, row, inside && row >= params.y_row0 && row - params.y_row0 < params.y_rows);
}

// ---- operands: vec4 number d4 of a head, zero beyond HEAD_DIM ---------------------------------

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

fn query(row: u32, head: u32, d4: u32) -> vec4<f32> {
    let col = low(params.q_k_col) + head * HEAD_DIM + 4u * d4;
    let i = (row - params.q_row0) * low(params.q_k_stride) + col / 4u;
    var v = load_q(i);
    if (!ALIGNED) {
        var next = vec4(0.0);
        if (spills(col, d4)) { next = load_q(i + 1u); }
        v = within(shifted(v, next, col % 4u), d4);
    }
    return v * params.scale;
}
// `row` of key and value counts from the first bound row.
fn key(row: u32, head: u32, d4: u32) -> vec4<f32> {
    let col = high(params.q_k_col) + head * HEAD_DIM + 4u * d4;
    let i = row * high(params.q_k_stride) + col / 4u;
    let v = load_k(i);
    if (ALIGNED) { return v; }
    var next = vec4(0.0);
    if (spills(col, d4)) { next = load_k(i + 1u); }
    return within(shifted(v, next, col % 4u), d4);
}
fn value(row: u32, head: u32, d4: u32) -> vec4<f32> {
    let col = low(params.v_col_jitter) + head * HEAD_DIM + 4u * d4;
    let i = row * low(params.v_y_stride) + col / 4u;
    let v = load_v(i);
    if (ALIGNED) { return v; }
    var next = vec4(0.0);
    if (spills(col, d4)) { next = load_v(i + 1u); }
    return within(shifted(v, next, col % 4u), d4);
}
// Only for heads of whole vec4s.
fn put(row: u32, head: u32, d4: u32, v: vec4<f32>) {
    store_y((row - params.y_row0) * high(params.v_y_stride) + head * D4 + d4, v);
}
// Pairs d8 of vec4s, which lie together where PAIRED; the second is zero beyond an odd head.
fn query2(row: u32, head: u32, d8: u32) -> mat2x4<f32> {
    if (PAIRED) {
        let col = low(params.q_k_col) + head * HEAD_DIM + 8u * d8;
        return load2_q((row - params.q_row0) * low(params.q_k_stride) + col / 4u) * params.scale;
    }
    if (2u * d8 + 1u < D4) { return mat2x4(query(row, head, 2u * d8), query(row, head, 2u * d8 + 1u)); }
    return mat2x4(query(row, head, 2u * d8), vec4(0.0));
}
fn key2(row: u32, head: u32, d8: u32) -> mat2x4<f32> {
    if (PAIRED) { return load2_k(row * high(params.q_k_stride) + (high(params.q_k_col) + head * HEAD_DIM) / 4u + 2u * d8); }
    if (2u * d8 + 1u < D4) { return mat2x4(key(row, head, 2u * d8), key(row, head, 2u * d8 + 1u)); }
    return mat2x4(key(row, head, 2u * d8), vec4(0.0));
}
fn value2(row: u32, head: u32, d8: u32) -> mat2x4<f32> {
    if (PAIRED) { return load2_v(row * low(params.v_y_stride) + (low(params.v_col_jitter) + head * HEAD_DIM) / 4u + 2u * d8); }
    if (2u * d8 + 1u < D4) { return mat2x4(value(row, head, 2u * d8), value(row, head, 2u * d8 + 1u)); }
    return mat2x4(value(row, head, 2u * d8), vec4(0.0));
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

#import attend

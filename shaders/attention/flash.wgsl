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
//     3 windows   text queries, lq of them to each distinct window of the same grid: y has lq rows per window.
//   The slot `text` adds keys to each softmax: those of the text, which stands at the corner of the window. Text queries
//   stand there too. The slot `bias` adds to every score by head and distance.
//   The keys of a dispatch are those in the bound rows of k and v; with the slot `carry` not `none`,
//   several dispatches see one segment of the keys each.
//   The slot `attend` is the engine: coop and coop_wide (matrix units), tile (GPUs), lanes (wide CPU vectors), columns (any alignment, slow).
#bind read q
#bind read k
#bind read v
#bind write y
#import text
#import bias
#import carry
struct Params {
    first_group: u32,
    items_heads: u32,   // two u16, the first one low, here and below
    q_k_stride: u32,    // vec4s per row
    v_y_stride: u32,
    q_k_col: u32,       // first column of head 0, in elements
    v_col_jitter: u32,  // u16 column, u8 jitter_h, u8 jitter_w
    lq: u32,
    lk: u32,            // full, causal: keys per item; windows: their numbers (height, width), the top bits: first block
    q_row0: u32,        // first bound row
    kv_row0: u32,       // first row of the segment of keys and values
    kv_rows: u32,       // its rows, the top 5 bits: rows bound before it; on a grid: first and end line of each window
    y_row0: u32,        // first row of this chunk of queries, and its rows
    y_rows: u32,
    grid: u32,          // height, width
    window: u32,        // height, width of the base grid: the window where the grid is larger
    text: u32,          // text keys per item; first window of this tensor of answers
}
var<immediate> params: Params;
#import grid
#import quotient

const FULL = 0u;
const CAUSAL = 1u;
const PATCHES = 2u;
const WINDOWS = 3u;
const GRID: bool = SCOPE >= PATCHES;
const D4: u32 = (HEAD_DIM + 3u) / 4u;
const LOG2_E: f32 = 1.44269504;
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
    text: bool,  // rows of text_k and text_v, which are bound whole
}

// Keys of queries first..=last of an item (full, causal), or of one block of its grid (patches).
fn keys_of_run(item: u32, last: u32) -> Keys {
    let seen = select(params.lk, min(params.lk, last + 1u), SCOPE == CAUSAL);
    let first = item * params.lk;
    let begin = max(params.kv_row0, first) - first;
    let end = max(params.kv_row0 + (params.kv_rows & 0x7ffffffu), first) - first;
    return Keys(first, params.lk, params.lk, min(begin, seen), min(end, seen), false);
}
fn block_y0(by: u32) -> u32 { return window_origin(by, patch_h(), low(params.window), low(params.grid), jitter_h()); }
fn block_x0(bx: u32) -> u32 { return window_origin(bx, patch_w(), high(params.window), high(params.grid), jitter_w()); }
fn keys_at(item: u32, y0: u32, x0: u32) -> Keys {
    let h = low(params.grid);
    let w = high(params.grid);
    let wh = min(low(params.window), h);
    let ww = min(high(params.window), w);
    let lines = vec2(low(params.kv_rows), min(high(params.kv_rows), wh));
    return Keys(item * h * w + y0 * w + x0, ww, w, lines.x * ww, lines.y * ww, false);
}

fn text_keys(item: u32) -> Keys {
    let count = low(params.text);
    return Keys(item * count, count, count, 0u, count, true);
}

// Row of key t, counted from the first bound row.
fn key_row(keys: Keys, t: u32) -> u32 {
    if (TEXT && keys.text) { return keys.row + t; }
    if (GRID) {
        let run = divided(t, keys.width);
        return keys.row + run.quotient * keys.stride + run.rest - params.kv_row0;
    }
    return keys.row - params.kv_row0 + (params.kv_rows >> 27u) + t;
}

// Runs of text queries: one to each item in each window.
fn item_of_run(run: u32) -> u32 { return divided(run, low(params.items_heads)).rest; }
fn window_of_run(run: u32) -> u32 { return high(params.text) + quotient(run, low(params.items_heads)); }

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
    row: u32,   // in y, of the first query of its run: of its item, or of its window
    first: u32, // number within the run (full, causal, windows) or the block (patches) of its first query
    y: i32,     // patches: the block's corner on the grid, negative where the jitter shifts it out
    x: i32,
    y0: u32,    // corner of the window of its keys
    x0: u32,
    keys: Keys,
}

fn tile_at(number: u32) -> Tile {
    if (SCOPE == PATCHES) {
        let block = divided(number, tiles_per_block());
        let row = divided(block.quotient, blocks_w());
        let by = divided(row.quotient, blocks_h());
        let y = i32(by.rest * patch_h()) - i32(jitter_h());
        let x = i32(row.rest * patch_w()) - i32(jitter_w());
        let y0 = block_y0(by.rest);
        let x0 = block_x0(row.rest);
        let item = by.quotient;
        return Tile(item, item * params.lq, block.rest * BLOCK_Q, y, x, y0, x0, keys_at(item, y0, x0));
    }
    let at = divided(number, ceil_div(params.lq, BLOCK_Q));
    let first = at.rest * BLOCK_Q;
    if (SCOPE == WINDOWS) {
        let item = item_of_run(at.quotient);
        let window = divided(window_of_run(at.quotient), high(params.lk) & 0x7fffu);
        let y0 = block_y0(window.quotient + ((params.lk >> 15u) & 1u));
        let x0 = block_x0(window.rest + (params.lk >> 31u));
        return Tile(item, at.quotient * params.lq, first, 0, 0, y0, x0, keys_at(item, y0, x0));
    }
    let keys = keys_of_run(at.quotient, min(first + BLOCK_Q, params.lq) - 1u);
    return Tile(at.quotient, at.quotient * params.lq, first, 0, 0, 0u, 0u, keys);
}

// The text's keys, then the picture's.
const SOURCES: u32 = select(1u, 2u, TEXT);
fn keys_of(tile: Tile, source: u32) -> Keys {
    if (TEXT && source == 0u) { return text_keys(tile.item); }
    return tile.keys;
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
    let row = tile.row + i;
    return select(NO_ROW, row, inside && row >= params.y_row0 && row - params.y_row0 < params.y_rows);
}

#import operands
#import attend

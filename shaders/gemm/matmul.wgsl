// y = epilogue(x · wᵀ)
//   x [rows, k];  w [n (2n when gated), k];  bias [n] f32;  vector [items, ..] f32;  res, y [rows, n].
#bind read x
#bind read w
#bind read bias
#bind read vector
#bind read res
#bind write y
#import grid
#import quotient
struct Params {
    first_group: u32,
    rows: u32,          // of this launch; x, res and y are bound at its first row
    cols: u32,          // of this launch; w is bound at its first column
    c4: u32,            // vec4s of k
    row0: u32,          // first row of this launch
    rows_per_item: u32,
    col0_4: u32,        // first column of this launch, in vec4s
    n4: u32,            // vec4s of a row of y
    vector4: u32,       // vec4s of a row of vector, and where its columns begin
    vector_col4: u32,
}
var<immediate> params: Params;
const TAPS: u32 = 1u;
fn vector_at(item: u32) -> u32 { return item * params.vector4 + params.vector_col4; }
#import epilogue

struct ARow { base: u32 }
fn a_begin(row: u32) -> ARow { return ARow(row * params.c4); }
fn a_tap(a: ARow, tap: u32) -> u32 { return a.base; }
fn a_fold(a: ARow, tap: u32) -> vec2<f32> { return vec2(0.0); }
fn a_load(base: u32, c: u32) -> vec4<f32> { return load_x(base + c); }
fn a_load2(base: u32, c: u32) -> mat2x4<f32> { return load2_x(base + c); }
#when mma coop
fn a_load8(base: u32, c: u32) -> mat2x4<f16> { return load8_x(base / 2u + c); }
#end
#import mma

@compute @workgroup_size(WG)
fn main(@builtin(local_invocation_index) lid: u32, @builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>) {
    gemm(group_index(wid, nwg), lid);
}

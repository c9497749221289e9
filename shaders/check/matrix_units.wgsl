// Do the matrix units compute what the engines `coop` ask of them, and what is a subgroup here?
//   x [3 * SIDE, SIDE] f16: two matrices and the transpose of a third;  y [groups, SIDE * SIDE + 4] f32: x0 · x1 + x0 · x2ᵀ, the size
//   of a subgroup, how many there are, and whether their invocations are numbered one after the other.
// Each subgroup of the workgroup does the same on its own copy.
#bind read x
#bind write y
#import side
#import cells
struct Params { first_group: u32 }
var<immediate> params: Params;
const PITCH: u32 = SIDE / 8u + 1u;
const OUT_PITCH: u32 = SIDE + 4u;
var<workgroup> halves: array<Cell, 3u * SIDE * PITCH * CELLS>;
var<workgroup> sums: array<f32, MOST * SIDE * OUT_PITCH>;
var<workgroup> misplaced: array<atomic<u32>, 4>;   // of one; 16 bytes, as lib/cells asks

@compute @workgroup_size(WG)
fn main(@builtin(local_invocation_index) lid: u32, @builtin(subgroup_id) id: u32, @builtin(subgroup_size) size: u32, @builtin(num_subgroups) count: u32, @builtin(subgroup_invocation_id) lane: u32) {
    if (lid == 0u) { atomicStore(&misplaced[0], 0u); }
    for (var e = lid; e < 3u * SIDE * SIDE / 8u; e += WG) {
        let c = cells(load8_x(e));
        let at = (e / (SIDE / 8u) * PITCH + e % (SIDE / 8u)) * CELLS;
        for (var i = 0u; i < CELLS; i++) { halves[at + i] = c[i]; }
    }
    workgroupBarrier();
    if (lid != id * size + lane || count * size != WG) { atomicMax(&misplaced[0], 1u); }
    let pitch = PITCH * CELLS;
    let out_pitch = OUT_PITCH;
    let base = min(id, MOST - 1u) * SIDE * OUT_PITCH;
    let one = SIDE * pitch;
    let two = 2u * SIDE * pitch;
    let left = coopLoadT<Left>(&halves[0], pitch);
    var sum: Sum;
    sum = coopMultiplyAdd(left, coopLoadT<Right>(&halves[one], pitch), sum);
    coopStoreT(sum, &sums[base], out_pitch);
    workgroupBarrier();
    sum = coopLoadT<Sum>(&sums[base], out_pitch);
    sum = coopMultiplyAdd(left, coopLoad<Right>(&halves[two], pitch), sum);
    workgroupBarrier();
    coopStoreT(sum, &sums[base], out_pitch);
    workgroupBarrier();
    let to = min(id, MOST - 1u) * (SIDE * SIDE / 4u + 1u);
    for (var e = lane; e < SIDE * SIDE / 4u; e += size) {
        let at = base + e / (SIDE / 4u) * OUT_PITCH + e % (SIDE / 4u) * 4u;
        store_y(to + e, vec4(sums[at], sums[at + 1u], sums[at + 2u], sums[at + 3u]));
    }
    if (lane == 0u) { store_y(to + SIDE * SIDE / 4u, vec4(f32(size), f32(count), f32(atomicLoad(&misplaced[0])), 0.0)); }
}

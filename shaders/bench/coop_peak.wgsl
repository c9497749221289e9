// As many products of matrices as the device's matrix units can do: STEPS times sum += left · right on CHAINS independent sums.
//   y [groups × WG, 4] f32: something of every sum, so that nothing is optimised away.
// 2 · SIDE³ · CHAINS floating point operations per step and subgroup. The operands stay in registers.
#bind write y
#import side
#import cells
#import grid
struct Params { first_group: u32, steps: u32 }
var<immediate> params: Params;
const OUT_PITCH: u32 = SIDE + 8u;
var<workgroup> halves: array<Cell, SIDE * SIDE / 8u * CELLS>;
var<workgroup> results: array<f32, SIDE * OUT_PITCH * WG / SUBGROUP>;

@compute @workgroup_size(WG)
fn main(@builtin(local_invocation_index) lid: u32, @builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>) {
    for (var i = lid; i < SIDE * SIDE / 8u; i += WG) {
        let v = vec4<f16>(vec4<u32>(i, lid, i + lid, 1u) % vec4(3u)) * 0.001h;
        let c = cells(mat2x4(v, v.wzyx));
        for (var e = 0u; e < CELLS; e++) { halves[i * CELLS + e] = c[e]; }
    }
    workgroupBarrier();
    let pitch = SIDE / 8u * CELLS;
    let left = coopLoadT<Left>(&halves[0], pitch);
    let right = coopLoad<Right>(&halves[0], pitch);
    var sums: array<Sum, CHAINS>;
    for (var i = 0u; i < params.steps; i++) {
        #unroll c CHAINS
            sums[c] = coopMultiplyAdd(left, right, sums[c]);
        #end
    }
    let base = lid / SUBGROUP * SIDE * OUT_PITCH;
    let out_pitch = OUT_PITCH;
    var sum: Sum;
    #unroll c CHAINS
        sum = sum + sums[c];
    #end
    coopStoreT(sum, &results[base], out_pitch);
    workgroupBarrier();
    let group = group_index(wid, nwg);
    store_y(group * WG + lid, vec4(results[base + lid % SUBGROUP]));
}

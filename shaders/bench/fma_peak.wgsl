// As many multiply-adds as the device can do: STEPS times a = a · b + c on CHAINS independent vec4s.
//   y [groups × WG, 4] f32: one vec4 per lane, so that nothing is optimised away.
// Chains hide the latency of one multiply-add behind the others; too many spill registers, so the bench
// tries several counts. 8 · CHAINS · STEPS floating point operations per lane.
#bind write y
#import grid
struct Params {
    first_group: u32,
    steps: u32,
    b: f32,
    c: f32,
}
var<immediate> params: Params;

@compute @workgroup_size(WG)
fn main(@builtin(local_invocation_index) lid: u32, @builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>) {
    let lane = group_index(wid, nwg) * WG + lid;
    let b = vec4<f32>(params.b);
    let c = vec4<f32>(params.c);
    var a0 = vec4<f32>(f32(lane));
    var a1 = a0 + 1.0;
    var a2 = a0 + 2.0;
    var a3 = a0 + 3.0;
    var a4 = a0 + 4.0;
    var a5 = a0 + 5.0;
    var a6 = a0 + 6.0;
    var a7 = a0 + 7.0;
    // Four steps per turn, so that the loop itself does not count.
    for (var i = 0u; i < params.steps; i += 4u) {
        a0 = fma(a0, b, c); a1 = fma(a1, b, c);
        if (CHAINS > 2u) { a2 = fma(a2, b, c); a3 = fma(a3, b, c); }
        if (CHAINS > 4u) { a4 = fma(a4, b, c); a5 = fma(a5, b, c); a6 = fma(a6, b, c); a7 = fma(a7, b, c); }
        a0 = fma(a0, b, c); a1 = fma(a1, b, c);
        if (CHAINS > 2u) { a2 = fma(a2, b, c); a3 = fma(a3, b, c); }
        if (CHAINS > 4u) { a4 = fma(a4, b, c); a5 = fma(a5, b, c); a6 = fma(a6, b, c); a7 = fma(a7, b, c); }
        a0 = fma(a0, b, c); a1 = fma(a1, b, c);
        if (CHAINS > 2u) { a2 = fma(a2, b, c); a3 = fma(a3, b, c); }
        if (CHAINS > 4u) { a4 = fma(a4, b, c); a5 = fma(a5, b, c); a6 = fma(a6, b, c); a7 = fma(a7, b, c); }
        a0 = fma(a0, b, c); a1 = fma(a1, b, c);
        if (CHAINS > 2u) { a2 = fma(a2, b, c); a3 = fma(a3, b, c); }
        if (CHAINS > 4u) { a4 = fma(a4, b, c); a5 = fma(a5, b, c); a6 = fma(a6, b, c); a7 = fma(a7, b, c); }
    }
    store_y(lane, a0 + a1 + a2 + a3 + a4 + a5 + a6 + a7);
}

// Slot `reduce`: sum over the WG lanes of a workgroup through workgroup memory. WG is a power of two.
struct Invocation {
    @builtin(local_invocation_index) index: u32,
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) nwg: vec3<u32>,
}
const LANES: u32 = WG;
var<workgroup> red_part: array<f32, WG>;
fn lanes_sum(v: f32, at: Invocation) -> f32 {
    red_part[at.index] = v;
    workgroupBarrier();
    for (var step = WG / 2u; step > 0u; step >>= 1u) {
        if (at.index < step) { red_part[at.index] += red_part[at.index + step]; }
        workgroupBarrier();
    }
    let total = red_part[0];
    // The next call overwrites the scratch: everyone must have read it.
    workgroupBarrier();
    return total;
}

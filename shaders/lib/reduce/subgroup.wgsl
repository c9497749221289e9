// Slot `reduce`: sum over the WG lanes of a workgroup, within subgroups first, then one value per
// subgroup through workgroup memory. Works for any subgroup size.
struct Invocation {
    @builtin(local_invocation_index) index: u32,
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) nwg: vec3<u32>,
    @builtin(subgroup_id) subgroup: u32,
    @builtin(num_subgroups) subgroups: u32,
    @builtin(subgroup_invocation_id) subgroup_lane: u32,
}
const LANES: u32 = WG;
var<workgroup> red_part: array<f32, WG>;
fn lanes_sum(v: f32, at: Invocation) -> f32 {
    let part = subgroupAdd(v);
    if (at.subgroup_lane == 0u) { red_part[at.subgroup] = part; }
    workgroupBarrier();
    var total = 0.0;
    for (var i = 0u; i < at.subgroups; i++) { total += red_part[i]; }
    workgroupBarrier();
    return total;
}

// Slot `reduce`, for processors that run LANES invocations as one wide vector: sums by shuffles, no barrier.
struct Invocation {
    @builtin(local_invocation_index) index: u32,
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) nwg: vec3<u32>,
    @builtin(subgroup_invocation_id) subgroup_lane: u32,
}
const LANES: u32 = 8u;
fn lanes_sum(v: f32, at: Invocation) -> f32 {
    let a = v + subgroupShuffle(v, at.subgroup_lane ^ 1u);
    let b = a + subgroupShuffle(a, at.subgroup_lane ^ 2u);
    return b + subgroupShuffle(b, at.subgroup_lane ^ 4u);
}

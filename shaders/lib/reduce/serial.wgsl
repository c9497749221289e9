// Slot `reduce`, one lane per row: nothing to reduce. The best form on CPU-class devices, where a
// barrier costs more than the row.
struct Invocation {
    @builtin(local_invocation_index) index: u32,
    @builtin(workgroup_id) wid: vec3<u32>,
    @builtin(num_workgroups) nwg: vec3<u32>,
}
const LANES: u32 = 1u;
fn lanes_sum(v: f32, at: Invocation) -> f32 { return v; }

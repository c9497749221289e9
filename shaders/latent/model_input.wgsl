// y[b, r, :] = x[r, :] * c_in for every branch b of guidance: the sampler's scaling of the model input.
//   x [rows, channels] f32;  step [1, 8] f32, see latent.rs;  y [branches × rows, channels].
#bind read x
#bind read step
#bind write y
#import grid
struct Params {
    first_group: u32,
    lanes: u32,    // branches × rows × c4
    per_item: u32, // rows × c4
}
var<immediate> params: Params;

@compute @workgroup_size(WG)
fn main(@builtin(local_invocation_index) lid: u32, @builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>) {
    let i = group_index(wid, nwg) * WG + lid;
    if (i >= params.lanes) { return; }
    store_y(i, load_x(i % params.per_item) * load_step(0u).x);
}

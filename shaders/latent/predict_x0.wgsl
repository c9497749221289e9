// Guidance, then the clean prediction:
//   out = model[0]                                     without guidance
//   out = model[0] + cfg · (model[1] - model[0])       with: item 0 is the negative branch; APART model[1] is `positive`
//   x0 = c_x · x + c_out · out
//   x, x0 [rows, channels] f32;  model [1 or 2 × rows, channels], positive [rows, channels];  step [1, 8] f32, see latent.rs.
#bind read x
#bind read model
#bind read positive
#bind read step
#bind write x0
#import grid
struct Params {
    first_group: u32,
    lanes: u32, // rows × c4
}
var<immediate> params: Params;

@compute @workgroup_size(WG)
fn main(@builtin(local_invocation_index) lid: u32, @builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>) {
    let i = group_index(wid, nwg) * WG + lid;
    if (i >= params.lanes) { return; }
    let s = load_step(0u);
    var out = load_model(i);
    if (GUIDED) {
        var positive: vec4<f32>;
        if (APART) { positive = load_positive(i); } else { positive = load_model(params.lanes + i); }
        out += s.w * (positive - out);
    }
    store_x0(i, s.y * load_x(i) + s.z * out);
}

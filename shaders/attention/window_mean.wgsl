// y = before + sum_n weight[n] * x[n]      what the text's queries see, over some of the windows, in their order
//   x [windows, rows, channels], before, y [rows, channels];  weight [all windows] f32.  A lane per vec4 of y.
#bind read x
#bind read weight
#bind read before
#bind write y
#import grid
struct Params {
    first_group: u32,
    lanes: u32,
    window4: u32, // vec4s of a window in x
    from_x4: u32, // where this launch begins in each window
    first: u32,   // windows
    end: u32,
}
var<immediate> params: Params;

@compute @workgroup_size(WG)
fn main(@builtin(local_invocation_index) lid: u32, @builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>) {
    let lane = group_index(wid, nwg) * WG + lid;
    if (lane >= params.lanes) { return; }
    var sum = vec4(0.0);
    if (HAS_BEFORE) { sum = load_before(lane); }
    for (var n = params.first; n < params.end; n++) {
        let weight = load_weight(n / 4u)[n % 4u];
        sum = fma(vec4(weight), load_x(params.from_x4 + (n - params.first) * params.window4 + lane), sum);
    }
    store_y(lane, sum);
}

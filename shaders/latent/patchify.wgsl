// Latents to tokens of 2 × 2 latents and back: feature 4c + 2i + j of token (y, x) is channel c of latent (2y + i, 2x + j).
//   PACK: x [items, 2h, 2w, c], y [items, h, w, 4c];  else the reverse.  A lane per vec4 of y.
#bind read x
#bind write y
#import grid
#import quotient
struct Params {
    first_group: u32,
    lanes: u32,
    row0: u32,     // first row of y of this launch, and of x that is bound
    x_row0: u32,
    width: u32,    // tokens of a line
    channels: u32, // of a latent
}
var<immediate> params: Params;

@compute @workgroup_size(WG)
fn main(@builtin(local_invocation_index) lid: u32, @builtin(workgroup_id) wid: vec3<u32>, @builtin(num_workgroups) nwg: vec3<u32>) {
    let lane = group_index(wid, nwg) * WG + lid;
    if (lane >= params.lanes) { return; }
    let latent4 = (params.channels + 3u) / 4u;
    let line = select(2u, 1u, PACK) * params.width; // rows of y to a line
    let y4 = select(latent4, params.channels, PACK);
    let row = quotient(lane, y4);
    let c = lane - row * y4;
    let at_y = quotient(params.row0 + row, line);
    let at_x = params.row0 + row - at_y * line;
    var v: vec4<f32>;
    for (var i = 0u; i < 4u; i++) {
        if (PACK) {
            let from_row = (2u * at_y + i / 2u) * 2u * params.width + 2u * at_x + i % 2u - params.x_row0;
            v[i] = load_x(from_row * latent4 + c / 4u)[c % 4u];
        } else if (4u * c + i < params.channels) {
            let from_row = at_y / 2u * params.width + at_x / 2u - params.x_row0;
            v[i] = load_x(from_row * params.channels + 4u * c + i)[at_y % 2u * 2u + at_x % 2u];
        }
    }
    store_y(lane, v);
}

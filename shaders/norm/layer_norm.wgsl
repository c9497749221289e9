// y[r,:] = (x[r,:] - mean(x[r,:])) / sqrt(var(x[r,:]) + eps) * weight[:] + bias[:]
//   x, y [rows, channels];  weight, bias [channels] f32.
// LANES lanes (slot `reduce`) take EACH rows: a workgroup per row on GPUs; on processors a lane alone, with several rows to
// share weight and bias, and two vec4s at a time where PAIRED. Mean first, then the squared distances: no cancellation.
#bind read x
#bind read weight
#bind read bias
#bind write y
#import reduce
#import grid
struct Params {
    first_group: u32,
    rows: u32,     // rows of this launch; x and y are bound at its first row
    channels: u32,
    eps: f32,
}
var<immediate> params: Params;

const ROWS: u32 = WG / LANES * EACH;
const STEP: u32 = select(1u, 2u, PAIRED);

fn x_at(i: u32) -> mat2x4<f32> {
    if (PAIRED) { return load2_x(i); }
    return mat2x4(load_x(i), vec4(0.0));
}
// The distances from the mean; zero in the padding.
fn distance(v: vec4<f32>, mean: f32, c4: u32) -> vec4<f32> {
    return select(vec4(0.0), v - vec4(mean), vec4(4u * c4) + vec4(0u, 1u, 2u, 3u) < vec4(params.channels));
}
fn total(v: vec4<f32>) -> f32 { return v.x + v.y + v.z + v.w; }

@compute @workgroup_size(WG)
fn main(at: Invocation) {
    let row = group_index(at.wid, at.nwg) * ROWS + at.index / LANES * EACH;
    let lane = STEP * (at.index % LANES);
    let c4 = (params.channels + 3u) / 4u;
    let n = f32(params.channels);
    // Barriers in the reduction need every lane: a row past the end reads the last one and stores nothing.
    var base: array<u32, EACH>;
    var mean: array<f32, EACH>;
    var rstd: array<f32, EACH>;
    var sum: array<vec4<f32>, EACH>;
    for (var r = 0u; r < EACH; r++) { base[r] = min(row + r, params.rows - 1u) * c4; }
    for (var c = lane; c < c4; c += STEP * LANES) {
        for (var r = 0u; r < EACH; r++) {
            let v = x_at(base[r] + c);
            sum[r] += v[0] + v[1];
        }
    }
    for (var r = 0u; r < EACH; r++) {
        mean[r] = lanes_sum(total(sum[r]), at) / n;
        sum[r] = vec4(0.0);
    }
    for (var c = lane; c < c4; c += STEP * LANES) {
        for (var r = 0u; r < EACH; r++) {
            let v = x_at(base[r] + c);
            let a = distance(v[0], mean[r], c);
            sum[r] += a * a;
            if (PAIRED) {
                let b = distance(v[1], mean[r], c + 1u);
                sum[r] += b * b;
            }
        }
    }
    for (var r = 0u; r < EACH; r++) { rstd[r] = inverseSqrt(lanes_sum(total(sum[r]), at) / n + params.eps); }
    for (var c = lane; c < c4; c += STEP * LANES) {
        // Weight and bias are zero in the padding, so zero stays zero.
        let weight = load_weight(c);
        let bias = load_bias(c);
        var weight_b = vec4(0.0);
        var bias_b = vec4(0.0);
        if (PAIRED) {
            weight_b = load_weight(c + 1u);
            bias_b = load_bias(c + 1u);
        }
        for (var r = 0u; r < EACH; r++) {
            if (row + r < params.rows) {
                let v = x_at(base[r] + c);
                let a = (v[0] - vec4(mean[r])) * rstd[r] * weight + bias;
                if (PAIRED) {
                    store2_y(base[r] + c, mat2x4(a, (v[1] - vec4(mean[r])) * rstd[r] * weight_b + bias_b));
                } else {
                    store_y(base[r] + c, a);
                }
            }
        }
    }
}

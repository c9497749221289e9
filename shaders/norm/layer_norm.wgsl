// y[r,:] = (x[r,:] - mean) / sqrt(mean((x[r,:] - mean)²) + eps) * gain + offset      CENTRED: mean = mean(x[r,:]), else 0 (RMS norm)
//   x, y [rows, channels];  the slot `affine` gives gain and offset: by channel, or by batch item and channel.
// LANES lanes (slot `reduce`) take EACH rows: a workgroup per row on GPUs; on processors a lane alone, with several rows to
// share gain and offset, and two vec4s at a time where PAIRED. Mean first, then the squared distances: no cancellation.
#bind read x
#import affine
#bind write y
#import reduce
#import grid
#import quotient
struct Params {
    first_group: u32,
    rows: u32,     // rows of this launch; x and y are bound at its first row
    channels: u32,
    eps: f32,
    row0: u32,     // first row of this launch
    rows_per_item: u32,
    table4: u32,   // vec4s of a row of the modulation's table, and where scale and shift begin
    scale4: u32,
    shift4: u32,
}
var<immediate> params: Params;

const ROWS: u32 = WG / LANES * EACH;
const STEP: u32 = select(1u, 2u, PAIRED);

fn x_at(i: u32) -> mat2x4<f32> {
    if (PAIRED) { return load2_x(i); }
    return mat2x4(load_x(i), vec4(0.0));
}
// Zero in the padding.
fn within(v: vec4<f32>, c4: u32) -> vec4<f32> {
    return select(vec4(0.0), v, vec4(4u * c4) + vec4(0u, 1u, 2u, 3u) < vec4(params.channels));
}
fn total(v: vec4<f32>) -> f32 { return v.x + v.y + v.z + v.w; }
fn item_of(row: u32) -> u32 {
    if (BY_ITEM) { return quotient(params.row0 + row, params.rows_per_item); }
    return 0u;
}

struct Affine { gain: mat2x4<f32>, offset: mat2x4<f32> }
fn affine_at(item: u32, c: u32) -> Affine {
    if (PAIRED) { return Affine(mat2x4(gain(item, c), gain(item, c + 1u)), mat2x4(offset(item, c), offset(item, c + 1u))); }
    return Affine(mat2x4(gain(item, c), vec4(0.0)), mat2x4(offset(item, c), vec4(0.0)));
}

@compute @workgroup_size(WG)
fn main(at: Invocation) {
    let row = group_index(at.wid, at.nwg) * ROWS + at.index / LANES * EACH;
    let lane = STEP * (at.index % LANES);
    let c4 = (params.channels + 3u) / 4u;
    let n = f32(params.channels);
    // Barriers in the reduction need every lane: a row past the end reads the last one and stores nothing.
    var base: array<u32, EACH>;
    var item: array<u32, EACH>;
    var mean: array<f32, EACH>;
    var rstd: array<f32, EACH>;
    var sum: array<vec4<f32>, EACH>;
    #unroll r EACH
        let from_row = min(row + r, params.rows - 1u);
        base[r] = from_row * c4;
        item[r] = item_of(from_row);
    #end
    if (CENTRED) {
        for (var c = lane; c < c4; c += STEP * LANES) {
            #unroll r EACH
                let v = x_at(base[r] + c);
                sum[r] += v[0] + v[1];
            #end
        }
        #unroll r EACH
            mean[r] = lanes_sum(total(sum[r]), at) / n;
            sum[r] = vec4(0.0);
        #end
    }
    for (var c = lane; c < c4; c += STEP * LANES) {
        #unroll r EACH
            let v = x_at(base[r] + c);
            let a = within(v[0] - vec4(mean[r]), c);
            sum[r] += a * a;
            if (PAIRED) {
                let b = within(v[1] - vec4(mean[r]), c + 1u);
                sum[r] += b * b;
            }
        #end
    }
    #unroll r EACH
        rstd[r] = inverseSqrt(lanes_sum(total(sum[r]), at) / n + params.eps);
    #end
    for (var c = lane; c < c4; c += STEP * LANES) {
        let shared_by_rows = affine_at(item[0], c);
        #unroll r EACH
            if (row + r < params.rows) {
                let v = x_at(base[r] + c);
                var f = shared_by_rows;
                if (BY_ITEM && item[r] != item[0]) { f = affine_at(item[r], c); }
                let a = (v[0] - vec4(mean[r])) * rstd[r] * f.gain[0] + f.offset[0];
                if (PAIRED) {
                    let b = (v[1] - vec4(mean[r])) * rstd[r] * f.gain[1] + f.offset[1];
                    store2_y(base[r] + c, mat2x4(within(a, c), within(b, c + 1u)));
                } else {
                    store_y(base[r] + c, within(a, c));
                }
            }
        #end
    }
}

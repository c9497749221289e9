// y = act((x - mean) · weight / sqrt(var + eps) + bias) in one launch, mean and var per item and group of channels:
//   x = [x | x2] joined on channels;  weight, bias [channels] f32;  y [rows, channels].  act = SiLU when SILU.
// For processors and tensors that their caches hold: a launch costs them more than reading x twice. LANES lanes take PAIRS
// pairs of vec4s, which hold whole groups of GROUP channels, of one item; a lane takes every LANES-th row.
#bind read x
#bind read x2
#bind read weight
#bind read bias
#bind write y
#import reduce
#import grid
#import quotient
struct Params {
    first_group: u32,
    row0: u32,           // first row of this launch; y is bound there
    rows_per_item: u32,
    x_row0: u32,
    x2_row0: u32,
    c1: u32,
    c2: u32,
    eps: f32,
}
var<immediate> params: Params;
#import join
#import welford
#import act

const VECS: u32 = 2u * PAIRS;
const GROUPS: u32 = 4u * VECS / GROUP;

@compute @workgroup_size(WG)
fn main(at: Invocation) {
    begin_joined();
    let c4s = (params.c1 + params.c2) / 4u;
    let across = quotient(c4s, VECS);
    let id = group_index(at.wid, at.nwg);
    let item = quotient(id, across);
    let c4 = (id - item * across) * VECS;
    let rows = params.rows_per_item;
    let below = item * rows;
    let first = params.row0 + below;
    let eps = params.eps;

    var stats: array<Stats, VECS>;
    var count = 0.0;
    for (var r = at.index; r < rows; r += LANES) {
        count += 1.0;
        let share = 1.0 / count;
        #unroll i PAIRS
            let v = load2_joined(first + r, c4 + 2u * i);
            stats[2u * i] = with_value(stats[2u * i], v[0], share);
            stats[2u * i + 1u] = with_value(stats[2u * i + 1u], v[1], share);
        #end
    }

    // Chan's merge of lanes and channels, as in group_norm_merge.
    let n = f32(rows) * f32(GROUP);
    var mean: array<vec4<f32>, VECS>;
    var scale: array<vec4<f32>, VECS>;
    #unroll g GROUPS
        var sum = 0.0;
        #unroll c GROUP
            sum += stats[(g * GROUP + c) / 4u].mean[(g * GROUP + c) % 4u];
        #end
        let m = lanes_sum(sum * count, at) / n;
        var square = 0.0;
        #unroll c GROUP
            let d = stats[(g * GROUP + c) / 4u].mean[(g * GROUP + c) % 4u] - m;
            square += stats[(g * GROUP + c) / 4u].square[(g * GROUP + c) % 4u] + count * d * d;
        #end
        let rstd = inverseSqrt(lanes_sum(square, at) / n + eps);
        #unroll c GROUP
            mean[(g * GROUP + c) / 4u][(g * GROUP + c) % 4u] = m;
            scale[(g * GROUP + c) / 4u][(g * GROUP + c) % 4u] = rstd;
        #end
    #end
    var bias: array<vec4<f32>, VECS>;
    #unroll i VECS
        scale[i] *= load_weight(c4 + i);
        bias[i] = load_bias(c4 + i);
    #end

    for (var r = at.index; r < rows; r += LANES) {
        #unroll i PAIRS
            const a = 2u * i;
            const b = 2u * i + 1u;
            let v = load2_joined(first + r, c4 + a);
            let y = mat2x4(act((v[0] - mean[a]) * scale[a] + bias[a]), act((v[1] - mean[b]) * scale[b] + bias[b]));
            store2_y((below + r) * c4s + c4 + a, y);
        #end
    }
}

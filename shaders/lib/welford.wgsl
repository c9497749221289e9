// Mean and sum of squared distances from it, one value after the other (Welford's recurrence): no sum of squares is taken, so
// nothing cancels.
struct Stats { mean: vec4<f32>, square: vec4<f32> }
// With one value more; `share` is one over their number.
fn with_value(s: Stats, v: vec4<f32>, share: f32) -> Stats {
    let d = v - s.mean;
    let mean = s.mean + d * share;
    return Stats(mean, s.square + d * (v - mean));
}

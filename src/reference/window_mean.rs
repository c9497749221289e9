//! Weighted sums over windows in f64.

/// `before + sum_n weight[n] · x[n]`, with `x` as many values for each window; `before` may be empty.
pub fn window_mean(x: &[f32], weight: &[f32], before: &[f32]) -> Vec<f32> {
    let length = x.len() / weight.len();
    let sum = |i: usize| {
        let term = |(n, w): (usize, &f32)| f64::from(*w) * f64::from(x[n * length + i]);
        let rest = before.get(i).map_or(0.0, |v| f64::from(*v));
        rest + weight.iter().enumerate().map(term).sum::<f64>()
    };
    (0..length).map(|i| sum(i) as f32).collect()
}

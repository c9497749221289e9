//! Group normalisation in f64: mean first, then the squared distances.

/// Extents of `[x | x2]`.
#[derive(Debug, Clone, Copy)]
pub struct Extents {
    pub items: usize,
    pub rows_per_item: usize,
    /// Channels of x.
    pub c1: usize,
    /// Channels of x2; 0 when absent.
    pub c2: usize,
}

/// `act((v - mean) / sqrt(var + eps) · weight + bias)` of `v = [x | x2]` joined on channels, with mean
/// and variance per item and group; act is SiLU or nothing. The result is `[rows, c1 + c2]`.
pub fn group_norm(
    (x, x2): (&[f32], &[f32]),
    extents: Extents,
    (weight, bias): (&[f32], &[f32]),
    groups: usize,
    eps: f32,
    silu: bool,
) -> Vec<f32> {
    let Extents { items, rows_per_item, c1, c2 } = extents;
    let channels = c1 + c2;
    let per_group = channels / groups;
    let at = |row: usize, c: usize| {
        f64::from(if c < c1 { x[row * c1 + c] } else { x2[row * c2 + c - c1] })
    };
    let mut y = vec![0.0; items * rows_per_item * channels];
    for item in 0..items {
        let rows = item * rows_per_item..(item + 1) * rows_per_item;
        for group in 0..groups {
            let columns = group * per_group..(group + 1) * per_group;
            let cells = || rows.clone().flat_map(|r| columns.clone().map(move |c| (r, c)));
            let n = (rows_per_item * per_group) as f64;
            let mean = cells().map(|(r, c)| at(r, c)).sum::<f64>() / n;
            let var = cells().map(|(r, c)| (at(r, c) - mean).powi(2)).sum::<f64>() / n;
            let scale = 1.0 / (var + f64::from(eps)).sqrt();
            for (r, c) in cells() {
                let v = (at(r, c) - mean) * scale * f64::from(weight[c]) + f64::from(bias[c]);
                y[r * channels + c] = if silu { super::silu::one(v) } else { v } as f32;
            }
        }
    }
    y
}

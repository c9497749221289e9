//! Layer normalisation in f64: mean first, then the squared distances.

/// `(x - mean) / sqrt(var + eps) · weight + bias` per row; channels are the length of `weight`.
pub fn layer_norm(x: &[f32], weight: &[f32], bias: &[f32], eps: f32) -> Vec<f32> {
    let n = weight.len() as f64;
    let mut y = Vec::with_capacity(x.len());
    for row in x.chunks_exact(weight.len()) {
        let mean = row.iter().map(|v| f64::from(*v)).sum::<f64>() / n;
        let var = row.iter().map(|v| (f64::from(*v) - mean).powi(2)).sum::<f64>() / n;
        let scale = 1.0 / (var + f64::from(eps)).sqrt();
        y.extend(row.iter().zip(weight.iter().zip(bias)).map(|(v, (w, b))| {
            ((f64::from(*v) - mean) * scale * f64::from(*w) + f64::from(*b)) as f32
        }));
    }
    y
}

/// `x / sqrt(mean(x²) + eps) · weight` per row.
pub fn rms_norm(x: &[f32], weight: &[f32], eps: f32) -> Vec<f32> {
    let n = weight.len() as f64;
    let mut y = Vec::with_capacity(x.len());
    for row in x.chunks_exact(weight.len()) {
        let square = row.iter().map(|v| f64::from(*v).powi(2)).sum::<f64>() / n;
        let scale = 1.0 / (square + f64::from(eps)).sqrt();
        y.extend(
            row.iter().zip(weight).map(|(v, w)| (f64::from(*v) * scale * f64::from(*w)) as f32),
        );
    }
    y
}

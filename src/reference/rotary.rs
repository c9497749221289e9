//! Heads normalised and turned by their place, by naive loops.

use crate::kernels::attention::Heads;
use crate::tensor::Shape;

/// Heads from `column` on, over their own root mean square, times `weight`, turned by the table `turn` (cos and sin
/// of every pair by position, and the first pair that turns by the column).
pub fn rotary(
    x: &[f32],
    shape: Shape,
    column: usize,
    weight: &[f32],
    heads: Heads,
    turn: Option<(&[f32], usize)>,
    eps: f64,
) -> Vec<f32> {
    let (count, dim, channels) =
        (heads.count as usize, heads.dim as usize, shape.channels as usize);
    let mut y = Vec::new();
    for (row, values) in x.chunks_exact(channels).enumerate() {
        let place = row % shape.rows_per_item() as usize;
        let (py, px) = (place / shape.width as usize, place % shape.width as usize);
        for head in 0..count {
            let v: Vec<f64> =
                values[column + head * dim..][..dim].iter().map(|v| f64::from(*v)).collect();
            let rms = (v.iter().map(|v| v * v).sum::<f64>() / dim as f64 + eps).sqrt();
            let v: Vec<f64> = v.iter().zip(weight).map(|(v, w)| v / rms * f64::from(*w)).collect();
            for pair in 0..dim / 2 {
                let (cos, sin) = turn.map_or((1.0, 0.0), |(table, x_pair)| {
                    let at = if pair >= x_pair { px } else { py } * dim + 2 * pair;
                    (f64::from(table[at]), f64::from(table[at + 1]))
                });
                let (a, b) = (v[2 * pair], v[2 * pair + 1]);
                y.extend([(a * cos - b * sin) as f32, (a * sin + b * cos) as f32]);
            }
        }
    }
    y
}

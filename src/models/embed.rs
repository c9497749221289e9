//! Sinusoidal embeddings, on the host in f64: shader sines of large arguments are not exact.

/// `dim` sinusoids of `t`: frequencies 10000^(-k / (dim/2 - shift)), cosines first when `flip`
/// (diffusers `get_timestep_embedding`). An odd `dim` ends with a zero.
pub fn sinusoids(t: f64, dim: u32, flip: bool, shift: f64) -> Vec<f32> {
    let half = dim / 2;
    let angle = |k: u32| {
        // The reference rounds the frequency to f32 before it multiplies.
        let frequency = (-(10000f64.ln()) * f64::from(k) / (f64::from(half) - shift)).exp() as f32;
        f64::from(t as f32 * frequency)
    };
    let sin = (0..half).map(|k| angle(k).sin() as f32);
    let cos = (0..half).map(|k| angle(k).cos() as f32);
    let mut out: Vec<f32> = if flip { cos.chain(sin).collect() } else { sin.chain(cos).collect() };
    out.resize(dim as usize, 0.0);
    out
}

#[cfg(test)]
mod tests {
    use super::sinusoids;

    #[test]
    fn cosines_come_first_when_flipped() {
        let v = sinusoids(1.0, 4, true, 0.0);
        let want = [1f64.cos(), 0.01f64.cos(), 1f64.sin(), 0.01f64.sin()];
        assert!(v.iter().zip(want).all(|(a, b)| (f64::from(*a) - b).abs() < 1e-6), "{v:?}");
        assert_eq!(sinusoids(1.0, 5, false, 0.0).len(), 5);
    }
}

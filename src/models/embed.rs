//! Sinusoidal embeddings, on the host in f64: shader sines of large arguments are not exact.

/// `dim` sinusoids of `t`: frequencies 10000^(-k / (dim/2 - shift)), cosines first when `flip`
/// (diffusers `get_timestep_embedding`). An odd `dim` ends with a zero.
pub fn sinusoids(t: f64, dim: u32, flip: bool, shift: f64) -> Vec<f32> {
    let half = dim / 2;
    let angle = |k: u32| {
        // The reference rounds exponent, frequency and product to f32; at t = 3500 each one shows.
        let exponent = -10000f32.ln() * k as f32 / (f64::from(half) - shift) as f32;
        f64::from(t as f32 * f64::from(exponent).exp() as f32)
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

    #[test]
    fn large_arguments_equal_those_of_torch() {
        let at = [5, 17, 40, 90, 133, 200];
        let torch = [-0.1803141, 0.8833086, -0.4527988, 0.6267322, -0.9836091, 0.7395409];
        let v = sinusoids(3500.0, 256, true, 0.0);
        for (i, want) in at.into_iter().zip(torch) {
            assert!((v[i] - want).abs() < 1e-6, "{i}: {} instead of {want}", v[i]);
        }
    }
}

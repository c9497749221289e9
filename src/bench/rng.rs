//! Seeded data.

/// SplitMix64.
pub struct Rng(u64);

impl Rng {
    /// A stream of its own for every name.
    pub fn new(name: &str) -> Self {
        let hash = |h: u64, b: u8| (h ^ u64::from(b)).wrapping_mul(0x0100_0000_01b3);
        Self(name.bytes().fold(0xcbf2_9ce4_8422_2325, hash))
    }

    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let z = (self.0 ^ (self.0 >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform with this mean and standard deviation.
    pub fn value(&mut self, mean: f64, std: f64) -> f32 {
        let unit = (self.bits() >> 11) as f64 / (1u64 << 53) as f64;
        (mean + std * (2.0 * unit - 1.0) * 3f64.sqrt()) as f32
    }
}

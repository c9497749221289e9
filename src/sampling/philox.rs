//! Random numbers as torch draws them on CUDA, in the form that A1111's web UI made the standard: one
//! normal per counter, so that they do not depend on how a GPU shares out the work.

/// Multipliers and key increments of Philox4x32 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").
const MULTIPLIERS: [u32; 2] = [0xd251_1f53, 0xcd9e_8d57];
const KEY_STEPS: [u32; 2] = [0x9e37_79b9, 0xbb67_ae85];
const ROUNDS: usize = 10;

/// A Philox4x32-10 generator: value `i` of call `k` comes from the counter (k, i) alone.
#[derive(Debug, Clone)]
pub struct Philox {
    key: [u32; 2],
    call: u32,
}

impl Philox {
    /// The generator of a seed, all 64 bits of which count.
    pub fn new(seed: u64) -> Self {
        Self { key: [seed as u32, (seed >> 32) as u32], call: 0 }
    }

    /// The four words that a counter and a key give.
    pub fn block(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
        let (mut c, mut k) = (counter, key);
        for _ in 0..ROUNDS {
            let [a, b] = [u64::from(c[0]), u64::from(c[2])];
            let (a, b) = (a * u64::from(MULTIPLIERS[0]), b * u64::from(MULTIPLIERS[1]));
            let high = |product: u64| (product >> 32) as u32;
            c = [high(b) ^ c[1] ^ k[0], b as u32, high(a) ^ c[3] ^ k[1], a as u32];
            k = [k[0].wrapping_add(KEY_STEPS[0]), k[1].wrapping_add(KEY_STEPS[1])];
        }
        c
    }

    /// `n` standard normals, as `torch.randn` of `n` values on CUDA.
    ///
    /// Box-Muller on the first two words, of which the sine alone is kept; in `f64` with 2π rounded to `f32`
    /// as cuRAND has it.
    pub fn randn(&mut self, n: usize) -> Vec<f32> {
        const UNIT: f64 = 1.0 / 4_294_967_296.0;
        let turn = f64::from(std::f32::consts::TAU) * UNIT;
        let call = self.call;
        self.call = self.call.wrapping_add(1);
        let normal = |i: usize| {
            let [u, v, ..] = Self::block([call, 0, i as u32, 0], self.key);
            let radius = (-2.0 * ((f64::from(u) + 0.5) * UNIT).ln()).sqrt();
            (radius * ((f64::from(v) + 0.5) * turn).sin()) as f32
        };
        (0..n).map(normal).collect()
    }
}

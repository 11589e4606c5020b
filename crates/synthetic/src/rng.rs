//! A small random generator whose stream is the same on every machine.

/// SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", 2014).
///
/// Only integer arithmetic and exactly rounded float operations are used, so that a seed gives the
/// same bits everywhere: the hashes in the goldens depend on it.
#[derive(Clone, Debug)]
pub struct Rng(u64);

impl Rng {
    /// A generator that starts from `seed`.
    pub fn new(seed: u64) -> Rng {
        Rng(seed)
    }

    /// A generator for one named part, independent of how much the others draw.
    pub fn for_name(seed: u64, name: &str) -> Rng {
        // FNV-1a, 64 bits.
        let hash =
            name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |h, b| (h ^ u64::from(b)).wrapping_mul(0x100_0000_01b3));
        Rng(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ hash)
    }

    /// 64 random bits.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// A number in `0..n` (`n` > 0).
    pub fn below(&mut self, n: usize) -> usize {
        ((u128::from(self.next_u64()) * n as u128) >> 64) as usize
    }

    /// Uniform in `0.0..1.0`, a multiple of 2^-24.
    pub fn unit(&mut self) -> f32 {
        (self.next_u64() >> 40) as f32 * (1.0 / (1 << 24) as f32)
    }

    /// Close to a standard normal: the scaled sum of four uniforms (so never beyond 3.5).
    ///
    /// A logarithm and a cosine would differ in the last bit between C libraries.
    pub fn normal(&mut self) -> f32 {
        let bits = self.next_u64();
        let sum: i64 = (0..4).map(|i| ((bits >> (16 * i)) & 0xffff) as i64).sum::<i64>() - 2 * 0xffff;
        // Four uniforms over 2^16 values have a variance of 2^32 / 3: 37837.2 is its root.
        sum as f32 * (1.0 / 37837.2)
    }

    /// `n` random bytes appended to `out`.
    pub fn bytes(&mut self, n: usize, out: &mut Vec<u8>) {
        for left in (1..=n).rev().step_by(8) {
            out.extend_from_slice(&self.next_u64().to_le_bytes()[..left.min(8)]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stream_is_the_published_one() {
        // First outputs for seed 1234567, from the generator's reference implementation.
        let mut rng = Rng::new(1_234_567);
        let got: Vec<u64> = (0..3).map(|_| rng.next_u64()).collect();
        assert_eq!(got, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn moments_and_ranges() {
        let mut rng = Rng::new(7);
        let x: Vec<f64> = (0..100_000).map(|_| f64::from(rng.normal())).collect();
        let mean = x.iter().sum::<f64>() / x.len() as f64;
        let var = x.iter().map(|v| (v - mean) * (v - mean)).sum::<f64>() / x.len() as f64;
        assert!(mean.abs() < 0.02, "mean {mean}");
        assert!((var - 1.0).abs() < 0.02, "variance {var}");
        assert!((0..1000).all(|_| (0.0..1.0).contains(&rng.unit()) && rng.below(3) < 3));
        for n in [0, 1, 7, 8, 9, 64] {
            let mut out = Vec::new();
            rng.bytes(n, &mut out);
            assert_eq!(out.len(), n);
        }
    }
}

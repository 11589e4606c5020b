//! Functions that have the same bits on every system.

/// e to the power of `x` for `x <= 0`, to 1e-7 of the value; 0 below -87.
///
/// Not `f32::exp`, which differs between systems: a seed has to give the same text everywhere.
/// Multiplications and additions alone are the same everywhere, and compile to vector instructions.
pub(super) fn exp(x: f32) -> f32 {
    // 2^n * e^r with |r| <= ln(2)/2. Adding 1.5 * 2^23 rounds to an integer, which is then in the
    // low bits; shifted to the exponent's place they are n, and the rest falls off. No branch:
    // loops over this are vectorised.
    const ROUND: f32 = 12_582_912.0;
    // ln(2) in two parts, the first with so few bits that n times it is exact.
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let shifted = x.max(-88.0) * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * LN_2_HIGH - n * LN_2_LOW;
    // Taylor's series: the first term left out is below 4e-9 for |r| <= 0.347.
    let p = 1.0 / 720.0 + r * (1.0 / 5040.0);
    let p = 1.0 / 24.0 + r * (1.0 / 120.0 + r * p);
    let p = 1.0 + r * (1.0 + r * (0.5 + r * (1.0 / 6.0 + r * p)));
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
    if x < -87.0 { 0.0 } else { p * power }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_close() {
        let worst = (0..=870_000)
            .map(|i| -(i as f32) / 10_000.0)
            .map(|x| ((f64::from(exp(x)) / f64::from(x).exp() - 1.0).abs(), x))
            .fold((0.0, 0.0), |a: (f64, f32), b| if b.0 > a.0 { b } else { a });
        assert!(worst.0 < 2e-7, "{worst:?}");
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(f32::MIN), 0.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
    }
}

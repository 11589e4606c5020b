//! Comparison of float vectors, with reports that say where two differ.

use std::fmt;

/// How far `got` is from `want`; made by [`diff`].
#[derive(Clone, Debug, PartialEq)]
pub struct Diff {
    /// Largest |got - want|; NaN counts as infinite unless both are NaN.
    pub max_abs: f64,
    /// Root of the mean squared difference.
    pub rms: f64,
    /// Root of the mean square of `want`: the scale that the other two are judged by.
    pub scale: f64,
    /// Index of the largest difference.
    pub at: usize,
    /// The two values there: (got, want).
    pub values: (f32, f32),
}

impl fmt::Display for Diff {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (got, want) = self.values;
        write!(
            f,
            "max |diff| {:.3e} at {} (got {got}, want {want}), rms {:.3e} of {:.3e}",
            self.max_abs, self.at, self.rms, self.scale
        )
    }
}

/// Compares two vectors of one length.
///
/// # Panics
/// When the lengths differ.
pub fn diff(got: &[f32], want: &[f32]) -> Diff {
    assert_eq!(got.len(), want.len(), "lengths differ");
    let mut out = Diff { max_abs: 0.0, rms: 0.0, scale: 0.0, at: 0, values: (0.0, 0.0) };
    for (i, (&g, &w)) in got.iter().zip(want).enumerate() {
        let d = match (g.is_nan(), w.is_nan()) {
            (true, true) => 0.0,
            (false, false) if g == w => 0.0, // also equal infinities
            (false, false) => (f64::from(g) - f64::from(w)).abs(),
            _ => f64::INFINITY,
        };
        out.rms += d * d;
        out.scale += f64::from(w) * f64::from(w);
        if d > out.max_abs || i == 0 {
            (out.max_abs, out.at, out.values) = (d, i, (g, w));
        }
    }
    let n = got.len().max(1) as f64;
    (out.rms, out.scale) = ((out.rms / n).sqrt(), (out.scale / n).sqrt());
    out
}

/// The first place where two vectors differ in bits, if any: (index, got, want).
///
/// # Panics
/// When the lengths differ.
pub fn first_bit_difference(got: &[f32], want: &[f32]) -> Option<(usize, f32, f32)> {
    assert_eq!(got.len(), want.len(), "lengths differ");
    let at = got.iter().zip(want).position(|(g, w)| g.to_bits() != w.to_bits())?;
    Some((at, got[at], want[at]))
}

/// Index of the largest value, the first of equals; NaN never wins. `None` when there is no number.
pub fn argmax(x: &[f32]) -> Option<usize> {
    let best = x.iter().copied().filter(|v| !v.is_nan()).reduce(f32::max)?;
    x.iter().position(|&v| v == best)
}

/// Natural logarithm of the probability that a softmax over `logits` gives to `id`, in f64.
pub fn log_prob(logits: &[f32], id: usize) -> f64 {
    let max = f64::from(logits.iter().copied().fold(f32::NEG_INFINITY, f32::max));
    let sum: f64 = logits.iter().map(|&v| (f64::from(v) - max).exp()).sum();
    f64::from(logits[id]) - max - sum.ln()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn diff_finds_the_worst_place() {
        let d = diff(&[1.0, 2.0, -3.0], &[1.0, 2.5, -3.0]);
        assert_eq!((d.max_abs, d.at, d.values), (0.5, 1, (2.0, 2.5)));
        assert_eq!(diff(&[f32::INFINITY, f32::NAN], &[f32::INFINITY, f32::NAN]).max_abs, 0.0);
        assert_eq!(diff(&[0.0, f32::NAN], &[0.0, 1.0]).max_abs, f64::INFINITY);
        assert_eq!(diff(&[], &[]).max_abs, 0.0);
    }

    #[test]
    fn bits_tell_zeros_apart() {
        assert_eq!(first_bit_difference(&[1.0, 0.0], &[1.0, -0.0]), Some((1, 0.0, -0.0)));
        assert_eq!(first_bit_difference(&[1.0], &[1.0]), None);
    }

    #[test]
    fn log_prob_of_equal_logits_is_uniform() {
        assert!((log_prob(&[5.0; 4], 2) + 4f64.ln()).abs() < 1e-12);
        assert_eq!(argmax(&[f32::NAN, 1.0, 3.0, 3.0]), Some(2));
        assert_eq!(argmax(&[f32::NAN]), None);
    }
}

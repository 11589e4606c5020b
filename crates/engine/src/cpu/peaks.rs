//! The greatest logits of stretches of a vocabulary. Most stretches hold nothing that a sampler is
//! after, and their peaks say so.

/// Logits that have a peak together where nothing else decides.
pub(crate) const STRETCH: usize = 256;

/// The greatest logit of each stretch of neighbouring tokens; minus infinity where nothing is
/// greater.
pub(crate) struct Peaks<'a> {
    /// Tokens of a stretch; the last one may have fewer.
    pub(crate) stretch: usize,
    /// One for each stretch.
    pub(crate) values: &'a mut [f32],
}

impl<'a> Peaks<'a> {
    /// The peaks of some logits, found here and kept in `buffer`.
    pub(crate) fn find(logits: &[f32], buffer: &'a mut Vec<f32>) -> Peaks<'a> {
        buffer.clear();
        buffer.extend(logits.chunks(STRETCH).map(greatest));
        Peaks { stretch: STRETCH, values: buffer }
    }

    /// The greatest logit of all.
    pub(crate) fn greatest(&self) -> f32 {
        greatest(self.values)
    }

    /// Index of the greatest logit, the first of equals; `None` if none is above minus infinity.
    pub(crate) fn argmax(&self, logits: &[f32]) -> Option<usize> {
        let max = self.greatest();
        if max == f32::NEG_INFINITY {
            return None;
        }
        let start = self.values.iter().position(|&peak| peak == max)? * self.stretch;
        logits[start..].iter().position(|&x| x == max).map(|i| start + i)
    }

    /// Logit `i` was another one until now.
    pub(crate) fn update(&mut self, logits: &[f32], i: usize, before: f32) {
        let stretch = i / self.stretch;
        let (start, peak) = (stretch * self.stretch, &mut self.values[stretch]);
        if logits[i] >= *peak {
            *peak = logits[i];
        } else if before == *peak {
            *peak = greatest(&logits[start..logits.len().min(start + self.stretch)]);
        }
    }
}

/// The greatest of some values; minus infinity if all are NaN. As many lanes as vector instructions
/// need to hide latency.
pub(crate) fn greatest(values: &[f32]) -> f32 {
    const LANES: usize = 32;
    let larger = |m: f32, x: f32| if x > m { x } else { m };
    let (groups, rest) = values.as_chunks::<LANES>();
    let mut lanes = [f32::NEG_INFINITY; LANES];
    for group in groups {
        for (lane, &x) in lanes.iter_mut().zip(group) {
            *lane = larger(*lane, x);
        }
    }
    let mut n = LANES;
    while n > 1 {
        n /= 2;
        for i in 0..n {
            lanes[i] = larger(lanes[i], lanes[i + n]);
        }
    }
    rest.iter().copied().fold(lanes[0], larger)
}

#[cfg(test)]
mod tests {
    use modelembed_testkit::Rng;

    use super::*;

    #[test]
    fn peaks_follow_their_logits() {
        let mut rng = Rng::new(3);
        // Few values, so that peaks are often shared, and those that comparisons stumble over.
        const VALUES: [f32; 8] = [f32::NAN, f32::NEG_INFINITY, f32::INFINITY, f32::MIN, -1.0, -0.0, 0.0, 1.0];
        for len in [0, 1, 31, 32, 255, 256, 257, 1000] {
            for n_values in [2, 4, VALUES.len()] {
                let from = rng.below(VALUES.len() - n_values + 1);
                let mut draw = || VALUES[from + rng.below(n_values)];
                let mut logits: Vec<f32> = (0..len).map(|_| draw()).collect();
                for stretch in [1, 16, 48, STRETCH, 2000] {
                    let mut values: Vec<f32> = logits.chunks(stretch).map(greatest).collect();
                    let mut peaks = Peaks { stretch, values: &mut values };
                    for step in 0..50.min(len) {
                        let i = (step * 37) % len;
                        let before = logits[i];
                        // Only numbers become others.
                        if before.is_finite() {
                            logits[i] = [-2.0, -1.0, 0.0, 1.0, 2.0][step % 5];
                            peaks.update(&logits, i, before);
                        }
                        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                        let first = logits.iter().position(|&x| x == max && x > f32::NEG_INFINITY);
                        assert_eq!(peaks.argmax(&logits), first, "{stretch} of {logits:?}");
                        let naive = |s: &[f32]| s.iter().copied().fold(f32::NEG_INFINITY, f32::max);
                        assert!(peaks.values.iter().eq(&logits.chunks(stretch).map(naive).collect::<Vec<_>>()));
                    }
                }
            }
        }
    }
}

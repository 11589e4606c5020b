//! Top-n-sigma (Tang et al. 2024, arXiv 2411.07641): logits are noise of a normal distribution with
//! a few above it.

use super::candidate::{Candidate, Candidates, candidate, finite};

/// Leaves the logits that are at most `n` standard deviations below the greatest.
pub(super) fn apply(candidates: &mut Candidates, n: f32) {
    let lowest = lowest(candidates.list.iter().map(|c| c.logit), n);
    candidates.list.retain(|c| f64::from(c.logit) >= lowest);
}

/// [`apply`] to a whole vocabulary.
pub(super) fn gather(logits: &[f32], n: f32, kept: &mut Vec<Candidate>) {
    let lowest = lowest(logits.iter().copied().filter(|&x| x > f32::NEG_INFINITY).map(finite), n);
    let all = logits.iter().enumerate().filter(|&(_, &x)| x > f32::NEG_INFINITY && f64::from(finite(x)) >= lowest);
    kept.reserve(logits.len());
    kept.extend(all.map(|(i, &x)| candidate(i, x)));
}

fn lowest(logits: impl Iterator<Item = f32> + Clone, n: f32) -> f64 {
    let (mut max, mut sum, mut count) = (f32::NEG_INFINITY, 0f64, 0u32);
    for x in logits.clone() {
        max = max.max(x);
        sum += f64::from(x);
        count += 1;
    }
    let mean = sum / f64::from(count.max(1));
    let variance = logits.map(|x| (f64::from(x) - mean) * (f64::from(x) - mean)).sum::<f64>() / f64::from(count.max(1));
    f64::from(max) - f64::from(n) * variance.sqrt()
}

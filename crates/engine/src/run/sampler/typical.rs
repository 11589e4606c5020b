//! Locally typical sampling (Meister et al. 2022, arXiv 2202.00666): people say what surprises
//! about as much as they do on average.

use super::candidate::{Candidates, more_likely};
use super::math::exp;

/// Leaves the candidates whose surprise is nearest to the entropy, the fewest that together have
/// more than the probability `p`.
pub(super) fn apply(candidates: &mut Candidates, p: f32) {
    candidates.sort();
    let max = candidates.max();
    let total = candidates.total(max);
    // Both the surprise and the entropy have the logarithm of the total in them.
    let entropy = candidates.entropy(max, total) - libm::log(total);
    for c in &mut candidates.list {
        c.p = (f64::from(max - c.logit) - entropy).abs() as f32;
    }
    // Of equally typical ones the more likely first.
    candidates.list.sort_unstable_by(|a, b| a.p.total_cmp(&b.p).then_with(|| more_likely(a, b)));
    let wanted = total * f64::from(p);
    let mut sum = 0.0;
    let reached = candidates.list.iter().position(|c| {
        sum += f64::from(exp(c.logit - max));
        sum > wanted
    });
    if let Some(last) = reached {
        candidates.list.truncate(last + 1);
    }
    candidates.is_sorted = false;
    candidates.sort();
}

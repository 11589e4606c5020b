//! Min-p (Nguyen et al. 2024, arXiv 2407.01082): tokens that are near enough to the most likely
//! one.

use super::candidate::Candidates;
use super::math::exp;

/// Leaves the candidates that are at least `min_p` times as likely as the best.
pub(super) fn apply(candidates: &mut Candidates, min_p: f32) {
    let max = candidates.max();
    if candidates.is_sorted {
        let n = candidates.list.partition_point(|c| exp(c.logit - max) >= min_p);
        candidates.list.truncate(n);
    } else {
        candidates.list.retain(|c| exp(c.logit - max) >= min_p);
    }
}

/// What a logit must at least be, less a margin for the rounding of the logarithm: the exact test
/// comes later.
pub(super) fn lowest_logit(max: f32, min_p: f32) -> f32 {
    if min_p > 0.0 { max + min_p.ln() - 0.01 } else { f32::NEG_INFINITY }
}

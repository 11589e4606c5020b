//! XTC, "exclude top choices": sometimes the likeliest of several likely tokens are left out, for
//! less usual text.

use super::candidate::{Candidates, more_likely};
use super::math::exp;

/// Of the candidates with at least the probability `threshold` leaves the least likely one only;
/// and all others.
pub(super) fn apply(candidates: &mut Candidates, threshold: f32) {
    let max = candidates.max();
    let lowest = candidates.total(max) * f64::from(threshold);
    let is_top = |logit: f32| f64::from(exp(logit - max)) >= lowest;
    let last = candidates.list.iter().filter(|c| is_top(c.logit)).max_by(|a, b| more_likely(a, b)).copied();
    if let Some(last) = last {
        candidates.list.retain(|c| !more_likely(c, &last).is_lt());
    }
}

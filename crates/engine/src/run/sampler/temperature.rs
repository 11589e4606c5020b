//! The temperature, fixed or by the entropy of the choice.

use super::candidate::{Candidates, finite, more_likely};
use super::options::SamplerOptions;

/// Divides the logits by the temperature.
pub(super) fn apply(candidates: &mut Candidates, options: &SamplerOptions) {
    let max = candidates.max();
    let temp = temperature(candidates, options, max);
    if temp == 0.0 {
        let best = candidates.list.iter().min_by(|a, b| more_likely(a, b)).copied();
        candidates.list.clear();
        candidates.list.extend(best);
        return;
    }
    // The largest one becomes 0, so that a small temperature makes none infinite.
    candidates.list.iter_mut().for_each(|c| c.logit = finite((c.logit - max) / temp));
    candidates.offset = finite((candidates.offset + max) / temp);
}

/// Dynamic temperature: the entropy, as a share of what it would be between equals, says where in
/// the range.
fn temperature(candidates: &Candidates, options: &SamplerOptions, max: f32) -> f32 {
    let (temp, range) = (options.temp, options.temp_range());
    if range == 0.0 {
        return temp;
    }
    if candidates.list.len() < 2 {
        return 1.0;
    }
    let entropy = candidates.entropy(max, candidates.total(max));
    let share = entropy / libm::log(candidates.list.len() as f64);
    let power = libm::pow(share.clamp(0.0, 1.0), f64::from(options.dynatemp_exponent));
    let (low, high) = ((temp - range).max(0.0), temp + range);
    (f64::from(low) + f64::from(high - low) * power) as f32
}

//! Top-p (Holtzman et al. 2019, arXiv 1904.09751): the most likely tokens that make up a share of
//! probability.

use super::candidate::{Candidate, Candidates, candidate, finite};
use super::math::exp;
use super::min_p;
use crate::cpu::peaks::STRETCH;

/// Leaves the fewest most likely candidates that together have the probability `top_p`, in order.
pub(super) fn apply(candidates: &mut Candidates, top_p: f32) {
    /// Unsorted candidates beyond which it pays to look first where the cut is.
    const MANY: usize = 1024;
    let max = candidates.max();
    let total = if candidates.is_sorted || candidates.list.len() <= MANY {
        candidates.total(max)
    } else {
        let mut masses = Masses::new();
        for part in candidates.list.chunks(STRETCH) {
            let mut logits = [0f32; STRETCH];
            logits.iter_mut().zip(part).for_each(|(logit, c)| *logit = c.logit);
            masses.add(&logits[..part.len()], max);
        }
        let nucleus = masses.nucleus(top_p);
        candidates.list.retain(|c| nucleus.may_hold(max - c.logit));
        nucleus.total
    };
    candidates.sort();
    cut_top_p(&mut candidates.list, max, total, top_p);
}

/// Fills `kept` with what top-p leaves of a whole vocabulary, in order. Tokens that min-p will
/// leave out may be missing.
pub(super) fn gather(logits: &[f32], max: f32, top_p: f32, min_p: f32, kept: &mut Candidates) {
    let mut masses = Masses::new();
    logits.chunks(STRETCH).for_each(|stretch| masses.add(stretch, max));
    let nucleus = masses.nucleus(top_p);
    let lowest = min_p::lowest_logit(max, min_p);
    kept.list.reserve(logits.len());
    for (i, &logit) in logits.iter().enumerate() {
        if logit > f32::NEG_INFINITY && logit >= lowest && nucleus.may_hold(max - finite(logit)) {
            kept.list.push(candidate(i, logit));
        }
    }
    kept.sort();
    cut_top_p(&mut kept.list, max, nucleus.total, top_p);
}

/// Sums of exp(logit - max) by how far logits are below the largest one.
struct Masses([f64; STEPS]);

/// Steps of 1/16 from the largest logit down to 32 below it, where the probability is 1e-14 of the
/// best one's; the last step also holds the rest.
const STEPS: usize = 512;

/// The step of a logit `below` under the largest one.
fn step(below: f32) -> usize {
    // A conversion to an integer saturates.
    ((below * 16.0) as usize).min(STEPS - 1)
}

impl Masses {
    fn new() -> Masses {
        Masses([0.0; STEPS])
    }

    /// Adds at most [`STRETCH`] logits.
    fn add(&mut self, stretch: &[f32], max: f32) {
        let mut weights = [0f32; STRETCH];
        for (weight, &logit) in weights.iter_mut().zip(stretch) {
            *weight = exp(logit.min(f32::MAX) - max);
        }
        for (&logit, &weight) in stretch.iter().zip(&weights) {
            if logit > f32::NEG_INFINITY {
                self.0[step(max - finite(logit))] += f64::from(weight);
            }
        }
    }

    fn nucleus(&self, top_p: f32) -> Nucleus {
        let total: f64 = self.0.iter().sum();
        let mut sum = 0.0;
        let reached = self.0.iter().position(|m| {
            sum += m;
            sum >= total * f64::from(top_p)
        });
        // One step more, because these sums and those of `cut_top_p` are rounded differently.
        Nucleus { total, last_step: reached.map_or(usize::MAX, |step| step + 1) }
    }
}

/// Where a cut lies, to within one step of the logit.
struct Nucleus {
    /// Sum of exp(logit - max) over all tokens.
    total: f64,
    /// Tokens of later steps are not in the nucleus.
    last_step: usize,
}

impl Nucleus {
    fn may_hold(&self, below: f32) -> bool {
        step(below) <= self.last_step
    }
}

/// Keeps the shortest front part of sorted candidates whose weights reach `top_p` of `total`, at
/// least one.
fn cut_top_p(sorted: &mut Vec<Candidate>, max: f32, total: f64, top_p: f32) {
    let wanted = total * f64::from(top_p);
    let mut sum = 0.0;
    let reached = sorted.iter().position(|c| {
        sum += f64::from(exp(c.logit - max));
        sum >= wanted
    });
    if let Some(last) = reached {
        sorted.truncate(last + 1);
    }
}

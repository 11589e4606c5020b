//! The most likely tokens that make up a share of probability, and those near enough to the best one.

use super::candidate::{Candidate, candidate, finite};
use super::math::exp;
use crate::cpu::peaks::STRETCH;

/// Where a top-p cut of a whole vocabulary lies, to within one step of the logit.
pub(super) struct Nucleus {
    /// Sum of exp(logit - max) over all tokens.
    pub(super) total: f64,
    /// Tokens of later steps are not in the nucleus.
    last_step: usize,
}

impl Nucleus {
    pub(super) const EVERYTHING: Nucleus = Nucleus { total: 0.0, last_step: usize::MAX };
    /// Steps of 1/16 from the largest logit down to 32 below it, where the probability is 1e-14 of the best one's;
    /// the last step also holds the rest.
    pub(super) const STEPS: usize = 512;

    /// The step of a logit `below` under the largest one.
    pub(super) fn step(below: f32) -> usize {
        // A conversion to an integer saturates.
        ((below * 16.0) as usize).min(Nucleus::STEPS - 1)
    }

    pub(super) fn find(logits: &[f32], max: f32, top_p: f32) -> Nucleus {
        let mut mass = [0f64; Nucleus::STEPS];
        for stretch in logits.chunks(STRETCH) {
            let mut weights = [0f32; STRETCH];
            for (weight, &logit) in weights.iter_mut().zip(stretch) {
                *weight = exp(logit.min(f32::MAX) - max);
            }
            for (&logit, &weight) in stretch.iter().zip(&weights) {
                if logit > f32::NEG_INFINITY {
                    mass[Nucleus::step(max - finite(logit))] += f64::from(weight);
                }
            }
        }
        let total: f64 = mass.iter().sum();
        let mut sum = 0.0;
        let reached = mass.iter().position(|m| {
            sum += m;
            sum >= total * f64::from(top_p)
        });
        // One step more, because these sums and those of `cut_top_p` are rounded differently.
        Nucleus { total, last_step: reached.map_or(usize::MAX, |step| step + 1) }
    }
}

/// Collects all tokens that top-p and min-p may keep, in order of id.
pub(super) fn gather(logits: &[f32], max: f32, cut: &Nucleus, min_p: f32, kept: &mut Vec<Candidate>) {
    // The exact test comes later; the margin is for the rounding of the logarithm.
    let lowest = if min_p > 0.0 { max + min_p.ln() - 0.01 } else { f32::NEG_INFINITY };
    for (i, &logit) in logits.iter().enumerate() {
        if logit > f32::NEG_INFINITY && logit >= lowest && Nucleus::step(max - finite(logit)) <= cut.last_step {
            kept.push(candidate(i, logit));
        }
    }
}

/// Keeps the shortest front part of sorted candidates whose weights reach `top_p` of `total`, at least one.
pub(super) fn cut_top_p(sorted: &mut Vec<Candidate>, max: f32, total: f64, top_p: f32) {
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

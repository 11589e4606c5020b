//! Tokens that are still in question, and their order.

use std::cmp::Ordering;

use super::math::exp;
use crate::TokenId;

/// A token that the chain kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// The token.
    pub id: TokenId,
    /// Its probability among the kept ones.
    pub p: f32,
    /// Its logit as the steps so far left it, finite.
    pub(super) logit: f32,
}

/// The order of candidates: larger logit first, of equal ones the lower id.
pub(super) fn more_likely(a: &Candidate, b: &Candidate) -> Ordering {
    // Candidates are finite, so the comparison always has an answer.
    b.logit.partial_cmp(&a.logit).unwrap_or(Ordering::Equal).then(a.id.cmp(&b.id))
}

/// Differences of finite numbers are no NaN. Only for logits above minus infinity.
pub(super) fn finite(logit: f32) -> f32 {
    logit.clamp(f32::MIN, f32::MAX)
}

pub(super) fn candidate(i: usize, logit: f32) -> Candidate {
    Candidate { id: TokenId(i as u32), p: 0.0, logit: finite(logit) }
}

/// The candidates between two steps.
#[derive(Clone, Debug, Default)]
pub(super) struct Candidates {
    pub(super) list: Vec<Candidate>,
    /// The most likely one comes first; else they come in order of id or in none.
    pub(super) is_sorted: bool,
    /// What was taken off every logit so far, which probabilities do not show but a penalty that
    /// divides would.
    pub(super) offset: f32,
}

impl Candidates {
    pub(super) fn clear(&mut self) {
        self.list.clear();
        self.is_sorted = false;
        self.offset = 0.0;
    }

    /// The largest logit; 0 where there is no candidate.
    pub(super) fn max(&self) -> f32 {
        let logits = self.list.iter().map(|c| c.logit);
        let max = if self.is_sorted { self.list.first().map(|c| c.logit) } else { logits.reduce(f32::max) };
        max.unwrap_or(0.0)
    }

    /// The sum of exp(logit - max).
    pub(super) fn total(&self, max: f32) -> f64 {
        self.list.iter().map(|c| f64::from(exp(c.logit - max))).sum()
    }

    pub(super) fn sort(&mut self) {
        if !self.is_sorted {
            self.list.sort_unstable_by(more_likely);
            self.is_sorted = true;
        }
    }

    /// Mean surprise in nats, given the largest logit and the total: the entropy.
    pub(super) fn entropy(&self, max: f32, total: f64) -> f64 {
        let ln_total = libm::log(total);
        let terms = self.list.iter().map(|c| {
            let below = max - c.logit;
            let weight = f64::from(exp(-below));
            // What has no weight has no part in it, however surprising it were.
            if weight > 0.0 { weight * (f64::from(below) + ln_total) } else { 0.0 }
        });
        terms.sum::<f64>() / total
    }

    /// Gives each candidate its probability.
    pub(super) fn softmax(&mut self) {
        let max = self.max();
        let mut sum = 0f64;
        for c in &mut self.list {
            c.p = exp(c.logit - max);
            sum += f64::from(c.p);
        }
        let scale = (1.0 / sum) as f32;
        self.list.iter_mut().for_each(|c| c.p *= scale);
    }
}

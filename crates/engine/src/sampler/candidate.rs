//! Tokens that are still in question, and their order.

use std::cmp::Ordering;

use crate::TokenId;

/// A token that the chain kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// The token.
    pub id: TokenId,
    /// Its probability among the kept ones.
    pub p: f32,
    /// Its logit after the repetition penalty, finite.
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

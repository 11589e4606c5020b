//! The k most likely tokens, found by selection.

use super::candidate::{Candidate, Candidates, candidate, more_likely};
use crate::cpu::peaks::Peaks;

/// Leaves the `k` most likely candidates, in order.
pub(super) fn top_k(candidates: &mut Candidates, k: usize) {
    if candidates.is_sorted {
        candidates.list.truncate(k);
        return;
    }
    keep_best(&mut candidates.list, k);
    candidates.sort();
}

/// Fills `best` with the `k` most likely tokens in order.
pub(super) fn select_top_k(logits: &[f32], peaks: &Peaks<'_>, k: usize, best: &mut Vec<Candidate>) {
    best.clear();
    best.reserve(room_for(k).min(logits.len()));
    // What a token must exceed. From the start that is all below the k-th greatest peak: k tokens
    // have logits from there on.
    add_above(peaks.values, 0, f32::NEG_INFINITY, k, best);
    let mut bar = keep_best(best, k).next_down();
    best.clear();
    for (i, (stretch, &peak)) in logits.chunks(peaks.stretch).zip(&*peaks.values).enumerate() {
        if peak > bar {
            bar = add_above(stretch, i * peaks.stretch, bar, k, best);
        }
    }
    keep_best(best, k);
    best.sort_unstable_by(more_likely);
}

/// Candidates that are collected before the `k` best of them are selected. Room beyond k makes a
/// selection rare; one over so many costs a few steps an element.
pub(super) fn room_for(k: usize) -> usize {
    const SLACK: usize = 256;
    2 * k + SLACK
}

/// Adds the logits above `bar` of the tokens from `first` on, and leaves the `k` best where it gets
/// too many. Returns the new bar.
pub(super) fn add_above(logits: &[f32], first: usize, mut bar: f32, k: usize, best: &mut Vec<Candidate>) -> f32 {
    for (i, &logit) in logits.iter().enumerate() {
        if logit > bar {
            best.push(candidate(first + i, logit));
            if best.len() == room_for(k) {
                // Equal is not enough from now on: k tokens with lower ids have at least this
                // logit.
                bar = keep_best(best, k);
            }
        }
    }
    bar
}

/// Keeps the `k` most likely candidates, in any order. Returns the smallest logit kept if there are
/// that many.
pub(super) fn keep_best(best: &mut Vec<Candidate>, k: usize) -> f32 {
    if best.len() < k {
        return f32::NEG_INFINITY;
    }
    let last = best.select_nth_unstable_by(k - 1, more_likely).1.logit;
    best.truncate(k);
    last
}

//! Recent tokens get less likely: the penalties for repetition, frequency and presence.

use std::collections::VecDeque;

use super::candidate::{Candidates, finite};
use super::options::SamplerOptions;
use crate::TokenId;

/// Tokens that a window has room for from the start. A larger one costs memory only once so many
/// tokens were accepted.
pub(super) const MOST_RESERVED_TOKENS: usize = 1 << 16;

/// The window of recent tokens.
#[derive(Clone, Debug)]
pub(super) struct Penalties {
    window: usize,
    /// Oldest first.
    recent: VecDeque<TokenId>,
    /// Each recent token and how often it is there, in order of id.
    counts: Vec<(TokenId, u32)>,
}

impl Penalties {
    pub(super) fn new(window: usize) -> Penalties {
        let room = window.min(MOST_RESERVED_TOKENS);
        Penalties { window, recent: VecDeque::with_capacity(room), counts: Vec::with_capacity(room + 1) }
    }

    pub(super) fn accept(&mut self, id: TokenId) {
        if self.window == 0 {
            return;
        }
        if self.recent.len() >= self.window
            && let Some(old) = self.recent.pop_front()
            && let Ok(at) = self.counts.binary_search_by_key(&old, |&(id, _)| id)
        {
            self.counts[at].1 -= 1;
            if self.counts[at].1 == 0 {
                self.counts.remove(at);
            }
        }
        self.recent.push_back(id);
        match self.counts.binary_search_by_key(&id, |&(id, _)| id) {
            Ok(at) => self.counts[at].1 += 1,
            Err(at) => self.counts.insert(at, (id, 1)),
        }
    }

    pub(super) fn clear(&mut self) {
        self.recent.clear();
        self.counts.clear();
    }

    /// Recent tokens, each once, with the number of times.
    pub(super) fn counts(&self) -> &[(TokenId, u32)] {
        &self.counts
    }

    pub(super) fn apply(&self, options: &SamplerOptions, candidates: &mut Candidates) {
        let offset = candidates.offset;
        for c in &mut candidates.list {
            if let Ok(at) = self.counts.binary_search_by_key(&c.id, |&(id, _)| id) {
                c.logit = finite(penalised(options, c.logit + offset, self.counts[at].1) - offset);
            }
        }
        candidates.is_sorted = false;
    }
}

/// A logit, finite, of a token that is recent `count` times.
pub(super) fn penalised(options: &SamplerOptions, logit: f32, count: u32) -> f32 {
    let penalty = options.repeat_penalty;
    // Dividing a negative logit would make the token more likely.
    let logit = if logit <= 0.0 { logit * penalty } else { logit / penalty };
    finite(logit - (count as f32 * options.frequency_penalty + options.presence_penalty))
}

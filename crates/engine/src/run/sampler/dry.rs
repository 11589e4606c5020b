//! DRY, "don't repeat yourself": what would go on with a sequence that was there before gets less
//! likely, the longer the sequence.
//!
//! (By p-e-w, 2024, for text-generation-webui. Sequences end at breakers, so that lists, dialogues
//! and quotations may look alike.)

use std::collections::VecDeque;

use super::candidate::{Candidates, finite};
use super::dry_breakers::DryBreakers;
use super::options::Dry;
use super::penalties::MOST_RESERVED_TOKENS;
use crate::TokenId;

/// Natural logarithm of the largest f32.
const LN_F32_MAX: f32 = 88.722_84;

/// The text so far, and what it says about the next token.
#[derive(Clone, Debug)]
pub(super) struct Repeats {
    options: Dry,
    breakers: DryBreakers,
    /// Oldest first.
    tokens: VecDeque<TokenId>,
    /// For each distance back how many of the latest tokens stand there too.
    lengths: Vec<u32>,
    /// Tokens that would go on with a sequence, in order of id, and the length of the longest such
    /// sequence.
    next: Vec<(TokenId, u32)>,
}

impl Repeats {
    pub(super) fn new(options: Dry) -> Repeats {
        let room = options.last_n.unwrap_or(MOST_RESERVED_TOKENS).min(MOST_RESERVED_TOKENS);
        Repeats {
            options,
            breakers: DryBreakers::default(),
            tokens: VecDeque::with_capacity(room),
            lengths: Vec::with_capacity(room),
            next: Vec::with_capacity(room),
        }
    }

    pub(super) fn set_breakers(&mut self, breakers: DryBreakers) {
        self.breakers = breakers;
    }

    pub(super) fn accept(&mut self, id: TokenId) {
        if self.options.last_n.is_some_and(|n| self.tokens.len() >= n) {
            self.tokens.pop_front();
        }
        self.tokens.push_back(id);
    }

    pub(super) fn clear(&mut self) {
        self.tokens.clear();
    }

    /// Tokens that get less likely now, in order of id, each with what is taken off its logit.
    pub(super) fn penalties(&mut self) -> impl Iterator<Item = (TokenId, f32)> {
        self.find();
        let Dry { multiplier, base, allowed_length, .. } = self.options;
        // Base 1 never grows.
        let most = if base > 1.000_001 { (LN_F32_MAX / libm::logf(base)) as usize } else { usize::MAX };
        let base = f64::from(base);
        self.next.iter().map(move |&(id, len)| {
            let beyond = (len as usize - allowed_length).min(most);
            (id, (f64::from(multiplier) * libm::pow(base, beyond as f64)) as f32)
        })
    }

    pub(super) fn apply(&mut self, candidates: &mut Candidates) {
        // In order of id, so that both go up together.
        candidates.list.sort_unstable_by_key(|c| c.id);
        let mut rest = candidates.list.as_mut_slice();
        for (id, penalty) in self.penalties() {
            let at = rest.partition_point(|c| c.id < id);
            rest = &mut rest[at..];
            if let Some(c) = rest.first_mut().filter(|c| c.id == id) {
                c.logit = finite(c.logit - penalty);
            }
        }
        candidates.is_sorted = false;
    }

    /// Fills `next`.
    fn find(&mut self) {
        self.next.clear();
        let tokens = &*self.tokens.make_contiguous();
        let allowed = self.options.allowed_length;
        if tokens.len() <= allowed {
            return;
        }
        // No sequence reaches back beyond a breaker.
        let most = self.breakers.tokens_since(tokens);
        if most < allowed {
            return;
        }
        suffix_lengths(tokens, &mut self.lengths);
        for (back, &len) in self.lengths.iter().enumerate().skip(1) {
            let len = (len as usize).min(most);
            // What stands behind the sequence there would go on with it here.
            let id = tokens[tokens.len() - back];
            if len >= allowed && !self.breakers.is_breaker(id) {
                self.next.push((id, len as u32));
            }
        }
        // The longest of each comes first.
        self.next.sort_unstable_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)));
        self.next.dedup_by_key(|&mut (id, _)| id);
    }
}

/// For each distance back from the end how many tokens before that place are the same as at the
/// end: the Z function of the tokens in reverse, in linear time (Gusfield 1997, chapter 1).
fn suffix_lengths(tokens: &[TokenId], lengths: &mut Vec<u32>) {
    let n = tokens.len();
    let from_end = |i: usize| tokens[n - 1 - i];
    lengths.clear();
    lengths.resize(n, 0);
    // The match that reaches furthest: these places are the same as those from the end on.
    let (mut start, mut end) = (0, 0);
    for back in 1..n {
        let mut len = if back < end { (lengths[back - start] as usize).min(end - back) } else { 0 };
        while back + len < n && from_end(len) == from_end(back + len) {
            len += 1;
        }
        if back + len > end {
            (start, end) = (back, back + len);
        }
        lengths[back] = len as u32;
    }
}

#[cfg(test)]
mod tests {
    use modelembed_testkit::Rng;

    use super::*;

    fn ids(text: &str) -> Vec<TokenId> {
        text.bytes().map(|b| TokenId(b.into())).collect()
    }

    #[test]
    fn suffixes_are_as_long_as_counting_says() {
        let mut rng = Rng::new(5);
        for n in [0, 1, 2, 3, 10, 50, 200] {
            for letters in [1, 2, 3] {
                let tokens: Vec<TokenId> = (0..n).map(|_| TokenId(rng.below(letters) as u32)).collect();
                let mut lengths = Vec::new();
                suffix_lengths(&tokens, &mut lengths);
                let count = |back: usize| {
                    let pairs = tokens.iter().rev().zip(tokens[..n - back].iter().rev());
                    pairs.take_while(|(a, b)| a == b).count() as u32
                };
                assert!(lengths.iter().copied().skip(1).eq((1..n).map(count)), "{tokens:?}: {lengths:?}");
            }
        }
    }

    #[test]
    fn the_longest_sequence_that_would_go_on_counts() {
        let next = |text: &str, options: Dry| {
            let mut repeats = Repeats::new(options);
            ids(text).into_iter().for_each(|id| repeats.accept(id));
            repeats.penalties().map(|(id, p)| (id.0 as u8 as char, p)).collect::<Vec<_>>()
        };
        let dry = Dry { multiplier: 1.0, base: 2.0, allowed_length: 2, last_n: None };
        assert_eq!(next("xab yab", dry), [(' ', 1.0)]);
        assert_eq!(next("abcd bce abc", dry), [('d', 2.0), ('e', 1.0)]);
        assert_eq!(next("abc abc", Dry { allowed_length: 4, ..dry }), []);
        assert_eq!(next("aaaa", dry), [('a', 2.0)], "three a are followed by an a");
        assert_eq!(next("abcd bce abc", Dry { last_n: Some(8), ..dry }), [('e', 1.0)]);
        assert_eq!(next("abcabcab", Dry { base: 1.0, multiplier: 0.5, ..dry }), [('c', 0.5)]);
        assert_eq!(next("ab", Dry { allowed_length: 0, ..dry }), [('b', 1.0)]);
        let long = "ab".repeat(300);
        let [(_, penalty)] = next(&long, dry)[..] else { panic!("one token goes on") };
        assert!(penalty > 1e38, "{penalty}");
    }
}

//! Finding special tokens in a text before the rest of it is tokenized.
//!
//! The rule is llama.cpp's: tokens are tried from the longest to the shortest, each takes its
//! occurrences from left to right in what the longer ones left over. Trying thousands of tokens on
//! every text would cost more than tokenizing it, so one pass over the text first notes which of
//! them occur at all.

use std::ops::Range;

use memchr::memmem;

use crate::special::Strip;

/// A part of a text.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Fragment {
    /// Bytes still to be tokenized.
    Text(Range<usize>),
    /// A special token.
    Token(u32),
}

/// Bytes of a token that are looked at before it is searched for; a bound, since texts and tokens
/// may repeat themselves.
const PROBE_BYTES: usize = 64;

/// An index over the texts of special tokens.
pub(crate) struct Partition {
    /// Positions in the list of tokens, ordered by the tokens' bytes.
    sorted: Vec<u32>,
    /// Where tokens that begin with each byte are in `sorted`.
    by_first: Vec<Range<u32>>,
}

impl Partition {
    /// `tokens`: texts, the longest first.
    pub(crate) fn new<'v>(n: usize, token: impl Fn(usize) -> &'v [u8]) -> Partition {
        let mut sorted: Vec<u32> = (0..n as u32).collect();
        sorted.sort_by(|&a, &b| token(a as usize).cmp(token(b as usize)));
        let first = |at: &u32| token(*at as usize).first().copied();
        let start = |byte: u16| sorted.partition_point(|at| first(at).map(u16::from) < Some(byte)) as u32;
        let by_first = (0..=255u16).map(|byte| start(byte)..start(byte + 1)).collect();
        Partition { sorted, by_first }
    }

    /// Which tokens occur in `text`, by their position in the list; with some that may only begin
    /// like a part of it.
    pub(crate) fn occurring<'v>(&self, text: &[u8], token: &impl Fn(usize) -> &'v [u8]) -> Vec<u32> {
        let mut seen = vec![false; self.sorted.len()];
        let mut unseen: Vec<u32> = self.by_first.iter().map(|range| range.end - range.start).collect();
        let mut found = Vec::new();
        for at in 0..text.len() {
            let first = usize::from(text[at]);
            if unseen[first] == 0 {
                continue;
            }
            let range = &self.by_first[first];
            let mut candidates = &self.sorted[range.start as usize..range.end as usize];
            // Among tokens that share the first `depth` bytes with the text, those that end there
            // come first.
            let mut depth = 1;
            while let [i, rest @ ..] = candidates {
                if depth >= PROBE_BYTES || token(*i as usize).len() == depth {
                    if !std::mem::replace(&mut seen[*i as usize], true) {
                        found.push(*i);
                        unseen[first] -= 1;
                    }
                    candidates = rest;
                } else if let Some(&byte) = text.get(at + depth) {
                    candidates = with_byte(candidates, depth, byte, token);
                    depth += 1;
                } else {
                    break;
                }
            }
        }
        found.sort_unstable();
        found
    }

    /// Cuts `text` at special tokens. `list` is what the index was made from: id, strip rule and
    /// text of each; only those that `wanted` accepts are taken, by id and place.
    pub(crate) fn split<'v>(
        &self,
        text: &[u8],
        list: &[(u32, Strip)],
        token: impl Fn(usize) -> &'v [u8],
        wanted: impl Fn(u32, Range<usize>) -> bool,
    ) -> Vec<Fragment> {
        let mut taken = Taken::default();
        for at in self.occurring(text, &token) {
            let (id, strip) = list[at as usize];
            let needle = token(at as usize);
            // Empty only if the file has changed since.
            if !needle.is_empty() {
                taken.take_all(text, needle, id, strip, &wanted);
            }
        }
        taken.fragments(text.len())
    }
}

/// Of tokens in order that agree up to `depth`, those that have `byte` there.
fn with_byte<'s, 'v>(sorted: &'s [u32], depth: usize, byte: u8, token: &impl Fn(usize) -> &'v [u8]) -> &'s [u32] {
    let next = |i: &u32| token(*i as usize).get(depth).copied();
    // Often all of them: tokens of one repeated character.
    if sorted.first().and_then(next) == Some(byte) && sorted.last().and_then(next) == Some(byte) {
        return sorted;
    }
    let low = sorted.partition_point(|i| next(i) < Some(byte));
    let len = sorted[low..].partition_point(|i| next(i) == Some(byte));
    &sorted[low..low + len]
}

/// Parts of a text that tokens have taken.
#[derive(Default)]
struct Taken {
    bits: Vec<u64>, // one for each byte of the text
    cuts: Vec<(Range<usize>, u32)>,
}

impl Taken {
    fn has(&self, at: usize) -> bool {
        self.bits.get(at / 64).is_some_and(|word| word >> (at % 64) & 1 == 1)
    }

    /// The first position from `at` on that is not taken.
    fn next_free(&self, at: usize) -> usize {
        let mut at = at;
        while let Some(word) = self.bits.get(at / 64) {
            let free = (!word) >> (at % 64);
            if free != 0 {
                return at + free.trailing_zeros() as usize;
            }
            at = (at / 64 + 1) * 64;
        }
        at
    }

    fn take_all(
        &mut self,
        text: &[u8],
        needle: &[u8],
        id: u32,
        strip: Strip,
        wanted: &impl Fn(u32, Range<usize>) -> bool,
    ) {
        // Many are wanted nowhere.
        if !wanted(id, 0..0) {
            return;
        }
        let finder = memmem::Finder::new(needle);
        let is_space = |at: usize| matches!(text[at], 0x09..=0x0d | b' ');
        let mut from = 0;
        while let Some(found) = text.get(from..).and_then(|rest| finder.find(rest)) {
            let mut range = from + found..from + found + needle.len();
            // Whatever is taken is at least as long as the needle, so it cannot hide between the
            // needle's ends.
            if self.has(range.start) || self.has(range.end - 1) {
                from = self.next_free(range.start).max(range.start + 1);
                continue;
            }
            if !wanted(id, range.clone()) {
                from = range.start + 1;
                continue;
            }
            while strip.left && range.start > 0 && !self.has(range.start - 1) && is_space(range.start - 1) {
                range.start -= 1;
            }
            while strip.right && range.end < text.len() && !self.has(range.end) && is_space(range.end) {
                range.end += 1;
            }
            from = range.end;
            self.take(range, id, text.len());
        }
    }

    fn take(&mut self, range: Range<usize>, id: u32, text_len: usize) {
        if self.bits.is_empty() {
            self.bits = vec![0; text_len.div_ceil(64)];
        }
        range.clone().for_each(|at| self.bits[at / 64] |= 1 << (at % 64));
        self.cuts.push((range, id));
    }

    fn fragments(mut self, text_len: usize) -> Vec<Fragment> {
        self.cuts.sort_unstable_by_key(|(range, _)| range.start);
        let mut fragments = Vec::with_capacity(self.cuts.len() * 2 + 1);
        let mut at = 0;
        for (range, id) in self.cuts {
            if range.start > at {
                fragments.push(Fragment::Text(at..range.start));
            }
            fragments.push(Fragment::Token(id));
            at = range.end;
        }
        if at < text_len {
            fragments.push(Fragment::Text(at..text_len));
        }
        fragments
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(text: &str, tokens: &[(&str, Strip)]) -> Vec<String> {
        let mut tokens = tokens.to_vec();
        tokens.sort_by_key(|(token, _)| std::cmp::Reverse(token.len()));
        let list: Vec<(u32, Strip)> = tokens.iter().enumerate().map(|(i, (_, strip))| (i as u32, *strip)).collect();
        let token = |i: usize| tokens[i].0.as_bytes();
        let fragments = Partition::new(list.len(), token).split(text.as_bytes(), &list, token, |_, _| true);
        let show = |fragment| match fragment {
            Fragment::Text(range) => text[range].to_string(),
            Fragment::Token(id) => format!("[{}]", tokens[id as usize].0),
        };
        fragments.into_iter().map(show).collect()
    }

    #[test]
    fn longest_token_first_wherever_it_is() {
        let plain = |tokens: &[&'static str]| tokens.iter().map(|t| (*t, Strip::default())).collect::<Vec<_>>();
        let cases: &[(&str, &[&str], &[&str])] = &[
            ("", &["<a>"], &[]),
            ("text", &["<a>"], &["text"]),
            ("x<a>y", &["<a>"], &["x", "[<a>]", "y"]),
            ("<a><a>", &["<a>"], &["[<a>]", "[<a>]"]),
            ("aab", &["aa", "abb", "ab"], &["[aa]", "b"]),
            ("aabb", &["aa", "abb"], &["a", "[abb]"]),
            ("\n\n\n\n\n", &["\n\n", "\n\n\n", "\n"], &["[\n\n\n]", "[\n\n]"]),
            ("<a", &["<a>", "<ab>"], &["<a"]),
            ("abcabcd", &["abcd", "abc", "bc"], &["[abc]", "[abcd]"]),
        ];
        for (text, tokens, wanted) in cases {
            assert_eq!(&split(text, &plain(tokens)), wanted, "{text:?} {tokens:?}");
        }
    }

    #[test]
    fn whitespace_belongs_to_tokens_that_strip() {
        let right = [("<r>", Strip { left: false, right: true })];
        assert_eq!(split("a <r> \n b", &right), ["a ", "[<r>]", "b"]);
        assert_eq!(split("<r> <r>", &right), ["[<r>]", "[<r>]"]);
        let left = [("<l>", Strip { left: true, right: false })];
        assert_eq!(split("a \t<l> b", &left), ["a", "[<l>]", " b"]);
    }

    #[test]
    fn long_runs_are_taken_quickly() {
        let lens: Vec<String> = (1..=31).map(|n| "\n".repeat(n)).collect();
        let tokens: Vec<(&str, Strip)> = lens.iter().map(|t| (t.as_str(), Strip::default())).collect();
        assert_eq!(split(&"\n".repeat(310_000), &tokens).len(), 10_000);
    }
}

//! Guessing the next tokens from the context: what followed the same tokens before.
//!
//! ("Prompt lookup decoding", Saxena 2023; the check is that of Leviathan et al. 2023, arXiv
//! 2211.17192, in its plainest form: a position counts if the tokens before it are those that were
//! sampled.) Decoding reads all weights for each evaluation, so that a few columns more cost
//! little, and text that repeats itself (code, quotations, lists) gets several tokens out of one
//! reading.

use modelembed_text::TokenId;

/// Tokens that must be equal for what follows them to be a draft. One alone says too little.
const MIN_MATCH: usize = 2;
/// Tokens beyond which a longer match says no more.
const MAX_MATCH: usize = 8;
/// How far back a match is looked for, in tokens: a few microseconds' worth.
const REACH: usize = 16 << 10;

/// Guesses of one generation.
pub(crate) struct Lookup {
    /// Most draft tokens at a time.
    max: usize,
    /// Most draft tokens now: what came true lately, and a bit more.
    limit: usize,
    /// The token before the drafts, then the drafts.
    batch: Vec<TokenId>,
    pub(crate) n_drafted: usize,
    pub(crate) n_accepted: usize,
}

impl Lookup {
    pub(crate) fn new(max: usize) -> Lookup {
        Lookup { max, limit: max, batch: Vec::with_capacity(max + 1), n_drafted: 0, n_accepted: 0 }
    }

    /// No draft tokens.
    pub(crate) fn clear(&mut self) {
        self.batch.clear();
    }

    /// `last`, which follows `context`, and at most `room` draft tokens of what comes then.
    pub(crate) fn draft(&mut self, context: &[TokenId], last: TokenId, room: usize) -> &[TokenId] {
        self.batch.clear();
        self.batch.push(last);
        let wanted = self.limit.min(room);
        if wanted > 0 {
            let end = context.len();
            let mut best = (MIN_MATCH - 1, end);
            // `last` again, and as many tokens before it as agree; of equally long matches the
            // latest.
            for at in (end.saturating_sub(REACH)..end).rev().filter(|&at| context[at] == last) {
                let before = context[..at].iter().rev().zip(context.iter().rev());
                let length = 1 + before.take(MAX_MATCH - 1).take_while(|(a, b)| a == b).count();
                if length > best.0 {
                    best = (length, at + 1);
                    if length == MAX_MATCH {
                        break;
                    }
                }
            }
            let first = best.1;
            // A text that repeats itself goes on with what was just drafted.
            for i in 0..if first < end { wanted } else { 0 } {
                let followed = context.get(first + i).copied();
                let next = followed.unwrap_or_else(|| self.batch[first + i - end]);
                self.batch.push(next);
            }
            self.n_drafted += self.drafts().len();
        }
        &self.batch
    }

    /// The draft tokens.
    pub(crate) fn drafts(&self) -> &[TokenId] {
        self.batch.get(1..).unwrap_or_default()
    }

    /// `n` of the draft tokens came true: the next draft is as long and one more, or as long as can
    /// be after one that was right.
    pub(crate) fn learn(&mut self, n: usize) {
        self.n_accepted += n;
        self.limit = if n == self.drafts().len() { self.max } else { (n + 1).min(self.max) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(text: &str) -> Vec<TokenId> {
        text.bytes().map(|b| TokenId(b.into())).collect()
    }

    fn draft(context: &str, last: char, max: usize, room: usize) -> String {
        let mut lookup = Lookup::new(max);
        let batch = lookup.draft(&ids(context), TokenId(last as u32), room).to_vec();
        assert_eq!(batch[0], TokenId(last as u32));
        assert_eq!(lookup.n_drafted, batch.len() - 1);
        batch[1..].iter().map(|id| id.0 as u8 as char).collect()
    }

    #[test]
    fn drafts_are_what_followed_the_longest_match() {
        let rows = [
            ("abcdefg ab", 'c', 4, 9, "defg"),
            ("abcdefg ab", 'c', 4, 2, "de"),
            ("abcdefg ab", 'c', 0, 9, ""),
            ("abcdefg", 'h', 4, 9, ""),            // never seen
            ("abcdefg ", 'c', 4, 9, ""),           // one token alone is no match
            ("xbc1 xbc2 abc3 ab", 'c', 1, 9, "3"), // longer wins
            ("abc1 abc2 ab", 'c', 1, 9, "2"),      // later wins
            ("abab", 'a', 6, 9, "bababa"),         // goes on beyond the end
            ("", 'a', 4, 9, ""),
        ];
        let wrong: Vec<_> = rows
            .iter()
            .map(|&(context, last, max, room, want)| (context, draft(context, last, max, room), want))
            .filter(|(_, got, want)| got != want)
            .collect();
        assert!(wrong.is_empty(), "context, drafted, wanted: {wrong:?}");
    }

    #[test]
    fn drafts_get_shorter_while_they_fail() {
        let mut lookup = Lookup::new(4);
        let lengths: Vec<usize> = [4, 1, 2, 3, 4]
            .map(|kept| {
                let n = lookup.draft(&ids("abcdefgh ab"), TokenId('c' as u32), 9).len() - 1;
                lookup.learn(kept.min(n));
                n
            })
            .to_vec();
        assert_eq!(lengths, [4, 4, 2, 4, 4]);
        assert_eq!(lookup.n_accepted, 4 + 1 + 2 + 3 + 4);
    }
}

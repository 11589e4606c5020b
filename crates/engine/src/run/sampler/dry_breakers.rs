//! Texts at which every sequence ends for [`Dry`](super::Dry), as tokens.

use modelembed_text::{EncodeOptions, TextError, TokenId, Tokenizer};

/// Sequence breakers by the tokens that hold or begin one.
#[derive(Clone, Debug, Default)]
pub struct DryBreakers {
    /// A token, and where in `tails` the tokens are that must follow it; in order of the token.
    heads: Vec<(TokenId, std::ops::Range<usize>)>,
    tails: Vec<TokenId>,
}

/// A text that is no sequence breaker.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidDryBreaker {
    /// Nothing, or more than llama.cpp looks at.
    #[error("the sequence breaker {seen:?} has {} bytes, wanted 1 to {}", seen.len(), DryBreakers::MOST_BYTES)]
    Length {
        /// The text.
        seen: String,
    },
    /// The tokenizer cannot encode it.
    #[error(transparent)]
    Text(#[from] TextError),
}

impl DryBreakers {
    /// llama.cpp's default: the end of a line, a colon, a quotation mark and an asterisk.
    pub const DEFAULT: [&'static str; 4] = ["\n", ":", "\"", "*"];

    /// Length of a breaker at most.
    pub const MOST_BYTES: usize = 40;
    /// Tokens of a tail that are looked at.
    const MOST_TAIL: usize = 20;

    /// Finds the tokens of a vocabulary that hold one of the texts or end with the beginning of
    /// one; what then has to follow is the rest of the text, as the tokenizer encodes it. Goes
    /// through the whole vocabulary, which takes milliseconds.
    ///
    /// # Errors
    /// A text that is empty or too long, or a model without a vocabulary.
    pub fn new(tokenizer: &Tokenizer, texts: &[impl AsRef<str>]) -> Result<DryBreakers, InvalidDryBreaker> {
        let mut found: Vec<(TokenId, Vec<TokenId>)> = Vec::new();
        let texts: Vec<&str> = texts.iter().map(AsRef::as_ref).collect();
        if let Some(bad) = texts.iter().find(|text| text.is_empty() || text.len() > DryBreakers::MOST_BYTES) {
            return Err(InvalidDryBreaker::Length { seen: (*bad).to_owned() });
        }
        // The rest of each text from each place on, once it is needed.
        let mut rests: Vec<Vec<Option<Vec<TokenId>>>> = texts.iter().map(|text| vec![None; text.len()]).collect();
        if !texts.is_empty() {
            tokenizer.require_vocabulary()?;
        }
        let mut word = Vec::new();
        for id in (0..tokenizer.n_vocab() as u32).map(TokenId) {
            word.clear();
            tokenizer.piece(id, true, &mut word);
            // As a text from its beginning, which the space that the tokenizer puts there is no
            // part of.
            let skipped = usize::from(tokenizer.adds_space_prefix() && word.first() == Some(&b' '));
            let word = &word[skipped..];
            for (text, rests) in texts.iter().zip(&mut rests) {
                let text = text.as_bytes();
                if word.windows(text.len()).any(|part| part == text) {
                    found.push((id, Vec::new()));
                    continue;
                }
                for n in (1..text.len().min(word.len() + 1)).filter(|&n| word.ends_with(&text[..n])) {
                    if rests[n].is_none() {
                        let mut rest = tokenizer.encode(&text[n..], EncodeOptions::default())?;
                        rest.truncate(DryBreakers::MOST_TAIL);
                        rests[n] = Some(rest);
                    }
                    found.extend(rests[n].clone().map(|rest| (id, rest)));
                }
            }
        }
        let sequences = found.iter().map(|(head, tail)| (*head, tail.as_slice()));
        Ok(DryBreakers::from_sequences(sequences))
    }

    /// Breakers that are sequences of tokens: the first one, and those that follow it.
    pub fn from_sequences<'a>(sequences: impl IntoIterator<Item = (TokenId, &'a [TokenId])>) -> DryBreakers {
        let mut breakers = DryBreakers::default();
        for (head, tail) in sequences {
            let start = breakers.tails.len();
            breakers.tails.extend_from_slice(tail);
            breakers.heads.push((head, start..breakers.tails.len()));
        }
        breakers.heads.sort_by_key(|&(head, _)| head);
        breakers
    }

    /// What may follow a token for both to be a breaker.
    fn tails(&self, head: TokenId) -> impl Iterator<Item = &[TokenId]> {
        let start = self.heads.partition_point(|&(id, _)| id < head);
        let same = self.heads[start..].iter().take_while(move |&&(id, _)| id == head);
        same.map(|(_, tail)| &self.tails[tail.clone()])
    }

    /// Whether the token alone is a breaker.
    pub(super) fn is_breaker(&self, id: TokenId) -> bool {
        self.tails(id).any(<[_]>::is_empty)
    }

    /// Number of tokens behind the latest breaker.
    pub(super) fn tokens_since(&self, tokens: &[TokenId]) -> usize {
        let behind = |(at, head): (usize, &TokenId)| {
            let rest = &tokens[at + 1..];
            let longest = self.tails(*head).filter(|tail| rest.starts_with(tail)).map(<[_]>::len).max()?;
            Some(rest.len() - longest)
        };
        tokens.iter().enumerate().rev().find_map(behind).unwrap_or(tokens.len())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_breaker_counts_and_of_those_there_the_longest() {
        let t = TokenId;
        let breakers =
            DryBreakers::from_sequences([(t(9), &[][..]), (t(5), &[t(6)]), (t(5), &[t(6), t(7)]), (t(8), &[t(9)])]);
        let rows: [(&[u32], usize); 8] = [
            (&[], 0),
            (&[1, 2, 3], 3),
            (&[1, 9, 2, 3], 2),
            (&[9], 0),
            (&[5, 6, 1], 1),
            (&[5, 6, 7, 1], 1),
            (&[5, 7, 6, 1], 4),
            (&[9, 1, 5], 2),
        ];
        for (tokens, want) in rows {
            let tokens: Vec<TokenId> = tokens.iter().copied().map(TokenId).collect();
            assert_eq!(breakers.tokens_since(&tokens), want, "{tokens:?}");
        }
        assert!(breakers.is_breaker(t(9)) && !breakers.is_breaker(t(5)) && !breakers.is_breaker(t(1)));
    }
}

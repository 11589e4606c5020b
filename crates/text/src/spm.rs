//! SentencePiece's byte-pair encoding (Llama 1 and 2, Gemma): merges whatever neighbours are a
//! token, best score first.

use crate::bpe::escape_spaces_to;
use crate::merge::Merger;
use crate::vocab::{Vocab, byte_token};

/// Appends the ids of `text` to `out`. With `prefix`, a space is put before it.
///
/// Characters without a token become the tokens of their bytes, and those the unknown token. Merging
/// makes no token that is `forbidden`.
pub(crate) fn encode(
    vocab: &Vocab,
    unk: u32,
    text: &[u8],
    prefix: bool,
    forbidden: Option<&dyn Fn(u32) -> bool>,
    out: &mut Vec<u32>,
) {
    let find = |text: &[u8]| vocab.find(text).filter(|&id| forbidden.is_none_or(|forbidden| !forbidden(id)));
    let mut escaped = Vec::with_capacity(text.len() + text.len() / 2);
    if prefix {
        escape_spaces_to(b" ", &mut escaped);
    }
    escape_spaces_to(text, &mut escaped);
    let mut merger = Merger::default();
    let mut rest: &[u8] = &escaped;
    while let Some(&lead) = rest.first() {
        let len = symbol_len(lead).min(rest.len());
        merger.push(len);
        rest = &rest[len..];
    }
    merger.run(|left, right| {
        let id = find(&escaped[left.start..right.end])?;
        Some(priority(vocab.score(id)))
    });
    for range in merger.ranges() {
        let symbol = &escaped[range];
        match find(symbol) {
            Some(id) => out.push(id),
            None => {
                for &byte in symbol {
                    let id = vocab.find(&byte_token(byte)).or_else(|| vocab.find(&[byte]));
                    out.push(id.unwrap_or(unk));
                }
            }
        }
    }
}

/// Bytes of the character that `lead` begins, by its upper bits alone: text need not be valid
/// UTF-8.
fn symbol_len(lead: u8) -> usize {
    match lead >> 4 {
        0xc | 0xd => 2,
        0xe => 3,
        0xf => 4,
        _ => 1,
    }
}

/// A number that is lower for a higher score. Equal scores give equal numbers, and what is no
/// number comes last.
fn priority(score: f32) -> u32 {
    if score.is_nan() {
        return u32::MAX;
    }
    let bits = (score + 0.0).to_bits(); // -0 becomes 0
    let ascending = if bits >> 31 == 1 { !bits } else { bits | 1 << 31 };
    !ascending
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn higher_scores_come_first() {
        let falling = [f32::INFINITY, 3.5, 1e-30, 0.0, -1e-30, -2.0, -1e9, f32::NEG_INFINITY, f32::NAN];
        for pair in falling.windows(2) {
            assert!(priority(pair[0]) < priority(pair[1]), "{pair:?}");
        }
        assert_eq!(priority(0.0), priority(-0.0));
    }
}

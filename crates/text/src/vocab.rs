//! The vocabulary as it lies in the file: bytes, kind and score of each token, and the way back
//! from bytes to id.

use std::sync::OnceLock;

use modelembed_gguf::{Gguf, NumArray, SharedBytes, StrArray, Value};

use crate::error::TextError;
use crate::table::{Hash, IdTable, Keep};

/// Kinds of a token, as bits: a model's metadata gives one, its text may add [`attr::CONTROL`].
pub(crate) mod attr {
    pub(crate) const NORMAL: u8 = 1;
    pub(crate) const UNKNOWN: u8 = 2;
    pub(crate) const CONTROL: u8 = 4;
    pub(crate) const USER_DEFINED: u8 = 8;
    pub(crate) const BYTE: u8 = 16;
    /// Neither of the above: printed as nothing.
    pub(crate) const OTHER: u8 = 0;
}

pub(crate) const TOKENS: &str = "tokenizer.ggml.tokens";
const TYPES: &str = "tokenizer.ggml.token_type";
const SCORES: &str = "tokenizer.ggml.scores";

/// Ids stay below this, which leaves [`IdTable`] at least one bit of the hash.
const MOST_TOKENS: usize = 1 << 30;

/// Tokens that are entered together when the index is built: enough to hide the memory's latency.
const BATCH: u32 = 32;

enum Scores {
    None,
    F32(NumArray<f32>),
    I32(NumArray<i32>),
}

/// Tokens of a model file. Nothing is copied out of it; each read is checked anew, since a mapped
/// file may change.
pub(crate) struct Vocab {
    header: SharedBytes,
    tokens: Option<StrArray>,
    types: Option<NumArray<i32>>,
    scores: Scores,
    index: OnceLock<Index>,
}

/// The way from bytes to ids, built by the first text that is encoded.
struct Index {
    hash: Hash,
    ids: IdTable,
    longest_bytes: usize,
}

impl Vocab {
    /// No tokens at all.
    pub(crate) fn none(header: SharedBytes) -> Vocab {
        Vocab { header, tokens: None, types: None, scores: Scores::None, index: OnceLock::new() }
    }

    pub(crate) fn from_gguf(gguf: &Gguf, header: SharedBytes) -> Result<Vocab, TextError> {
        let tokens = gguf.strings(TOKENS)?.ok_or(TextError::MissingKey { key: TOKENS })?;
        let n = tokens.len();
        if n == 0 || n > MOST_TOKENS {
            return Err(TextError::VocabularySize { seen: n, most: MOST_TOKENS });
        }
        let long_enough = |key: &'static str, seen: usize| {
            if seen < n { Err(TextError::ArrayLength { key, seen, wanted: n }) } else { Ok(()) }
        };
        let types = gguf.i32s(TYPES)?;
        if let Some(types) = &types {
            long_enough(TYPES, types.len())?;
        }
        let scores = match gguf.get(SCORES) {
            None => Scores::None,
            Some(Value::Array(array)) if array.numbers::<i32>().is_some() => {
                gguf.i32s(SCORES)?.map_or(Scores::None, Scores::I32)
            }
            Some(_) => gguf.f32s(SCORES)?.map_or(Scores::None, Scores::F32),
        };
        match &scores {
            Scores::None => {}
            Scores::F32(scores) => long_enough(SCORES, scores.len())?,
            Scores::I32(scores) => long_enough(SCORES, scores.len())?,
        }
        Ok(Vocab { header, tokens: Some(tokens), types, scores, index: OnceLock::new() })
    }

    /// The header of the file.
    pub(crate) fn bytes(&self) -> &[u8] {
        (*self.header).as_ref()
    }

    pub(crate) fn len(&self) -> usize {
        self.tokens.as_ref().map_or(0, StrArray::len)
    }

    /// The token's bytes as stored; empty for an id that is none.
    pub(crate) fn token(&self, id: u32) -> &[u8] {
        self.token_in(self.bytes(), id)
    }

    fn token_in<'b>(&self, header: &'b [u8], id: u32) -> &'b [u8] {
        self.tokens.as_ref().and_then(|tokens| tokens.get(header, id as usize)).unwrap_or_default()
    }

    /// What the file says about the token's kind, in bits of [`attr`]. A file without kinds has
    /// normal tokens only.
    pub(crate) fn stored_attr(&self, id: u32) -> u8 {
        let Some(types) = &self.types else { return attr::NORMAL };
        match types.get(self.bytes(), id as usize) {
            Some(1) => attr::NORMAL,
            Some(2) => attr::UNKNOWN,
            Some(3) => attr::CONTROL,
            Some(4) => attr::USER_DEFINED,
            Some(6) => attr::BYTE,
            _ => attr::OTHER,
        }
    }

    /// The token's score; 0 where the file has none.
    pub(crate) fn score(&self, id: u32) -> f32 {
        match &self.scores {
            Scores::None => 0.0,
            Scores::F32(scores) => scores.get(self.bytes(), id as usize).unwrap_or(0.0),
            Scores::I32(scores) => scores.get(self.bytes(), id as usize).unwrap_or(0) as f32,
        }
    }

    /// The id of the token with exactly these bytes; the last of several.
    pub(crate) fn find(&self, text: &[u8]) -> Option<u32> {
        let tokens = self.tokens.as_ref()?;
        let index = self.index.get_or_init(|| self.build_index());
        if text.is_empty() || text.len() > index.longest_bytes {
            return None;
        }
        let header = self.bytes();
        index.ids.find(index.hash.of(text), |id| tokens.get(header, id as usize) == Some(text))
    }

    fn build_index(&self) -> Index {
        let (hash, header) = (Hash::new(), self.bytes());
        let mut ids = IdTable::new(self.len());
        let mut longest_bytes = 0;
        let n = self.len() as u32;
        let mut hashes = Vec::with_capacity(BATCH as usize);
        for start in (0..n).step_by(BATCH as usize) {
            let batch = start..n.min(start + BATCH);
            hashes.clear();
            hashes.extend(batch.clone().map(|id| hash.of(self.token_in(header, id))));
            ids.touch(&hashes);
            for (id, &hash) in batch.zip(&hashes) {
                let token = self.token_in(header, id);
                longest_bytes = longest_bytes.max(token.len());
                if !token.is_empty() {
                    ids.insert(hash, id, Keep::Last, |other| self.token_in(header, other) == token);
                }
            }
        }
        Index { hash, ids, longest_bytes }
    }
}

/// The byte that a token like `<0x0A>` stands for.
pub(crate) fn byte_of(token: &[u8]) -> Option<u8> {
    let hex = token.strip_prefix(b"<0x")?.strip_suffix(b">")?;
    let digit = |b: u8| (b as char).to_digit(16).map(|d| d as u8);
    match hex {
        [high, low] => Some(digit(*high)? << 4 | digit(*low)?),
        _ => None,
    }
}

/// The token that stands for a byte, like `<0x0A>`.
pub(crate) fn byte_token(byte: u8) -> [u8; 6] {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    [b'<', b'0', b'x', HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)], b'>']
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn byte_tokens_are_exactly_two_hexadecimal_digits() {
        for byte in 0..=255 {
            assert_eq!(byte_of(&byte_token(byte)), Some(byte));
        }
        for bad in ["<0x-1>", "<0x+1>", "<0x1>", "<0x123>", "<0x>", "0x12", "<0xG0>", ""] {
            assert_eq!(byte_of(bad.as_bytes()), None, "{bad}");
        }
    }
}

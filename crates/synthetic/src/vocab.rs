//! The vocabulary of one file, fitted to the size that another model has: cut at its end, or filled
//! up with unused tokens.

use std::collections::HashSet;

use modelembed_gguf::{Array, Gguf, GgufValue, Value, ValueType, encode_string};

use crate::{Error, Result};

const TOKENS: &str = "tokenizer.ggml.tokens";
const MERGES: &str = "tokenizer.ggml.merges";
/// `token_type` of a token that no text has.
const UNUSED: i32 = 5;
/// `scores` of such a token.
const UNUSED_SCORE: f32 = -1e9;

/// Every `tokenizer.*` pair of a file, for a vocabulary of `n_vocab` tokens.
///
/// Tokens are cut at the end, where byte-pair vocabularies have their last merges, and merges that
/// make a token which is gone go too.
pub(crate) fn fitted(gguf: &Gguf, header: &[u8], n_vocab: usize) -> Result<Vec<(String, GgufValue)>> {
    let tokens = gguf.strings(TOKENS)?.ok_or_else(|| Error::Vocabulary(format!("the file has no {TOKENS}")))?;
    let kept: Vec<&[u8]> = tokens.iter(header).take(n_vocab).collect();
    let fit = Fit { header, n_old: tokens.len(), n_vocab, kept: &kept };
    let of_tokenizer = gguf.metadata().filter(|(key, _)| key.starts_with("tokenizer."));
    of_tokenizer.map(|(key, value)| Ok((key.to_owned(), fit.value(key, value)?))).collect()
}

struct Fit<'a> {
    header: &'a [u8],
    n_old: usize,
    n_vocab: usize,
    kept: &'a [&'a [u8]],
}

impl Fit<'_> {
    fn value(&self, key: &str, value: &Value) -> Result<GgufValue> {
        if key.ends_with("_token_id")
            && let Some(id) = value.as_int()
            && id >= self.n_vocab as i128
            && id < self.n_old as i128
        {
            let n = self.n_vocab;
            return Err(Error::Vocabulary(format!("{key} is {id}, but the model has {n} tokens; take another file's")));
        }
        Ok(match value {
            Value::U8(v) => GgufValue::U8(*v),
            Value::I8(v) => GgufValue::I8(*v),
            Value::U16(v) => GgufValue::U16(*v),
            Value::I16(v) => GgufValue::I16(*v),
            Value::U32(v) => GgufValue::U32(*v),
            Value::I32(v) => GgufValue::I32(*v),
            Value::F32(v) => GgufValue::F32(*v),
            Value::Bool(v) => GgufValue::Bool(*v),
            Value::String(v) => GgufValue::String(v.clone().into_bytes()),
            Value::U64(v) => GgufValue::U64(*v),
            Value::I64(v) => GgufValue::I64(*v),
            Value::F64(v) => GgufValue::F64(*v),
            Value::Array(array) if key == TOKENS => self.tokens(array.item()),
            Value::Array(array) if key == MERGES => self.merges(array),
            Value::Array(array) if array.len() == self.n_old => self.of_each_token(key, array)?,
            Value::Array(array) => {
                GgufValue::EncodedArray(array.item(), array.len() as u64, self.bytes(key, array)?.to_vec())
            }
        })
    }

    fn bytes(&self, key: &str, array: &Array) -> Result<&[u8]> {
        let bytes = self.header.get(array.byte_range());
        bytes.ok_or_else(|| Error::Vocabulary(format!("{key} lies beyond the bytes of the header")))
    }

    fn tokens(&self, item: ValueType) -> GgufValue {
        let mut out = Vec::new();
        self.kept.iter().for_each(|token| encode_string(token, &mut out));
        for i in self.kept.len()..self.n_vocab {
            encode_string(format!("<|synthetic {i}|>").as_bytes(), &mut out);
        }
        GgufValue::EncodedArray(item, self.n_vocab as u64, out)
    }

    fn merges(&self, array: &Array) -> GgufValue {
        let known: HashSet<&[u8]> = self.kept.iter().copied().collect();
        let (mut out, mut n) = (Vec::new(), 0);
        let mut token = Vec::new();
        for merge in array.strings().iter().flat_map(|strings| strings.iter(self.header)) {
            // The blank between the two parts is the only one: tokens write theirs as another
            // character.
            token.clear();
            token.extend(merge.iter().filter(|byte| **byte != b' '));
            if known.contains(&token[..]) {
                encode_string(merge, &mut out);
                n += 1;
            }
        }
        GgufValue::EncodedArray(array.item(), n, out)
    }

    /// Scores and types: one number a token.
    fn of_each_token(&self, key: &str, array: &Array) -> Result<GgufValue> {
        let n = self.kept.len();
        let (filler, size) = match array.item() {
            ValueType::F32 => (UNUSED_SCORE.to_le_bytes().to_vec(), 4),
            ValueType::I32 | ValueType::U32 => (UNUSED.to_le_bytes().to_vec(), 4),
            item => match item.size_bytes() {
                Some(size) => (vec![0; size], size),
                None => return Err(Error::Vocabulary(format!("{key} is an array of {}, one a token", item.name()))),
            },
        };
        let bytes = self.bytes(key, array)?;
        let mut out = bytes[..n * size].to_vec();
        (n..self.n_vocab).for_each(|_| out.extend_from_slice(&filler));
        Ok(GgufValue::EncodedArray(array.item(), self.n_vocab as u64, out))
    }
}

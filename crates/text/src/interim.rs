//! Stands in for the tokenizer until that lands: ids to pieces only.
#![allow(missing_docs)]
use crate::{TextError, TokenId};
use modelembed_gguf::{Gguf, SharedBytes, StrArray};
pub struct Tokenizer {
    pieces: StrArray,
    header: SharedBytes,
}
#[derive(Clone, Copy, Debug)]
pub struct EncodeOptions {
    pub add_special: bool,
    pub parse_special: bool,
}
impl Tokenizer {
    pub fn from_gguf(gguf: &Gguf, header: SharedBytes) -> Result<Self, TextError> {
        let pieces = gguf.strings("tokenizer.ggml.tokens").ok().flatten().expect("interim");
        Ok(Tokenizer { pieces, header })
    }
    pub fn n_vocab(&self) -> usize {
        self.pieces.len()
    }
    pub fn warnings(&self) -> &[String] {
        &[]
    }
    pub fn bos(&self) -> Option<TokenId> {
        None
    }
    pub fn eos(&self) -> Option<TokenId> {
        None
    }
    pub fn unk(&self) -> Option<TokenId> {
        None
    }
    pub fn token_bytes(&self, id: TokenId) -> &[u8] {
        self.pieces.get((*self.header).as_ref(), id.index()).unwrap_or_default()
    }
    pub fn piece(&self, id: TokenId, _: bool, out: &mut Vec<u8>) {
        out.extend(self.token_bytes(id));
    }
    pub fn adds_bos(&self) -> bool {
        false
    }
    pub fn is_eog(&self, _: TokenId) -> bool {
        false
    }
    pub fn encode(&self, _: &[u8], _: EncodeOptions) -> Result<Vec<TokenId>, TextError> {
        Ok(vec![])
    }
    pub fn detokenizer(&self) -> Detokenizer<'_> {
        Detokenizer { tokenizer: self, text: String::new() }
    }
}
pub struct Detokenizer<'a> {
    tokenizer: &'a Tokenizer,
    text: String,
}
impl Detokenizer<'_> {
    pub fn push(&mut self, id: TokenId, _: bool) -> &str {
        let bytes = self.tokenizer.pieces.get((*self.tokenizer.header).as_ref(), id.0 as usize).unwrap_or_default();
        self.text = String::from_utf8_lossy(bytes).into_owned();
        &self.text
    }
    pub fn finish(&mut self) -> &str {
        ""
    }
}

//! From tokens back to text, as they come.

use crate::token::TokenId;
use crate::tokenizer::Tokenizer;

/// Turns a stream of tokens into text: what it returns is always complete UTF-8.
///
/// A character may be spread over several tokens; its bytes are held back until it is complete.
/// Bytes that can be part of no character become U+FFFD.
pub struct Detokenizer<'t> {
    tokenizer: &'t Tokenizer,
    state: DetokenizerState,
}

/// What a [`Detokenizer`] keeps from token to token, for callers that cannot borrow the tokenizer
/// for as long as the text goes on: it is passed to each call, and must be the same one.
#[derive(Clone, Debug)]
pub struct DetokenizerState {
    bytes: Vec<u8>, // not yet returned
    text: String,   // what the last call returned
    strip_space: bool,
}

impl Tokenizer {
    /// A converter of a stream of tokens to text.
    pub fn detokenizer(&self) -> Detokenizer<'_> {
        Detokenizer { tokenizer: self, state: self.detokenizer_state() }
    }

    /// The state of such a converter at the beginning of a text.
    pub fn detokenizer_state(&self) -> DetokenizerState {
        DetokenizerState { bytes: Vec::new(), text: String::new(), strip_space: self.adds_space_prefix() }
    }
}

impl<'t> Detokenizer<'t> {
    /// For tokens that continue a text, as those that a model generates: a leading space is part of
    /// the text then. Without this the tokens are taken to be a text from its beginning, and the
    /// space that the tokenizer put there goes.
    #[must_use]
    pub fn continuing(mut self) -> Detokenizer<'t> {
        self.state.strip_space = false;
        self
    }

    /// Takes a token; returns the text that is complete with it, which may be empty. Control tokens
    /// have text only with `render_special`.
    pub fn push(&mut self, id: TokenId, render_special: bool) -> &str {
        self.state.push(self.tokenizer, id, render_special)
    }

    /// Ends the stream; returns what was held back. Another text may follow.
    pub fn finish(&mut self) -> &str {
        self.state.finish(self.tokenizer)
    }
}

impl DetokenizerState {
    /// As [`Detokenizer::push`].
    pub fn push(&mut self, tokenizer: &Tokenizer, id: TokenId, render_special: bool) -> &str {
        let start = self.bytes.len();
        tokenizer.piece(id, render_special, &mut self.bytes);
        if self.strip_space && self.bytes.len() > start {
            self.strip_space = false;
            if self.bytes[start] == b' ' && !tokenizer.is_control(id) {
                self.bytes.remove(start);
            }
        }
        self.release(false)
    }

    /// As [`Detokenizer::finish`].
    pub fn finish(&mut self, tokenizer: &Tokenizer) -> &str {
        self.strip_space = tokenizer.adds_space_prefix();
        self.release(true)
    }

    fn release(&mut self, all: bool) -> &str {
        self.text.clear();
        let mut rest: &[u8] = &self.bytes;
        while !rest.is_empty() {
            match std::str::from_utf8(rest) {
                Ok(valid) => {
                    self.text.push_str(valid);
                    rest = &[];
                }
                Err(error) => {
                    let (valid, after) = rest.split_at(error.valid_up_to());
                    self.text.push_str(&String::from_utf8_lossy(valid));
                    rest = match error.error_len() {
                        None if !all => {
                            let held = after.len();
                            self.bytes.drain(..self.bytes.len() - held);
                            return &self.text;
                        }
                        // The start of a character that nothing follows.
                        None => &[],
                        Some(bad) => &after[bad..],
                    };
                    self.text.push(char::REPLACEMENT_CHARACTER);
                }
            }
        }
        self.bytes.clear();
        &self.text
    }
}

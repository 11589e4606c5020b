//! What a generation begins with.

use modelembed_text::TokenId;

/// What a generation begins with: a text or tokens.
///
/// A text goes on with what the session holds, the token that is
/// [pending](crate::Session::pending) first; in an empty session the tokenizer puts its tokens at
/// both ends where the model asks for them. The names of control tokens (`<|im_start|>`) are those
/// tokens: a text from outside belongs into a [`Chat`](crate::Chat), where they are plain text.
/// Tokens are evaluated as they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Prompt<'a> {
    /// A text.
    Text(&'a str),
    /// Tokens.
    Tokens(&'a [TokenId]),
}

impl<'a> From<&'a str> for Prompt<'a> {
    fn from(text: &'a str) -> Prompt<'a> {
        Prompt::Text(text)
    }
}

impl<'a> From<&'a String> for Prompt<'a> {
    fn from(text: &'a String) -> Prompt<'a> {
        Prompt::Text(text)
    }
}

impl<'a> From<&'a [TokenId]> for Prompt<'a> {
    fn from(tokens: &'a [TokenId]) -> Prompt<'a> {
        Prompt::Tokens(tokens)
    }
}

impl<'a, const N: usize> From<&'a [TokenId; N]> for Prompt<'a> {
    fn from(tokens: &'a [TokenId; N]) -> Prompt<'a> {
        Prompt::Tokens(tokens)
    }
}

impl<'a> From<&'a Vec<TokenId>> for Prompt<'a> {
    fn from(tokens: &'a Vec<TokenId>) -> Prompt<'a> {
        Prompt::Tokens(tokens)
    }
}

//! A piece of text, inline.

use std::fmt;
use std::ops::Deref;

use arrayvec::ArrayString;

/// Bytes that a piece holds at most: with its length and an error's niche a cache line, and longer
/// than all but a few tokens.
const MOST_BYTES: usize = 56;

/// A piece of generated text, complete UTF-8 and never empty. It is stored inline, so that a token
/// costs no allocation; a longer text comes as several pieces.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Piece(ArrayString<MOST_BYTES>);

impl Piece {
    /// As many whole characters of the front of `text` as a piece holds.
    pub(crate) fn front(text: &str) -> Piece {
        let mut len = text.len().min(MOST_BYTES);
        while !text.is_char_boundary(len) {
            len -= 1;
        }
        let mut piece = ArrayString::new();
        piece.push_str(&text[..len]);
        Piece(piece)
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Deref for Piece {
    type Target = str;

    fn deref(&self) -> &str {
        &self.0
    }
}

impl AsRef<str> for Piece {
    fn as_ref(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for Piece {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

impl PartialEq<str> for Piece {
    fn eq(&self, other: &str) -> bool {
        self.as_str() == other
    }
}

impl PartialEq<&str> for Piece {
    fn eq(&self, other: &&str) -> bool {
        self.as_str() == *other
    }
}

impl From<Piece> for String {
    fn from(piece: Piece) -> String {
        piece.as_str().to_owned()
    }
}

impl FromIterator<Piece> for String {
    fn from_iter<I: IntoIterator<Item = Piece>>(pieces: I) -> String {
        let mut text = String::new();
        text.extend(pieces);
        text
    }
}

impl Extend<Piece> for String {
    fn extend<I: IntoIterator<Item = Piece>>(&mut self, pieces: I) {
        pieces.into_iter().for_each(|piece| self.push_str(&piece));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_long_text_is_cut_between_characters() {
        for text in ["", "a", "é", &"x".repeat(56), &"x".repeat(57), &"é".repeat(100), &format!("a{}", "€".repeat(40))]
        {
            let (mut rest, mut pieces) = (text, Vec::new());
            while !rest.is_empty() {
                let piece = Piece::front(rest);
                assert!(!piece.is_empty() && piece.len() + 4 > MOST_BYTES.min(rest.len()), "{text}");
                rest = &rest[piece.len()..];
                pieces.push(piece);
            }
            assert_eq!(pieces.into_iter().collect::<String>(), text);
        }
    }
}

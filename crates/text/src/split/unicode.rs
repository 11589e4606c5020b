//! Text as the patterns of pre-tokenizers see it: one byte a character.
//!
//! Patterns ask for general categories (letter, number, ...), for whitespace, and for single ASCII
//! characters. So an ASCII character stands for itself and every other one is replaced by a code
//! for its class. That makes patterns small, and it is how llama.cpp defines them. Categories are
//! those of Unicode 15.1, as in llama.cpp: a character that a later version assigned is none, or
//! ids would differ.

use std::borrow::Cow;

use unicode_properties::{GeneralCategoryGroup as Group, UnicodeGeneralCategory};

/// Class of a non-ASCII character without one of the others: controls, unassigned.
pub(crate) const OTHER: u8 = 0x80;
/// Class of non-ASCII numbers (N).
pub(crate) const NUMBER: u8 = 0x81;
/// Class of non-ASCII letters (L).
pub(crate) const LETTER: u8 = 0x82;
/// Class of non-ASCII punctuation (P).
pub(crate) const PUNCTUATION: u8 = 0x83;
/// Class of combining marks (M); none is ASCII.
pub(crate) const MARK: u8 = 0x84;
/// Class of non-ASCII symbols (S).
pub(crate) const SYMBOL: u8 = 0x85;
/// Class of non-ASCII whitespace: as a vertical tab, so that patterns need to know ASCII whitespace
/// only.
pub(crate) const SPACE: u8 = 0x0b;

/// The class of one character.
pub(crate) fn class(char: u32) -> u8 {
    if char < 0x80 {
        return char as u8;
    }
    let Some(char) = char::from_u32(char) else { return OTHER };
    if char.is_whitespace() {
        return SPACE;
    }
    match char.general_category_group() {
        Group::Letter => LETTER,
        Group::Number => NUMBER,
        Group::Punctuation => PUNCTUATION,
        Group::Mark => MARK,
        Group::Symbol => SYMBOL,
        Group::Separator | Group::Other => OTHER,
    }
}

pub(crate) fn is_space(class: u8) -> bool {
    matches!(class, 0x09..=0x0d | b' ')
}

pub(crate) fn is_letter(class: u8) -> bool {
    class == LETTER || class.is_ascii_alphabetic()
}

pub(crate) fn is_number(class: u8) -> bool {
    class == NUMBER || class.is_ascii_digit()
}

/// Decodes the character at the start of `bytes` as llama.cpp does: overlong forms and surrogates
/// count as characters. `None` where there is none.
fn decode(bytes: &[u8]) -> Option<(u32, usize)> {
    let lead = *bytes.first()?;
    let (len, bits) = match lead {
        0x00..=0x7f => return Some((lead.into(), 1)),
        0xc0..=0xdf => (2, lead & 0x1f),
        0xe0..=0xef => (3, lead & 0x0f),
        0xf0..=0xf7 => (4, lead & 0x07),
        _ => return None,
    };
    let mut char = u32::from(bits);
    for &byte in bytes.get(1..len)? {
        if byte & 0xc0 != 0x80 {
            return None;
        }
        char = char << 6 | u32::from(byte & 0x3f);
    }
    (char <= 0x10ffff).then_some((char, len))
}

/// Appends a character that [`decode`] can have returned.
fn encode(char: u32, out: &mut Vec<u8>) {
    match char::from_u32(char) {
        Some(char) => out.extend(char.encode_utf8(&mut [0; 4]).as_bytes()),
        // A surrogate: three bytes, as if it were a character.
        None => {
            out.extend([0xe0 | (char >> 12) as u8, 0x80 | (char >> 6 & 0x3f) as u8, 0x80 | (char & 0x3f) as u8]);
        }
    }
}

/// The text with each byte that belongs to no character replaced by U+FFFD, and overlong forms
/// written short.
pub(crate) fn repair(text: &[u8]) -> Cow<'_, [u8]> {
    if std::str::from_utf8(text).is_ok() {
        return text.into();
    }
    let (mut out, mut rest) = (Vec::with_capacity(text.len() + 16), text);
    while !rest.is_empty() {
        let (char, len) = decode(rest).unwrap_or((0xfffd, 1));
        encode(char, &mut out);
        rest = &rest[len..];
    }
    out.into()
}

/// A repaired text, one entry a character.
#[derive(Default)]
pub(crate) struct Text {
    /// Class of each character.
    pub(crate) classes: Vec<u8>,
    /// The characters, where a pattern needs them: non-ASCII whitespace is [`SPACE`] here too.
    pub(crate) chars: Vec<u32>,
}

impl Text {
    /// Reads a text that [`repair`] returned.
    pub(crate) fn read(&mut self, bytes: &[u8], with_chars: bool) {
        self.classes.clear();
        self.chars.clear();
        let mut rest = bytes;
        while let Some((char, len)) = decode(rest) {
            let class = class(char);
            self.classes.push(class);
            if with_chars {
                self.chars.push(if class == SPACE { SPACE.into() } else { char });
            }
            rest = &rest[len..];
        }
    }
}

/// Bytes of the character that begins with `lead` in a repaired text.
pub(crate) fn char_len(lead: u8) -> usize {
    match lead {
        0xf0.. => 4,
        0xe0.. => 3,
        0xc0.. => 2,
        _ => 1,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unicode_version_is_the_one_of_llama_cpp() {
        assert_eq!(unicode_properties::UNICODE_VERSION, (15, 1, 0));
    }

    #[test]
    fn classes() {
        let cases = [
            ('a', b'a'),
            ('\u{1f}', 0x1f),
            ('é', LETTER),
            ('語', LETTER),
            ('٣', NUMBER),
            ('Ⅷ', NUMBER),
            ('\u{301}', MARK),
            ('¿', PUNCTUATION),
            ('€', SYMBOL),
            ('😀', SYMBOL),
            ('\u{a0}', SPACE),
            ('\u{85}', SPACE),
            ('\u{3000}', SPACE),
            ('\u{200d}', OTHER),
            ('\u{feff}', OTHER),
            ('\u{e000}', OTHER),
        ];
        for (char, wanted) in cases {
            assert_eq!(class(char.into()), wanted, "{char:?}");
        }
    }

    #[test]
    fn repairs_as_llama_cpp_does() {
        let cases: &[(&[u8], &[u8])] = &[
            (b"plain", b"plain"),
            (b"a\xffb", b"a\xef\xbf\xbdb"),
            (b"\x80\x80", b"\xef\xbf\xbd\xef\xbf\xbd"),
            (b"\xe2\x82", b"\xef\xbf\xbd\xef\xbf\xbd"),
            (b"\xe2\x82\xac\xc3", b"\xe2\x82\xac\xef\xbf\xbd"),
            (b"\xc0\x80\xff", b"\0\xef\xbf\xbd"),
            (b"\xc1\xa1", b"a"),
            (b"\xed\xa0\x80", b"\xed\xa0\x80"),
            (b"\xf5\x80\x80\x80", b"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd"),
        ];
        for (text, wanted) in cases {
            assert_eq!(&*repair(text), *wanted, "{text:x?}");
        }
    }
}

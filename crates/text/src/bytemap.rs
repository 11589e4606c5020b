//! GPT-2's printable alphabet of bytes: every byte has a character, so that tokens can be written
//! in a text file.
//!
//! Bytes that are visible in Latin-1 stand for themselves, the other 68 get the characters from
//! U+0100 on, in order (`encoder.py` of openai/gpt-2): a space is Ġ, a line feed is Ċ.

const fn stands_for_itself(byte: u8) -> bool {
    matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff)
}

/// Character of each byte; all are below U+0144, so two bytes of UTF-8 are enough.
const CHARS: [u16; 256] = {
    let mut chars = [0; 256];
    let (mut byte, mut next) = (0, 0x100);
    while byte < 256 {
        if stands_for_itself(byte as u8) {
            chars[byte] = byte as u16;
        } else {
            chars[byte] = next;
            next += 1;
        }
        byte += 1;
    }
    chars
};

const LAST: usize = 0x143;

/// Byte of each character; 256 where it stands for none.
const BYTES: [u16; LAST + 1] = {
    let mut bytes = [256; LAST + 1];
    let mut byte = 0;
    while byte < 256 {
        bytes[CHARS[byte] as usize] = byte as u16;
        byte += 1;
    }
    bytes
};

/// Appends the characters of `bytes` in UTF-8.
pub(crate) fn encode(bytes: &[u8], out: &mut Vec<u8>) {
    for &byte in bytes {
        let char = CHARS[usize::from(byte)];
        if char < 0x80 {
            out.push(char as u8);
        } else {
            out.extend([0xc0 | (char >> 6) as u8, 0x80 | (char & 0x3f) as u8]);
        }
    }
}

/// Appends the bytes that the characters of `token` stand for; characters outside of the alphabet
/// stay as they are.
pub(crate) fn decode(token: &[u8], out: &mut Vec<u8>) {
    for chunk in token.utf8_chunks() {
        for char in chunk.valid().chars() {
            match BYTES.get(char as usize) {
                Some(&byte) if byte < 256 => out.push(byte as u8),
                _ => out.extend(char.encode_utf8(&mut [0; 4]).as_bytes()),
            }
        }
        out.extend(chunk.invalid());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_characters() {
        let mut out = Vec::new();
        encode(b" \n\0a\x7f\xad\xff", &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), "ĠĊĀaġŃÿ");
    }

    #[test]
    fn every_byte_comes_back() {
        let all: Vec<u8> = (0..=255).collect();
        let (mut chars, mut back) = (Vec::new(), Vec::new());
        encode(&all, &mut chars);
        decode(&chars, &mut back);
        assert_eq!(back, all);
    }

    #[test]
    fn foreign_characters_stay() {
        let mut out = Vec::new();
        decode("▁a\u{144}".as_bytes(), &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), "▁a\u{144}");
    }
}

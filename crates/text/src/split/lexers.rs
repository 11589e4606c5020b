//! Hand-written splitters for the patterns that nearly all models use: several times as fast as a
//! general engine.
//!
//! Each takes the classes of one piece and reports where words end. Tests hold them against the
//! patterns.

use super::unicode::{MARK, is_letter, is_number, is_space};

/// Length of an English contraction at the start of `text` (`'s 't 'm 'd 're 've 'll`), or 0.
fn contraction(text: &[u8], any_case: bool) -> usize {
    let lower = |i: usize| text.get(i).map_or(0, |&c| if any_case { c.to_ascii_lowercase() } else { c });
    match (lower(0), lower(1), lower(2)) {
        (b'\'', b's' | b't' | b'm' | b'd', _) => 2,
        (b'\'', b'r' | b'v', b'e') | (b'\'', b'l', b'l') => 3,
        _ => 0,
    }
}

/// Length of the longest prefix whose characters all satisfy `accept`.
fn run(text: &[u8], accept: impl Fn(u8) -> bool) -> usize {
    text.iter().position(|&c| !accept(c)).unwrap_or(text.len())
}

/// Length of the word that a run of `len` whitespace characters gives: all but the last if a word
/// follows, which takes that one as its prefix.
fn whitespace(text: &[u8], len: usize) -> usize {
    if len > 1 && len < text.len() { len - 1 } else { len }
}

/// GPT-2: `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
pub(crate) fn gpt2(text: &[u8], mut word: impl FnMut(usize)) {
    let mut at = 0;
    while at < text.len() {
        at += gpt2_word(&text[at..]);
        word(at);
    }
}

fn gpt2_word(text: &[u8]) -> usize {
    let len = contraction(text, false);
    if len > 0 {
        return len;
    }
    let prefix = usize::from(text[0] == b' ');
    let rest = &text[prefix..];
    match rest.first() {
        Some(&c) if is_letter(c) => prefix + run(rest, is_letter),
        Some(&c) if is_number(c) => prefix + run(rest, is_number),
        Some(&c) if !is_space(c) => prefix + run(rest, |c| !is_space(c) && !is_letter(c) && !is_number(c)),
        _ => whitespace(text, run(text, is_space)),
    }
}

/// How members of the family of Llama 3's pattern differ.
#[derive(Clone, Copy)]
pub(crate) struct Llama3 {
    /// Most digits in a word.
    pub(crate) digits: usize,
    /// Whether combining marks are parts of words, as letters are.
    pub(crate) marks: bool,
}

/// Llama 3:
/// `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
pub(crate) fn llama3(text: &[u8], family: Llama3, mut word: impl FnMut(usize)) {
    let mut at = 0;
    while at < text.len() {
        at += llama3_word(&text[at..], family);
        word(at);
    }
}

fn llama3_word(text: &[u8], family: Llama3) -> usize {
    let in_word = |c: u8| is_letter(c) || (family.marks && c == MARK);
    let newline = |c: u8| c == b'\r' || c == b'\n';
    let len = contraction(text, true);
    if len > 0 {
        return len;
    }
    let (first, second) = (text[0], text.get(1).copied());
    if in_word(first) {
        return run(text, in_word);
    }
    if is_number(first) {
        return run(&text[..text.len().min(family.digits)], is_number);
    }
    if !newline(first) && second.is_some_and(in_word) {
        return 1 + run(&text[1..], in_word);
    }
    let prefix = usize::from(first == b' ');
    let rest = &text[prefix..];
    let other = run(rest, |c| !is_space(c) && !is_number(c) && !in_word(c));
    if other > 0 {
        return prefix + other + run(&rest[other..], newline);
    }
    let spaces = run(text, is_space);
    match text[..spaces].iter().rposition(|&c| newline(c)) {
        Some(last) => last + 1,
        None => whitespace(text, spaces),
    }
}

/// Runs of line feeds and runs of everything else.
pub(crate) fn lines(text: &[u8], mut word: impl FnMut(usize)) {
    let mut at = 0;
    while at < text.len() {
        let feed = text[at] == b'\n';
        at += run(&text[at..], |c| (c == b'\n') == feed);
        word(at);
    }
}

/// Threes of digits, counted from the right: 1234567 is 1, 234, 567. What stands before a number
/// stays with its first group.
pub(crate) fn digit_groups(text: &[u8], mut word: impl FnMut(usize)) {
    let mut at = 0;
    while at < text.len() {
        let digits = run(&text[at..], is_number);
        if digits == 0 {
            at += 1;
            continue;
        }
        let first = digits % 3;
        (first..=digits).step_by(3).filter(|&n| n > 0).for_each(|n| word(at + n));
        at += digits;
    }
}

/// Cuts ASCII digits before each group of three, counted from the right.
pub(crate) fn thousands(text: &[u8], mut word: impl FnMut(usize)) {
    let mut at = 0;
    while at < text.len() {
        let digits = run(&text[at..], |c| c.is_ascii_digit());
        (digits % 3..digits).step_by(3).for_each(|n| word(at + n));
        at += digits.max(1);
    }
}

/// Kimi K2: Llama 3's pattern, with runs of Han characters as words of their own and contractions
/// kept with their word.
///
/// `chars` are the characters behind the classes.
pub(crate) fn kimi(text: &[u8], chars: &[u32], mut word: impl FnMut(usize)) {
    let mut at = 0;
    while at < text.len() {
        at += kimi_word(&text[at..], &chars[at..]);
        word(at);
    }
}

fn kimi_word(text: &[u8], chars: &[u32]) -> usize {
    let han = chars.iter().position(|&c| !is_han(c)).unwrap_or(chars.len());
    if han > 0 {
        return han;
    }
    let newline = |c: u8| c == b'\r' || c == b'\n';
    let letters_from = |start: usize| {
        let pairs = text[start..].iter().zip(&chars[start..]);
        pairs.take_while(|&(&class, &char)| is_letter(class) && !is_han(char)).count()
    };
    let first = text[0];
    let prefix = usize::from(!newline(first) && !is_letter(first) && !is_number(first));
    let letters = letters_from(prefix.min(text.len()));
    if letters > 0 {
        let end = prefix + letters;
        return end + contraction(&text[end..], true);
    }
    if is_number(first) {
        return run(&text[..text.len().min(3)], is_number);
    }
    let prefix = usize::from(first == b' ');
    let rest = &text[prefix..];
    let other = run(rest, |c| !is_space(c) && !is_letter(c) && !is_number(c));
    if other > 0 {
        return prefix + other + run(&rest[other..], newline);
    }
    let spaces = run(text, is_space);
    match text[..spaces].iter().rposition(|&c| newline(c)) {
        Some(last) => last + 1,
        None if spaces > 0 => whitespace(text, spaces),
        None => 1,
    }
}

fn is_han(char: u32) -> bool {
    matches!(char, 0x3400..=0x4dbf | 0x4e00..=0x9fff | 0xf900..=0xfaff | 0x20000..=0x2a6df | 0x2a700..=0x2ebef
        | 0x2f800..=0x2fa1f)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str, lexer: impl Fn(&[u8], &mut dyn FnMut(usize))) -> Vec<String> {
        let (mut words, mut start) = (Vec::new(), 0);
        lexer(text.as_bytes(), &mut |end| {
            words.push(text[start..end].to_string());
            start = end;
        });
        words.push(text[start..].to_string());
        words
    }

    #[test]
    fn numbers_are_grouped_from_the_right() {
        for (text, wanted) in [
            ("1234567", vec!["1", "234", "567", ""]),
            ("ab123cd12", vec!["ab123", "cd12", ""]),
            ("x1234y", vec!["x1", "234", "y"]),
            ("", vec![""]),
        ] {
            assert_eq!(words(text, |t, w| digit_groups(t, w)), wanted, "{text}");
        }
        for (text, wanted) in [("1234567", vec!["1", "234", "567"]), ("123456", vec!["", "123", "456"])] {
            assert_eq!(words(text, |t, w| thousands(t, w)), wanted, "{text}");
        }
    }
}

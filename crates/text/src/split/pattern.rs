//! Patterns over character classes, matched in linear time.
//!
//! A pattern here is a regular expression over [`super::unicode`]'s alphabet, in which `\pL`,
//! `\pN`, `\pP`, `\pM`, `\pS` may stand inside of brackets. The published patterns end in
//! `\s+(?!\S)|\s+`, which needs look-ahead; that part is left out of the expression and done by
//! [`Tail`], so that no engine with backtracking (and its limits) is needed.

use regex_automata::util::syntax;
use regex_automata::{Input, MatchKind, meta};

use super::unicode::is_space;

/// What whitespace that nothing else matches becomes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Tail {
    /// No rule: it is in the pattern, or stays with what is around it.
    None,
    /// `\s+(?!\S)|\s+`: the run, but for its last character if a word follows.
    KeepLast,
    /// The same in words of 512, 256, ..., 4, 2 and 1 characters.
    Cascade,
}

/// A compiled pattern.
pub(crate) struct Pattern {
    regex: meta::Regex,
    tail: Tail,
}

const SPACES: usize = 1;

impl Pattern {
    /// Compiles one; `None` if it is none (the tests compile all that there are).
    pub(crate) fn new(source: &str, tail: Tail) -> Option<Pattern> {
        let source = source
            .replace(r"\pL", r"A-Za-z\x82")
            .replace(r"\pN", r"0-9\x81")
            .replace(r"\pP", r"!-#%-*,\-./:;?@\[-\]_{}\x83")
            .replace(r"\pM", r"\x84")
            .replace(r"\pS", r"$+<=>\^`|~\x85");
        let patterns: &[&str] = if tail == Tail::None { &[&source] } else { &[&source, r"\s+"] };
        let regex = meta::Builder::new()
            .syntax(syntax::Config::new().unicode(false).utf8(false))
            .configure(meta::Config::new().utf8_empty(false).match_kind(MatchKind::LeftmostFirst))
            .build_many(patterns)
            .ok()?;
        Some(Pattern { regex, tail })
    }

    /// Calls `cut` with every position in `text` where a match or a gap between matches ends, in
    /// order; the end of the text may be among them.
    pub(crate) fn split(&self, text: &[u8], mut cut: impl FnMut(usize)) {
        let mut at = 0;
        while let Some(found) = self.regex.find(Input::new(text).range(at..)) {
            if found.start() > at {
                cut(found.start());
            }
            at = found.end();
            if found.pattern().as_usize() == SPACES {
                at = self.spaces(text, found.start(), found.end(), &mut cut);
            }
            cut(at);
            if found.is_empty() {
                break;
            }
        }
    }

    /// Cuts a run of whitespace `start..end`; returns where the last word of it ends.
    fn spaces(&self, text: &[u8], start: usize, end: usize, cut: &mut impl FnMut(usize)) -> usize {
        debug_assert!(text[start..end].iter().all(|&c| is_space(c)));
        let kept = usize::from(end < text.len()); // the last one belongs to the word that follows
        let mut len = end - start - kept;
        if self.tail == Tail::KeepLast || len == 0 {
            return if len == 0 { end } else { end - kept };
        }
        let mut at = start;
        loop {
            let word = [512, 256, 128, 64, 32, 16, 8, 4, 2].into_iter().find(|&n| n <= len).unwrap_or(1);
            (at, len) = (at + word, len - word);
            if len == 0 {
                return at;
            }
            cut(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(text: &str, pattern: &str, tail: Tail) -> Vec<String> {
        let (mut words, mut start) = (Vec::new(), 0);
        Pattern::new(pattern, tail).unwrap().split(text.as_bytes(), |end| {
            words.push(text[start..end].to_string());
            start = end;
        });
        words.push(text[start..].to_string());
        words.retain(|word| !word.is_empty());
        words
    }

    #[test]
    fn whitespace_before_a_word_keeps_its_last_character() {
        let cases: &[(&str, Tail, &[&str])] = &[
            ("a  b", Tail::KeepLast, &["a", " ", " b"]),
            ("a b", Tail::KeepLast, &["a", " b"]),
            ("a\tb", Tail::KeepLast, &["a", "\t", "b"]),
            ("a \t", Tail::KeepLast, &["a", " \t"]),
            ("a \t", Tail::None, &["a", " \t"]),
            ("a       b", Tail::Cascade, &["a", "    ", "  ", " b"]),
            ("a       ", Tail::Cascade, &["a", "    ", "  ", " "]),
            ("a\tb", Tail::Cascade, &["a", "\t", "b"]),
        ];
        for (text, tail, wanted) in cases {
            assert_eq!(&words(text, r" ?[\pL]+", *tail), wanted, "{text:?} {tail:?}");
        }
    }

    #[test]
    fn what_matches_nothing_stays_together() {
        assert_eq!(words("ab12..cd", r"[\pL]+", Tail::None), ["ab", "12..", "cd"]);
    }
}

//! Text out of a file, or a file's name, made fit for a message: a hostile one must not steer the
//! terminal that shows it.

use std::borrow::Cow;
use std::path::Path;

/// Longest text that a message quotes.
const MAX_CHARS: usize = 100;

/// `text` with control and invisible formatting characters escaped, cut after [`MAX_CHARS`]
/// characters.
pub(crate) fn printable(text: &str) -> String {
    match text.char_indices().nth(MAX_CHARS) {
        Some((cut, _)) => escaped(&text[..cut]).into_owned() + "...",
        None => escaped(text).into_owned(),
    }
}

/// `text` on one line: control characters (line ends among them) and invisible formatting
/// characters become escapes such as `\u{1b}`. For names in messages, which neither steer a
/// terminal nor pass for another message then.
pub fn escaped(text: &str) -> Cow<'_, str> {
    let is_escaped = |c: char| c.is_control() || is_invisible(c);
    if !text.contains(is_escaped) {
        return text.into();
    }
    let mut out = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_escaped(c) { out.extend(c.escape_unicode()) } else { out.push(c) }
    }
    out.into()
}

/// A file's name for a message: [`escaped`], and with U+FFFD for what is no Unicode.
pub fn shown_path(path: &Path) -> String {
    escaped(&path.to_string_lossy()).into_owned()
}

/// Zero-width characters and those that turn the direction of text around.
fn is_invisible(c: char) -> bool {
    matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_what_steers_a_terminal_and_cuts() {
        assert_eq!(printable("blk.0.attn_q\u{e9}"), "blk.0.attn_q\u{e9}");
        assert_eq!(printable("a\u{1b}[2Jb\n\u{202e}\u{9b}"), r"a\u{1b}[2Jb\u{a}\u{202e}\u{9b}");
        assert_eq!(printable(&"x".repeat(101)), "x".repeat(100) + "...");
        assert_eq!(printable(&"\n".repeat(101)), r"\u{a}".repeat(100) + "...");
        assert!(matches!(escaped("plain name\u{e9}.gguf"), Cow::Borrowed(_)));
        assert_eq!(escaped(&"\t".repeat(200)).len(), 200 * r"\u{9}".len());
        assert_eq!(shown_path(Path::new("a/b\n\u{1b}[31mc\\d.gguf")), r"a/b\u{a}\u{1b}[31mc\d.gguf");
    }
}

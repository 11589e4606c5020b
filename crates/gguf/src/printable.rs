//! Text out of a file, made fit for a message: a hostile name must not steer the terminal that shows it.

/// Longest text that a message quotes.
const MAX_CHARS: usize = 100;

/// `text` with control and invisible formatting characters escaped, cut after [`MAX_CHARS`] characters.
pub(crate) fn printable(text: &str) -> String {
    let mut out = String::new();
    for (i, c) in text.chars().enumerate() {
        if i == MAX_CHARS {
            out.push_str("...");
            break;
        }
        if c.is_control() || is_invisible(c) { out.extend(c.escape_unicode()) } else { out.push(c) }
    }
    out
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
    }
}

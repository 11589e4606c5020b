//! Text from files, made safe to show on a terminal.

use std::borrow::Cow;

/// Leaves out control characters: a model file's strings (names, templates, metadata, generated
/// text) must not be able to move the cursor, set the window title or reverse the direction of what
/// follows.
///
/// Line feeds and tabs stay. Removed are the C0 and C1 controls, DEL, and the bidirectional
/// embeddings, overrides and isolates (U+202A to U+202E, U+2066 to U+2069). Ordinary right-to-left
/// text needs none of them.
pub fn printable(text: &str) -> Cow<'_, str> {
    if text.chars().any(is_unsafe) {
        Cow::Owned(text.chars().filter(|&c| !is_unsafe(c)).collect())
    } else {
        text.into()
    }
}

fn is_unsafe(c: char) -> bool {
    (c.is_control() && c != '\n' && c != '\t') || matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_characters_go_and_text_stays() {
        let rows = [
            ("plain\ttext\n", "plain\ttext\n"),
            ("\u{1b}[2Jgone\u{7}", "[2Jgone"),
            ("a\rb\u{8}c\u{7f}d", "abcd"),
            ("\u{9b}31m", "31m"),
            ("x\u{202e}y\u{2066}z", "xyz"),
            ("שלום 你好 🙂 e\u{301}", "שלום 你好 🙂 e\u{301}"),
        ];
        let failed: Vec<_> = rows.iter().filter(|(text, wanted)| printable(text) != *wanted).collect();
        assert!(failed.is_empty(), "{failed:?}");
    }
}

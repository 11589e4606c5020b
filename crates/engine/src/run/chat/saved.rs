//! Chats on disk: the messages beside the context.

use std::path::Path;

use modelembed_text::chat::Message;
use serde_json::{Value, json};

use super::Chat;
use crate::error::{Error, Result};
use crate::run::saved::SavedError;
use crate::run::turns::Segment;

/// What [`Chat::save`] writes as the note of its session.
struct Note {
    system: Option<String>,
    messages: Vec<Message>,
    first_seen: usize,
    segments: Vec<Segment>,
}

impl Chat {
    /// Writes the chat to a file: its context, as [`Session::save`](crate::Session::save) does, and
    /// its messages.
    ///
    /// # Errors
    /// As [`Session::save`](crate::Session::save).
    pub fn save(&self, path: &Path) -> Result<()> {
        let message = |m: &Message| json!([m.role, m.content]);
        let segment = |s: &Segment| json!([s.text, s.n_tokens, s.carried, s.answered.map(|(len, n)| [len, n])]);
        let note = json!({
            "kind": "chat",
            "system": self.system,
            "messages": self.messages.iter().map(message).collect::<Vec<_>>(),
            "first_seen": self.first_seen,
            "segments": self.segments.iter().map(segment).collect::<Vec<_>>(),
        });
        self.session.save(path, self.pending, note.to_string().as_bytes())
    }

    /// Goes on with the chat of a file that [`save`](Self::save) wrote, its system message
    /// included. This chat must not have begun.
    ///
    /// # Errors
    /// As [`Session::restore`](crate::Session::restore), or the file holds something else than a
    /// chat. This chat then has not begun.
    pub fn restore(&mut self, path: &Path) -> Result<()> {
        if !self.messages.is_empty() {
            return Err(Error::InvalidOption("a chat is restored before it begins".into()));
        }
        self.session.clear();
        let restored = self.session.restore(path)?;
        let Some(note) = Note::parse(&restored.note, self.session.len()) else {
            self.session.clear();
            let path = Some(path.to_owned());
            return Err(Error::Saved { path, source: SavedError::NotAChat });
        };
        let Note { system, messages, first_seen, segments } = note;
        (self.system, self.messages, self.first_seen, self.segments) = (system, messages, first_seen, segments);
        self.pending = restored.pending;
        Ok(())
    }
}

impl Note {
    /// Reads a note beside a context of `n_tokens`; `None` where that is no chat.
    fn parse(note: &[u8], n_tokens: usize) -> Option<Note> {
        let note: Value = serde_json::from_slice(note).ok()?;
        let text = |value: &Value| value.as_str().map(str::to_owned);
        let number = |value: &Value| value.as_u64().and_then(|n| usize::try_from(n).ok());
        let message = |value: &Value| match &value.as_array()?[..] {
            [role, content] => Some(Message::new(text(role)?, text(content)?)),
            _ => None,
        };
        let answered = |value: &Value| match value.as_array().map(Vec::as_slice) {
            Some([len, n]) => Some((number(len)?, number(n)?)),
            _ => None,
        };
        let segment = |value: &Value| {
            let [of_text, n_tokens, carried, of_answer] = &value.as_array()?[..] else { return None };
            let segment = Segment {
                text: text(of_text)?,
                n_tokens: number(n_tokens)?,
                carried: number(carried)?,
                answered: answered(of_answer),
            };
            // Places in a text are where characters begin.
            let before = segment.text.len().checked_sub(segment.carried)?;
            segment.text.is_char_boundary(before).then_some(segment)
        };
        let list = |key: &str| note.get(key)?.as_array();
        if note.get("kind")?.as_str() != Some("chat") {
            return None;
        }
        let parsed = Note {
            system: text(note.get("system")?),
            messages: list("messages")?.iter().map(message).collect::<Option<_>>()?,
            first_seen: number(note.get("first_seen")?)?,
            segments: list("segments")?.iter().map(segment).collect::<Option<_>>()?,
        };
        let n_in_segments = parsed.segments.iter().try_fold(0usize, |sum, s| sum.checked_add(s.n_tokens))?;
        let is_whole = parsed.messages.len().is_multiple_of(2)
            && parsed.first_seen.is_multiple_of(2)
            && parsed.first_seen <= parsed.messages.len()
            && n_in_segments <= n_tokens;
        is_whole.then_some(parsed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_that_fit_no_context_are_refused() {
        let good = r#"{"kind":"chat","system":null,"messages":[["user","a"],["assistant","b"]],"first_seen":0,
            "segments":[["é",2,1,null],["xy",3,0,[1,2]]]}"#;
        let parse = |note: &str| Note::parse(note.as_bytes(), 5);
        // "é" has no beginning of a character one byte before its end.
        assert!(parse(good).is_none());
        let good = good.replace(r#"["é",2,1,null]"#, r#"["é",2,2,null]"#);
        let note = parse(&good).expect("a chat");
        assert_eq!((note.messages.len(), note.segments[1].answered), (2, Some((1, 2))));
        for (from, to) in [
            ("chat", "text"),
            ("\"xy\",3", "\"xy\",4"),
            ("\"xy\",3", "\"xy\",18446744073709551615"),
            ("\"xy\",3,0", "\"xy\",3,3"),
            ("\"first_seen\":0", "\"first_seen\":4"),
            ("\"first_seen\":0", "\"first_seen\":1"),
            (r#",["assistant","b"]"#, ""),
            (r#"["user","a"]"#, r#"["user"]"#),
            ("segments", "parts"),
        ] {
            let changed = good.replace(from, to);
            assert_ne!(changed, good);
            assert!(parse(&changed).is_none(), "{changed}");
        }
        for note in ["", "[]", "{}", "null", "{\"kind\":\"text\"}"] {
            assert!(parse(note).is_none(), "{note}");
        }
    }
}

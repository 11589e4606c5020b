//! Chats on disk: the messages beside the context.

use std::path::Path;

use modelembed_text::chat::Message;
use serde::{Deserialize, Serialize};

use super::Chat;
use crate::error::{Error, Result};
use crate::run::saved::SavedError;
use crate::run::turns::Segment;

/// What tells a chat's note from those of others.
const KIND: &str = "chat";

/// What [`Chat::save`] writes as the note of its context, as JSON.
#[derive(Serialize, Deserialize)]
struct Note {
    kind: String,
    system: Option<String>,
    /// Role and content of each.
    messages: Vec<(String, String)>,
    first_seen: usize,
    segments: Vec<Segment>,
}

impl Chat {
    /// Writes the chat to a file: its context, as [`Session::save`](crate::Session::save) does, and
    /// its messages.
    ///
    /// # Errors
    /// As [`Session::save`](crate::Session::save).
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let note = Note {
            kind: KIND.to_owned(),
            system: self.system.clone(),
            messages: self.messages.iter().map(|m| (m.role.clone(), m.content.clone())).collect(),
            first_seen: self.first_seen,
            segments: self.segments.clone(),
        };
        let note = serde_json::to_vec(&note).unwrap_or_else(|e| unreachable!("texts and numbers: {e}"));
        self.session.save_with(path.as_ref(), self.pending, &note)
    }

    /// Goes on with the chat of a file that [`save`](Self::save) wrote, its system message
    /// included. This chat must not have begun.
    ///
    /// # Errors
    /// As [`Session::restore`](crate::Session::restore), or the file holds something else than a
    /// chat. This chat then has not begun.
    pub fn restore(&mut self, path: impl AsRef<Path>) -> Result<()> {
        if !self.messages.is_empty() {
            return Err(Error::ChatHasBegun { messages: self.messages.len() });
        }
        self.session.clear();
        let restored = self.session.restore(path.as_ref())?;
        let Some(note) = Note::parse(&restored.note, self.session.len()) else {
            self.session.clear();
            let path = Some(path.as_ref().to_owned());
            return Err(Error::Saved { path, source: SavedError::NotAChat });
        };
        let Note { kind: _, system, messages, first_seen, segments } = note;
        (self.system, self.first_seen, self.segments) = (system, first_seen, segments);
        self.messages = messages.into_iter().map(|(role, content)| Message::new(role, content)).collect();
        self.pending = restored.pending;
        // Penalties look at what was said.
        for &id in self.session.tokens().iter().chain(&self.pending) {
            self.sampler.accept(id);
        }
        Ok(())
    }
}

impl Note {
    /// Reads a note beside a context of `n_tokens`; `None` where that is no chat.
    fn parse(note: &[u8], n_tokens: usize) -> Option<Note> {
        serde_json::from_slice(note).ok().filter(|note: &Note| note.is_whole(n_tokens))
    }

    /// Whether its parts fit one another and the context.
    fn is_whole(&self, n_tokens: usize) -> bool {
        let (n_messages, first) = (self.messages.len(), self.first_seen);
        let n_in_segments = self.segments.iter().try_fold(0usize, |sum, s| sum.checked_add(s.n_tokens));
        let is_sound = |(i, s): (usize, &Segment)| {
            // Places in a text are where characters begin.
            let carried = s.text.len().checked_sub(s.carried).is_some_and(|at| s.text.is_char_boundary(at));
            let answered = s.answered.is_none_or(|(len, n)| s.text.is_char_boundary(len) && n <= s.n_tokens + 1);
            // The head may be empty, no turn is.
            carried && answered && (i == 0 || s.n_tokens > 0)
        };
        self.kind == KIND
            && n_messages.is_multiple_of(2)
            && first.is_multiple_of(2)
            && first <= n_messages
            && n_in_segments.is_some_and(|n| n <= n_tokens)
            && self.segments.len() <= 1 + (n_messages - first) / 2
            && self.segments.iter().enumerate().all(is_sound)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notes_that_fit_no_context_are_refused() {
        let good = r#"{"kind":"chat","system":null,"messages":[["user","a"],["assistant","b"]],"first_seen":0,"segments":[
            {"text":"\u00e9","n_tokens":2,"carried":2,"answered":null},
            {"text":"xy","n_tokens":3,"carried":0,"answered":[1,2]}]}"#;
        let parse = |note: &str| Note::parse(note.as_bytes(), 5);
        let note = parse(good).expect("a chat");
        assert_eq!((note.messages.len(), note.segments[1].answered), (2, Some((1, 2))));
        let another = r#"{"text":"z","n_tokens":1,"carried":0,"answered":null}]}"#;
        for (from, to) in [
            ("chat", "text"),
            // No character begins there.
            (r#""carried":2"#, r#""carried":1"#),
            (r#""carried":0"#, r#""carried":3"#),
            (r#""n_tokens":3"#, r#""n_tokens":4"#),
            (r#""n_tokens":3"#, r#""n_tokens":0"#),
            (r#""n_tokens":3"#, r#""n_tokens":18446744073709551615"#),
            (r#""first_seen":0"#, r#""first_seen":4"#),
            (r#""first_seen":0"#, r#""first_seen":1"#),
            (r#""first_seen":0"#, r#""first_seen":2"#),
            (r#",["assistant","b"]"#, ""),
            (r#"["user","a"]"#, r#"["user"]"#),
            ("[1,2]", "[3,2]"),
            ("[1,2]", "[1,5]"),
            ("[1,2]", "[1,18446744073709551615]"),
            ("segments", "parts"),
            (r#""n_tokens":2,"#, r#""n_tokens":1,"#),
        ] {
            let mut changed = good.replace(from, to);
            if from == r#""n_tokens":2,"# {
                // One turn more than there are questions.
                changed = changed.replace("[1,2]}]}", &format!("[1,2]}},{another}"));
            }
            assert_ne!(changed, good);
            assert!(parse(&changed).is_none(), "{changed}");
        }
        for note in ["", "[]", "{}", "null", "{\"kind\":\"text\"}"] {
            assert!(parse(note).is_none(), "{note}");
        }
    }
}

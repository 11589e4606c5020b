//! An answer as it comes.

use std::iter::FusedIterator;

use super::{Chat, Turn, drop_oldest_turn};
use crate::error::Result;
use crate::run::generate::{Decoding, GenerateStats, Piece};

/// The answer to a question: an iterator over its pieces.
///
/// Dropped half way, it leaves what there is of the answer in the chat. After an error the question
/// is not part of the chat.
#[must_use = "a token is computed when the next piece is asked for"]
pub struct Answer<'c> {
    chat: &'c mut Chat,
    decoding: Decoding,
    /// So far.
    text: String,
    /// Bytes of it that were handed out.
    n_taken: usize,
    /// What the context had lost before the question.
    seen_before: usize,
    has_failed: bool,
    is_kept: bool,
}

impl<'c> Answer<'c> {
    pub(super) fn new(chat: &'c mut Chat, decoding: Decoding, seen_before: usize) -> Answer<'c> {
        Answer { chat, decoding, text: String::new(), n_taken: 0, seen_before, has_failed: false, is_kept: false }
    }

    /// Counts and times so far.
    pub fn stats(&self) -> GenerateStats {
        self.decoding.stats()
    }

    /// Ends the answer where it is, and tells what the turn did.
    pub fn finish(mut self) -> Turn {
        self.keep();
        Turn {
            answer: std::mem::take(&mut self.text),
            stats: self.stats(),
            dropped_turns: (self.chat.first_seen - self.seen_before) / 2,
            started_over: self.chat.started_over,
        }
    }

    pub(super) fn cancel(&mut self) {
        self.decoding.cancel();
    }

    /// Goes on to the next text; `None` at the end.
    pub(super) fn next_text(&mut self) -> Result<Option<&str>> {
        let Chat { session, sampler, first_seen, segments, started_over, .. } = &mut *self.chat;
        let mut make_room = |session: &mut _| drop_oldest_turn(session, segments, first_seen, started_over);
        match self.decoding.advance(session, sampler, &mut make_room) {
            Ok(more) => {
                self.n_taken = self.text.len();
                self.text.push_str(self.decoding.text());
                Ok(more.then(|| self.decoding.text()))
            }
            Err(error) => {
                self.has_failed = true;
                Err(error)
            }
        }
    }

    /// Makes it part of the chat, unless it failed.
    fn keep(&mut self) {
        if std::mem::replace(&mut self.is_kept, true) {
            return;
        }
        if self.decoding.leave(&mut self.chat.session).is_err() || self.has_failed {
            self.chat.forget_question(self.seen_before);
        } else {
            self.chat.keep_answer(&self.text, &self.decoding.stats());
        }
    }
}

impl Iterator for Answer<'_> {
    type Item = Result<Piece>;

    /// The next piece, or what ended the answer.
    fn next(&mut self) -> Option<Result<Piece>> {
        if self.n_taken == self.text.len() {
            match self.next_text() {
                Ok(Some(_)) => {}
                Ok(None) => return None,
                Err(error) => return Some(Err(error)),
            }
        }
        let piece = Piece::front(&self.text[self.n_taken..]);
        self.n_taken += piece.len();
        Some(Ok(piece))
    }
}

impl FusedIterator for Answer<'_> {}

impl Drop for Answer<'_> {
    fn drop(&mut self) {
        self.keep();
    }
}

impl std::fmt::Debug for Answer<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answer").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

//! The rendered chat in runs that the context forgets as a whole.
//!
//! A [`Segment`] ends where the text of a question begins, behind what the template writes before
//! it: "<|im_start|>user\n" belongs to the turn before, or to the head. So the head is whatever a
//! template renders alike before any first question: a default system message, or the system
//! message that stands within the first question's frame. When the oldest turn is forgotten, the
//! head and the rest are what the template renders for the messages that are left.

use modelembed_text::chat::Guard;
use modelembed_text::{TokenId, Tokenizer};
use serde::{Deserialize, Serialize};

use crate::error::Result;

/// A run of the rendered chat: the head (maybe empty), or a question with its answer and what leads
/// to the next question.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Segment {
    pub text: String,
    pub n_tokens: usize,
    /// Bytes at the end of `text` that the next segment's first token holds: a blank, say, in
    /// "[INST] Hello".
    pub carried: usize,
    /// How much of the text, in bytes and in tokens, reaches to the end of the answer.
    pub answered: Option<(usize, usize)>,
}

/// What a context needs to go on with a rendered chat.
pub(crate) struct Plan {
    /// Tokens of the context that stay.
    pub n_kept: usize,
    /// Tokens to evaluate.
    pub prompt: Vec<TokenId>,
    /// How many of them stand before the answer's beginning.
    pub asked: usize,
    /// What the context holds with them.
    pub segments: Vec<Segment>,
}

/// What the context holds.
pub(crate) struct Held<'a> {
    pub tokenizer: &'a Tokenizer,
    /// What the texts are marked by: those of segments and of the rendered chat alike.
    pub guard: Guard<'a>,
    pub tokens: &'a [TokenId],
    pub segments: &'a [Segment],
    /// The last answer's last token, which the context does not hold yet.
    pub pending: Option<TokenId>,
}

impl Held<'_> {
    /// The plan for the rendered chat `whole`, whose last question ends at `asked`. `question_at`
    /// tells where in it the text of the question of an index begins, of `n_questions`.
    pub fn plan(
        &self,
        whole: &str,
        asked: usize,
        n_questions: usize,
        question_at: &mut dyn FnMut(usize) -> Result<usize>,
    ) -> Result<Plan> {
        let (mut segments, at) = self.standing(whole);
        let mut n_kept: usize = segments.iter().map(|s| s.n_tokens).sum();
        let goes_on = !segments.is_empty() && segments.len() == self.segments.len();
        let pending = self.pending.filter(|_| goes_on && n_kept == self.tokens.len());
        if let Some(last) = segments.last_mut() {
            last.n_tokens += usize::from(pending.is_some());
        }
        let tail_at = at - segments.last().map_or(0, |s| s.carried);
        let before = pending.or_else(|| n_kept.checked_sub(1).and_then(|i| self.tokens.get(i).copied()));
        let tail = Tail { tokenizer: self.tokenizer, guard: self.guard, text: &whole[tail_at..], before };
        let tokens = tail.encode(tail.text.len())?;

        // Cut the tail where questions begin.
        let n_covered = segments.len().saturating_sub(1);
        if segments.is_empty() {
            segments.push(Segment::default());
        }
        let (mut from, mut token_from) = (at, 0);
        for question in n_covered..n_questions {
            let cut = question_at(question)?.clamp(from, whole.len());
            let (token_cut, carried) = tail.cut(&tokens, from - tail_at..cut - tail_at, token_from)?;
            if let Some(last) = segments.last_mut() {
                last.text.push_str(&whole[from..cut]);
                last.n_tokens += token_cut - token_from;
                last.carried = carried;
            }
            segments.push(Segment::default());
            (from, token_from) = (cut, token_cut);
        }
        if let Some(last) = segments.last_mut() {
            last.text.push_str(&whole[from..]);
            last.n_tokens += tokens.len() - token_from;
            last.carried = 0;
        }

        let asked = match asked.checked_sub(tail_at) {
            Some(len) if len < tail.text.len() => common_prefix(&tail.encode(len)?, &tokens),
            Some(_) => tokens.len(),
            None => 0,
        };
        let (prompt, asked) = match pending {
            Some(id) => ([id].into_iter().chain(tokens).collect(), asked + 1),
            None => {
                // At least one token is evaluated: its logits are wanted.
                let rest = self.tokens.get(n_kept..).unwrap_or_default();
                let n_alike = common_prefix(rest, &tokens).min(tokens.len().saturating_sub(1));
                n_kept += n_alike;
                (tokens[n_alike..].to_vec(), asked.saturating_sub(n_alike))
            }
        };
        Ok(Plan { n_kept, asked: asked.min(prompt.len().saturating_sub(1)), prompt, segments })
    }

    /// The leading segments whose text `whole` begins with, and the length of that. Of the first
    /// that does not stand, what reaches to the end of its answer may.
    fn standing(&self, whole: &str) -> (Vec<Segment>, usize) {
        let (mut standing, mut at) = (Vec::new(), 0);
        for segment in self.segments {
            if whole[at..].starts_with(&segment.text) {
                at += segment.text.len();
                standing.push(segment.clone());
                continue;
            }
            if let Some((len, n_tokens)) = segment.answered
                && let Some(text) = segment.text.get(..len)
                && whole[at..].starts_with(text)
            {
                at += len;
                standing.push(Segment { text: text.to_owned(), n_tokens, ..segment.clone() });
                standing.last_mut().into_iter().for_each(|s| s.carried = 0);
            }
            break;
        }
        (standing, at)
    }
}

/// The text that the context lacks.
struct Tail<'a> {
    tokenizer: &'a Tokenizer,
    guard: Guard<'a>,
    text: &'a str,
    /// The token before it; `None` at the start of the context.
    before: Option<TokenId>,
}

/// Bytes that a token which begins before a question may hold of it.
const MOST_CARRIED: usize = 64;

/// Tokens of a rendered chat, as the guard marked it, that stands at the beginning of a context.
pub fn encode_whole(tokenizer: &Tokenizer, guard: Guard<'_>, text: &str) -> Result<Vec<TokenId>> {
    Tail { tokenizer, guard, text, before: None }.encode(text.len())
}

impl Tail<'_> {
    /// Tokens of the first `len` bytes. A template may write the token that begins a text itself;
    /// it is added where it did not.
    fn encode(&self, len: usize) -> Result<Vec<TokenId>> {
        let rendered = self.guard.rendered(self.text[..len].to_owned());
        Ok(match self.before {
            Some(before) => self.tokenizer.encode_rendered(Some(before), &rendered)?,
            None => rendered.encode(self.tokenizer)?,
        })
    }

    /// How many of `tokens` make up the text to the end of `range`, of which `token_from` lie
    /// before it, and how many bytes at its end are held by the next token.
    fn cut(&self, tokens: &[TokenId], range: std::ops::Range<usize>, token_from: usize) -> Result<(usize, usize)> {
        for carried in 0..=range.len().min(MOST_CARRIED) {
            let end = range.end - carried;
            if !self.text.is_char_boundary(end) {
                continue;
            }
            let begin = self.encode(end)?;
            if begin.len() >= token_from && tokens.starts_with(&begin) {
                return Ok((begin.len(), carried));
            }
        }
        // One token goes through all of it.
        Ok((token_from, range.len()))
    }
}

/// How many leading bytes two texts share, up to a character's end.
pub(crate) fn common_text(a: &str, b: &str) -> usize {
    let len = a.bytes().zip(b.bytes()).take_while(|(a, b)| a == b).count();
    (0..=len).rev().find(|&at| a.is_char_boundary(at)).unwrap_or(0)
}

fn common_prefix(a: &[TokenId], b: &[TokenId]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

//! A chat: messages, the model's template, and one context that keeps every turn it has seen.

use std::ops::ControlFlow;

use modelembed_text::chat::{ChatTemplate, Message};
use modelembed_text::{EncodeOptions, TokenId, Tokenizer};

use crate::error::Result;
use crate::generate::{GenerateOptions, GenerateStats, StopReason, generate_making_room};
use crate::sampler::Sampler;
use crate::session::Session;

/// A run of the context that is forgotten as a whole: the system part, or one question with its answer.
struct Segment {
    text: String,
    n_tokens: usize,
}

/// What one turn did.
#[derive(Clone, Debug)]
pub struct Turn {
    /// The model's answer.
    pub answer: String,
    /// Counts and times of the turn.
    pub stats: GenerateStats,
    /// Old turns that were dropped to make room.
    pub dropped_turns: usize,
}

/// A chat with a model. Each turn adds to the context; earlier turns are not evaluated again.
///
/// When the context is full, the oldest turns are dropped, never the system message.
pub struct Chat {
    session: Session,
    sampler: Sampler,
    template: ChatTemplate,
    options: GenerateOptions,
    system: Option<String>,
    messages: Vec<Message>,   // questions and answers in turn, without the system message
    segments: Vec<Segment>,   // what the context holds, in order; the first is the system part, maybe empty
    pending: Option<TokenId>, // the answer's last token, which the context does not hold yet
}

impl Chat {
    /// A chat in an empty session.
    pub fn new(mut session: Session, sampler: Sampler, template: ChatTemplate, mut options: GenerateOptions) -> Chat {
        session.truncate(0);
        options.stop.extend_from_slice(template.stop());
        Chat {
            session,
            sampler,
            template,
            options,
            system: None,
            messages: Vec::new(),
            segments: Vec::new(),
            pending: None,
        }
    }

    /// Messages so far, the system message first where there is one.
    pub fn messages(&self) -> Vec<Message> {
        self.with_system(self.messages.len())
    }

    /// The context.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Forgets all turns; the system message stays.
    pub fn reset(&mut self) {
        self.messages.clear();
        self.forget_context();
    }

    /// Sets or removes the system message and forgets all turns.
    pub fn set_system(&mut self, system: Option<String>) {
        self.system = system;
        self.reset();
    }

    /// Sends a message and streams the answer to `on_text`; `Break` ends the answer and keeps what there is of it.
    ///
    /// # Errors
    /// A template that fails, a message that does not fit into an empty context, or cancellation during the prompt. The
    /// message then is not part of the chat.
    pub fn send(&mut self, text: &str, mut on_text: impl FnMut(&str) -> ControlFlow<()>) -> Result<Turn> {
        let turns_before = self.messages.len() / 2;
        self.messages.push(message("user", text));
        match self.answer(&mut on_text) {
            Ok((answer, stats)) => {
                self.messages.push(message("assistant", &answer));
                let dropped_turns = turns_before + 1 - self.messages.len() / 2;
                Ok(Turn { answer, stats, dropped_turns })
            }
            Err(error) => {
                self.messages.pop();
                self.forget_context(); // it may hold a part of the message; the next turn builds it anew
                Err(error)
            }
        }
    }

    fn answer(&mut self, on_text: &mut dyn FnMut(&str) -> ControlFlow<()>) -> Result<(String, GenerateStats)> {
        let prompt = self.prompt()?;
        let mut answer = String::new();
        let Chat { session, sampler, messages, segments, options, .. } = self;
        let stats = generate_making_room(
            session,
            sampler,
            &prompt,
            options,
            &mut |piece| {
                answer.push_str(piece);
                on_text(piece)
            },
            &mut |session| drop_oldest_turn(session, messages, segments).is_some(),
        )?;
        self.pending = stats.pending;
        let others: usize = self.segments.iter().rev().skip(1).map(|s| s.n_tokens).sum();
        if let Some(turn) = self.segments.last_mut() {
            turn.text.push_str(&answer);
            turn.n_tokens = self.session.len() - others;
        }
        if stats.stop == StopReason::StopText {
            self.segments.clear(); // the context holds the stop text too: the next turn finds out what it can keep
        }
        Ok((answer, stats))
    }

    /// The tokens that the context lacks for the last message; afterwards `segments` describes the context with them.
    fn prompt(&mut self) -> Result<Vec<TokenId>> {
        let mut prompt = match self.continuation()? {
            Some(prompt) => prompt,
            None => self.rebuild()?,
        };
        while self.session.len() + prompt.len() >= self.session.capacity() {
            match drop_oldest_turn(&mut self.session, &mut self.messages, &mut self.segments) {
                Some(not_held) => drop(prompt.drain(..not_held)),
                None => break,
            }
        }
        Ok(prompt)
    }

    /// What follows the context's text, if the template renders the whole chat as that text and more.
    fn continuation(&mut self) -> Result<Option<Vec<TokenId>>> {
        if self.segments.len() < 2 {
            return Ok(None);
        }
        let held: String = self.segments.iter().map(|s| s.text.as_str()).collect();
        let whole = self.template.render(&self.messages(), true)?;
        let Some(new) = whole.strip_prefix(held.as_str()) else { return Ok(None) };
        // The template's end of the last answer belongs to that answer.
        let closed = self.template.render(&self.with_system(self.messages.len() - 1), false).unwrap_or_default();
        let closing = closed.strip_prefix(held.as_str()).filter(|c| new.starts_with(c)).unwrap_or("");
        let tokens = encode(self.session.model().tokenizer(), new, false)?;
        let n_closing = common_prefix(&tokens, &encode(self.session.model().tokenizer(), closing, false)?);
        let pending = self.pending.take();
        if let Some(last) = self.segments.last_mut() {
            last.text.push_str(closing);
            last.n_tokens += n_closing + usize::from(pending.is_some());
        }
        self.segments.push(Segment { text: new[closing.len()..].to_owned(), n_tokens: tokens.len() - n_closing });
        Ok(Some(pending.into_iter().chain(tokens).collect()))
    }

    /// The whole chat, of which the context keeps what it already begins with.
    fn rebuild(&mut self) -> Result<Vec<TokenId>> {
        self.pending = None;
        loop {
            let whole = self.template.render(&self.messages(), true)?;
            let tokens = encode(self.session.model().tokenizer(), &whole, true)?;
            if tokens.len() >= self.session.capacity() && self.messages.len() > 2 {
                self.messages.drain(..2);
                continue;
            }
            self.segments = self.cut(&whole, &tokens)?;
            // At least one token is evaluated: its logits are wanted.
            let kept = common_prefix(self.session.tokens(), &tokens).min(tokens.len().saturating_sub(1));
            self.session.truncate(kept);
            return Ok(tokens[kept..].to_vec());
        }
    }

    /// Cuts the rendered chat where the renderings of its beginnings end.
    fn cut(&self, whole: &str, tokens: &[TokenId]) -> Result<Vec<Segment>> {
        let (mut segments, mut text_at, mut token_at) = (Vec::new(), 0, 0);
        for n_messages in (0..self.messages.len()).step_by(2) {
            // Some templates refuse a chat without a question, or write the system message into the first one.
            let begin = self.template.render(&self.with_system(n_messages), false).unwrap_or_default();
            let is_cut = whole.starts_with(&begin) && begin.len() >= text_at;
            let text_end = if is_cut { begin.len() } else { text_at };
            let token_end = match is_cut {
                true => common_prefix(tokens, &encode(self.session.model().tokenizer(), &begin, true)?).max(token_at),
                false => token_at,
            };
            segments.push(Segment { text: whole[text_at..text_end].to_owned(), n_tokens: token_end - token_at });
            (text_at, token_at) = (text_end, token_end);
        }
        segments.push(Segment { text: whole[text_at..].to_owned(), n_tokens: tokens.len() - token_at });
        Ok(segments)
    }

    fn with_system(&self, n_messages: usize) -> Vec<Message> {
        let system = self.system.iter().map(|text| message("system", text));
        system.chain(self.messages[..n_messages].iter().cloned()).collect()
    }

    fn forget_context(&mut self) {
        self.session.truncate(0);
        self.segments.clear();
        self.pending = None;
        self.sampler.reset();
    }
}

fn message(role: &str, content: &str) -> Message {
    Message { role: role.into(), content: content.into() }
}

/// Drops the first turn unless it is the last one. Returns how many of its tokens the context did not hold yet.
fn drop_oldest_turn(session: &mut Session, messages: &mut Vec<Message>, segments: &mut Vec<Segment>) -> Option<usize> {
    // The system part, the oldest turn, and at least the one being answered.
    if segments.len() < 3 || messages.len() < 3 {
        return None;
    }
    let start = segments[0].n_tokens;
    let end = start + segments.remove(1).n_tokens;
    messages.drain(..2);
    let held = session.len();
    session.remove(start.min(held)..end.min(held));
    Some(end.saturating_sub(held.max(start)))
}

/// Tokens of a rendered chat. A template may write the token that begins a text itself; it is added where it did not.
fn encode(tokenizer: &Tokenizer, text: &str, is_start: bool) -> Result<Vec<TokenId>> {
    let options = EncodeOptions { add_special: false, parse_special: true };
    let mut tokens = tokenizer.encode(text.as_bytes(), options)?;
    if let Some(bos) = tokenizer.bos()
        && is_start
        && tokenizer.adds_bos()
        && tokens.first() != Some(&bos)
    {
        tokens.insert(0, bos);
    }
    Ok(tokens)
}

fn common_prefix(a: &[TokenId], b: &[TokenId]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

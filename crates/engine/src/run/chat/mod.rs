//! A chat: messages, the model's template, and one context that keeps every turn it has seen.

mod answer;
mod saved;

use std::ops::ControlFlow;

use modelembed_text::chat::{ChatTemplate, Guard, Message, TemplateError};
use modelembed_text::{TokenId, Tokenizer};

use crate::error::{Error, Result};
use crate::run::generate::{Decoding, GenerateOptions, GenerateStats, StopReason};
use crate::run::sampler::Sampler;
use crate::run::session::Session;
use crate::run::turns::{self, Held, Segment, common_text};

pub use answer::Answer;

/// What one turn did.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Turn {
    /// The model's answer, with its reasoning and what marks it:
    /// [`ChatTemplate::reasoning_split`] tells them apart.
    pub answer: String,
    /// Counts and times of the turn.
    pub stats: GenerateStats,
    /// Old turns that were dropped to make room.
    pub dropped_turns: usize,
    /// Whether the context had to be evaluated again, because layers that look at a window had
    /// forgotten what lies where it was taken back to.
    pub started_over: bool,
}

/// A chat with a model. Each turn adds to the context; earlier turns are not evaluated again.
///
/// When the context is full, the oldest turns are dropped from it, never what the template writes
/// before the first question: the system message, or a default one of the template's. A system
/// message for which the template has no place goes before the text of the first question.
///
/// Nothing that a message holds becomes a control token, unless that is
/// [asked for](Chat::reads_control_tokens).
pub struct Chat {
    session: Session,
    sampler: Sampler,
    template: ChatTemplate,
    takes_system: bool,
    options: GenerateOptions,
    system: Option<String>,
    reads_control_tokens: bool,
    messages: Vec<Message>,   // all questions and answers in turn, without the system message
    first_seen: usize,        // index in `messages` of the first one that is not dropped
    segments: Vec<Segment>,   // what the context holds, in order; the first is the head, maybe empty
    pending: Option<TokenId>, // the answer's last token, which the context does not hold yet
    started_over: bool,       // whether this turn evaluated again what the context had held
}

impl Chat {
    /// A chat in an empty session.
    pub fn new(mut session: Session, sampler: Sampler, template: ChatTemplate, mut options: GenerateOptions) -> Chat {
        session.clear();
        options.stop.extend_from_slice(template.stop());
        let marks = template.reasoning_marks().into_iter().flat_map(|marks| marks.tokens());
        options.shown_tokens.extend(marks.map(|&name| name.to_owned()));
        Chat {
            session,
            sampler,
            takes_system: template.takes_system(),
            template,
            options,
            system: None,
            reads_control_tokens: false,
            messages: Vec::new(),
            first_seen: 0,
            segments: Vec::new(),
            pending: None,
            started_over: false,
        }
    }

    /// This chat with texts of control tokens in messages read as those tokens, or as plain text. To
    /// be said before the first question.
    #[must_use]
    pub fn reads_control_tokens(mut self, reads: bool) -> Chat {
        self.reads_control_tokens = reads;
        self
    }

    /// All messages since the chat began, the system message first where there is one.
    pub fn messages(&self) -> Vec<Message> {
        let system = self.system.iter().map(|text| Message::new("system", text));
        system.chain(self.messages.iter().cloned()).collect()
    }

    /// Index in [`messages`](Self::messages) of the first question that the context still holds;
    /// those before it were dropped to make room, but for the system message.
    pub fn first_seen(&self) -> usize {
        self.first_seen + usize::from(self.system.is_some())
    }

    /// The system message.
    pub fn system(&self) -> Option<&str> {
        self.system.as_deref()
    }

    /// Whether the template has a place for a system message. Without one, the system message and a
    /// line end go before the text of the first question that the context holds.
    pub fn takes_system(&self) -> bool {
        self.takes_system
    }

    /// The context.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// Forgets all turns; the system message stays.
    pub fn reset(&mut self) {
        self.messages.clear();
        self.first_seen = 0;
        self.forget_context();
    }

    /// Sets or removes the system message and forgets all turns.
    pub fn set_system(&mut self, system: Option<String>) {
        self.system = system;
        self.reset();
    }

    /// Asks a question. Its tokens are evaluated here, the answer as its pieces are asked for.
    ///
    /// # Errors
    /// A template that fails, a message that does not fit into an empty context, or cancellation
    /// during the prompt. The message then is not part of the chat.
    pub fn ask(&mut self, text: &str) -> Result<Answer<'_>> {
        let seen_before = self.first_seen;
        self.started_over = false;
        self.messages.push(Message::new("user", text));
        let prompt = self.prompt();
        let begun = prompt.and_then(|(prompt, kept_at)| {
            Decoding::begin_keeping(&mut self.session, &mut self.sampler, &prompt, kept_at, &self.options)
        });
        match begun {
            Ok(decoding) => Ok(Answer::new(self, decoding, seen_before)),
            Err(error) => {
                self.forget_question(seen_before);
                Err(error)
            }
        }
    }

    /// Sends a message and streams the answer to `on_text`; `Break` ends the answer and keeps what
    /// there is of it.
    ///
    /// # Errors
    /// As [`ask`](Self::ask), and whatever ends the answer.
    pub fn send(&mut self, text: &str, mut on_text: impl FnMut(&str) -> ControlFlow<()>) -> Result<Turn> {
        let mut answer = self.ask(text)?;
        while let Some(text) = answer.next_text()? {
            if on_text(text).is_break() {
                answer.cancel();
            }
        }
        Ok(answer.finish())
    }

    /// The tokens that [`send`](Self::send) evaluates first in a chat with this system message and
    /// nothing else.
    ///
    /// # Errors
    /// A template that fails, a text that cannot be encoded.
    pub fn first_prompt(
        template: &ChatTemplate,
        tokenizer: &Tokenizer,
        system: Option<&str>,
        text: &str,
    ) -> Result<Vec<TokenId>> {
        let guard = Guard::new(tokenizer);
        let whole = render(template, guard, template.takes_system(), system, vec![Message::new("user", text)])?;
        turns::encode_whole(tokenizer, guard, &whole)
    }

    /// The last message, a question, was not answered. `seen_before` is what was seen before it.
    fn forget_question(&mut self, seen_before: usize) {
        self.messages.pop();
        self.first_seen = seen_before;
        self.forget_context(); // it may hold a part of the message; the next turn builds it anew
    }

    /// The last message was answered, as far as `stats` say.
    fn keep_answer(&mut self, answer: &str, stats: &GenerateStats) {
        self.pending = stats.pending;
        let marked = self.guard().text("assistant", answer).into_owned();
        let others: usize = self.segments.iter().rev().skip(1).map(|s| s.n_tokens).sum();
        if let Some(turn) = self.segments.last_mut() {
            turn.text.push_str(&marked);
            turn.n_tokens = self.session.len() - others;
            turn.answered = Some((turn.text.len(), turn.n_tokens + usize::from(stats.pending.is_some())));
        }
        if stats.stop == Some(StopReason::StopText) {
            // The context holds the stop text too: the next turn finds out what of this one it can
            // keep.
            self.segments.pop();
            self.pending = None;
        }
        self.messages.push(Message::new("assistant", self.template.message_of(answer)));
    }

    /// The tokens that the context lacks for the last message, and how many of them stand before the
    /// place where its state is to be kept; afterwards `segments` describes the context with them.
    fn prompt(&mut self) -> Result<(Vec<TokenId>, usize)> {
        loop {
            let whole = self.render(None)?;
            // A template may write an answer in another way once there is a question behind it, most
            // of all without its reasoning: the next turn goes on where this question ends.
            let asked = if self.session.needs_keeping() { self.asked(&whole) } else { 0 };
            let held = Held {
                tokenizer: self.session.model().tokenizer(),
                guard: self.guard(),
                tokens: self.session.tokens(),
                segments: &self.segments,
                pending: self.pending,
            };
            let n_questions = (self.messages.len() - self.first_seen).div_ceil(2);
            let plan = held.plan(&whole, asked, n_questions, &mut |question| Ok(self.question_at(question, &whole)))?;
            // What is left is rendered and planned anew: a template may write it in another way.
            if plan.n_kept + plan.prompt.len() >= self.session.capacity() && self.drop_oldest()? {
                continue;
            }
            // What lies between is evaluated once more.
            let returnable = self.session.returnable(plan.n_kept);
            let mut prompt = self.session.tokens()[returnable..plan.n_kept].to_vec();
            let kept_at = if plan.asked == 0 { 0 } else { prompt.len() + plan.asked };
            self.started_over |= returnable == 0 && plan.n_kept > 0;
            prompt.extend(plan.prompt);
            self.session.truncate(returnable)?;
            self.segments = plan.segments;
            self.pending = None;
            return Ok((prompt, kept_at));
        }
    }

    /// Where in the rendered chat its last question ends, and the answer's beginning begins.
    fn asked(&self, whole: &str) -> usize {
        let messages = self.messages[self.first_seen..].to_vec();
        let without =
            render_with(&self.template, self.guard(), self.takes_system, self.system.as_deref(), messages, false);
        without.map_or(0, |without| common_text(whole, &without))
    }

    /// Where in the rendered chat the text of a question begins: where other questions in its place
    /// make a difference.
    fn question_at(&self, question: usize, whole: &str) -> usize {
        let with = |letter: &str| self.render(Some((2 * question, letter))).map_or(0, |text| common_text(whole, &text));
        with("A").min(with("B"))
    }

    fn guard(&self) -> Guard<'_> {
        if self.reads_control_tokens { Guard::off() } else { Guard::new(self.session.model().tokenizer()) }
    }

    /// The chat as the template writes it, marked, from the first message that the context is to hold to
    /// where the answer begins. `letter` goes before the text of the message with that index.
    fn render(&self, letter: Option<(usize, &str)>) -> std::result::Result<String, TemplateError> {
        let mut messages = self.messages[self.first_seen..].to_vec();
        if let Some((index, letter)) = letter
            && let Some(message) = messages.get_mut(index)
        {
            message.content.insert_str(0, letter);
        }
        render(&self.template, self.guard(), self.takes_system, self.system.as_deref(), messages)
    }

    /// Forgets the oldest turn before the last message. False if there is none.
    fn drop_oldest(&mut self) -> Result<bool> {
        if self.messages.len() - self.first_seen < 3 {
            return Ok(false);
        }
        self.first_seen += 2;
        if self.segments.len() > 1 {
            self.started_over |= forget_first_turn(&mut self.session, &mut self.segments)?;
            if self.segments.len() == 1 {
                self.pending = None;
            }
        }
        Ok(true)
    }

    fn forget_context(&mut self) {
        self.session.clear();
        self.segments.clear();
        self.pending = None;
        self.sampler.reset();
    }
}

/// Messages as the template writes them, marked, to where the answer begins.
fn render(
    template: &ChatTemplate,
    guard: Guard<'_>,
    takes_system: bool,
    system: Option<&str>,
    messages: Vec<Message>,
) -> std::result::Result<String, TemplateError> {
    render_with(template, guard, takes_system, system, messages, true)
}

/// Messages as the template writes them, with what an answer begins with or without.
fn render_with(
    template: &ChatTemplate,
    guard: Guard<'_>,
    takes_system: bool,
    system: Option<&str>,
    mut messages: Vec<Message>,
    begins_answer: bool,
) -> std::result::Result<String, TemplateError> {
    if let Some(system) = system {
        match messages.first_mut().filter(|_| !takes_system) {
            Some(first) => first.content.insert_str(0, &format!("{system}\n")),
            None => messages.insert(0, Message::new("system", system)),
        }
    }
    template.render(&guard.messages(&messages), begins_answer)
}

/// Forgets the oldest turn while the last one is answered. False if there is none.
fn drop_oldest_turn(
    session: &mut Session,
    segments: &mut Vec<Segment>,
    first_seen: &mut usize,
    started_over: &mut bool,
) -> Result<bool> {
    // The head, the oldest turn, and the one being answered.
    if segments.len() < 3 {
        return Ok(false);
    }
    *first_seen += 2;
    *started_over |= forget_first_turn(session, segments)?;
    Ok(true)
}

/// Takes the turn behind the head out of the context, with the token that it begins with. Returns
/// whether the rest had to be evaluated again.
fn forget_first_turn(session: &mut Session, segments: &mut Vec<Segment>) -> Result<bool> {
    let start = segments[0].n_tokens.min(session.len());
    let end = (start + segments.remove(1).n_tokens).min(session.len());
    match session.remove(start..end) {
        Err(Error::CannotReturn { .. }) => {}
        result => return result.map(|()| false),
    }
    let mut rest = session.tokens().to_vec();
    rest.drain(start..end);
    session.clear();
    if !rest.is_empty() {
        session.eval(&rest)?;
    }
    Ok(true)
}

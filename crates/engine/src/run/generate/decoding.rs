//! The loop of a generation, token by token.

use std::time::{Duration, Instant};

use modelembed_text::{DetokenizerState, EncodeOptions, TokenId, Tokenizer};

use super::gate::StopGate;
use super::{ChooseToken, GenerateOptions, GenerateStats, StopReason};
use crate::error::{Error, Result};
use crate::run::lookup::Lookup;
use crate::run::session::{MAX_DRAFT_TOKENS, Session};
use crate::run::timing::Stage;

/// Called when the context is full: true where there is room now.
pub(crate) type MakeRoom<'a> = &'a mut dyn FnMut(&mut Session) -> Result<bool>;

/// A generation under way, without the session and the chooser, which every call is given.
pub(crate) struct Decoding {
    max_tokens: usize,
    renders_special: bool,
    /// Control tokens that have text in any case.
    shown_tokens: Vec<TokenId>,
    /// Control tokens that end it.
    stop_tokens: Vec<TokenId>,
    gate: StopGate,
    detokenizer: DetokenizerState,
    lookup: Lookup,
    /// The token that was chosen last, where the context does not hold it.
    pending: Option<TokenId>,
    /// Whether what the last evaluation gave is being chosen from.
    is_in_pass: bool,
    /// Tokens of the context before that evaluation.
    base: usize,
    /// Its draft tokens that came true.
    n_kept: usize,
    /// When it ended, by itself or by an error.
    over: Option<Duration>,
    stop: Option<StopReason>,
    start: Instant,
    prompt_tokens: usize,
    prompt_time: Duration,
    first_token_time: Duration,
    generated_tokens: usize,
    decode_steps: usize,
}

impl Decoding {
    /// Evaluates the prompt.
    pub(crate) fn begin(
        session: &mut Session,
        chooser: &mut dyn ChooseToken,
        prompt: &[TokenId],
        options: &GenerateOptions,
    ) -> Result<Decoding> {
        Self::begin_keeping(session, chooser, prompt, 0, options)
    }

    /// The same; the state behind the first `kept_at` tokens of the prompt is kept, unless there are
    /// none.
    pub(crate) fn begin_keeping(
        session: &mut Session,
        chooser: &mut dyn ChooseToken,
        prompt: &[TokenId],
        kept_at: usize,
        options: &GenerateOptions,
    ) -> Result<Decoding> {
        let tokenizer = session.model().tokenizer();
        tokenizer.require_vocabulary()?;
        let (detokenizer, stop_tokens) = (tokenizer.detokenizer_state(), stop_tokens(tokenizer, &options.stop)?);
        let shown_tokens = options.shown_tokens.iter().filter_map(|name| tokenizer.find(name.as_bytes())).collect();
        let gate = StopGate::new(&options.stop);
        let start = Instant::now();
        for &id in prompt {
            chooser.accept(id);
        }
        session.pause_clock();
        let (kept, rest) = prompt.split_at(kept_at);
        if !kept.is_empty() {
            session.eval_part(kept)?;
            session.keep_here();
        }
        session.eval_prompt(rest, chooser.as_sampler().as_deref())?;
        Ok(Decoding {
            max_tokens: options.max_tokens,
            renders_special: options.renders_special,
            shown_tokens,
            stop_tokens,
            gate,
            detokenizer,
            lookup: Lookup::new(options.lookup_tokens.min(MAX_DRAFT_TOKENS)),
            pending: None,
            is_in_pass: false,
            base: session.len(),
            n_kept: 0,
            over: None,
            stop: None,
            start,
            prompt_tokens: prompt.len(),
            prompt_time: start.elapsed(),
            first_token_time: Duration::ZERO,
            generated_tokens: 0,
            decode_steps: 0,
        })
    }

    /// Goes on until there is [text](Self::text) to hand out; false if there is no more.
    pub(crate) fn advance(
        &mut self,
        session: &mut Session,
        chooser: &mut dyn ChooseToken,
        make_room: MakeRoom<'_>,
    ) -> Result<bool> {
        self.gate.clear();
        while self.over.is_none() && self.gate.sure().is_empty() {
            if let Err(error) = self.token(session, chooser, make_room) {
                // What went wrong first is what is told.
                let _ = self.leave(session);
                return Err(error);
            }
        }
        Ok(!self.gate.sure().is_empty())
    }

    /// What is to be handed out, until the next [`advance`](Self::advance).
    pub(crate) fn text(&self) -> &str {
        self.gate.sure()
    }

    /// The caller wants no more.
    pub(crate) fn cancel(&mut self) {
        if self.over.is_none() {
            self.stop = Some(StopReason::Caller);
            self.over = Some(self.start.elapsed());
        }
    }

    /// Leaves the session with what was handed out, wherever it is.
    pub(crate) fn leave(&mut self, session: &mut Session) -> Result<()> {
        self.over.get_or_insert_with(|| self.start.elapsed());
        session.pause_clock();
        let ended = self.end_pass(session);
        session.set_pending(self.pending);
        ended
    }

    pub(crate) fn stats(&self) -> GenerateStats {
        GenerateStats {
            prompt_tokens: self.prompt_tokens,
            prompt_time: self.prompt_time,
            generated_tokens: self.generated_tokens,
            decode_steps: self.decode_steps,
            decoded_tokens: self.decode_steps + self.lookup.n_accepted,
            draft_tokens: self.lookup.n_drafted,
            accepted_tokens: self.lookup.n_accepted,
            decode_time: self.over.unwrap_or_else(|| self.start.elapsed()) - self.prompt_time,
            first_token_time: self.first_token_time,
            stop: self.stop,
            pending: self.pending,
        }
    }

    /// One token, its text into the gate; or the end.
    fn token(&mut self, session: &mut Session, chooser: &mut dyn ChooseToken, make_room: MakeRoom<'_>) -> Result<()> {
        if self.is_in_pass {
            // Each position is sampled as if it were the only one; the next one counts only if its
            // token was drafted.
            if self.lookup.drafts().get(self.n_kept) == self.pending.as_ref() {
                // The context holds it already.
                self.pending = None;
                self.n_kept += 1;
            } else {
                self.end_pass(session)?;
            }
        }
        if !self.is_in_pass && !self.begin_pass(session, chooser, make_room)? {
            return Ok(());
        }
        let id = session.choose(self.n_kept, chooser)?;
        chooser.accept(id);
        session.lap(Stage::Sampling);
        let tokenizer = session.model().tokenizer();
        if tokenizer.is_eog(id) {
            return self.end(session, StopReason::EndOfGeneration);
        }
        if self.stop_tokens.contains(&id) {
            return self.end(session, StopReason::StopText);
        }
        self.pending = Some(id);
        self.generated_tokens += 1;
        let is_shown = self.renders_special || self.shown_tokens.contains(&id);
        self.gate.push(self.detokenizer.push(tokenizer, id, is_shown));
        if self.generated_tokens == 1 {
            self.first_token_time = self.start.elapsed();
        }
        if self.gate.is_closed() {
            return self.end(session, StopReason::StopText);
        }
        Ok(())
    }

    /// Evaluates the last token, if the context lacks it, and drafts behind it. False at the end.
    fn begin_pass(
        &mut self,
        session: &mut Session,
        chooser: &mut dyn ChooseToken,
        make_room: MakeRoom<'_>,
    ) -> Result<bool> {
        if self.generated_tokens == self.max_tokens {
            return self.end(session, StopReason::MaxTokens).map(|()| false);
        }
        self.lookup.clear();
        if let Some(id) = self.pending {
            if session.len() == session.capacity() && !make_room(session)? {
                return self.end(session, StopReason::ContextFull).map(|()| false);
            }
            self.base = session.len();
            // The last token that may be generated is not evaluated, nor one that the context has
            // no room for.
            let room = (self.max_tokens - self.generated_tokens - 1).min(session.capacity() - self.base - 1);
            let batch = self.lookup.draft(session.tokens(), id, room);
            match session.eval_drafts(batch, chooser.as_sampler().as_deref()) {
                Ok(()) => self.pending = None,
                // What was handed out stays; the context is as it was before the step.
                Err(error) => {
                    self.lookup.clear();
                    return match error {
                        Error::Cancelled => self.end(session, StopReason::Caller).map(|()| false),
                        error => Err(error),
                    };
                }
            }
            self.decode_steps += 1;
        }
        (self.is_in_pass, self.n_kept) = (true, 0);
        Ok(true)
    }

    /// Takes back the drafts that did not come true.
    fn end_pass(&mut self, session: &mut Session) -> Result<()> {
        if std::mem::take(&mut self.is_in_pass) && !self.lookup.drafts().is_empty() {
            session.truncate(self.base + 1 + self.n_kept)?;
            self.lookup.learn(self.n_kept);
        }
        Ok(())
    }

    fn end(&mut self, session: &mut Session, stop: StopReason) -> Result<()> {
        self.end_pass(session)?;
        session.pause_clock();
        if stop != StopReason::Caller && !self.gate.is_closed() {
            self.gate.finish(self.detokenizer.finish(session.model().tokenizer()));
        }
        self.stop = Some(stop);
        self.over = Some(self.start.elapsed());
        Ok(())
    }
}

/// Control tokens, which have no text in the answer, that stop texts are the names of.
fn stop_tokens(tokenizer: &Tokenizer, stops: &[String]) -> Result<Vec<TokenId>> {
    let mut found = Vec::new();
    for stop in stops {
        let options = EncodeOptions::default().parse_special(true);
        if let [id] = tokenizer.encode(stop.as_bytes(), options)?[..] {
            found.extend(Some(id).filter(|&id| tokenizer.is_control(id)));
        }
    }
    Ok(found)
}

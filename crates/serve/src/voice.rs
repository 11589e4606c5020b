//! Who speaks for a request: chooses its tokens, turns them into text, and sends both.

use std::sync::Arc;

use modelembed::{EncodeOptions, Model, Row, Sampler, StopGate, TokenId, Tokenizer, log_sum_exp};
use modelembed_text::DetokenizerState;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;

use crate::answer::{End, EndReason, Event, Line, Usage};
use crate::likely::most_likely;
use crate::request::Request;

/// A token that was chosen, or one of the prompt, with what the client wants to know of it.
#[derive(Clone, Debug)]
pub(crate) struct Chosen {
    /// Its position in the sequence.
    pub(crate) at: usize,
    pub(crate) id: TokenId,
    pub(crate) logprob: Option<f32>,
    pub(crate) top: Vec<(TokenId, f32)>,
}

impl Chosen {
    /// What the model makes of a token of the prompt, which stands at position `at`, and of the
    /// `n` most likely ones in its place.
    pub(crate) fn judged(logits: &[f32], (at, id): (usize, TokenId), n: usize) -> Chosen {
        let total = log_sum_exp(logits);
        let top = most_likely(logits, n, total);
        Chosen { at, id, logprob: Some((f64::from(logits[id.index()]) - total) as f32), top }
    }
}

/// What a request's tokens are chosen by and where they go.
pub(crate) struct Voice {
    model: Arc<Model>,
    sampler: Sampler,
    /// Whether the sampler changes logits in place.
    changes_logits: bool,
    biases: Vec<(TokenId, f32)>,
    logprobs: Option<usize>,
    pub(crate) prompt_logprobs: Option<usize>,
    max_tokens: usize,
    min_tokens: usize,
    stop_tokens: Vec<TokenId>,
    /// Control tokens that texts in `stop` are the names of.
    stop_names: Vec<(TokenId, String)>,
    renders_special: bool,
    shown_tokens: Vec<TokenId>,
    gate: StopGate,
    detokenizer: DetokenizerState,
    n_chosen: usize,
    out: Out,
}

/// Where events go. An answer always gets an end.
pub(crate) struct Out {
    sender: Option<mpsc::Sender<Event>>,
    line: Arc<Line>,
    usage: Usage,
}

impl Out {
    pub(crate) fn new(sender: mpsc::Sender<Event>, line: Arc<Line>) -> Out {
        Out { sender: Some(sender), line, usage: Usage::default() }
    }

    fn send(&mut self, event: Event) -> Result<(), EndReason> {
        let Some(sender) = &self.sender else { return Err(EndReason::Cancelled) };
        sender.try_send(event).map_err(|error| match error {
            TrySendError::Full(_) => EndReason::Slow,
            TrySendError::Closed(_) => EndReason::Cancelled,
        })
    }

    fn end(&mut self, reason: EndReason, text: String) {
        // The channel closes when the end is in its place.
        if let Some(sender) = self.sender.take() {
            self.line.end(End { reason, text, usage: self.usage });
            drop(sender);
        }
    }
}

impl Drop for Out {
    fn drop(&mut self) {
        self.end(EndReason::Failed("what computes has stopped".to_owned()), String::new());
    }
}

impl Voice {
    /// For a request whose values were checked; `most_tokens` is what the context has room for.
    pub(crate) fn new(
        model: &Arc<Model>,
        request: &Request,
        mut sampler: Sampler,
        most_tokens: usize,
        mut out: Out,
    ) -> Voice {
        out.usage.prompt = request.prompt.len();
        let tokenizer = model.tokenizer();
        if let Some(breakers) = &request.dry_breakers {
            sampler.set_dry_breakers(breakers.clone());
        }
        for &id in &request.prompt {
            sampler.accept(id);
        }
        let options = sampler.options();
        let penalties = (options.repeat_penalty, options.frequency_penalty, options.presence_penalty);
        let mut biases = request.logit_bias.clone();
        if request.ignore_eos {
            biases.extend(tokenizer.eog_tokens().map(|id| (id, f32::NEG_INFINITY)));
        }
        let stop_names = stop_names(tokenizer, &request.stop);
        let changes_logits =
            penalties != (1.0, 0.0, 0.0) || options.dry.is_some() || !biases.is_empty() || request.min_tokens > 0;
        let mut voice = Voice {
            model: Arc::clone(model),
            sampler,
            changes_logits,
            biases,
            logprobs: request.logprobs,
            prompt_logprobs: request.prompt_logprobs,
            max_tokens: request.max_tokens.map_or(most_tokens, |most| most.min(most_tokens)),
            min_tokens: request.min_tokens,
            stop_tokens: request.stop_tokens.clone(),
            stop_names,
            renders_special: request.renders_special,
            shown_tokens: request.shown_tokens.clone(),
            gate: StopGate::new(&request.stop),
            detokenizer: tokenizer.detokenizer_state(),
            n_chosen: 0,
            out,
        };
        voice.forbid();
        voice
    }

    /// Sets the biases; as long as nothing may end the answer, what ends it is forbidden.
    fn forbid(&mut self) {
        let tokenizer = self.model.tokenizer();
        let ends = tokenizer.eog_tokens().chain(self.stop_tokens.iter().copied());
        let ends = ends.chain(self.stop_names.iter().map(|(id, _)| *id));
        let forbidden = ends.map(|id| (id, f32::NEG_INFINITY)).filter(|_| self.n_chosen < self.min_tokens);
        self.sampler.set_logit_biases(self.biases.iter().copied().chain(forbidden));
    }

    /// Whether a token has text even if it is a control token.
    fn shows(&self, id: TokenId) -> bool {
        self.renders_special || self.shown_tokens.contains(&id)
    }

    /// Tokens of the answer at most.
    pub(crate) fn max_tokens(&self) -> usize {
        self.max_tokens
    }

    /// Whether the client wants no more.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.out.line.is_cancelled()
    }

    /// Chooses what stands at position `at`.
    pub(crate) fn choose(&mut self, row: &mut Row<'_>, at: usize) -> Chosen {
        let Some(n) = self.logprobs else {
            return Chosen { at, id: row.sample(&mut self.sampler), logprob: None, top: Vec::new() };
        };
        let total = log_sum_exp(row.logits);
        let top = most_likely(row.logits, n, total);
        // The only copy, and only where the sampler changes them.
        let kept = self.changes_logits.then(|| row.logits.to_vec());
        let id = row.sample(&mut self.sampler);
        let logit = kept.as_deref().unwrap_or(row.logits)[id.index()];
        Chosen { at, id, logprob: Some((f64::from(logit) - total) as f32), top }
    }

    /// Sends a token of the prompt.
    pub(crate) fn tell_prompt_token(&mut self, token: Chosen) -> Result<(), EndReason> {
        let bytes = self.bytes(token.id);
        self.out.send(Event::PromptToken { id: token.id, bytes, logprob: token.logprob, top: token.top })
    }

    /// Sends that the prompt is computed.
    pub(crate) fn tell_prompt(&mut self) -> Result<(), EndReason> {
        self.out.send(Event::Prompt { tokens: self.out.usage.prompt, cached_tokens: self.out.usage.cached })
    }

    /// Tokens of the prompt, of which some were there.
    pub(crate) fn set_cached(&mut self, cached: usize) {
        self.out.usage.cached = cached;
    }

    /// Makes a token part of the answer and sends it. An error says why the answer ends with it.
    pub(crate) fn say(&mut self, token: Chosen) -> Result<(), EndReason> {
        let id = token.id;
        self.sampler.accept(id);
        self.n_chosen += 1;
        self.out.usage.completion = self.n_chosen;
        if self.stop_tokens.contains(&id) {
            return Err(EndReason::StopToken(id));
        }
        if let Some((_, name)) = self.stop_names.iter().find(|(stop, _)| *stop == id) {
            return Err(EndReason::StopString(name.clone()));
        }
        if self.model.tokenizer().is_eog(id) {
            return Err(EndReason::Stop);
        }
        let is_shown = self.shows(id);
        let piece = self.detokenizer.push(self.model.tokenizer(), id, is_shown);
        let text = if self.n_chosen < self.min_tokens {
            piece.to_owned()
        } else {
            self.gate.push(piece);
            let text = self.gate.sure().to_owned();
            self.gate.clear();
            text
        };
        let bytes = self.bytes(id);
        self.out.send(Event::Token { id, text, bytes, logprob: token.logprob, top: token.top })?;
        if let Some(stop) = self.gate.stop() {
            return Err(EndReason::StopString(stop.to_owned()));
        }
        if self.n_chosen == self.max_tokens {
            return Err(EndReason::Length);
        }
        if self.n_chosen == self.min_tokens {
            self.forbid();
        }
        Ok(())
    }

    /// Ends the answer with the text that was held back.
    pub(crate) fn end(&mut self, reason: EndReason) {
        let mut text = String::new();
        if !self.gate.is_closed() {
            self.gate.finish(self.detokenizer.finish(self.model.tokenizer()));
            text.push_str(self.gate.sure());
        }
        self.out.end(reason, text);
    }

    fn bytes(&self, id: TokenId) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.model.tokenizer().piece(id, self.shows(id), &mut bytes);
        bytes
    }
}

/// Control tokens, which have no text in the answer, that stop texts are the names of.
fn stop_names(tokenizer: &Tokenizer, stops: &[String]) -> Vec<(TokenId, String)> {
    let of = |stop: &String| {
        let ids = tokenizer.encode(stop.as_bytes(), EncodeOptions::default().parse_special(true)).ok()?;
        let [id] = ids[..] else { return None };
        tokenizer.is_control(id).then(|| (id, stop.clone()))
    };
    stops.iter().filter_map(of).collect()
}

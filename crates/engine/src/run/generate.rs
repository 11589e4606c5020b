//! From a prompt to text, a piece at a time.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use modelembed_text::{EncodeOptions, TokenId, Tokenizer};

use crate::error::{Error, Result};
use crate::run::lookup::Lookup;
use crate::run::sampler::Sampler;
use crate::run::session::{MAX_DRAFT_TOKENS, Session};
use crate::run::timing::Stage;

/// When generation ends by itself.
#[derive(Clone, Debug)]
pub struct GenerateOptions {
    /// Tokens to generate at most.
    pub max_tokens: usize,
    /// Whether control tokens appear in the text.
    pub renders_special: bool,
    /// Texts that end generation; they and what follows them are not handed out. The name of a
    /// control token ends it too, whether such tokens appear in the text or not.
    pub stop: Vec<String>,
    /// Draft tokens at most (7 are the most that is of use), from what followed
    /// the same words earlier in the context, and checked in one evaluation; 0 drafts nothing. The
    /// text does not depend on it.
    pub lookup_tokens: usize,
}

impl Default for GenerateOptions {
    fn default() -> Self {
        GenerateOptions { max_tokens: 512, renders_special: false, stop: Vec::new(), lookup_tokens: 0 }
    }
}

/// Why generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// The model said that it is done.
    EndOfGeneration,
    /// One of the texts that end generation appeared.
    StopText,
    /// As many tokens as were asked for.
    MaxTokens,
    /// No room for another token.
    ContextFull,
    /// The caller's callback asked for it, or the session was cancelled behind the prompt.
    Callback,
}

/// What a generation did and how long it took.
#[derive(Clone, Copy, Debug)]
pub struct GenerateStats {
    /// Tokens of the prompt that were evaluated.
    pub prompt_tokens: usize,
    /// Time for the prompt, up to its logits.
    pub prompt_time: Duration,
    /// Tokens that were generated, one that ends generation not counted.
    pub generated_tokens: usize,
    /// Evaluations after the prompt.
    pub decode_steps: usize,
    /// Tokens that these evaluations added to the text's context: as many, and one more for each
    /// draft token that came true.
    pub decoded_tokens: usize,
    /// Draft tokens; see [`GenerateOptions::lookup_tokens`].
    pub draft_tokens: usize,
    /// Those that came true.
    pub accepted_tokens: usize,
    /// Time for these evaluations with sampling and text.
    pub decode_time: Duration,
    /// From the start to the first piece of text.
    pub first_token_time: Duration,
    /// Why it ended.
    pub stop: StopReason,
    /// The last generated token, where its text was handed out but the context does not hold it
    /// yet.
    pub pending: Option<TokenId>,
}

impl GenerateStats {
    /// Prompt tokens per second; 0 where nothing was measured.
    pub fn prompt_tokens_per_second(&self) -> f64 {
        per_second(self.prompt_tokens, self.prompt_time)
    }

    /// Decoded tokens per second; 0 where nothing was measured.
    pub fn decode_tokens_per_second(&self) -> f64 {
        per_second(self.decoded_tokens, self.decode_time)
    }
}

fn per_second(n: usize, time: Duration) -> f64 {
    if time.is_zero() { 0.0 } else { n as f64 / time.as_secs_f64() }
}

/// Evaluates `prompt`, then samples and evaluates token after token, and hands each piece of
/// complete UTF-8 to `on_text`.
///
/// The last token is not evaluated (see [`GenerateStats::pending`]): nothing is asked about what
/// follows it.
///
/// # Errors
/// As [`Session::eval`], or a model without a vocabulary; whatever was handed out before stays so.
/// A prompt that does not fit is an error; a context that fills up later ends generation.
pub fn generate(
    session: &mut Session,
    sampler: &mut Sampler,
    prompt: &[TokenId],
    options: &GenerateOptions,
    mut on_text: impl FnMut(&str) -> ControlFlow<()>,
) -> Result<GenerateStats> {
    generate_making_room(session, sampler, prompt, options, &mut on_text, &mut |_| Ok(false))
}

/// [`generate`] that calls `make_room` when the context is full, and goes on if that returns true.
pub(crate) fn generate_making_room(
    session: &mut Session,
    sampler: &mut Sampler,
    prompt: &[TokenId],
    options: &GenerateOptions,
    on_text: &mut dyn FnMut(&str) -> ControlFlow<()>,
    make_room: &mut dyn FnMut(&mut Session) -> Result<bool>,
) -> Result<GenerateStats> {
    let model = Arc::clone(session.model());
    let tokenizer = model.tokenizer();
    tokenizer.require_vocabulary()?;
    let mut detokenizer = tokenizer.detokenizer();
    let mut gate = StopGate::new(&options.stop);
    let stop_tokens = stop_tokens(tokenizer, &options.stop)?;
    let start = Instant::now();
    for &id in prompt {
        sampler.accept(id);
    }
    session.pause_clock();
    session.eval_prompt(prompt, sampler)?;
    let prompt_time = start.elapsed();
    let mut lookup = Lookup::new(options.lookup_tokens.min(MAX_DRAFT_TOKENS));
    let (mut generated_tokens, mut decode_steps, mut first_token_time) = (0, 0, Duration::ZERO);
    let mut pending = None;
    let stop = 'passes: loop {
        if generated_tokens == options.max_tokens {
            break StopReason::MaxTokens;
        }
        // Tokens of the context before this pass.
        let mut base = session.len();
        lookup.clear();
        if let Some(id) = pending.take() {
            if session.len() == session.capacity() && !make_room(session)? {
                pending = Some(id);
                break StopReason::ContextFull;
            }
            base = session.len();
            // The last token that may be generated is not evaluated, nor one that the context has
            // no room for.
            let room = (options.max_tokens - generated_tokens - 1).min(session.capacity() - base - 1);
            match session.eval_drafts(lookup.draft(session.tokens(), id, room), sampler) {
                // What was handed out stays; the context is as it was before the step.
                Err(Error::Cancelled) => {
                    lookup.clear();
                    pending = Some(id);
                    break StopReason::Callback;
                }
                result => result?,
            }
            decode_steps += 1;
        }
        // Each position is sampled as if it were the only one; the next one counts only if its
        // token was drafted.
        let mut n_kept = 0;
        let stop = loop {
            let id = session.sample(n_kept, sampler)?;
            sampler.accept(id);
            session.lap(Stage::Sampling);
            if tokenizer.is_eog(id) {
                break Some(StopReason::EndOfGeneration);
            }
            if stop_tokens.contains(&id) {
                break Some(StopReason::StopText);
            }
            pending = Some(id);
            generated_tokens += 1;
            let text = detokenizer.push(id, options.renders_special);
            let flow = gate.pass(text, on_text);
            if generated_tokens == 1 {
                first_token_time = start.elapsed();
            }
            if gate.is_closed {
                break Some(StopReason::StopText);
            }
            if flow.is_break() {
                break Some(StopReason::Callback);
            }
            if lookup.drafts().get(n_kept) != Some(&id) {
                break None;
            }
            // The context holds it already.
            pending = None;
            n_kept += 1;
        };
        if !lookup.drafts().is_empty() {
            session.truncate(base + 1 + n_kept)?;
            lookup.learn(n_kept);
        }
        if let Some(stop) = stop {
            break 'passes stop;
        }
    };
    session.pause_clock();
    if stop != StopReason::Callback && !gate.is_closed {
        gate.finish(detokenizer.finish(), on_text);
    }
    Ok(GenerateStats {
        prompt_tokens: prompt.len(),
        prompt_time,
        generated_tokens,
        decode_steps,
        decoded_tokens: decode_steps + lookup.n_accepted,
        draft_tokens: lookup.n_drafted,
        accepted_tokens: lookup.n_accepted,
        decode_time: start.elapsed() - prompt_time,
        first_token_time,
        stop,
        pending,
    })
}

/// Control tokens, which have no text in the answer, that stop texts are the names of.
fn stop_tokens(tokenizer: &Tokenizer, stops: &[String]) -> Result<Vec<TokenId>> {
    let mut found = Vec::new();
    for stop in stops {
        let options = EncodeOptions { add_special: false, parse_special: true };
        if let [id] = tokenizer.encode(stop.as_bytes(), options)?[..] {
            found.extend(Some(id).filter(|&id| tokenizer.is_control(id)));
        }
    }
    Ok(found)
}

/// Lets text through up to the first stop text, and holds back what may be the beginning of one.
struct StopGate<'a> {
    stops: &'a [String],
    held: String,
    is_closed: bool,
}

impl<'a> StopGate<'a> {
    fn new(stops: &'a [String]) -> Self {
        // What is held back and the next piece: room from the start, so that a token allocates
        // nothing.
        let room = stops.iter().map(String::len).max().map_or(0, |longest| longest + 256);
        StopGate { stops, held: String::with_capacity(room), is_closed: false }
    }

    fn pass(&mut self, text: &str, on_text: &mut dyn FnMut(&str) -> ControlFlow<()>) -> ControlFlow<()> {
        if self.stops.is_empty() {
            return hand_out(text, on_text);
        }
        self.held.push_str(text);
        let found = self.stops.iter().filter(|s| !s.is_empty()).filter_map(|s| self.held.find(s.as_str())).min();
        if let Some(at) = found {
            self.is_closed = true;
            return hand_out(&self.held[..at], on_text);
        }
        let sure = self.held.len() - self.held_back();
        let flow = hand_out(&self.held[..sure], on_text);
        self.held.drain(..sure);
        flow
    }

    /// Bytes at the end that a stop text may begin with.
    fn held_back(&self) -> usize {
        let longest = |stop: &String| {
            let starts = stop.char_indices().map(|(i, _)| i).skip(1);
            starts.filter(|&n| self.held.ends_with(&stop[..n])).max().unwrap_or(0)
        };
        self.stops.iter().map(longest).max().unwrap_or(0)
    }

    /// Generation has ended: what was held back is text.
    fn finish(&mut self, rest: &str, on_text: &mut dyn FnMut(&str) -> ControlFlow<()>) {
        let _ = self.pass(rest, on_text);
        if !self.is_closed {
            let _ = hand_out(&self.held, on_text);
        }
    }
}

fn hand_out(text: &str, on_text: &mut dyn FnMut(&str) -> ControlFlow<()>) -> ControlFlow<()> {
    if text.is_empty() { ControlFlow::Continue(()) } else { on_text(text) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn through(stops: &[&str], pieces: &[&str]) -> (String, bool) {
        let stops: Vec<String> = stops.iter().map(|s| s.to_string()).collect();
        let mut gate = StopGate::new(&stops);
        let mut out = String::new();
        let mut on_text = |text: &str| {
            out.push_str(text);
            ControlFlow::Continue(())
        };
        for piece in pieces {
            if !gate.is_closed {
                let _ = gate.pass(piece, &mut on_text);
            }
        }
        if !gate.is_closed {
            gate.finish("", &mut on_text);
        }
        let is_closed = gate.is_closed;
        (out, is_closed)
    }

    #[test]
    fn stop_texts_end_generation_wherever_pieces_are_cut() {
        let cases: [(&[&str], &[&str], &str, bool); 6] = [
            (&[], &["a", "b"], "ab", false),
            (&["<|user|>"], &["Hi <", "|us", "er|> more"], "Hi ", true),
            (&["<|user|>"], &["Hi <", "|us", "ed"], "Hi <|used", false),
            (&["END", "###"], &["a ##", "#", "END"], "a ", true),
            (&["é!"], &["caf", "é", "?"], "café?", false),
            (&["aab"], &["aa", "ab", "c"], "a", true),
        ];
        for (stops, pieces, text, closed) in cases {
            assert_eq!(through(stops, pieces), (text.to_owned(), closed), "{stops:?} {pieces:?}");
        }
    }
}

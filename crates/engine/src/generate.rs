//! From a prompt to text, a piece at a time.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::{Duration, Instant};

use modelembed_text::TokenId;

use crate::error::Result;
use crate::sampler::Sampler;
use crate::session::Session;

/// When generation ends by itself.
#[derive(Clone, Debug)]
pub struct GenerateOptions {
    /// Tokens to generate at most.
    pub max_tokens: usize,
    /// Whether control tokens appear in the text.
    pub renders_special: bool,
}

impl Default for GenerateOptions {
    fn default() -> Self {
        GenerateOptions { max_tokens: 512, renders_special: false }
    }
}

/// Why generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// The model said that it is done.
    EndOfGeneration,
    /// As many tokens as were asked for.
    MaxTokens,
    /// No room for another token.
    ContextFull,
    /// The caller's callback asked for it.
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
    /// Evaluations of a single token after the prompt.
    pub decode_steps: usize,
    /// Time for these evaluations with sampling and text.
    pub decode_time: Duration,
    /// From the start to the first piece of text.
    pub first_token_time: Duration,
    /// Why it ended.
    pub stop: StopReason,
    /// The last generated token, where its text was handed out but the context does not hold it yet.
    pub pending: Option<TokenId>,
}

impl GenerateStats {
    /// Prompt tokens per second; 0 where nothing was measured.
    pub fn prompt_tokens_per_second(&self) -> f64 {
        per_second(self.prompt_tokens, self.prompt_time)
    }

    /// Decoded tokens per second; 0 where nothing was measured.
    pub fn decode_tokens_per_second(&self) -> f64 {
        per_second(self.decode_steps, self.decode_time)
    }
}

fn per_second(n: usize, time: Duration) -> f64 {
    if time.is_zero() { 0.0 } else { n as f64 / time.as_secs_f64() }
}

/// Evaluates `prompt`, then samples and evaluates token after token, and hands each piece of complete UTF-8 to `on_text`.
///
/// The last token is not evaluated (see [`GenerateStats::pending`]): nothing is asked about what follows it.
///
/// # Errors
/// As [`Session::eval`]. A prompt that does not fit is an error; a context that fills up later ends generation.
pub fn generate(
    session: &mut Session,
    sampler: &mut Sampler,
    prompt: &[TokenId],
    options: &GenerateOptions,
    mut on_text: impl FnMut(&str) -> ControlFlow<()>,
) -> Result<GenerateStats> {
    generate_making_room(session, sampler, prompt, options, &mut on_text, &mut |_| false)
}

/// [`generate`] that calls `make_room` when the context is full, and goes on if that returns true.
pub(crate) fn generate_making_room(
    session: &mut Session,
    sampler: &mut Sampler,
    prompt: &[TokenId],
    options: &GenerateOptions,
    on_text: &mut dyn FnMut(&str) -> ControlFlow<()>,
    make_room: &mut dyn FnMut(&mut Session) -> bool,
) -> Result<GenerateStats> {
    let model = Arc::clone(session.model());
    let tokenizer = model.tokenizer();
    let mut detokenizer = tokenizer.detokenizer();
    let start = Instant::now();
    for &id in prompt {
        sampler.accept(id);
    }
    let mut logits = session.eval(prompt)?;
    let prompt_time = start.elapsed();
    let (mut generated_tokens, mut decode_steps, mut first_token_time) = (0, 0, Duration::ZERO);
    let mut pending = None;
    let stop = loop {
        if generated_tokens == options.max_tokens {
            break StopReason::MaxTokens;
        }
        if let Some(id) = pending.take() {
            if session.len() == session.capacity() && !make_room(session) {
                pending = Some(id);
                break StopReason::ContextFull;
            }
            logits = session.eval(&[id])?;
            decode_steps += 1;
        }
        let id = sampler.sample(logits);
        sampler.accept(id);
        if tokenizer.is_eog(id) {
            break StopReason::EndOfGeneration;
        }
        pending = Some(id);
        generated_tokens += 1;
        let text = detokenizer.push(id, options.renders_special);
        let flow = if text.is_empty() { ControlFlow::Continue(()) } else { on_text(text) };
        if generated_tokens == 1 {
            first_token_time = start.elapsed();
        }
        if flow.is_break() {
            break StopReason::Callback;
        }
    };
    if stop != StopReason::Callback {
        let rest = detokenizer.finish();
        if !rest.is_empty() {
            let _ = on_text(rest); // generation has ended anyway
        }
    }
    Ok(GenerateStats {
        prompt_tokens: prompt.len(),
        prompt_time,
        generated_tokens,
        decode_steps,
        decode_time: start.elapsed() - prompt_time,
        first_token_time,
        stop,
        pending,
    })
}

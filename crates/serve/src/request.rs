//! What a client wants.

use modelembed::{DryBreakers, SamplerOptions, TokenId};

/// What a client wants: a prompt, and how it is answered. [`Request::new`] is a plain one, whose
/// fields can then be set.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Request {
    /// The prompt: at least one token.
    pub prompt: Vec<TokenId>,
    /// Numbers of tokens of the prompt behind which later requests may go on otherwise: where
    /// messages of a chat end. A model with recurrences keeps its state there; others can go on
    /// anywhere.
    pub turn_ends: Vec<usize>,
    /// How tokens are chosen, with the seed.
    pub sampling: SamplerOptions,
    /// What is added to logits before everything else; minus infinity forbids a token.
    pub logit_bias: Vec<(TokenId, f32)>,
    /// What ends every sequence that DRY looks for.
    pub dry_breakers: Option<DryBreakers>,
    /// With each token its log-probability, and so many of the most likely ones with theirs. They
    /// are of the model's own distribution, before biases, penalties and the temperature.
    pub logprobs: Option<usize>,
    /// The same for each token of the prompt. The whole prompt is computed then.
    pub prompt_logprobs: Option<usize>,
    /// Tokens of the answer at most, and never more than the context has room for. With 0 the
    /// prompt is computed, and nothing is chosen.
    pub max_tokens: Option<usize>,
    /// Tokens of the answer before which nothing ends it but `max_tokens`: tokens that end a
    /// generation are not chosen, and stop texts are text.
    pub min_tokens: usize,
    /// Tokens that end a generation are never chosen.
    pub ignore_eos: bool,
    /// Texts that end the answer, and are not part of it.
    pub stop: Vec<String>,
    /// Tokens that end the answer, and are not part of it.
    pub stop_tokens: Vec<TokenId>,
    /// Whether control tokens have their names as text.
    pub renders_special: bool,
    /// Control tokens that have text in any case: those that reasoning is marked with, say.
    pub shown_tokens: Vec<TokenId>,
    /// Prefixes are shared with requests of the same salt only.
    pub salt: Option<String>,
}

impl Request {
    /// A prompt that is answered by the default sampler until the model has done.
    pub fn new(prompt: Vec<TokenId>) -> Request {
        Request {
            prompt,
            turn_ends: Vec::new(),
            sampling: SamplerOptions::default(),
            logit_bias: Vec::new(),
            dry_breakers: None,
            logprobs: None,
            prompt_logprobs: None,
            max_tokens: None,
            min_tokens: 0,
            ignore_eos: false,
            stop: Vec::new(),
            stop_tokens: Vec::new(),
            renders_special: false,
            shown_tokens: Vec::new(),
            salt: None,
        }
    }
}

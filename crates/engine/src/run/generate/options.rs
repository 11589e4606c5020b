//! When a generation ends, and how its tokens are chosen.

use crate::run::sampler::SamplerOptions;

/// When a generation ends by itself, and how its tokens are chosen.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct GenerateOptions {
    /// Tokens to generate at most.
    pub max_tokens: usize,
    /// How each token is chosen, unless the call is given a chooser.
    pub sampler: SamplerOptions,
    /// Whether control tokens appear in the text.
    pub renders_special: bool,
    /// Names of control tokens that appear in the text in any case: those that reasoning is marked
    /// with, say. A name that the vocabulary lacks is nothing.
    pub shown_tokens: Vec<String>,
    /// Texts that end generation; they and what follows them are not handed out. The name of a
    /// control token ends it too, whether such tokens appear in the text or not.
    pub stop: Vec<String>,
    /// Draft tokens at most (7 are the most that is of use), from what followed the same words
    /// earlier in the context, and checked in one evaluation; 0 drafts nothing. The text does not
    /// depend on it.
    pub lookup_tokens: usize,
}

impl Default for GenerateOptions {
    fn default() -> Self {
        GenerateOptions {
            max_tokens: 512,
            sampler: SamplerOptions::default(),
            renders_special: false,
            shown_tokens: Vec::new(),
            stop: Vec::new(),
            lookup_tokens: 0,
        }
    }
}

impl GenerateOptions {
    /// These options with at most so many tokens; `usize::MAX` sets no limit.
    #[must_use]
    pub fn max_tokens(mut self, tokens: usize) -> GenerateOptions {
        self.max_tokens = tokens;
        self
    }

    /// These options with tokens chosen like this.
    #[must_use]
    pub fn sampler(mut self, sampler: SamplerOptions) -> GenerateOptions {
        self.sampler = sampler;
        self
    }

    /// These options with control tokens in the text, or without.
    #[must_use]
    pub fn renders_special(mut self, renders_special: bool) -> GenerateOptions {
        self.renders_special = renders_special;
        self
    }

    /// These options with these control tokens in the text in any case, and no others.
    #[must_use]
    pub fn shown_tokens<T: Into<String>>(mut self, names: impl IntoIterator<Item = T>) -> GenerateOptions {
        self.shown_tokens = names.into_iter().map(Into::into).collect();
        self
    }

    /// These options with these texts that end generation, and no others.
    #[must_use]
    pub fn stop<T: Into<String>>(mut self, texts: impl IntoIterator<Item = T>) -> GenerateOptions {
        self.stop = texts.into_iter().map(Into::into).collect();
        self
    }

    /// These options with at most so many draft tokens.
    #[must_use]
    pub fn lookup_tokens(mut self, tokens: usize) -> GenerateOptions {
        self.lookup_tokens = tokens;
        self
    }
}

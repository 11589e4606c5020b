//! From a prompt to text, a piece at a time.

mod choose;
mod decoding;
mod gate;
mod options;
mod piece;
mod prompt;

use std::ops::ControlFlow;
use std::time::Duration;

use modelembed_text::TokenId;

use crate::error::Result;
use crate::run::sampler::Sampler;
use crate::run::session::Session;

pub use choose::ChooseToken;
pub(crate) use decoding::Decoding;
pub use gate::StopGate;
pub use options::GenerateOptions;
pub use piece::Piece;
pub use prompt::Prompt;

/// Why generation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum StopReason {
    /// The model said that it is done.
    EndOfGeneration,
    /// One of the texts that end generation appeared.
    StopText,
    /// As many tokens as were asked for.
    MaxTokens,
    /// No room for another token.
    ContextFull,
    /// The caller wanted no more: its callback said so, or the session was cancelled behind the
    /// prompt.
    Caller,
}

/// What a generation did so far and how long it took.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
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
    /// Why it ended; `None` while it goes on, and where an error ended it.
    pub stop: Option<StopReason>,
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

/// Text that is being generated: an iterator over its pieces, each complete UTF-8.
///
/// A token is computed when the next piece is asked for. Dropped half way, it leaves the session
/// with what was handed out: the next text goes on from there. The last token is not evaluated (see
/// [`Session::pending`]): nothing was asked about what follows it.
#[must_use = "a token is computed when the next piece is asked for"]
pub struct Generation<'s> {
    session: &'s mut Session,
    chooser: Chooser<'s>,
    decoding: Decoding,
    /// Bytes of its text that were handed out.
    n_taken: usize,
}

enum Chooser<'s> {
    Own(Box<Sampler>),
    Lent(&'s mut dyn ChooseToken),
}

impl Chooser<'_> {
    fn get(&mut self) -> &mut dyn ChooseToken {
        match self {
            Chooser::Own(sampler) => &mut **sampler,
            Chooser::Lent(chooser) => *chooser,
        }
    }
}

impl<'s> Generation<'s> {
    fn begin(
        session: &'s mut Session,
        mut chooser: Chooser<'s>,
        prompt: Prompt<'_>,
        options: &GenerateOptions,
    ) -> Result<Generation<'s>> {
        let encoded;
        let tokens = match prompt {
            Prompt::Tokens(tokens) => tokens,
            Prompt::Text(text) => {
                encoded = session.encode_next(text)?;
                &encoded
            }
        };
        let decoding = Decoding::begin(session, chooser.get(), tokens, options)?;
        Ok(Generation { session, chooser, decoding, n_taken: 0 })
    }

    /// Counts and times so far.
    pub fn stats(&self) -> GenerateStats {
        self.decoding.stats()
    }

    /// Goes on to the next text; `None` at the end.
    fn next_text(&mut self) -> Result<Option<&str>> {
        self.n_taken = 0;
        let more = self.decoding.advance(self.session, self.chooser.get(), &mut |_| Ok(false))?;
        Ok(more.then(|| self.decoding.text()))
    }
}

impl Iterator for Generation<'_> {
    type Item = Result<Piece>;

    /// The next piece, or what ended the text: as [`Session::eval`], or a token of one's own
    /// chooser that the vocabulary lacks. What was handed out before stays so.
    fn next(&mut self) -> Option<Result<Piece>> {
        if self.n_taken == self.decoding.text().len() {
            match self.next_text() {
                Ok(Some(_)) => {}
                Ok(None) => return None,
                Err(error) => return Some(Err(error)),
            }
        }
        let piece = Piece::front(&self.decoding.text()[self.n_taken..]);
        self.n_taken += piece.len();
        Some(Ok(piece))
    }
}

impl std::iter::FusedIterator for Generation<'_> {}

impl Drop for Generation<'_> {
    fn drop(&mut self) {
        // Drafts can always be taken back.
        let _ = self.decoding.leave(self.session);
    }
}

impl std::fmt::Debug for Generation<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Generation").field("stats", &self.stats()).finish_non_exhaustive()
    }
}

impl Session {
    /// Generates what follows a prompt: a text or tokens, see [`Prompt`]. The prompt is evaluated
    /// here, the rest as the pieces of the text are asked for.
    ///
    /// Tokens are chosen by [`GenerateOptions::sampler`], whose penalties look at what the session
    /// holds too, and whose random stream begins anew.
    ///
    /// ```no_run
    /// # let model = modelembed::Model::open("model.gguf")?;
    /// let mut session = model.session(Default::default())?;
    /// let mut text = session.generate("Once upon a time", Default::default())?;
    /// for piece in &mut text {
    ///     print!("{}", piece?);
    /// }
    /// println!("\n{:.1} tokens/s", text.stats().decode_tokens_per_second());
    /// # Ok::<(), modelembed::Error>(())
    /// ```
    ///
    /// # Errors
    /// As [`eval`](Self::eval), a model without a vocabulary, or options that the sampler does not
    /// take. A prompt that does not fit is an error; a context that fills up later ends the text.
    pub fn generate<'p>(&mut self, prompt: impl Into<Prompt<'p>>, options: GenerateOptions) -> Result<Generation<'_>> {
        let mut sampler = Box::new(Sampler::new(options.sampler)?);
        self.tokens().iter().for_each(|&id| sampler.accept(id));
        Generation::begin(self, Chooser::Own(sampler), prompt.into(), &options)
    }

    /// As [`generate`](Self::generate), with tokens chosen by a [`Sampler`] that is kept from text
    /// to text, or by a function of one's own; [`GenerateOptions::sampler`] is left aside. The
    /// chooser is told the prompt's tokens and those that it chose.
    ///
    /// # Errors
    /// As [`generate`](Self::generate).
    pub fn generate_with<'s, 'p>(
        &'s mut self,
        chooser: &'s mut dyn ChooseToken,
        prompt: impl Into<Prompt<'p>>,
        options: GenerateOptions,
    ) -> Result<Generation<'s>> {
        Generation::begin(self, Chooser::Lent(chooser), prompt.into(), &options)
    }
}

/// [`Session::generate_with`] that hands each piece of text to `on_text`, until that says `Break`.
///
/// # Errors
/// As [`Session::generate`] and what follows it; whatever was handed out before stays so.
pub fn generate(
    session: &mut Session,
    sampler: &mut Sampler,
    prompt: &[TokenId],
    options: &GenerateOptions,
    mut on_text: impl FnMut(&str) -> ControlFlow<()>,
) -> Result<GenerateStats> {
    let mut generation = Generation::begin(session, Chooser::Lent(sampler), prompt.into(), options)?;
    while let Some(text) = generation.next_text()? {
        if on_text(text).is_break() {
            generation.decoding.cancel();
        }
    }
    Ok(generation.stats())
}

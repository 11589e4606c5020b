//! What a sampler can be told.

use super::order::{SamplerOrder, SamplerStep};

/// How the next token is chosen. The defaults are llama.cpp's, but for the seed.
#[derive(Clone, Copy, Debug, PartialEq)]
#[non_exhaustive]
pub struct SamplerOptions {
    /// Divides the logits; above 1 the text gets more surprising. 0 always takes the most likely
    /// token.
    pub temp: f32,
    /// With a range above 0 the temperature is from `temp - range` for a certain choice to `temp +
    /// range` for one between equals.
    pub dynatemp_range: f32,
    /// Power of the entropy (1 for equals) that sets the temperature within that range.
    pub dynatemp_exponent: f32,
    /// Keeps the `top_k` most likely tokens; 0 keeps all.
    pub top_k: usize,
    /// Keeps the fewest most likely tokens that together have at least this probability; 1 keeps
    /// all.
    pub top_p: f32,
    /// Keeps tokens at least this fraction as likely as the most likely one; 0 keeps all.
    pub min_p: f32,
    /// Keeps the tokens that surprise about as much as the average, which together have this
    /// probability; 1 keeps all.
    pub typical_p: f32,
    /// Keeps tokens whose logits are at most so many standard deviations below the greatest; 0 or
    /// less keeps all.
    pub top_n_sigma: f32,
    /// Leaves out the most likely ones of several likely tokens.
    pub xtc: Option<Xtc>,
    /// Divides positive and multiplies negative logits of recent tokens; 1 changes nothing.
    pub repeat_penalty: f32,
    /// Is taken off the logit of a recent token for each time it occurs.
    pub frequency_penalty: f32,
    /// Is taken off the logit of a recent token once.
    pub presence_penalty: f32,
    /// How many of the last accepted tokens count as recent.
    pub repeat_last_n: usize,
    /// Makes it less likely to go on with a sequence that was there before.
    pub dry: Option<Dry>,
    /// Steers how surprising the text is, in place of every other step but the temperature.
    pub mirostat: Option<Mirostat>,
    /// The steps that are taken, in this order.
    pub order: SamplerOrder,
    /// Start of the random stream. The same seed gives the same stream on every machine.
    pub seed: u64,
}

/// "Exclude top choices": of the tokens with at least the probability `threshold` only the least
/// likely one stays.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Xtc {
    /// How often that is done, from 0 to 1; it takes 64 bits of the random stream a token.
    pub probability: f32,
    /// Above 0.5 no two tokens reach it, and nothing is left out.
    pub threshold: f32,
}

/// "Don't repeat yourself": a token that goes on with a sequence of n tokens which was there before
/// loses `multiplier * base ^ (n - allowed_length)` of its logit.
///
/// What counts as the end of every sequence is told to
/// [`Sampler::set_dry_breakers`](super::Sampler::set_dry_breakers).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Dry {
    /// The penalty of a sequence of the allowed length; 0 turns it off.
    pub multiplier: f32,
    /// Grows with each token beyond it.
    pub base: f32,
    /// Tokens that may be repeated for nothing, less one.
    pub allowed_length: usize,
    /// How many of the last accepted tokens are looked through; `None`: all of them.
    pub last_n: Option<usize>,
}

impl Default for Dry {
    fn default() -> Dry {
        Dry { multiplier: 0.8, base: 1.75, allowed_length: 2, last_n: Some(64) }
    }
}

/// Mirostat (Basu et al. 2020, arXiv 2007.14966): keeps the surprise of each token near `tau` bits.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Mirostat {
    /// Which of the paper's two algorithms.
    pub version: MirostatVersion,
    /// Wanted surprise of a token, in bits.
    pub tau: f32,
    /// How fast the bound follows the surprise that was seen.
    pub eta: f32,
}

/// Which of the algorithms of [`Mirostat`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MirostatVersion {
    /// Estimates the exponent of Zipf's law from the most likely tokens, and from that how many to
    /// keep.
    V1,
    /// Keeps the tokens that surprise less than the bound.
    V2,
}

impl SamplerOptions {
    /// Draws from all tokens by their probability.
    pub const NEUTRAL: SamplerOptions = SamplerOptions {
        temp: 1.0,
        dynatemp_range: 0.0,
        dynatemp_exponent: 1.0,
        top_k: 0,
        top_p: 1.0,
        min_p: 0.0,
        typical_p: 1.0,
        top_n_sigma: 0.0,
        xtc: None,
        repeat_penalty: 1.0,
        frequency_penalty: 0.0,
        presence_penalty: 0.0,
        repeat_last_n: 64,
        dry: None,
        mirostat: None,
        order: SamplerOrder::DEFAULT,
        seed: 42,
    };
}

impl Default for SamplerOptions {
    fn default() -> SamplerOptions {
        SamplerOptions { temp: 0.8, top_k: 40, top_p: 0.95, min_p: 0.05, ..SamplerOptions::NEUTRAL }
    }
}

/// An option of [`SamplerOptions`] has a value that it cannot have.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{option} is {seen}, wanted {wanted}")]
pub struct InvalidSamplerOption {
    /// The option's name.
    pub option: &'static str,
    /// The value it has.
    pub seen: f32,
    /// The values it can have.
    pub wanted: &'static str,
}

impl SamplerOptions {
    /// These options with this temperature; 0 always takes the most likely token.
    #[must_use]
    pub const fn temp(mut self, temp: f32) -> SamplerOptions {
        self.temp = temp;
        self
    }

    /// These options with a temperature from `temp - range` to `temp + range`.
    #[must_use]
    pub const fn dynatemp_range(mut self, dynatemp_range: f32) -> SamplerOptions {
        self.dynatemp_range = dynatemp_range;
        self
    }

    /// These options with this power of the entropy.
    #[must_use]
    pub const fn dynatemp_exponent(mut self, dynatemp_exponent: f32) -> SamplerOptions {
        self.dynatemp_exponent = dynatemp_exponent;
        self
    }

    /// These options with the `top_k` most likely tokens kept.
    #[must_use]
    pub const fn top_k(mut self, top_k: usize) -> SamplerOptions {
        self.top_k = top_k;
        self
    }

    /// These options with the fewest tokens kept that together have this probability.
    #[must_use]
    pub const fn top_p(mut self, top_p: f32) -> SamplerOptions {
        self.top_p = top_p;
        self
    }

    /// These options with tokens kept that are this fraction as likely as the most likely one.
    #[must_use]
    pub const fn min_p(mut self, min_p: f32) -> SamplerOptions {
        self.min_p = min_p;
        self
    }

    /// These options with the most typical tokens kept that together have this probability.
    #[must_use]
    pub const fn typical_p(mut self, typical_p: f32) -> SamplerOptions {
        self.typical_p = typical_p;
        self
    }

    /// These options with tokens kept up to so many standard deviations below the greatest logit.
    #[must_use]
    pub const fn top_n_sigma(mut self, top_n_sigma: f32) -> SamplerOptions {
        self.top_n_sigma = top_n_sigma;
        self
    }

    /// These options with the most likely ones of several likely tokens left out.
    #[must_use]
    pub fn xtc(mut self, xtc: impl Into<Option<Xtc>>) -> SamplerOptions {
        self.xtc = xtc.into();
        self
    }

    /// These options with the logits of recent tokens divided by this.
    #[must_use]
    pub const fn repeat_penalty(mut self, repeat_penalty: f32) -> SamplerOptions {
        self.repeat_penalty = repeat_penalty;
        self
    }

    /// These options with this taken off the logit of a recent token each time it occurs.
    #[must_use]
    pub const fn frequency_penalty(mut self, frequency_penalty: f32) -> SamplerOptions {
        self.frequency_penalty = frequency_penalty;
        self
    }

    /// These options with this taken off the logit of a recent token once.
    #[must_use]
    pub const fn presence_penalty(mut self, presence_penalty: f32) -> SamplerOptions {
        self.presence_penalty = presence_penalty;
        self
    }

    /// These options with so many tokens counting as recent.
    #[must_use]
    pub const fn repeat_last_n(mut self, repeat_last_n: usize) -> SamplerOptions {
        self.repeat_last_n = repeat_last_n;
        self
    }

    /// These options with a penalty for going on with what was there before.
    #[must_use]
    pub fn dry(mut self, dry: impl Into<Option<Dry>>) -> SamplerOptions {
        self.dry = dry.into();
        self
    }

    /// These options with the surprise of the text steered.
    #[must_use]
    pub fn mirostat(mut self, mirostat: impl Into<Option<Mirostat>>) -> SamplerOptions {
        self.mirostat = mirostat.into();
        self
    }

    /// These options with these steps, in this order.
    #[must_use]
    pub const fn order(mut self, order: SamplerOrder) -> SamplerOptions {
        self.order = order;
        self
    }

    /// These options with a random stream that begins here.
    #[must_use]
    pub const fn seed(mut self, seed: u64) -> SamplerOptions {
        self.seed = seed;
        self
    }

    /// Checks that every number is one that the chain can work with.
    pub fn validate(&self) -> Result<(), InvalidSamplerOption> {
        let check = |option, seen: f32, ok: bool, wanted| match ok {
            true => Ok(()),
            false => Err(InvalidSamplerOption { option, seen, wanted }),
        };
        let fraction = |option, p: f32| check(option, p, (0.0..=1.0).contains(&p), "a number from 0 to 1");
        let number = |option, x: f32| check(option, x, x.is_finite(), "a finite number");
        let from_0 = |option, x: f32| check(option, x, x.is_finite() && x >= 0.0, "a finite number from 0");
        from_0("temp", self.temp)?;
        from_0("dynatemp_range", self.dynatemp_range)?;
        from_0("dynatemp_exponent", self.dynatemp_exponent)?;
        fraction("top_p", self.top_p)?;
        fraction("min_p", self.min_p)?;
        fraction("typical_p", self.typical_p)?;
        number("top_n_sigma", self.top_n_sigma)?;
        if let Some(xtc) = &self.xtc {
            fraction("xtc.probability", xtc.probability)?;
            fraction("xtc.threshold", xtc.threshold)?;
        }
        let penalty = self.repeat_penalty;
        check("repeat_penalty", penalty, penalty.is_finite() && penalty > 0.0, "a finite number above 0")?;
        number("frequency_penalty", self.frequency_penalty)?;
        number("presence_penalty", self.presence_penalty)?;
        if let Some(dry) = &self.dry {
            from_0("dry.multiplier", dry.multiplier)?;
            check("dry.base", dry.base, dry.base.is_finite() && dry.base >= 1.0, "a finite number from 1")?;
        }
        if let Some(mirostat) = &self.mirostat {
            from_0("mirostat.tau", mirostat.tau)?;
            from_0("mirostat.eta", mirostat.eta)?;
        }
        Ok(())
    }

    /// Whether a step would change anything, wherever it stands.
    pub(super) fn uses(&self, step: SamplerStep) -> bool {
        match step {
            SamplerStep::Penalties => {
                let Self { repeat_penalty, frequency_penalty, presence_penalty, .. } = *self;
                self.repeat_last_n > 0 && (repeat_penalty, frequency_penalty, presence_penalty) != (1.0, 0.0, 0.0)
            }
            SamplerStep::Dry => self.dry.is_some_and(|dry| dry.multiplier > 0.0 && dry.last_n != Some(0)),
            SamplerStep::TopNSigma => self.top_n_sigma > 0.0,
            SamplerStep::TopK => self.top_k > 0,
            SamplerStep::TypicalP => self.typical_p < 1.0,
            SamplerStep::TopP => self.top_p < 1.0,
            SamplerStep::MinP => self.min_p > 0.0,
            SamplerStep::Xtc => self.xtc.is_some_and(|xtc| xtc.probability > 0.0 && xtc.threshold <= 0.5),
            SamplerStep::Temperature => self.temp != 1.0 || self.temp_range() > 0.0,
        }
    }

    /// Whether the temperature leaves one token, whatever the logits are.
    pub(super) fn is_greedy(&self) -> bool {
        self.temp == 0.0 && self.temp_range() == 0.0
    }

    /// How far the temperature may be from `temp`. Mirostat takes that as it is.
    pub(super) fn temp_range(&self) -> f32 {
        if self.mirostat.is_some() { 0.0 } else { self.dynatemp_range }
    }
}

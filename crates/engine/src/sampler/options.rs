//! What a sampler can be told.

/// How the next token is chosen. The defaults are llama.cpp's, but for the seed.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct SamplerOptions {
    /// Divides the logits; above 1 the text gets more surprising. 0 always takes the most likely token.
    pub temp: f32,
    /// Keeps the `top_k` most likely tokens; 0 keeps all.
    pub top_k: usize,
    /// Keeps the fewest most likely tokens that together have at least this probability; 1 keeps all.
    pub top_p: f32,
    /// Keeps tokens at least this fraction as likely as the most likely one; 0 keeps all.
    pub min_p: f32,
    /// Divides positive and multiplies negative logits of recent tokens; 1 changes nothing.
    pub repeat_penalty: f32,
    /// How many of the last accepted tokens count as recent.
    pub repeat_last_n: usize,
    /// Start of the random stream. The same seed gives the same stream on every machine.
    pub seed: u64,
}

impl Default for SamplerOptions {
    fn default() -> SamplerOptions {
        SamplerOptions {
            temp: 0.8,
            top_k: 40,
            top_p: 0.95,
            min_p: 0.05,
            repeat_penalty: 1.0,
            repeat_last_n: 64,
            seed: 42,
        }
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
    /// Checks that every number is one that the chain can work with.
    pub fn validate(&self) -> Result<(), InvalidSamplerOption> {
        let check = |option, seen: f32, ok: bool, wanted| match ok {
            true => Ok(()),
            false => Err(InvalidSamplerOption { option, seen, wanted }),
        };
        let fraction = |p: f32| (0.0..=1.0).contains(&p);
        let Self { temp, top_p, min_p, repeat_penalty, .. } = *self;
        check("temp", temp, temp.is_finite() && temp >= 0.0, "a finite number from 0")?;
        check("top_p", top_p, fraction(top_p), "a number from 0 to 1")?;
        check("min_p", min_p, fraction(min_p), "a number from 0 to 1")?;
        let penalty_ok = repeat_penalty.is_finite() && repeat_penalty > 0.0;
        check("repeat_penalty", repeat_penalty, penalty_ok, "a finite number above 0")
    }
}

impl SamplerOptions {
    pub(super) fn penalises(&self) -> bool {
        self.repeat_penalty != 1.0 && self.repeat_last_n > 0
    }
}

//! Choosing the next token from its logits.
//!
//! The steps, their names and their default order are llama.cpp's: penalties, DRY, top-n-sigma,
//! top-k, typical-p, top-p, min-p, XTC, temperature, draw. (All but the draw therefore see
//! probabilities at temperature 1.) Nothing here sorts a vocabulary that a cut leaves little of:
//! the cut is found by selection, and only what it keeps is sorted.

mod candidate;
mod chain;
mod draw;
mod dry;
mod dry_breakers;
mod math;
mod min_p;
mod mirostat;
mod options;
mod order;
mod penalties;
mod temperature;
mod top_k;
mod top_n_sigma;
mod top_p;
mod typical;
mod xtc;

use std::mem;

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};

pub use candidate::Candidate;
use candidate::Candidates;
use draw::{draw, unit};
use dry::Repeats;
pub use dry_breakers::{DryBreakers, InvalidDryBreaker};
use mirostat::Controller;
pub use options::{Dry, InvalidSamplerOption, Mirostat, MirostatVersion, SamplerOptions, Xtc};
pub use order::{InvalidSamplerOrder, SamplerOrder, SamplerStep};
use penalties::Penalties;

use crate::TokenId;
use crate::cpu::peaks::{Peaks, greatest};

/// The logarithm of the sum of the exponentials of logits, each a number or minus infinity: what is
/// taken off a logit to make it a log-probability. The same bits on every system.
pub fn log_sum_exp(logits: &[f32]) -> f64 {
    let max = greatest(logits);
    if !max.is_finite() {
        return f64::from(max);
    }
    // Sums of f32 over a stretch, which vector instructions add up, and of f64 over these.
    let sum_of = |stretch: &[f32]| {
        let (groups, rest) = stretch.as_chunks::<8>();
        let mut lanes = [0f32; 8];
        for group in groups {
            for (lane, &x) in lanes.iter_mut().zip(group) {
                *lane += math::exp(x - max);
            }
        }
        let rest = rest.iter().map(|&x| math::exp(x - max));
        lanes.into_iter().chain(rest).map(f64::from).sum::<f64>()
    };
    let total: f64 = logits.chunks(256).map(sum_of).sum();
    f64::from(max) + libm::log(total)
}

/// The chain with its state: recent tokens, the random stream and buffers.
///
/// The stream is ChaCha8 with the seed as the first 8 bytes of its key (little-endian, the rest
/// zero). Each draw takes 64 bits of it, also where one candidate is left, so that the stream's
/// position tells how many tokens were drawn; with XTC each takes 64 bits more, before those.
#[derive(Clone, Debug)]
pub struct Sampler {
    options: SamplerOptions,
    /// The steps of the order that change anything.
    steps: SamplerOrder,
    /// How many of them, at the front, change the logits of a few tokens only.
    n_front: usize,
    random: ChaCha8Rng,
    /// What is added to logits before all steps, in order of id, each once.
    biases: Vec<(TokenId, f32)>,
    penalties: Penalties,
    repeats: Option<Repeats>,
    mirostat: Option<Controller>,
    /// Of the last choice.
    candidates: Candidates,
    /// Peaks of logits that came without.
    peaks: Vec<f32>,
}

impl Default for Sampler {
    fn default() -> Sampler {
        Sampler::with_valid(SamplerOptions::default())
    }
}

impl Sampler {
    /// A sampler at the start of its random stream.
    pub fn new(options: SamplerOptions) -> Result<Sampler, InvalidSamplerOption> {
        options.validate()?;
        Ok(Sampler::with_valid(options))
    }

    fn with_valid(options: SamplerOptions) -> Sampler {
        let mut key = [0; 32];
        key[..8].copy_from_slice(&options.seed.to_le_bytes());
        let steps = chain::effective_steps(&options);
        let has = |step| steps.steps().contains(&step);
        let window = if has(SamplerStep::Penalties) { options.repeat_last_n } else { 0 };
        let changes_few = |step: &&SamplerStep| matches!(step, SamplerStep::Penalties | SamplerStep::Dry);
        Sampler {
            n_front: steps.steps().iter().take_while(changes_few).count(),
            random: ChaCha8Rng::from_seed(key),
            biases: Vec::new(),
            penalties: Penalties::new(window),
            repeats: options.dry.filter(|_| has(SamplerStep::Dry)).map(Repeats::new),
            mirostat: options.mirostat.map(Controller::new),
            candidates: Candidates::default(),
            peaks: Vec::new(),
            options,
            steps,
        }
    }

    /// The options it was made with.
    pub fn options(&self) -> &SamplerOptions {
        &self.options
    }

    /// Adds to the logit of each of these tokens, before everything else; minus infinity forbids
    /// it. Replaces what was set before; of a token that is there several times the sum counts. NaN
    /// and plus infinity are left out.
    pub fn set_logit_biases(&mut self, biases: impl IntoIterator<Item = (TokenId, f32)>) {
        self.biases.clear();
        self.biases.extend(biases.into_iter().filter(|(_, bias)| *bias < f32::INFINITY));
        self.biases.sort_by_key(|&(id, _)| id);
        self.biases.dedup_by(|next, kept| {
            let is_same = next.0 == kept.0;
            if is_same {
                kept.1 += next.1;
            }
            is_same
        });
    }

    /// Sets what ends every sequence that [`Dry`] looks for; nothing does at first.
    pub fn set_dry_breakers(&mut self, breakers: DryBreakers) {
        if let Some(repeats) = &mut self.repeats {
            repeats.set_breakers(breakers);
        }
    }

    /// Tells it that a token became part of the text, prompt or answer: penalties and DRY look back
    /// at these. Mirostat learns from the surprise of the first one after a choice.
    pub fn accept(&mut self, id: TokenId) {
        self.penalties.accept(id);
        if let Some(repeats) = &mut self.repeats {
            repeats.accept(id);
        }
        if let Some(mirostat) = &mut self.mirostat {
            if let Some(chosen) = self.candidates.list.iter().find(|c| c.id == id) {
                mirostat.learn(chosen.p);
            }
            self.candidates.clear();
        }
    }

    /// Forgets the accepted tokens and what Mirostat learnt. The random stream goes on.
    pub fn reset(&mut self) {
        self.penalties.clear();
        if let Some(repeats) = &mut self.repeats {
            repeats.clear();
        }
        if let Some(mirostat) = &mut self.mirostat {
            mirostat.reset();
        }
    }

    /// Mirostat's bound on the surprise of the next token, in bits; `None` without Mirostat.
    pub fn mirostat_mu(&self) -> Option<f32> {
        self.mirostat.as_ref().map(|mirostat| mirostat.mu)
    }

    /// Chooses a token from the logits, one a token of the vocabulary; biases and penalties change
    /// them in place.
    ///
    /// NaN and minus infinity are never chosen while another value is there, plus infinity is the
    /// largest number, and of equal logits the lower id counts as more likely. If there is nothing
    /// to choose from the answer is token 0. Allocates when the vocabulary is larger than any
    /// before, else not.
    pub fn sample(&mut self, logits: &mut [f32]) -> TokenId {
        let mut buffer = mem::take(&mut self.peaks);
        let peaks = Peaks::find(logits, &mut buffer);
        let id = self.sample_with_peaks(logits, peaks);
        self.peaks = buffer;
        id
    }

    /// [`sample`](Self::sample) where the peaks of the logits are known.
    pub(crate) fn sample_with_peaks(&mut self, logits: &mut [f32], mut peaks: Peaks<'_>) -> TokenId {
        if self.takes_the_best() {
            self.change(logits, &mut peaks, |id| Some(id.0 as usize));
            return TokenId(peaks.argmax(logits).unwrap_or(0) as u32);
        }
        let chance = self.chance();
        self.fill_candidates(logits, peaks, chance);
        self.draw()
    }

    /// How many of the most likely tokens it takes to choose one, besides those that it
    /// [changes](Self::changed); `None` if it takes all.
    pub fn n_best(&self) -> Option<usize> {
        let (front, rest) = self.steps.steps().split_at(self.n_front);
        // Which tokens DRY changes is known only when the text before them is.
        if front.contains(&SamplerStep::Dry) || self.mirostat.is_some() {
            return None;
        }
        let kept = match rest.first() {
            _ if self.takes_the_best() => 1,
            Some(SamplerStep::TopK) => self.options.top_k,
            _ => return None,
        };
        // As many as biases and the penalty may take from the front.
        Some(kept + self.changed().count())
    }

    /// Tokens whose logits biases and penalties change, some of them several times.
    pub fn changed(&self) -> impl Iterator<Item = TokenId> {
        let is_first = self.steps.steps()[..self.n_front].contains(&SamplerStep::Penalties);
        let recent = if is_first { self.penalties.counts() } else { &[] };
        recent.iter().map(|&(id, _)| id).chain(self.biases.iter().map(|&(id, _)| id))
    }

    /// [`sample`](Self::sample) from a part of the vocabulary that holds the
    /// [`n_best`](Self::n_best) most likely tokens and all [changed](Self::changed) ones: `ids` in
    /// ascending order, and the logit of each. The answer is the one that all logits give.
    pub fn sample_best(&mut self, ids: &[TokenId], logits: &mut [f32]) -> TokenId {
        let mut buffer = mem::take(&mut self.peaks);
        let mut peaks = Peaks::find(logits, &mut buffer);
        self.change(logits, &mut peaks, |id| ids.binary_search(&id).ok());
        let chosen = if self.takes_the_best() {
            peaks.argmax(logits).map_or(TokenId(0), |place| ids[place])
        } else {
            let chance = self.chance();
            self.choose_best(ids, logits, &peaks, chance);
            self.draw()
        };
        self.peaks = buffer;
        chosen
    }

    /// The tokens that [`Sampler::sample`] chooses among, with their probabilities after the whole
    /// chain: most likely first, or in order of id if no step had to sort them. Takes nothing from
    /// the random stream.
    pub fn distribution(&mut self, logits: &mut [f32]) -> &[Candidate] {
        let mut buffer = mem::take(&mut self.peaks);
        let peaks = Peaks::find(logits, &mut buffer);
        // What the next draw will find.
        let chance = if self.uses_xtc() { self.random.clone().next_u64() } else { 0 };
        self.fill_candidates(logits, peaks, chance);
        self.peaks = buffer;
        &self.candidates.list
    }

    fn uses_xtc(&self) -> bool {
        self.steps.steps().contains(&SamplerStep::Xtc)
    }

    /// Random bits for XTC.
    fn chance(&mut self) -> u64 {
        if self.uses_xtc() { self.random.next_u64() } else { 0 }
    }

    fn draw(&mut self) -> TokenId {
        let x = self.random.next_u64();
        draw(&self.candidates.list, x).unwrap_or(TokenId(0))
    }
}

#[cfg(test)]
mod tests;

//! Choosing the next token from its logits.
//!
//! The steps and their order are llama.cpp's: repetition penalty, top-k, top-p, min-p, temperature, draw. (Top-p and
//! min-p therefore see probabilities at temperature 1.) Nothing here sorts a vocabulary: each cut is found by
//! selection, and only what it keeps is sorted.

mod candidate;
mod draw;
mod math;
mod options;
mod top_k;
mod top_p;

use std::{collections::VecDeque, mem};

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};

pub use candidate::Candidate;
use candidate::{candidate, finite, more_likely};
use draw::draw;
use math::exp;
pub use options::{InvalidSamplerOption, SamplerOptions};
use top_k::select_top_k;
use top_p::{Nucleus, cut_top_p, gather};

use crate::TokenId;
use crate::cpu::peaks::Peaks;

/// The chain with its state: recent tokens, the random stream and buffers.
///
/// The stream is ChaCha8 with the seed as the first 8 bytes of its key (little-endian, the rest zero). Each draw takes
/// 64 bits of it, also where one candidate is left, so that the stream's position tells how many tokens were drawn.
#[derive(Clone, Debug)]
pub struct Sampler {
    options: SamplerOptions,
    random: ChaCha8Rng,
    /// The last accepted tokens, oldest first; stays empty without a penalty.
    recent: VecDeque<TokenId>,
    /// Recent tokens, each once.
    distinct: Vec<TokenId>,
    candidates: Vec<Candidate>,
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
        // A window larger than any context costs memory only once so many tokens were accepted.
        let window = if options.penalises() { options.repeat_last_n.min(1 << 16) } else { 0 };
        Sampler {
            options,
            random: ChaCha8Rng::from_seed(key),
            recent: VecDeque::with_capacity(window),
            distinct: Vec::with_capacity(window),
            candidates: Vec::new(),
            peaks: Vec::new(),
        }
    }

    /// The options it was made with.
    pub fn options(&self) -> &SamplerOptions {
        &self.options
    }

    /// Tells it that a token became part of the text, prompt or answer: the repetition penalty looks back at these.
    pub fn accept(&mut self, id: TokenId) {
        if !self.options.penalises() {
            return;
        }
        if self.recent.len() >= self.options.repeat_last_n {
            self.recent.pop_front();
        }
        self.recent.push_back(id);
    }

    /// Forgets the accepted tokens. The random stream goes on.
    pub fn reset(&mut self) {
        self.recent.clear();
    }

    /// Chooses a token from the logits, one a token of the vocabulary; the penalty changes them in place.
    ///
    /// NaN and minus infinity are never chosen while another value is there, plus infinity is the largest number, and
    /// of equal logits the lower id counts as more likely. If there is nothing to choose from the answer is token 0.
    /// Allocates when the vocabulary is larger than any before, else not.
    pub fn sample(&mut self, logits: &mut [f32]) -> TokenId {
        let mut buffer = mem::take(&mut self.peaks);
        let peaks = Peaks::find(logits, &mut buffer);
        let id = self.sample_with_peaks(logits, peaks);
        self.peaks = buffer;
        id
    }

    /// [`sample`](Self::sample) where the peaks of the logits are known.
    pub(crate) fn sample_with_peaks(&mut self, logits: &mut [f32], mut peaks: Peaks<'_>) -> TokenId {
        if self.options.temp == 0.0 {
            self.penalise(logits, &mut peaks, |id| Some(id.0 as usize));
            return TokenId(peaks.argmax(logits).unwrap_or(0) as u32);
        }
        self.chain(logits, peaks);
        let x = self.random.next_u64();
        draw(&self.candidates, x).unwrap_or(TokenId(0))
    }

    /// How many of the most likely tokens it takes to choose one, besides the [recent](Self::recent) ones; `None` if it takes all.
    pub fn n_best(&self) -> Option<usize> {
        let kept = match self.options {
            SamplerOptions { temp: 0.0, .. } => 1,
            SamplerOptions { top_k: 0, .. } => return None,
            SamplerOptions { top_k, .. } => top_k,
        };
        // As many as the penalty may take from the front.
        Some(kept + self.recent.len())
    }

    /// Tokens whose logits the penalty changes, some of them several times.
    pub fn recent(&self) -> impl Iterator<Item = TokenId> {
        self.recent.iter().copied()
    }

    /// [`sample`](Self::sample) from a part of the vocabulary that holds the [`n_best`](Self::n_best) most likely tokens and all
    /// recent ones: `ids` in ascending order, and the logit of each. The answer is the one that all logits give.
    pub fn sample_best(&mut self, ids: &[TokenId], logits: &mut [f32]) -> TokenId {
        let mut buffer = mem::take(&mut self.peaks);
        let mut peaks = Peaks::find(logits, &mut buffer);
        self.penalise(logits, &mut peaks, |id| ids.binary_search(&id).ok());
        let place = if self.options.temp == 0.0 {
            peaks.argmax(logits)
        } else {
            select_top_k(logits, &peaks, self.options.top_k.min(logits.len()), &mut self.candidates);
            let kept = self.sum_of_candidates();
            self.cut(kept);
            let x = self.random.next_u64();
            draw(&self.candidates, x).map(|place| place.0 as usize)
        };
        self.peaks = buffer;
        place.map_or(TokenId(0), |i| ids[i])
    }

    /// The tokens that [`Sampler::sample`] chooses among, with their probabilities after the whole chain: most likely
    /// first, or in order of id if the options cut nothing. Takes nothing from the random stream.
    pub fn distribution(&mut self, logits: &mut [f32]) -> &[Candidate] {
        let mut buffer = mem::take(&mut self.peaks);
        let peaks = Peaks::find(logits, &mut buffer);
        self.chain(logits, peaks);
        self.peaks = buffer;
        &self.candidates
    }

    /// Fills `candidates` with the [`distribution`](Self::distribution).
    fn chain(&mut self, logits: &mut [f32], mut peaks: Peaks<'_>) {
        self.penalise(logits, &mut peaks, |id| Some(id.0 as usize));
        self.candidates.clear();
        if self.options.temp == 0.0 {
            let best = peaks.argmax(logits);
            self.candidates.extend(best.map(|i| Candidate { p: 1.0, ..candidate(i, logits[i]) }));
            return;
        }
        let kept = self.select(logits, &peaks);
        self.cut(kept);
    }

    /// Leaves of the candidates what top-p and min-p keep, given the largest logit and the sum that top-p refers to, and gives
    /// each its probability.
    fn cut(&mut self, (max, total): (f32, f64)) {
        let SamplerOptions { temp, top_p, min_p, .. } = self.options;
        if top_p < 1.0 {
            cut_top_p(&mut self.candidates, max, total, top_p);
        }
        if min_p > 0.0 {
            let n = self.candidates.partition_point(|c| exp(c.logit - max) >= min_p);
            self.candidates.truncate(n);
        }
        let mut sum = 0f64;
        for c in &mut self.candidates {
            c.p = exp((c.logit - max) / temp);
            sum += f64::from(c.p);
        }
        let scale = (1.0 / sum) as f32;
        self.candidates.iter_mut().for_each(|c| c.p *= scale);
    }

    /// The largest logit of the candidates, which come in order, and the sum of exp(logit - largest).
    fn sum_of_candidates(&self) -> (f32, f64) {
        let max = self.candidates.first().map_or(0.0, |best| best.logit);
        (max, self.candidates.iter().map(|c| f64::from(exp(c.logit - max))).sum())
    }

    /// Fills `candidates` with the top k, or with all tokens that later steps may keep. Returns the largest logit and,
    /// for top-p, the sum of exp(logit - largest) over what is in question.
    fn select(&mut self, logits: &[f32], peaks: &Peaks<'_>) -> (f32, f64) {
        let SamplerOptions { top_k, top_p, min_p, .. } = self.options;
        let kept = &mut self.candidates;
        if 0 < top_k && top_k < logits.len() {
            select_top_k(logits, peaks, top_k, kept);
            return self.sum_of_candidates();
        }
        let max = Some(peaks.greatest()).filter(|&max| max > f32::NEG_INFINITY).map_or(0.0, finite);
        let cut = if top_p < 1.0 { Nucleus::find(logits, max, top_p) } else { Nucleus::EVERYTHING };
        kept.reserve(logits.len());
        gather(logits, max, &cut, min_p, kept);
        if top_p < 1.0 || min_p > 0.0 {
            kept.sort_unstable_by(more_likely);
        }
        (max, cut.total)
    }

    /// Changes the logits of recent tokens, and the peaks with them; `place` tells where a token's is.
    fn penalise(&mut self, logits: &mut [f32], peaks: &mut Peaks<'_>, place: impl Fn(TokenId) -> Option<usize>) {
        self.distinct.clear();
        self.distinct.extend(&self.recent);
        self.distinct.sort_unstable();
        self.distinct.dedup();
        for id in &self.distinct {
            let Some(i) = place(*id) else { continue };
            let Some(&before) = logits.get(i).filter(|logit| logit.is_finite()) else { continue };
            // Dividing a negative logit would make the token more likely.
            let penalty = self.options.repeat_penalty;
            logits[i] = finite(if before <= 0.0 { before * penalty } else { before / penalty });
            peaks.update(logits, i, before);
        }
    }
}

#[cfg(test)]
mod tests;

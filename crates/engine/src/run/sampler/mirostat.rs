//! Mirostat: a bound on the surprise that follows the surprise that was seen (Basu et al. 2020,
//! arXiv 2007.14966).

use std::f64::consts::LN_2;

use super::candidate::{Candidates, more_likely};
use super::options::{Mirostat, MirostatVersion};
use super::top_k::top_k;

/// Most likely tokens from which the exponent of Zipf's law is estimated.
const ESTIMATED_FROM: usize = 100;

/// The bound, and what it follows.
#[derive(Clone, Debug)]
pub(super) struct Controller {
    options: Mirostat,
    /// Surprise that is allowed, in bits.
    pub(super) mu: f32,
}

impl Controller {
    pub(super) fn new(options: Mirostat) -> Controller {
        Controller { options, mu: 2.0 * options.tau }
    }

    pub(super) fn reset(&mut self) {
        self.mu = 2.0 * self.options.tau;
    }

    /// A token with this probability among those that were left was chosen.
    pub(super) fn learn(&mut self, p: f32) {
        if p > 0.0 {
            let surprise = -libm::log2(f64::from(p));
            self.mu -= (f64::from(self.options.eta) * (surprise - f64::from(self.options.tau))) as f32;
        }
    }

    /// Leaves what the bound allows, at least one. `n_vocab` counts the tokens of the vocabulary.
    pub(super) fn apply(&self, candidates: &mut Candidates, n_vocab: usize) {
        match self.options.version {
            MirostatVersion::V1 => {
                let k = self.zipf_k(candidates, n_vocab);
                top_k(candidates, k);
            }
            MirostatVersion::V2 => self.cut_surprising(candidates),
        }
    }

    fn cut_surprising(&self, candidates: &mut Candidates) {
        let max = candidates.max();
        let ln_total = libm::log(candidates.total(max));
        let most = f64::from(self.mu) * LN_2 - ln_total;
        // The best one stays in any case.
        let best = candidates.list.iter().min_by(|a, b| more_likely(a, b)).map(|c| c.id);
        candidates.list.retain(|c| f64::from(max - c.logit) <= most || Some(c.id) == best);
        candidates.sort();
    }

    /// How many tokens have a surprise within the bound if the n-th one's probability goes with 1 /
    /// n^s.
    fn zipf_k(&self, candidates: &mut Candidates, n_vocab: usize) -> usize {
        let list = &mut candidates.list;
        let n = ESTIMATED_FROM.min(list.len());
        if !candidates.is_sorted && n < list.len() {
            // The best come to the front; behind them anything may be.
            list.select_nth_unstable_by(n - 1, more_likely);
        }
        list[..n].sort_unstable_by(more_likely);
        let (mut products, mut squares) = (0f64, 0f64);
        for (i, pair) in list[..n].windows(2).enumerate() {
            let t = libm::log((i + 2) as f64 / (i + 1) as f64);
            products += t * f64::from(pair[0].logit - pair[1].logit);
            squares += t * t;
        }
        let s = products / squares;
        let epsilon = s - 1.0;
        let share = 1.0 - libm::pow(n_vocab as f64, -epsilon);
        let k = libm::pow(epsilon * libm::pow(2.0, f64::from(self.mu)) / share, 1.0 / s);
        // A conversion to an integer saturates, and makes 0 of what is no number.
        (k as usize).max(1)
    }
}

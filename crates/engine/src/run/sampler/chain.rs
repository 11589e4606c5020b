//! The steps one after the other: on the logits of a vocabulary for as long as that is cheaper,
//! then on candidates.

use super::candidate::{Candidate, candidate, finite};
use super::options::SamplerOptions;
use super::order::{SamplerOrder, SamplerStep};
use super::penalties::penalised;
use super::{Sampler, min_p, temperature, top_k, top_n_sigma, top_p, typical, unit, xtc};
use crate::TokenId;
use crate::cpu::peaks::Peaks;

/// The steps that can change the answer.
pub(super) fn effective_steps(options: &SamplerOptions) -> SamplerOrder {
    if options.mirostat.is_some() {
        // As in llama.cpp, which leaves everything else to it.
        return SamplerOrder::DEFAULT.filter(|step| step == SamplerStep::Temperature && options.uses(step));
    }
    let used = options.order.filter(|step| options.uses(step));
    let steps = used.steps();
    let Some(last) = steps.iter().position(|&step| step == SamplerStep::Temperature && options.is_greedy()) else {
        return used;
    };
    // One token is left then. Steps that always keep the most likely one do not change which.
    let keeps_best = |step: SamplerStep| {
        matches!(step, SamplerStep::TopNSigma | SamplerStep::TopK | SamplerStep::TopP | SamplerStep::MinP)
    };
    let before = &steps[..last];
    let is_plain = |step: &SamplerStep| !matches!(step, SamplerStep::TypicalP | SamplerStep::Xtc);
    let first_cut = before.iter().position(|&step| keeps_best(step)).unwrap_or(last);
    let changes_later = |step: &SamplerStep| matches!(step, SamplerStep::Penalties | SamplerStep::Dry);
    let are_idle = before.iter().all(is_plain) && !before[first_cut..].iter().any(changes_later);
    let place = |step| steps.iter().position(|&other| other == step);
    used.filter(|step| place(step) <= Some(last) && !(are_idle && keeps_best(step)))
}

impl Sampler {
    /// Whether the most likely token is what all steps come to, after the changes of single logits.
    pub(super) fn takes_the_best(&self) -> bool {
        let rest = &self.steps.steps()[self.n_front..];
        self.options.is_greedy() && rest == [SamplerStep::Temperature]
    }

    /// Fills `candidates` with the [`distribution`](Self::distribution). `chance` decides for XTC.
    pub(super) fn fill_candidates(&mut self, logits: &mut [f32], mut peaks: Peaks<'_>, chance: u64) {
        self.change(logits, &mut peaks, |id| Some(id.0 as usize));
        self.candidates.clear();
        if self.takes_the_best() {
            let best = peaks.argmax(logits);
            self.candidates.list.extend(best.map(|i| Candidate { p: 1.0, ..candidate(i, logits[i]) }));
            return;
        }
        let n_done = self.n_front + self.start(logits, &peaks);
        self.go_on(n_done, chance);
        if let Some(mirostat) = &self.mirostat {
            mirostat.apply(&mut self.candidates, logits.len());
        }
        self.candidates.softmax();
    }

    /// Fills `candidates` from the part of a vocabulary that holds the most likely ones: place i is
    /// token `ids[i]`.
    pub(super) fn choose_best(&mut self, ids: &[TokenId], logits: &[f32], peaks: &Peaks<'_>, chance: u64) {
        self.candidates.clear();
        top_k::select_top_k(logits, peaks, self.options.top_k.min(logits.len()), &mut self.candidates.list);
        self.candidates.list.iter_mut().for_each(|c| c.id = ids[c.id.0 as usize]);
        self.candidates.is_sorted = true;
        self.go_on(self.n_front + 1, chance);
        self.candidates.softmax();
    }

    /// Adds the biases and takes the steps at the front, in place; `place` tells where a token's
    /// logit is.
    pub(super) fn change(
        &mut self,
        logits: &mut [f32],
        peaks: &mut Peaks<'_>,
        place: impl Fn(TokenId) -> Option<usize>,
    ) {
        // Only numbers become others: what is NaN or minus infinity stays.
        let mut change = |id: TokenId, to: &dyn Fn(f32) -> f32| {
            let Some(i) = place(id) else { return };
            let Some(&before) = logits.get(i).filter(|logit| logit.is_finite()) else { return };
            logits[i] = to(before);
            peaks.update(logits, i, before);
        };
        for &(id, bias) in &self.biases {
            change(id, &|logit| if bias == f32::NEG_INFINITY { bias } else { finite(logit + bias) });
        }
        for step in &self.steps.steps()[..self.n_front] {
            if *step == SamplerStep::Penalties {
                for &(id, count) in self.penalties.counts() {
                    change(id, &|logit| penalised(&self.options, logit, count));
                }
            } else if let Some(repeats) = &mut self.repeats {
                for (id, penalty) in repeats.penalties() {
                    change(id, &|logit| finite(logit - penalty));
                }
            }
        }
    }

    /// Makes candidates of what the next steps may leave of the vocabulary. Returns how many of
    /// these steps are taken with that.
    fn start(&mut self, logits: &[f32], peaks: &Peaks<'_>) -> usize {
        let Sampler { options, candidates: kept, .. } = self;
        let mut rest = &self.steps.steps()[self.n_front..];
        let mut n_done = 0;
        if let [SamplerStep::TopK, then @ ..] = rest {
            n_done = 1;
            rest = then;
            if options.top_k < logits.len() {
                top_k::select_top_k(logits, peaks, options.top_k, &mut kept.list);
                kept.is_sorted = true;
                return n_done;
            }
        }
        let max = Some(peaks.greatest()).filter(|&max| max > f32::NEG_INFINITY).map_or(0.0, finite);
        match rest {
            [SamplerStep::TopP, then @ ..] => {
                let min_p = if then.first() == Some(&SamplerStep::MinP) { options.min_p } else { 0.0 };
                top_p::gather(logits, max, options.top_p, min_p, kept);
                n_done + 1
            }
            [SamplerStep::TopNSigma, ..] => {
                top_n_sigma::gather(logits, options.top_n_sigma, &mut kept.list);
                kept.sort();
                n_done + 1
            }
            [SamplerStep::MinP, ..] => {
                gather(logits, min_p::lowest_logit(max, options.min_p), &mut kept.list);
                kept.sort();
                n_done
            }
            _ => {
                gather(logits, f32::NEG_INFINITY, &mut kept.list);
                n_done
            }
        }
    }

    /// Takes the steps from number `n_done` on.
    fn go_on(&mut self, n_done: usize, chance: u64) {
        let Sampler { options, candidates, penalties, repeats, .. } = self;
        for step in &self.steps.steps()[n_done..] {
            match step {
                SamplerStep::Penalties => penalties.apply(options, candidates),
                SamplerStep::Dry => repeats.iter_mut().for_each(|repeats| repeats.apply(candidates)),
                SamplerStep::TopNSigma => top_n_sigma::apply(candidates, options.top_n_sigma),
                SamplerStep::TopK => top_k::top_k(candidates, options.top_k),
                SamplerStep::TypicalP => typical::apply(candidates, options.typical_p),
                SamplerStep::TopP => top_p::apply(candidates, options.top_p),
                SamplerStep::MinP => min_p::apply(candidates, options.min_p),
                SamplerStep::Xtc => {
                    if let Some(xtc) = options.xtc.filter(|xtc| unit(chance) < f64::from(xtc.probability)) {
                        xtc::apply(candidates, xtc.threshold);
                    }
                }
                SamplerStep::Temperature => temperature::apply(candidates, options),
            }
        }
    }
}

/// Makes candidates of the logits from `lowest` on, in order of id.
fn gather(logits: &[f32], lowest: f32, kept: &mut Vec<Candidate>) {
    kept.reserve(logits.len());
    let all = logits.iter().enumerate().filter(|&(_, &x)| x > f32::NEG_INFINITY && x >= lowest);
    kept.extend(all.map(|(i, &x)| candidate(i, x)));
}

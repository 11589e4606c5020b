//! Choosing the next token from its logits.
//!
//! The steps and their order are llama.cpp's: repetition penalty, top-k, top-p, min-p, temperature, draw. (Top-p and
//! min-p therefore see probabilities at temperature 1.) Nothing here sorts a vocabulary: each cut is found by
//! selection, and only what it keeps is sorted.

use std::{cmp::Ordering, collections::VecDeque, mem};

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};

use crate::TokenId;
use crate::cpu::peaks::{Peaks, STRETCH};

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

/// A token that the chain kept.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Candidate {
    /// The token.
    pub id: TokenId,
    /// Its probability among the kept ones.
    pub p: f32,
    /// Its logit after the repetition penalty, finite.
    logit: f32,
}

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

impl SamplerOptions {
    fn penalises(&self) -> bool {
        self.repeat_penalty != 1.0 && self.repeat_last_n > 0
    }
}

/// The order of candidates: larger logit first, of equal ones the lower id.
fn more_likely(a: &Candidate, b: &Candidate) -> Ordering {
    // Candidates are finite, so the comparison always has an answer.
    b.logit.partial_cmp(&a.logit).unwrap_or(Ordering::Equal).then(a.id.cmp(&b.id))
}

/// Differences of finite numbers are no NaN. Only for logits above minus infinity.
fn finite(logit: f32) -> f32 {
    logit.clamp(f32::MIN, f32::MAX)
}

fn candidate(i: usize, logit: f32) -> Candidate {
    Candidate { id: TokenId(i as u32), p: 0.0, logit: finite(logit) }
}

/// Fills `best` with the `k` most likely tokens in order.
fn select_top_k(logits: &[f32], peaks: &Peaks<'_>, k: usize, best: &mut Vec<Candidate>) {
    best.clear();
    best.reserve(room_for(k).min(logits.len()));
    // What a token must exceed. From the start that is all below the k-th greatest peak: k tokens have logits from there on.
    add_above(peaks.values, 0, f32::NEG_INFINITY, k, best);
    let mut bar = keep_best(best, k).next_down();
    best.clear();
    for (i, (stretch, &peak)) in logits.chunks(peaks.stretch).zip(&*peaks.values).enumerate() {
        if peak > bar {
            bar = add_above(stretch, i * peaks.stretch, bar, k, best);
        }
    }
    keep_best(best, k);
    best.sort_unstable_by(more_likely);
}

/// Candidates that are collected before the `k` best of them are selected. Room beyond k makes a selection rare; one over so many
/// costs a few steps an element.
fn room_for(k: usize) -> usize {
    const SLACK: usize = 256;
    2 * k + SLACK
}

/// Adds the logits above `bar` of the tokens from `first` on, and leaves the `k` best where it gets too many. Returns the new bar.
fn add_above(logits: &[f32], first: usize, mut bar: f32, k: usize, best: &mut Vec<Candidate>) -> f32 {
    for (i, &logit) in logits.iter().enumerate() {
        if logit > bar {
            best.push(candidate(first + i, logit));
            if best.len() == room_for(k) {
                // Equal is not enough from now on: k tokens with lower ids have at least this logit.
                bar = keep_best(best, k);
            }
        }
    }
    bar
}

/// Keeps the `k` most likely candidates, in any order. Returns the smallest logit kept if there are that many.
fn keep_best(best: &mut Vec<Candidate>, k: usize) -> f32 {
    if best.len() < k {
        return f32::NEG_INFINITY;
    }
    let last = best.select_nth_unstable_by(k - 1, more_likely).1.logit;
    best.truncate(k);
    last
}

/// Where a top-p cut of a whole vocabulary lies, to within one step of the logit.
struct Nucleus {
    /// Sum of exp(logit - max) over all tokens.
    total: f64,
    /// Tokens of later steps are not in the nucleus.
    last_step: usize,
}

impl Nucleus {
    const EVERYTHING: Nucleus = Nucleus { total: 0.0, last_step: usize::MAX };
    /// Steps of 1/16 from the largest logit down to 32 below it, where the probability is 1e-14 of the best one's;
    /// the last step also holds the rest.
    const STEPS: usize = 512;

    /// The step of a logit `below` under the largest one.
    fn step(below: f32) -> usize {
        // A conversion to an integer saturates.
        ((below * 16.0) as usize).min(Nucleus::STEPS - 1)
    }

    fn find(logits: &[f32], max: f32, top_p: f32) -> Nucleus {
        let mut mass = [0f64; Nucleus::STEPS];
        for stretch in logits.chunks(STRETCH) {
            let mut weights = [0f32; STRETCH];
            for (weight, &logit) in weights.iter_mut().zip(stretch) {
                *weight = exp(logit.min(f32::MAX) - max);
            }
            for (&logit, &weight) in stretch.iter().zip(&weights) {
                if logit > f32::NEG_INFINITY {
                    mass[Nucleus::step(max - finite(logit))] += f64::from(weight);
                }
            }
        }
        let total: f64 = mass.iter().sum();
        let mut sum = 0.0;
        let reached = mass.iter().position(|m| {
            sum += m;
            sum >= total * f64::from(top_p)
        });
        // One step more, because these sums and those of `cut_top_p` are rounded differently.
        Nucleus { total, last_step: reached.map_or(usize::MAX, |step| step + 1) }
    }
}

/// Collects all tokens that top-p and min-p may keep, in order of id.
fn gather(logits: &[f32], max: f32, cut: &Nucleus, min_p: f32, kept: &mut Vec<Candidate>) {
    // The exact test comes later; the margin is for the rounding of the logarithm.
    let lowest = if min_p > 0.0 { max + min_p.ln() - 0.01 } else { f32::NEG_INFINITY };
    for (i, &logit) in logits.iter().enumerate() {
        if logit > f32::NEG_INFINITY && logit >= lowest && Nucleus::step(max - finite(logit)) <= cut.last_step {
            kept.push(candidate(i, logit));
        }
    }
}

/// Keeps the shortest front part of sorted candidates whose weights reach `top_p` of `total`, at least one.
fn cut_top_p(sorted: &mut Vec<Candidate>, max: f32, total: f64, top_p: f32) {
    let wanted = total * f64::from(top_p);
    let mut sum = 0.0;
    let reached = sorted.iter().position(|c| {
        sum += f64::from(exp(c.logit - max));
        sum >= wanted
    });
    if let Some(last) = reached {
        sorted.truncate(last + 1);
    }
}

/// The candidate at a random place of the unit interval that the probabilities fill one after the other.
fn draw(candidates: &[Candidate], random: u64) -> Option<TokenId> {
    let total: f64 = candidates.iter().map(|c| f64::from(c.p)).sum();
    // 53 bits make every multiple of 2^-53 below 1 equally likely.
    let place = (random >> 11) as f64 / (1u64 << 53) as f64 * total;
    let mut sum = 0.0;
    let hit = candidates.iter().find(|c| {
        sum += f64::from(c.p);
        sum > place
    });
    // Rounding could leave the place at the very end: then it is the last one that has a probability at all.
    hit.or_else(|| candidates.iter().rfind(|c| c.p > 0.0)).map(|c| c.id)
}

/// e to the power of `x` for `x <= 0`, to 1e-7 of the value; 0 below -87.
///
/// Not `f32::exp`, which differs between systems: a seed has to give the same text everywhere. Multiplications and
/// additions alone are the same everywhere, and compile to vector instructions.
fn exp(x: f32) -> f32 {
    // 2^n * e^r with |r| <= ln(2)/2. Adding 1.5 * 2^23 rounds to an integer, which is then in the low bits; shifted
    // to the exponent's place they are n, and the rest falls off. No branch: loops over this are vectorised.
    const ROUND: f32 = 12_582_912.0;
    // ln(2) in two parts, the first with so few bits that n times it is exact.
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let shifted = x.max(-88.0) * std::f32::consts::LOG2_E + ROUND;
    let n = shifted - ROUND;
    let r = x - n * LN_2_HIGH - n * LN_2_LOW;
    // Taylor's series: the first term left out is below 4e-9 for |r| <= 0.347.
    let p = 1.0 / 720.0 + r * (1.0 / 5040.0);
    let p = 1.0 / 24.0 + r * (1.0 / 120.0 + r * p);
    let p = 1.0 + r * (1.0 + r * (0.5 + r * (1.0 / 6.0 + r * p)));
    let power = f32::from_bits((shifted.to_bits() << 23).wrapping_add(127 << 23));
    if x < -87.0 { 0.0 } else { p * power }
}

#[cfg(test)]
mod tests {
    use modelembed_testkit::Rng;

    use super::*;
    use crate::cpu::peaks::greatest;

    #[test]
    fn exp_is_close() {
        let worst = (0..=870_000)
            .map(|i| -(i as f32) / 10_000.0)
            .map(|x| ((f64::from(exp(x)) / f64::from(x).exp() - 1.0).abs(), x))
            .fold((0.0, 0.0), |a: (f64, f32), b| if b.0 > a.0 { b } else { a });
        assert!(worst.0 < 2e-7, "{worst:?}");
        assert_eq!(exp(0.0), 1.0);
        assert_eq!(exp(f32::MIN), 0.0);
        assert_eq!(exp(f32::NEG_INFINITY), 0.0);
    }

    /// Logits of each kind that a sampler may meet, most of them in many places.
    fn some_logits(n: usize, kind: usize, rng: &mut Rng) -> Vec<f32> {
        const STRANGE: [f32; 4] = [f32::NAN, f32::NEG_INFINITY, f32::INFINITY, f32::MIN];
        let mut one = |_| match kind {
            0 => rng.normal(),
            1 => (2.0 * rng.normal()).round(),
            2 if rng.below(3) == 0 => STRANGE[rng.below(2)],
            3 if rng.below(3) == 0 => STRANGE[rng.below(STRANGE.len())],
            4 => STRANGE[rng.below(2)],
            5 => -0.0,
            _ => (8.0 * rng.normal()).round() / 4.0,
        };
        (0..n).map(&mut one).collect()
    }

    /// The chain by its description: changes the logits of `recent` tokens, then sorts everything.
    fn by_sorting(mut logits: Vec<f32>, recent: &[TokenId], o: &SamplerOptions) -> Vec<u32> {
        let mut recent = recent.to_vec();
        recent.sort_unstable();
        recent.dedup();
        for id in recent {
            if let Some(x) = logits.get_mut(id.0 as usize).filter(|x| x.is_finite()) {
                *x = if *x <= 0.0 { *x * o.repeat_penalty } else { *x / o.repeat_penalty };
                *x = x.clamp(f32::MIN, f32::MAX);
            }
        }
        let mut ids: Vec<u32> = (0..logits.len() as u32).filter(|&i| logits[i as usize] > f32::NEG_INFINITY).collect();
        ids.sort_by(|&a, &b| logits[b as usize].partial_cmp(&logits[a as usize]).expect("numbers"));
        ids.truncate(if o.temp == 0.0 { 1 } else { o.top_k });
        ids
    }

    #[test]
    fn peaks_of_any_stretch_choose_what_sorting_all_logits_does() {
        let mut rng = Rng::new(11);
        let plain = SamplerOptions { top_p: 1.0, min_p: 0.0, repeat_last_n: 20, ..SamplerOptions::default() };
        let mut wrong = Vec::new();
        for (case, n) in [1, 5, 255, 256, 257, 320, 1000, 3001].into_iter().cycle().take(144).enumerate() {
            let options = SamplerOptions {
                temp: [0.0, 1.0][case / 8 % 2],
                top_k: [1, 4, 40, 300][case % 4].min(n - 1),
                repeat_penalty: [1.0, 1.3, 0.7][case / 16 % 3],
                ..plain
            };
            let logits = some_logits(n, case / 8 % 7, &mut rng);
            for stretch in [1, 16, 48, STRETCH, 4000] {
                let (mut own, mut given) = (Sampler::with_valid(options), Sampler::with_valid(options));
                for step in 0..12 {
                    let recent: Vec<TokenId> = own.recent().collect();
                    let mut all = logits.clone();
                    let mut values: Vec<f32> = all.chunks(stretch).map(greatest).collect();
                    let peaks = Peaks { stretch, values: &mut values };
                    let ids = (own.sample(&mut logits.clone()), given.sample_with_peaks(&mut all, peaks));
                    let want = by_sorting(logits.clone(), &recent, &options);
                    let kept: Vec<u32> = given.candidates.iter().map(|c| c.id.0).collect();
                    let is_right = match options {
                        SamplerOptions { temp: 0.0, .. } => ids.1.0 == want.first().copied().unwrap_or(0),
                        // All of them, in order of id.
                        SamplerOptions { top_k: 0, .. } => true,
                        _ => kept == want && given.candidates == own.candidates,
                    };
                    if ids.0 != ids.1 || !is_right {
                        wrong.push((case, n, stretch, step, options, ids, kept, want));
                    }
                    // The chosen one, a neighbour and the last token.
                    for id in [ids.0, TokenId(ids.0.0 + 1), TokenId(n as u32 - 1)] {
                        own.accept(id);
                        given.accept(id);
                    }
                }
            }
        }
        assert!(wrong.is_empty(), "{} differ, the first one: {:?}", wrong.len(), wrong[0]);
    }

    #[test]
    fn draws_follow_the_probabilities() {
        let candidates: Vec<Candidate> =
            [0.5, 0.0, 0.25, 0.25].iter().zip(0..).map(|(&p, i)| Candidate { id: TokenId(i), p, logit: 0.0 }).collect();
        let at = |fraction: f64| draw(&candidates, (fraction * 2f64.powi(64)) as u64).map(|id| id.0);
        let rows = [(0.0, 0), (0.49, 0), (0.5, 2), (0.74, 2), (0.76, 3), (1.0, 3)];
        let wrong: Vec<_> = rows.iter().map(|&(x, want)| (x, at(x), want)).filter(|r| r.1 != Some(r.2)).collect();
        assert!(wrong.is_empty(), "place, seen, wanted: {wrong:?}");
        assert_eq!(draw(&[], 7), None);
    }
}

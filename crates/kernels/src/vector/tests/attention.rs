//! Laws of attention: every table that this CPU has against naive f64 arithmetic, and against
//! itself.

use std::ops::Range;

use modelembed_terms::CacheType;

use super::{Failures, Random, wide};
use crate::table::Kernels;
use crate::vector::half;
use crate::vector::{AttnInput, AttnPart, AttnState, KvElement, Line};

/// Owned buffers of a state.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct State {
    pub(super) max: Vec<f32>,
    pub(super) sum: Vec<f32>,
    pub(super) acc: Vec<f32>,
}

impl State {
    pub(super) fn new(n_q: usize, value_dim: usize) -> State {
        let mut state = State { max: vec![9.0; n_q], sum: vec![9.0; n_q], acc: vec![9.0; n_q * value_dim] };
        state.view().clear();
        state
    }

    pub(super) fn view(&mut self) -> AttnState<'_> {
        AttnState { max: &mut self.max, sum: &mut self.sum, acc: &mut self.acc }
    }

    pub(super) fn part(&self) -> AttnPart<'_> {
        AttnPart { max: &self.max, sum: &self.sum, acc: &self.acc }
    }

    pub(super) fn bits(&self, query: usize, value_dim: usize) -> Vec<u32> {
        let acc = &self.acc[query * value_dim..][..value_dim];
        [self.max[query], self.sum[query]].iter().chain(acc).map(|x| x.to_bits()).collect()
    }
}

pub(super) struct Case {
    pub(super) head_dim: usize,
    pub(super) value_dim: usize,
    pub(super) q: Vec<f32>,
    pub(super) k: Vec<u16>,
    pub(super) v: Vec<u16>,
    pub(super) visible: Vec<Range<usize>>,
    pub(super) soft_cap: Option<f32>,
    /// One a query, or none.
    pub(super) lines: Vec<Line>,
}

impl Case {
    /// Values are below 2, and what is lost are roundings of scores, up to about 10 for heads of
    /// 256 (2^-24 * 10 = 6e-7), of their sum, their scale and what is taken off them. A register of
    /// four lanes adds up twice as many products, one after the other, as one of eight.
    pub(super) fn bound(&self) -> f64 {
        let lanes = if cfg!(target_arch = "aarch64") { 2.0 } else { 1.0 };
        // Lines make scores of up to 65.
        let lines = if self.lines.is_empty() { 1.0 } else { 6.0 };
        2e-6 * lanes * lines * (self.head_dim as f64 / 256.0).max(1.0)
    }

    pub(super) fn new(head_dim: usize, n_pos: usize, visible: Vec<Range<usize>>, soft_cap: Option<f32>) -> Case {
        Case::unequal([head_dim, head_dim], n_pos, visible, soft_cap)
    }

    /// Keys and values of these lengths.
    pub(super) fn unequal(
        [head_dim, value_dim]: [usize; 2],
        n_pos: usize,
        visible: Vec<Range<usize>>,
        soft_cap: Option<f32>,
    ) -> Case {
        let mut random = Random((head_dim * 1000 + n_pos + visible.len()) as u32 | 1);
        let q = random.vector(visible.len() * head_dim, 3.0 / (head_dim as f32).sqrt());
        let (k, v) = (random.halves(n_pos * head_dim, 3.0), random.halves(n_pos * value_dim, 2.0));
        Case { head_dim, value_dim, q, k, v, visible, soft_cap, lines: Vec::new() }
    }

    /// Queries `queries` over the first `n_pos` positions.
    pub(super) fn run(&self, kernels: &Kernels, queries: Range<usize>, n_pos: usize) -> State {
        let mut state = State::new(queries.len(), self.value_dim);
        let input = AttnInput {
            q: &self.q[queries.start * self.head_dim..queries.end * self.head_dim],
            head_dim: self.head_dim,
            value_dim: self.value_dim,
            k: &self.k[..n_pos * self.head_dim],
            v: &self.v[..n_pos * self.value_dim],
            next: &[],
            visible: &self.visible[queries.clone()],
            soft_cap: self.soft_cap,
            lines: self.lines.get(queries).unwrap_or_default(),
        };
        kernels.attend(input, state.view());
        state
    }

    pub(super) fn n_pos(&self) -> usize {
        self.k.len() / self.head_dim
    }

    pub(super) fn all(&self, kernels: &Kernels) -> State {
        self.run(kernels, 0..self.visible.len(), self.n_pos())
    }

    pub(super) fn naive(&self) -> Vec<f64> {
        self.naive_of(&self.q, &widened(&self.k), &widened(&self.v))
    }

    /// Scores, softmax and weighted sum of this case's ranges over such queries, keys and values,
    /// in f64 and in that order.
    pub(super) fn naive_of(&self, q: &[f32], k: &[f32], v: &[f32]) -> Vec<f64> {
        let row = |m: &[f32], i: usize, len: usize| wide(&m[i * len..][..len]);
        let mut out = Vec::new();
        for (i, (q, visible)) in q.chunks_exact(self.head_dim).zip(&self.visible).enumerate() {
            let line = self.lines.get(i).map_or([0.0; 2], |line| [line.start, line.slope].map(f64::from));
            let scores: Vec<f64> = visible
                .clone()
                .map(|p| {
                    let s: f64 = wide(q).iter().zip(row(k, p, self.head_dim)).map(|(q, k)| q * k).sum();
                    let s = self.soft_cap.map_or(s, |cap| f64::from(cap) * (s / f64::from(cap)).tanh());
                    s + line[0] + line[1] * p as f64
                })
                .collect();
            let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = scores.iter().map(|s| (s - max).exp()).sum();
            let mut acc = vec![0.0; self.value_dim];
            for (s, p) in scores.iter().zip(visible.clone()) {
                for (acc, v) in acc.iter_mut().zip(row(v, p, self.value_dim)) {
                    *acc += (s - max).exp() / sum * v;
                }
            }
            out.extend(acc);
        }
        out
    }

    /// What a failing row says of the case.
    pub(super) fn name(&self, kernels: &Kernels) -> String {
        let (isa, dims) = (kernels.isa(), [self.head_dim, self.value_dim]);
        format!("{isa} {dims:?} x {}, {} queries, {:?}", self.n_pos(), self.visible.len(), self.visible.first())
    }
}

pub(super) fn widened(halves: &[u16]) -> Vec<f32> {
    halves.iter().map(|&h| half::to_f32(h)).collect()
}

fn causal(n: usize) -> Vec<Range<usize>> {
    (0..n).map(|i| 0..i + 1).collect()
}

pub(super) fn cases() -> Vec<Case> {
    let sliding = |n: usize, window: usize| -> Vec<Range<usize>> {
        (0..n).map(|i| (i + 1).saturating_sub(window)..i + 1).collect()
    };
    let mut cases = vec![];
    for head_dim in [64, 80, 96, 128, 256, 1, 3, 20, 33, 72, 100] {
        cases.push(Case::new(head_dim, 130, vec![0..130; 3], None));
        cases.push(Case::new(head_dim, 70, causal(70), None));
        cases.push(Case::new(head_dim, 65, vec![0..65, 3..64, 64..65, 10..10, 0..1, 63..65, 20..41], Some(5.0)));
    }
    cases.push(Case::new(64, 300, sliding(300, 100), None));
    // Many queries, for which keys are transposed where a head is whole registers: windows of all
    // kinds, with and without a cap.
    let windows: Vec<_> = (0..45usize).map(|i| i * 7 % 60..(i * 7 % 60 + i * i % 90).min(130)).collect();
    for (head_dim, soft_cap) in [(64, Some(5.0)), (96, None), (256, Some(30.0)), (512, None), (1024, None)] {
        cases.push(Case::new(head_dim, 130, windows.clone(), soft_cap));
    }
    // Values of another length than keys.
    for dims in
        [[192, 128], [64, 128], [32, 160], [256, 64], [64, 512], [20, 33], [33, 20], [3, 1], [64, 1040], [1040, 64]]
    {
        cases.push(Case::unequal(dims, 130, vec![0..130; 3], None));
        cases.push(Case::unequal(dims, 65, vec![0..65, 3..64, 64..65, 10..10, 0..1, 63..65, 20..41], Some(5.0)));
        cases.push(Case::unequal(dims, 130, windows.clone(), if dims[0] < 64 { None } else { Some(5.0) }));
    }
    cases.push(Case::unequal([192, 128], 300, sliding(300, 100), None));
    // Lines of all queries, as ALiBi has them: rising to each one's own position.
    let sloped = |mut case: Case| {
        let n = case.visible.len();
        let slope = |i: usize| 0.5f32.powi(1 + (i % 8) as i32);
        case.lines = (0..n).map(|i| Line { slope: slope(i), start: -slope(i) * (n - i) as f32 }).collect();
        case
    };
    for head_dim in [64, 128, 20] {
        cases.push(sloped(Case::new(head_dim, 130, windows.clone(), None)));
        cases.push(sloped(Case::new(head_dim, 70, causal(70), Some(5.0))));
        cases.push(sloped(Case::new(head_dim, 130, vec![0..130; 3], None)));
    }
    cases.push(Case::new(64, 1, vec![0..1; 9], None));
    cases.push(Case::new(64, 700, vec![0..700; 8], Some(50.0)));
    cases
}

#[test]
fn attention_matches_f64() {
    let mut fail = Failures::default();
    for kernels in Kernels::all() {
        for case in cases() {
            let mut state = case.all(kernels);
            kernels.finish_attn(case.value_dim, &state.sum, &mut state.acc);
            fail.close(&case.name(kernels), &state.acc, &case.naive(), case.bound(), 1.0);
        }
    }
}

#[test]
fn queries_over_no_positions_keep_their_state() {
    for kernels in Kernels::all() {
        for n_q in [1, 40] {
            let case = Case::new(8, 0, vec![0..0; n_q], None);
            assert!(case.all(kernels) == State::new(n_q, 8), "{} {n_q} queries", kernels.isa());
        }
    }
}

/// A case's queries over keys and values of any kind.
pub(super) fn over<T: KvElement>(kernels: &Kernels, case: &Case, k: &[T], v: &[T]) -> State {
    let mut state = State::new(case.visible.len(), case.value_dim);
    let (q, visible, soft_cap, lines) = (&case.q, &case.visible, case.soft_cap, &case.lines);
    let (head_dim, value_dim) = (case.head_dim, case.value_dim);
    kernels.attend(AttnInput { q, head_dim, value_dim, k, v, next: &[], visible, soft_cap, lines }, state.view());
    state
}

/// Q8_0 blocks of some rows, and what they stand for.
pub(super) fn q8_0(kernels: &Kernels, rows: &[u16]) -> (Vec<u8>, Vec<f32>) {
    let wide = widened(rows);
    let mut blocks = vec![0; CacheType::Q8.row_bytes(wide.len()).expect("whole blocks")];
    kernels.to_q8_0(&wide, &mut blocks);
    let mut back = vec![0.0; wide.len()];
    kernels.from_q8_0(&blocks, &mut back);
    (blocks, back)
}

#[test]
fn a_cache_in_f32_gives_what_the_same_values_in_f16_give() {
    let mut fail = Failures::default();
    for kernels in Kernels::all() {
        for case in cases() {
            let state = over(kernels, &case, &widened(&case.k), &widened(&case.v));
            fail.check(state == case.all(kernels), || case.name(kernels));
        }
    }
}

#[test]
fn a_cache_in_q8_0_gives_what_the_same_values_in_f32_give() {
    let mut fail = Failures::default();
    let in_blocks = |case: &Case| case.head_dim.is_multiple_of(32) && case.value_dim.is_multiple_of(32);
    for kernels in Kernels::all() {
        for case in cases().into_iter().filter(in_blocks) {
            // A product of an i8 and a half is exact in f32, so the bits must be equal.
            let ((k, wide_k), (v, wide_v)) = (q8_0(kernels, &case.k), q8_0(kernels, &case.v));
            let want = over(kernels, &case, &wide_k, &wide_v);
            fail.check(over(kernels, &case, &k, &v) == want, || case.name(kernels));
        }
    }
}

#[test]
fn q8_0_blocks_are_those_of_the_format() {
    let mut random = Random(77);
    let mut runs: Vec<Vec<f32>> = [1e-7, 1e-3, 1.0, 60.0, 3e4].iter().map(|&m| random.vector(32, m)).collect();
    runs.push(vec![0.0; 32]);
    let mut fail = Failures::default();
    for x in &runs {
        let mut want = vec![0; 34];
        Kernels::all().next().expect("a table").to_q8_0(x, &mut want);
        let scale = half::to_f32(u16::from_le_bytes([want[0], want[1]]));
        let amax = x.iter().fold(0.0f32, |max, x| max.max(x.abs()));
        // Half precision has steps of 2^-24 at least.
        fail.check((scale - amax / 127.0).abs() <= amax / 127.0 / 2048.0 + 2f32.powi(-25), || format!("scale {scale}"));
        for (x, q) in x.iter().zip(&want[2..]) {
            let error = (x - scale * f32::from(*q as i8)).abs();
            fail.check(error <= scale * 0.5001 + 127.0 * 2f32.powi(-25) + amax / 2048.0, || {
                format!("{x} is off by {error}")
            });
        }
        for kernels in Kernels::all() {
            let mut got = vec![1; 34];
            kernels.to_q8_0(x, &mut got);
            fail.check(got == want, || format!("{}: {got:?}, not {want:?}", kernels.isa()));
        }
    }
    for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX] {
        let mut x = random.vector(32, 1.0);
        x[5] = bad;
        for kernels in Kernels::all() {
            let (mut blocks, mut back) = (vec![0; 34], vec![0.0; 32]);
            kernels.to_q8_0(&x, &mut blocks);
            kernels.from_q8_0(&blocks, &mut back);
            fail.check(back.iter().all(|x| !x.is_finite()), || format!("{}: {bad} became {back:?}", kernels.isa()));
        }
    }
}

#[test]
fn a_query_does_not_feel_its_neighbours_nor_hidden_positions() {
    let mut fail = Failures::default();
    for kernels in Kernels::all() {
        for mut case in cases() {
            let together = case.all(kernels);
            for (i, visible) in case.visible.clone().into_iter().enumerate() {
                let alone = case.run(kernels, i..i + 1, visible.end);
                let what = || format!("{}, query {i} of {visible:?}", case.name(kernels));
                fail.check(alone.bits(0, case.value_dim) == together.bits(i, case.value_dim), what);
            }
            // What nobody sees may be anything.
            for p in 0..case.n_pos() {
                if !case.visible.iter().any(|r| r.contains(&p)) {
                    case.k[p * case.head_dim..][..case.head_dim].fill(0x7e00);
                    case.v[p * case.value_dim..][..case.value_dim].fill(0x7c00);
                }
            }
            fail.check(case.all(kernels) == together, || format!("{}: NaN seen", case.name(kernels)));
        }
        // One query sees a NaN at the end of a block, its neighbours of the same tile must not.
        let mut case = Case::new(64, 80, vec![0..62, 0..63, 0..64, 0..60], None);
        case.v[63 * 64..64 * 64].fill(0x7e00);
        case.k[63 * 64..64 * 64].fill(0x7e00);
        let state = case.all(kernels);
        let is_nan: Vec<bool> = state.acc.chunks_exact(64).map(|acc| acc.iter().any(|x| x.is_nan())).collect();
        fail.check(is_nan == [false, false, true, false], || format!("{}: {is_nan:?}", kernels.isa()));
    }
}

#[test]
fn a_query_that_sees_nothing_stays_empty() {
    for kernels in Kernels::all() {
        let case = Case::new(48, 200, vec![0..0, 150..150, 200..200], Some(30.0));
        let mut state = case.all(kernels);
        assert_eq!(state, State::new(3, 48), "{}", kernels.isa());
        kernels.merge_attn(48, State::new(3, 48).view(), state.part());
        kernels.finish_attn(48, &state.sum, &mut state.acc);
        assert!(state.acc.iter().all(|&x| x == 0.0), "{}", kernels.isa());
    }
}

#[test]
fn parts_merge_to_the_whole() {
    let mut fail = Failures::default();
    for kernels in Kernels::all() {
        for case in cases() {
            let cut = |range: &Range<usize>, at: Range<usize>| {
                range.start.clamp(at.start, at.end) - at.start..range.end.clamp(at.start, at.end) - at.start
            };
            let n_q = case.visible.len();
            let (head_dim, value_dim) = (case.head_dim, case.value_dim);
            let mut whole = State::new(n_q, value_dim);
            for start in (0..case.n_pos()).step_by(48) {
                let span = start..case.n_pos().min(start + 48);
                let visible: Vec<_> = case.visible.iter().map(|r| cut(r, span.clone())).collect();
                let mut part = State::new(n_q, value_dim);
                let k = &case.k[span.start * head_dim..span.end * head_dim];
                let v = &case.v[span.start * value_dim..span.end * value_dim];
                let (q, visible, soft_cap) = (&case.q, &visible, case.soft_cap);
                let on = |line: &Line| Line { start: line.start + line.slope * span.start as f32, ..*line };
                let lines = &case.lines.iter().map(on).collect::<Vec<_>>();
                let input = AttnInput { q, head_dim, value_dim, k, v, next: &[], visible, soft_cap, lines };
                kernels.attend(input, part.view());
                kernels.merge_attn(value_dim, whole.view(), part.part());
            }
            kernels.finish_attn(value_dim, &whole.sum, &mut whole.acc);
            fail.close(&case.name(kernels), &whole.acc, &case.naive(), case.bound(), 1.0);
        }
    }
}

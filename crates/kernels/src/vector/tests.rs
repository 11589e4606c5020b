//! Laws of the vector section: every table that this CPU has against naive f64 arithmetic.

use std::ops::Range;

use super::half;
use super::{AttnInput, AttnPart, AttnState, RopeStyle};
use crate::table::Kernels;

/// Lengths around register sizes (4, 8, 16 lanes, 4 chains of 16) and beyond a block.
const LENGTHS: [usize; 19] = [0, 1, 2, 3, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 127, 576, 1023, 2051];

/// Marsaglia's xorshift32; the numbers only have to be irregular.
struct Random(u32);

impl Random {
    fn next(&mut self) -> u32 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 17;
        self.0 ^= self.0 << 5;
        self.0
    }

    /// Uniform in -limit..limit.
    fn within(&mut self, limit: f32) -> f32 {
        ((self.next() >> 8) as f32 / (1 << 23) as f32 - 1.0) * limit
    }

    fn vector(&mut self, n: usize, limit: f32) -> Vec<f32> {
        (0..n).map(|_| self.within(limit)).collect()
    }

    fn halves(&mut self, n: usize, limit: f32) -> Vec<u16> {
        (0..n).map(|_| half::from_f32(self.within(limit))).collect()
    }
}

/// Collects every failing row, so that one run shows them all.
#[derive(Default)]
struct Failures(Vec<String>);

impl Failures {
    fn check(&mut self, good: bool, row: impl FnOnce() -> String) {
        if !good && self.0.len() < 40 {
            self.0.push(row());
        }
    }

    /// `|got - want| <= tolerance * (|want| + floor)` for every element.
    fn close(&mut self, what: &str, got: &[f32], want: &[f64], tolerance: f64, floor: f64) {
        self.check(got.len() == want.len(), || format!("{what}: {} elements, wanted {}", got.len(), want.len()));
        for (i, (&g, &w)) in got.iter().zip(want).enumerate() {
            let error = (f64::from(g) - w).abs();
            let good = error <= tolerance * (w.abs() + floor);
            self.check(good, || format!("{what}[{i}]: {g}, wanted {w} (error {error:e})"));
        }
    }
}

impl Drop for Failures {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            assert!(self.0.is_empty(), "failing rows:\n{}", self.0.join("\n"));
        }
    }
}

fn wide(x: &[f32]) -> Vec<f64> {
    x.iter().map(|&x| f64::from(x)).collect()
}

#[test]
fn norms_sums_and_gates_match_f64() {
    let mut fail = Failures::default();
    for kernels in Kernels::all() {
        for n in LENGTHS {
            let mut random = Random(0x1234_5678 ^ n as u32);
            // One element into a longer vector: never aligned.
            let (x, y) = (&random.vector(n + 1, 6.0)[1..], &random.vector(n + 1, 3.0)[1..]);
            let name = |what: &str| format!("{} {what} of {n}", kernels.isa());

            let mut bytes = vec![0u8; 1];
            bytes.extend(y.iter().flat_map(|y| y.to_le_bytes()));
            let mut out = vec![f32::NAN; n];
            kernels.rms_norm(x, &bytes[1..], 1e-5, &mut out);
            let mean = wide(x).iter().map(|x| x * x).sum::<f64>() / n as f64;
            let want: Vec<f64> =
                x.iter().zip(y).map(|(&x, &y)| f64::from(x) / (mean + 1e-5f32 as f64).sqrt() * f64::from(y)).collect();
            fail.close(&name("rms_norm"), &out, &want, 4e-7, 0.0);

            let mut out = x.to_vec();
            kernels.add(&mut out, y);
            let want: Vec<f64> = x.iter().zip(y).map(|(x, y)| f64::from(x + y)).collect();
            fail.close(&name("add"), &out, &want, 0.0, 0.0);

            let mut out = x.to_vec();
            kernels.scale(&mut out, 0.3);
            let want: Vec<f64> = x.iter().map(|x| f64::from(x * 0.3)).collect();
            fail.close(&name("scale"), &out, &want, 0.0, 0.0);

            let mut out = x.to_vec();
            kernels.soft_cap(&mut out, 5.0);
            let want: Vec<f64> = wide(x).iter().map(|x| (x / 5.0).tanh() * 5.0).collect();
            fail.close(&name("soft_cap"), &out, &want, 5e-7, 0.0);

            let mut out = x.to_vec();
            kernels.silu_mul(&mut out, y);
            let want: Vec<f64> = wide(x).iter().zip(wide(y)).map(|(x, y)| x / (1.0 + (-x).exp()) * y).collect();
            fail.close(&name("silu_mul"), &out, &want, 6e-7, 0.0);

            let mut out = x.to_vec();
            kernels.gelu_mul(&mut out, y);
            let gelu =
                |x: f64| 0.5 * x * (1.0 + ((2.0 / std::f64::consts::PI).sqrt() * (x + 0.044715 * x * x * x)).tanh());
            let want: Vec<f64> = wide(x).iter().zip(wide(y)).map(|(&x, y)| gelu(x) * y).collect();
            fail.close(&name("gelu_mul"), &out, &want, 6e-7, 0.2);
        }
    }
}

#[test]
fn gates_keep_their_limits() {
    for kernels in Kernels::all() {
        let mut gate = [-200.0, 200.0, -90.0, 0.0, -1e30, 1e30];
        kernels.silu_mul(&mut gate, &[1.0; 6]);
        assert!(gate[0].abs() < 1e-35 && gate[2].abs() < 1e-35 && gate[4] == 0.0, "{}: {gate:?}", kernels.isa());
        assert_eq!((gate[1], gate[3], gate[5]), (200.0, 0.0, 1e30), "{}", kernels.isa());
        let mut gate = [-200.0, 200.0, 0.0];
        kernels.gelu_mul(&mut gate, &[1.0; 3]);
        assert_eq!(gate, [0.0, 200.0, 0.0], "{}", kernels.isa());
        let mut logits = [f32::INFINITY, -1e9, 0.0, 1e-6];
        kernels.soft_cap(&mut logits, 30.0);
        assert_eq!(logits, [30.0, -30.0, 0.0, 1e-6], "{}", kernels.isa());
    }
}

#[test]
fn exponentials_are_accurate_over_their_whole_range() {
    let mut fail = Failures::default();
    for kernels in Kernels::all() {
        // softmax of (0, x) with x <= 0 is exp(x) / (1 + exp(x)); its numerator is what is measured here.
        let mut worst = 0.0f64;
        for step in 0..200_000 {
            let x = -(step as f32) * (87.0 / 200_000.0);
            let mut pair = [0.0, x];
            kernels.softmax(&mut pair);
            let e = f64::from(x).exp();
            worst = worst.max((f64::from(pair[1]) / (e / (1.0 + e)) - 1.0).abs());
        }
        // 1.5 units in the last place for the exponential, 1 for the product with the factor and the factor's own rounding.
        fail.check(worst <= 2.5 * 2f64.powi(-23), || format!("{}: relative error {worst:e}", kernels.isa()));
        let mut far = [0.0, -103.0, -104.1, -1e30, f32::NEG_INFINITY];
        kernels.softmax(&mut far);
        fail.check(far[1] > 0.0 && far[1] < 1e-44, || format!("{}: exp(-103) = {:e}", kernels.isa(), far[1]));
        fail.check(far[2..] == [0.0; 3], || format!("{}: far below {far:?}", kernels.isa()));
    }
}

#[test]
fn rope_rotates_pairs() {
    let mut fail = Failures::default();
    for kernels in Kernels::all() {
        for pairs in [0, 1, 2, 4, 5, 8, 16, 20, 32, 40, 48, 61, 64, 128] {
            for style in [RopeStyle::Adjacent, RopeStyle::Halves] {
                let mut random = Random(99 + pairs as u32);
                let x = random.vector(2 * pairs + 3, 2.0);
                let angles = random.vector(pairs, 3.2);
                let (cos, sin): (Vec<f32>, Vec<f32>) = angles.iter().map(|a| (a.cos(), a.sin())).unzip();
                let mut out = x.clone();
                kernels.rope(&mut out, &cos, &sin, style);
                let mut want = wide(&x);
                for i in 0..pairs {
                    let (a, b) = match style {
                        RopeStyle::Adjacent => (2 * i, 2 * i + 1),
                        RopeStyle::Halves => (i, i + pairs),
                    };
                    let (c, s) = (f64::from(cos[i]), f64::from(sin[i]));
                    (want[a], want[b]) = (want[a] * c - want[b] * s, want[b] * c + want[a] * s);
                }
                fail.close(&format!("{} {style:?} {pairs}", kernels.isa()), &out, &want, 2e-7, 2.0);
            }
        }
    }
}

#[test]
fn halves_are_rounded_alike() {
    let edges = [
        0.0,
        -0.0,
        1.0,
        65504.0,
        65519.0,
        65520.0,
        1e30,
        f32::INFINITY,
        6e-8,
        2.9e-8,
        3e-8,
        6.1e-5,
        1e-40,
        2049.0,
        2051.0,
    ];
    let mut fail = Failures::default();
    for kernels in Kernels::all() {
        for n in LENGTHS {
            let mut random = Random(7 + n as u32);
            let mut x: Vec<f32> =
                (0..n + 1).map(|_| random.within(1.0) * 2f32.powi(random.next() as i32 % 30)).collect();
            for (x, &edge) in x.iter_mut().zip(&edges) {
                *x = if n % 2 == 0 { edge } else { -edge };
            }
            let x = &x[1..];
            let mut out = vec![0u16; n];
            kernels.to_f16(x, &mut out);
            for (&x, &got) in x.iter().zip(&out) {
                let want = half::from_f32(x);
                fail.check(got == want, || format!("{}: {x:e} became {got:#06x}, wanted {want:#06x}", kernels.isa()));
            }
        }
        let mut out = [0u16];
        kernels.to_f16(&[f32::NAN], &mut out);
        fail.check(half::to_f32(out[0]).is_nan(), || format!("{}: NaN became {:#06x}", kernels.isa(), out[0]));
    }
}

#[test]
fn argmax_takes_the_first_of_equals_and_never_nan() {
    const NAN: f32 = f32::NAN;
    const LOW: f32 = f32::NEG_INFINITY;
    let cases: [(&[f32], usize); 9] = [
        (&[], 0),
        (&[NAN], 0),
        (&[NAN, LOW], 1),
        (&[LOW, LOW], 0),
        (&[NAN, NAN, -3.0, NAN], 2),
        (&[1.0, 2.0, 2.0], 1),
        (&[0.0, -0.0], 0),
        (&[-5.0, f32::INFINITY, NAN, f32::INFINITY], 1),
        (&[-0.0, 0.0], 0),
    ];
    let mut fail = Failures::default();
    for kernels in Kernels::all() {
        for (x, want) in cases {
            let got = kernels.argmax(x);
            fail.check(got == want, || format!("{}: {x:?} gave {got}, wanted {want}", kernels.isa()));
        }
        for n in LENGTHS.into_iter().filter(|&n| n > 0) {
            let mut x = Random(5).vector(n, 1.0);
            for at in [0, n / 2, n - 1] {
                x[at] = 2.0;
                let mut later = x.clone();
                later[n - 1] = 2.0;
                let got = kernels.argmax(&later);
                fail.check(got == at, || {
                    format!("{}: {n} elements, the first maximum at {at}, got {got}", kernels.isa())
                });
                x[at] = 0.0;
            }
        }
    }
}

#[test]
fn softmax_and_log_sum_exp_match_f64() {
    let mut fail = Failures::default();
    for kernels in Kernels::all() {
        for (n, limit) in LENGTHS.into_iter().flat_map(|n| [(n, 1.0), (n, 300.0)]).chain([(262_144, 20.0)]) {
            let x = &Random(n as u32 + 3).vector(n + 1, limit)[1..];
            let max = wide(x).into_iter().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = wide(x).iter().map(|x| (x - max).exp()).sum();
            let got = kernels.log_sum_exp(x);
            let want = if n == 0 { f64::NEG_INFINITY } else { max + sum.ln() };
            let good = f64::from(got) == want || (f64::from(got) - want).abs() <= 1e-7 * (want.abs() + 1.0);
            fail.check(good, || format!("{}: log_sum_exp of {n}: {got}, wanted {want}", kernels.isa()));
            let mut out = x.to_vec();
            kernels.softmax(&mut out);
            // The difference to the maximum is rounded to f32 first, as in any f32 softmax.
            let want: Vec<f64> = x.iter().map(|x| f64::from(x - max as f32).exp() / sum).collect();
            fail.close(&format!("{} softmax of {n}", kernels.isa()), &out, &want, 5e-7, 1e-37);
        }
        let mut none = [f32::NEG_INFINITY; 5];
        kernels.softmax(&mut none);
        fail.check(none == [0.0; 5], || format!("{}: softmax of nothing: {none:?}", kernels.isa()));
        let infinite = kernels.log_sum_exp(&[1.0, f32::INFINITY]);
        fail.check(infinite == f32::INFINITY, || format!("{}: {infinite}", kernels.isa()));
    }
}

/// Owned buffers of a state.
#[derive(Clone, Debug, PartialEq)]
struct State {
    max: Vec<f32>,
    sum: Vec<f32>,
    acc: Vec<f32>,
}

impl State {
    fn new(n_q: usize, head_dim: usize) -> State {
        let mut state = State { max: vec![9.0; n_q], sum: vec![9.0; n_q], acc: vec![9.0; n_q * head_dim] };
        state.view().clear();
        state
    }

    fn view(&mut self) -> AttnState<'_> {
        AttnState { max: &mut self.max, sum: &mut self.sum, acc: &mut self.acc }
    }

    fn part(&self) -> AttnPart<'_> {
        AttnPart { max: &self.max, sum: &self.sum, acc: &self.acc }
    }

    fn bits(&self, query: usize, head_dim: usize) -> Vec<u32> {
        let acc = &self.acc[query * head_dim..][..head_dim];
        [self.max[query], self.sum[query]].iter().chain(acc).map(|x| x.to_bits()).collect()
    }
}

struct Case {
    head_dim: usize,
    q: Vec<f32>,
    k: Vec<u16>,
    v: Vec<u16>,
    visible: Vec<Range<usize>>,
    soft_cap: Option<f32>,
}

impl Case {
    /// Values are below 2, and what is lost are roundings of scores, up to about 10 for heads of 256 (2^-24 * 10 = 6e-7). A register of four
    /// lanes adds up twice as many products, one after the other, as one of eight.
    fn bound(&self) -> f64 {
        let lanes = if cfg!(target_arch = "aarch64") { 2.0 } else { 1.0 };
        1.2e-6 * lanes * (self.head_dim as f64 / 256.0).max(1.0)
    }

    fn new(head_dim: usize, n_pos: usize, visible: Vec<Range<usize>>, soft_cap: Option<f32>) -> Case {
        let mut random = Random((head_dim * 1000 + n_pos + visible.len()) as u32 | 1);
        let q = random.vector(visible.len() * head_dim, 3.0 / (head_dim as f32).sqrt());
        let (k, v) = (random.halves(n_pos * head_dim, 3.0), random.halves(n_pos * head_dim, 2.0));
        Case { head_dim, q, k, v, visible, soft_cap }
    }

    /// Queries `queries` over the first `n_pos` positions.
    fn run(&self, kernels: &Kernels, queries: Range<usize>, n_pos: usize) -> State {
        let mut state = State::new(queries.len(), self.head_dim);
        let input = AttnInput {
            q: &self.q[queries.start * self.head_dim..queries.end * self.head_dim],
            head_dim: self.head_dim,
            k: &self.k[..n_pos * self.head_dim],
            v: &self.v[..n_pos * self.head_dim],
            visible: &self.visible[queries],
            soft_cap: self.soft_cap,
        };
        kernels.attend(input, state.view());
        state
    }

    fn n_pos(&self) -> usize {
        self.k.len() / self.head_dim
    }

    fn all(&self, kernels: &Kernels) -> State {
        self.run(kernels, 0..self.visible.len(), self.n_pos())
    }

    fn naive(&self) -> Vec<f64> {
        naive(self.head_dim, &self.q, &widened(&self.k), &widened(&self.v), &self.visible, self.soft_cap)
    }
}

/// Scores, softmax and weighted sum, in f64 and in that order.
fn naive(
    head_dim: usize,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    visible: &[Range<usize>],
    soft_cap: Option<f32>,
) -> Vec<f64> {
    let row = |m: &[f32], i: usize| wide(&m[i * head_dim..][..head_dim]);
    let mut out = Vec::new();
    for (q, visible) in q.chunks_exact(head_dim).zip(visible) {
        let scores: Vec<f64> = visible
            .clone()
            .map(|p| {
                let s: f64 = wide(q).iter().zip(row(k, p)).map(|(q, k)| q * k).sum();
                soft_cap.map_or(s, |cap| f64::from(cap) * (s / f64::from(cap)).tanh())
            })
            .collect();
        let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = scores.iter().map(|s| (s - max).exp()).sum();
        let mut acc = vec![0.0; head_dim];
        for (s, p) in scores.iter().zip(visible.clone()) {
            for (acc, v) in acc.iter_mut().zip(row(v, p)) {
                *acc += (s - max).exp() / sum * v;
            }
        }
        out.extend(acc);
    }
    out
}

fn causal(n: usize) -> Vec<Range<usize>> {
    (0..n).map(|i| 0..i + 1).collect()
}

fn cases() -> Vec<Case> {
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
    // Many queries, for which keys are turned over where a head is whole registers: windows of all kinds, with and without a cap.
    let windows: Vec<_> = (0..45usize).map(|i| i * 7 % 60..(i * 7 % 60 + i * i % 90).min(130)).collect();
    for (head_dim, soft_cap) in [(64, Some(5.0)), (96, None), (256, Some(30.0)), (512, None), (1024, None)] {
        cases.push(Case::new(head_dim, 130, windows.clone(), soft_cap));
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
            kernels.finish_attn(case.head_dim, &state.sum, &mut state.acc);
            let what =
                format!("{} head {} x {}, {:?}", kernels.isa(), case.head_dim, case.n_pos(), case.visible.first());
            fail.close(&what, &state.acc, &case.naive(), case.bound(), 1.0);
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

#[test]
fn a_cache_in_f32_gives_what_the_same_values_in_f16_give() {
    let mut fail = Failures::default();
    for kernels in Kernels::all() {
        for case in cases() {
            let (k, v) = (widened(&case.k), widened(&case.v));
            let mut state = State::new(case.visible.len(), case.head_dim);
            let (q, visible) = (&case.q, &case.visible);
            kernels.attend(
                AttnInput { q, head_dim: case.head_dim, k: &k, v: &v, visible, soft_cap: case.soft_cap },
                state.view(),
            );
            fail.check(state == case.all(kernels), || {
                format!("{} head {} x {}", kernels.isa(), case.head_dim, case.n_pos())
            });
        }
    }
}

#[test]
fn a_cache_in_q8_0_gives_what_the_same_values_in_f32_give() {
    let mut fail = Failures::default();
    for kernels in Kernels::all() {
        for case in cases().into_iter().filter(|case| case.head_dim.is_multiple_of(32)) {
            // A product of an i8 and a half is exact in f32, so the bits must be equal.
            let blocks = |m: &[u16]| {
                let wide = widened(m);
                let mut blocks = vec![0; super::q8_0_len(wide.len()).expect("whole blocks")];
                kernels.to_q8_0(&wide, &mut blocks);
                let mut back = vec![0.0; wide.len()];
                kernels.from_q8_0(&blocks, &mut back);
                (blocks, back)
            };
            let ((k, wide_k), (v, wide_v)) = (blocks(&case.k), blocks(&case.v));
            let (q, visible, head_dim, soft_cap) = (&case.q, &case.visible, case.head_dim, case.soft_cap);
            let mut state = State::new(visible.len(), head_dim);
            kernels.attend(AttnInput { q, head_dim, k: &k, v: &v, visible, soft_cap }, state.view());
            let mut want = State::new(visible.len(), head_dim);
            kernels.attend(AttnInput { q, head_dim, k: &wide_k, v: &wide_v, visible, soft_cap }, want.view());
            fail.check(state == want, || format!("{} head {head_dim} x {}", kernels.isa(), case.n_pos()));
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
                let what = || format!("{} head {} query {i} of {visible:?}", kernels.isa(), case.head_dim);
                fail.check(alone.bits(0, case.head_dim) == together.bits(i, case.head_dim), what);
            }
            // What nobody sees may be anything.
            for p in 0..case.n_pos() {
                if !case.visible.iter().any(|r| r.contains(&p)) {
                    case.k[p * case.head_dim..][..case.head_dim].fill(0x7e00);
                    case.v[p * case.head_dim..][..case.head_dim].fill(0x7c00);
                }
            }
            fail.check(case.all(kernels) == together, || format!("{} head {}: NaN seen", kernels.isa(), case.head_dim));
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
            let mut whole = State::new(n_q, case.head_dim);
            for start in (0..case.n_pos()).step_by(48) {
                let span = start..case.n_pos().min(start + 48);
                let elements = span.start * case.head_dim..span.end * case.head_dim;
                let visible: Vec<_> = case.visible.iter().map(|r| cut(r, span.clone())).collect();
                let mut part = State::new(n_q, case.head_dim);
                let (k, v) = (&case.k[elements.clone()], &case.v[elements]);
                let input =
                    AttnInput { q: &case.q, head_dim: case.head_dim, k, v, visible: &visible, soft_cap: case.soft_cap };
                kernels.attend(input, part.view());
                kernels.merge_attn(case.head_dim, whole.view(), part.part());
            }
            kernels.finish_attn(case.head_dim, &whole.sum, &mut whole.acc);
            let what = format!("{} head {} x {}", kernels.isa(), case.head_dim, case.n_pos());
            fail.close(&what, &whole.acc, &case.naive(), case.bound(), 1.0);
        }
    }
}

/// A case's keys and values as rows of 16-bit integers.
struct Integers {
    rows: [Vec<i16>; 2],
    scales: [Vec<f32>; 2],
}

impl Integers {
    fn new(kernels: &Kernels, case: &Case) -> Integers {
        let [(k, k_scales), (v, v_scales)] = [&case.k, &case.v].map(|halves| {
            let mut rows = vec![0; halves.len()];
            let rounded = halves.chunks_exact(case.head_dim).zip(rows.chunks_exact_mut(case.head_dim));
            let scales = rounded.map(|(halves, row)| kernels.to_i16(&widened(halves), row)).collect();
            (rows, scales)
        });
        Integers { rows: [k, v], scales: [k_scales, v_scales] }
    }

    /// Queries `queries` over the first `n_pos` positions.
    fn run(&self, kernels: &Kernels, case: &Case, queries: Range<usize>, n_pos: usize) -> State {
        let mut state = State::new(queries.len(), case.head_dim);
        let [k, v] = self.rows.each_ref().map(|rows| &rows[..n_pos * case.head_dim]);
        let input = AttnInput {
            q: &case.q[queries.start * case.head_dim..queries.end * case.head_dim],
            head_dim: case.head_dim,
            k,
            v,
            visible: &case.visible[queries],
            soft_cap: case.soft_cap,
        };
        kernels.attend_i16(input, self.scales.each_ref().map(|scales| &scales[..n_pos]), state.view());
        state
    }

    fn all(&self, kernels: &Kernels, case: &Case) -> State {
        self.run(kernels, case, 0..case.visible.len(), case.n_pos())
    }

    /// The same numbers in f32, queries as they are rounded, for a reference in f64.
    fn exact(&self, kernels: &Kernels, case: &Case) -> Vec<f64> {
        let d = case.head_dim;
        let [k, v] = [0, 1].map(|i| {
            let mut wide = vec![0.0; self.rows[i].len()];
            let rows = self.rows[i].chunks_exact(d).zip(&self.scales[i]).zip(wide.chunks_exact_mut(d));
            rows.for_each(|((row, &scale), wide)| kernels.from_i16(row, scale, wide));
            wide
        });
        let q: Vec<f32> = case.q.chunks_exact(d).flat_map(super::words::rounded_query).collect();
        naive(d, &q, &k, &v, &case.visible, case.soft_cap)
    }
}

fn widened(halves: &[u16]) -> Vec<f32> {
    halves.iter().map(|&h| half::to_f32(h)).collect()
}

/// Those whose heads a row of integers can hold.
fn short_cases() -> impl Iterator<Item = Case> {
    cases().into_iter().filter(|case| case.head_dim <= super::MAX_I16_HEAD)
}

#[test]
fn attention_over_integers_matches_f64() {
    let mut fail = Failures::default();
    for kernels in Kernels::all() {
        for case in short_cases() {
            let integers = Integers::new(kernels, &case);
            let mut state = integers.all(kernels, &case);
            kernels.finish_attn(case.head_dim, &state.sum, &mut state.acc);
            let what =
                format!("{} head {} x {}, {:?}", kernels.isa(), case.head_dim, case.n_pos(), case.visible.first());
            // Of the same numbers only weights are rounded: by a 2^-14 of the greatest each, times values below 2, and the root of
            // some hundred positions (2^-14 * 2 * 10 = 1.2e-3) where one weight outweighs all others.
            fail.close(&what, &state.acc, &integers.exact(kernels, &case), 1e-3, 1.0);
            // Of those before rounding, elements are off by a 2^-14 of the greatest, in heads of 256 by a 2^-13 and queries by a 2^-12.
            fail.close(&format!("{what}, f32"), &state.acc, &case.naive(), 3e-3, 1.0);
        }
    }
}

#[test]
fn a_query_over_integers_does_not_feel_its_neighbours_nor_hidden_positions() {
    let mut fail = Failures::default();
    for kernels in Kernels::all() {
        for case in short_cases() {
            let mut integers = Integers::new(kernels, &case);
            let together = integers.all(kernels, &case);
            for (i, visible) in case.visible.iter().enumerate() {
                let alone = integers.run(kernels, &case, i..i + 1, visible.end);
                let what = || format!("{} head {} query {i} of {visible:?}", kernels.isa(), case.head_dim);
                fail.check(alone.bits(0, case.head_dim) == together.bits(i, case.head_dim), what);
            }
            // What nobody sees may be anything.
            for p in (0..case.n_pos()).filter(|p| !case.visible.iter().any(|r| r.contains(p))) {
                for (i, anything) in [i16::MIN, i16::MAX].into_iter().enumerate() {
                    integers.rows[i][p * case.head_dim..][..case.head_dim].fill(anything);
                    integers.scales[i][p] = f32::NAN;
                }
            }
            let what = || format!("{} head {}: hidden positions", kernels.isa(), case.head_dim);
            fail.check(integers.all(kernels, &case) == together, what);
        }
        // One of many queries and of few sees a bad row at the end of a block.
        for n_q in [4, 40] {
            let mut visible = vec![0..62; n_q];
            visible[2] = 0..64;
            for bad in [0, 1] {
                let case = Case::new(64, 80, visible.clone(), None);
                let mut integers = Integers::new(kernels, &case);
                integers.rows[bad][63 * 64..64 * 64].fill(0);
                integers.scales[bad][63] = f32::NAN;
                let mut state = integers.all(kernels, &case);
                kernels.finish_attn(64, &state.sum, &mut state.acc);
                for (i, acc) in state.acc.chunks_exact(64).enumerate() {
                    let what = || format!("{} query {i} of {n_q}, bad {bad}: {acc:?}", kernels.isa());
                    fail.check(acc.iter().all(|x| x.is_nan() == (i == 2)), what);
                }
            }
        }
    }
}

#[test]
fn parts_over_integers_merge_to_the_whole() {
    let mut fail = Failures::default();
    for kernels in Kernels::all() {
        let case = Case::new(64, 512, vec![0..512, 100..300, 255..257], None);
        let integers = Integers::new(kernels, &case);
        let mut whole = integers.all(kernels, &case);
        let mut merged = State::new(3, 64);
        for span in [0..256, 256..512] {
            let mut part = State::new(3, 64);
            let cut = |x: usize| x.clamp(span.start, span.end) - span.start;
            let visible: Vec<_> = case.visible.iter().map(|r| cut(r.start)..cut(r.end)).collect();
            let [k, v] = integers.rows.each_ref().map(|rows| &rows[span.start * 64..span.end * 64]);
            let input = AttnInput { q: &case.q, head_dim: 64, k, v, visible: &visible, soft_cap: None };
            let scales = integers.scales.each_ref().map(|scales| &scales[span.clone()]);
            kernels.attend_i16(input, scales, part.view());
            kernels.merge_attn(64, merged.view(), part.part());
        }
        for state in [&mut whole, &mut merged] {
            kernels.finish_attn(64, &state.sum, &mut state.acc);
        }
        fail.close(&kernels.isa().to_string(), &merged.acc, &wide(&whole.acc), 1e-6, 1.0);
    }
}

#[test]
fn queries_over_no_integers_keep_their_state() {
    for kernels in Kernels::all() {
        for n_q in [1, 40] {
            let case = Case::new(8, 0, vec![0..0; n_q], None);
            assert!(Integers::new(kernels, &case).all(kernels, &case) == State::new(n_q, 8), "{}", kernels.isa());
            let case = Case::new(8, 70, vec![3..3; n_q], None);
            assert!(Integers::new(kernels, &case).all(kernels, &case) == State::new(n_q, 8), "{}", kernels.isa());
        }
    }
}

/// Products of the greatest integers, which must not overflow a sum.
#[test]
fn sums_of_the_greatest_integers_do_not_overflow() {
    let mut fail = Failures::default();
    for kernels in Kernels::all() {
        for head_dim in [1, 64, 65, 128, 129, 256, 257, super::MAX_I16_HEAD] {
            for n_q in [2, 33] {
                let mut case = Case::new(head_dim, 128, vec![0..128; n_q], None);
                case.q.fill(1.0 / head_dim as f32);
                case.q[..head_dim].fill(-1.0 / head_dim as f32);
                case.k.fill(half::from_f32(-2.0));
                case.v.fill(half::from_f32(-3.0));
                let mut state = Integers::new(kernels, &case).all(kernels, &case);
                kernels.finish_attn(head_dim, &state.sum, &mut state.acc);
                let what = format!("{} head {head_dim}, {n_q} queries", kernels.isa());
                for (max, want) in state.max.iter().zip([2.0, -2.0]) {
                    fail.check((max - want).abs() < 1e-5, || format!("{what}: score {max}"));
                }
                fail.close(&what, &state.acc, &vec![-3.0; n_q * head_dim], 1e-6, 1.0);
            }
        }
    }
}

#[test]
fn heads_as_integers_are_close_and_the_same_in_every_table() {
    let mut random = Random(78);
    let mut fail = Failures::default();
    for (n, bits) in [(1, 13), (3, 13), (64, 13), (65, 12), (128, 12), (256, 12), (257, 11), (512, 11)] {
        for size in [1e-30, 1e-3, 1.0, 3e4, 1e30] {
            let x = random.vector(n, size);
            let (mut want, mut back) = (vec![0; n], vec![0.0; n]);
            let first = Kernels::all().next().expect("a table");
            let scale = first.to_i16(&x, &mut want);
            first.from_i16(&want, scale, &mut back);
            let amax = x.iter().fold(0.0f32, |max, x| max.max(x.abs()));
            for (x, back) in x.iter().zip(&back) {
                let bound = amax / ((1 << bits) - 1) as f32 * 0.5001;
                fail.check((x - back).abs() <= bound, || format!("{n} of {size}: {x} became {back}"));
            }
            for kernels in Kernels::all() {
                let mut got = vec![1; n];
                let got_scale = kernels.to_i16(&x, &mut got);
                fail.check(got == want && got_scale.to_bits() == scale.to_bits(), || {
                    format!("{} {n} of {size}: {got:?}, not {want:?}", kernels.isa())
                });
            }
        }
    }
    for kernels in Kernels::all() {
        let mut row = vec![7; 64];
        assert_eq!(kernels.to_i16(&[0.0; 64], &mut row), 0.0);
        assert_eq!(row, [0; 64]);
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
            let mut x = random.vector(64, 1.0);
            x[9] = bad;
            assert!(kernels.to_i16(&x, &mut row).is_nan(), "{} {bad}", kernels.isa());
            assert_eq!(row, [0; 64], "{} {bad}", kernels.isa());
        }
    }
}

//! Laws of attention over 16-bit integers, as those over other rows.

use std::ops::Range;

use modelembed_terms::MAX_I16_HEAD;

use super::attention::{Case, State, cases, widened};
use super::{Failures, Random, wide};
use crate::table::Kernels;
use crate::vector::{AttnInput, half};

/// A case's keys and values as rows of 16-bit integers.
pub(super) struct Integers {
    rows: [Vec<i16>; 2],
    scales: [Vec<f32>; 2],
    /// Integers of a row of each.
    dims: [usize; 2],
}

impl Integers {
    pub(super) fn new(kernels: &Kernels, case: &Case) -> Integers {
        let dims = [case.head_dim, case.value_dim];
        let [(k, k_scales), (v, v_scales)] = [(&case.k, dims[0]), (&case.v, dims[1])].map(|(halves, dim)| {
            let mut rows = vec![0; halves.len()];
            let rounded = halves.chunks_exact(dim).zip(rows.chunks_exact_mut(dim));
            let scales = rounded.map(|(halves, row)| kernels.to_i16(&widened(halves), row)).collect();
            (rows, scales)
        });
        Integers { rows: [k, v], scales: [k_scales, v_scales], dims }
    }

    /// Queries `queries` over the first `n_pos` positions.
    fn run(&self, kernels: &Kernels, case: &Case, queries: Range<usize>, n_pos: usize) -> State {
        let mut state = State::new(queries.len(), case.value_dim);
        let [k, v] = [0, 1].map(|i| &self.rows[i][..n_pos * self.dims[i]]);
        let input = AttnInput {
            q: &case.q[queries.start * case.head_dim..queries.end * case.head_dim],
            head_dim: case.head_dim,
            value_dim: case.value_dim,
            k,
            v,
            next: &[],
            visible: &case.visible[queries.clone()],
            soft_cap: case.soft_cap,
            lines: case.lines.get(queries).unwrap_or_default(),
        };
        kernels.attend_i16(input, self.scales.each_ref().map(|scales| &scales[..n_pos]), state.view());
        state
    }

    pub(super) fn all(&self, kernels: &Kernels, case: &Case) -> State {
        self.run(kernels, case, 0..case.visible.len(), case.n_pos())
    }

    /// The same numbers in f32, queries as they are rounded, for a reference in f64.
    pub(super) fn exact(&self, kernels: &Kernels, case: &Case) -> Vec<f64> {
        let [k, v] = [0, 1].map(|i| {
            let d = self.dims[i];
            let mut wide = vec![0.0; self.rows[i].len()];
            let rows = self.rows[i].chunks_exact(d).zip(&self.scales[i]).zip(wide.chunks_exact_mut(d));
            rows.for_each(|((row, &scale), wide)| kernels.from_i16(row, scale, wide));
            wide
        });
        let q: Vec<f32> =
            case.q.chunks_exact(case.head_dim).flat_map(crate::vector::attend_int::rounded_query).collect();
        case.naive_of(&q, &k, &v)
    }
}

/// Those whose keys and values a row of integers can hold.
fn short_cases() -> impl Iterator<Item = Case> {
    cases().into_iter().filter(|case| case.head_dim.max(case.value_dim) <= MAX_I16_HEAD)
}

#[test]
fn attention_over_integers_matches_f64() {
    let mut fail = Failures::default();
    for kernels in Kernels::all() {
        for case in short_cases() {
            let integers = Integers::new(kernels, &case);
            let mut state = integers.all(kernels, &case);
            kernels.finish_attn(case.value_dim, &state.sum, &mut state.acc);
            let what = case.name(kernels);
            // Of the same numbers only weights are rounded: by a 2^-14 of the greatest each, times
            // values below 2, and the root of some hundred positions (2^-14 * 2 * 10 = 1.2e-3)
            // where one weight outweighs all others.
            fail.close(&what, &state.acc, &integers.exact(kernels, &case), 1e-3, 1.0);
            // Of those before rounding, elements are off by a 2^-14 of the greatest, in heads of
            // 256 by a 2^-13 and queries by a 2^-12.
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
                let what = || format!("{}, query {i} of {visible:?}", case.name(kernels));
                fail.check(alone.bits(0, case.value_dim) == together.bits(i, case.value_dim), what);
            }
            // What nobody sees may be anything.
            for p in (0..case.n_pos()).filter(|p| !case.visible.iter().any(|r| r.contains(p))) {
                for (i, anything) in [i16::MIN, i16::MAX].into_iter().enumerate() {
                    let dim = integers.dims[i];
                    integers.rows[i][p * dim..][..dim].fill(anything);
                    integers.scales[i][p] = f32::NAN;
                }
            }
            let what = || format!("{}: hidden positions", case.name(kernels));
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
            let input = AttnInput {
                q: &case.q,
                head_dim: 64,
                value_dim: 64,
                k,
                v,
                next: &[],
                visible: &visible,
                soft_cap: None,
                lines: &[],
            };
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
        let equal = [1, 64, 65, 128, 129, 256, 257, MAX_I16_HEAD].map(|dim| [dim, dim]);
        for [head_dim, value_dim] in equal.into_iter().chain([[64, MAX_I16_HEAD], [MAX_I16_HEAD, 64]]) {
            for n_q in [2, 33] {
                let mut case = Case::unequal([head_dim, value_dim], 128, vec![0..128; n_q], None);
                case.q.fill(1.0 / head_dim as f32);
                case.q[..head_dim].fill(-1.0 / head_dim as f32);
                case.k.fill(half::from_f32(-2.0));
                case.v.fill(half::from_f32(-3.0));
                let mut state = Integers::new(kernels, &case).all(kernels, &case);
                kernels.finish_attn(value_dim, &state.sum, &mut state.acc);
                let what = case.name(kernels);
                for (max, want) in state.max.iter().zip([2.0, -2.0]) {
                    fail.check((max - want).abs() < 1e-5, || format!("{what}: score {max}"));
                }
                fail.close(&what, &state.acc, &vec![-3.0; n_q * value_dim], 1e-6, 1.0);
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

//! Capped scores, over every kind of cache, against naive f64 arithmetic.

use super::attend_int::Integers;
use super::attention::{Case, State, over, q8_0, widened};
use super::{Failures, wide};
use crate::table::Kernels;

/// A kind of cache: what queries become over the rows of a case in it, and what they should become
/// over what is in it, within such a part of 1 or of themselves.
type Kind = (&'static str, fn(&Kernels, &Case) -> (State, Vec<f64>), f64);

/// Integers round weights, by a 2^-14 of the greatest each; the others only sums.
const KINDS: [Kind; 4] = [
    ("f16", |kernels, case| (case.all(kernels), case.naive()), 2.4e-6),
    ("f32", |kernels, case| (over(kernels, case, &widened(&case.k), &widened(&case.v)), case.naive()), 2.4e-6),
    (
        "q8_0",
        |kernels, case| {
            let ((k, wide_k), (v, wide_v)) = (q8_0(kernels, &case.k), q8_0(kernels, &case.v));
            (over(kernels, case, &k, &v), case.naive_of(&case.q, &wide_k, &wide_v))
        },
        2.4e-6,
    ),
    (
        "i16",
        |kernels, case| {
            let integers = Integers::new(kernels, case);
            (integers.all(kernels, case), integers.exact(kernels, case))
        },
        1e-3,
    ),
];

#[test]
fn scores_are_capped_over_every_kind_of_cache() {
    let mut fail = Failures::default();
    for kernels in Kernels::all() {
        for n_q in [1, 2, 3, 4, 7, 31, 32, 33, 70] {
            let visible: Vec<_> = (0..n_q).map(|i| i * 7 % 60..i * 7 % 60 + 1 + i * i % 70).collect();
            for (dims, cap) in
                [([64, 64], 0.5), ([64, 64], 3.0), ([192, 128], 3.0), ([32, 96], 1.0), ([256, 256], 30.0)]
            {
                let case = Case::unequal(dims, 130, visible.clone(), Some(cap));
                for (kind, run, tolerance) in KINDS {
                    let (mut state, want) = run(kernels, &case);
                    kernels.finish_attn(case.value_dim, &state.sum, &mut state.acc);
                    fail.close(&format!("{} {kind} cap {cap}", case.name(kernels)), &state.acc, &want, tolerance, 1.0);
                    // No maximum exceeds the cap.
                    fail.check(state.max.iter().all(|&max| max <= cap), || format!("{kind}: {:?} > {cap}", state.max));
                }
            }
        }
    }
}

/// Caps of the test above change what comes out, so that it would show if one was forgotten.
#[test]
fn caps_are_felt_over_every_kind_of_cache() {
    for kernels in Kernels::all() {
        for n_q in [2, 40] {
            let of = |soft_cap| Case::unequal([64, 32], 130, vec![0..130; n_q], soft_cap);
            for (kind, run, tolerance) in KINDS {
                let [(mut capped, _), (mut free, _)] = [Some(3.0), None].map(|cap| run(kernels, &of(cap)));
                for state in [&mut capped, &mut free] {
                    kernels.finish_attn(32, &state.sum, &mut state.acc);
                }
                let most =
                    wide(&capped.acc).iter().zip(wide(&free.acc)).map(|(a, b)| (a - b).abs()).fold(0.0, f64::max);
                assert!(most > 50.0 * tolerance, "{} {kind}, {n_q} queries: {most}", kernels.isa());
            }
        }
    }
}

//! Scores of many queries with keys that are transposed: positions in lanes, so that no sum
//! crosses them.
//!
//! A score's bits are those of a row of keys: the same partial sums, one for each lane that a row
//! would have, added up in the order of [`Lanes::sum4`].

#![allow(
    clippy::needless_range_loop,
    reason = "iterator adapters around intrinsics are not always inlined, see `for_lanes`"
)]

use std::mem::MaybeUninit;
use std::ops::Range;

use super::kv::Element;
use super::lanes::Lanes;

/// Positions whose scores are held at once: 64 rows of 64 halves are 8 KiB of K and 8 KiB of V.
pub(super) const BLOCK: usize = 64;
/// Positions in one score tile.
pub(super) const POSITIONS: usize = 4;
/// Fours of lanes in the widest register.
const MAX_FOURS: usize = 4;

/// Writes element `d` of four rows, as f32, to `out[d * stride..][..4]`.
///
/// # Safety
/// As [`Lanes`]; the rows have `head_dim` elements, whole registers.
#[inline(always)]
pub(super) unsafe fn transpose<V: Lanes, T: Element>(
    rows: [*const T; POSITIONS],
    head_dim: usize,
    out: *mut f32,
    stride: usize,
) {
    for d in (0..head_dim).step_by(V::N) {
        // SAFETY: the caller's promise.
        unsafe {
            let mut four = [V::splat(0.0); POSITIONS];
            for p in 0..POSITIONS {
                four[p] = T::load(rows[p], d, V::N);
            }
            V::store_columns(four, out.add(d * stride), stride);
        }
    }
}

/// The scores of `Q` neighbouring queries with some keys that are transposed: query `j` and
/// position `p` to `scores[j * BLOCK + p]`, for whole registers that cover the positions.
///
/// # Safety
/// As [`Lanes`]; `q` holds `(Q, head_dim)`, `keys` `(head_dim, stride)`, of which `n_keys` columns
/// are used; all three are whole registers.
#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "one caller; a struct would only name the same things again")]
pub(super) unsafe fn score_columns<V: Lanes, const Q: usize>(
    q: *const f32,
    head_dim: usize,
    keys: *const f32,
    stride: usize,
    n_keys: usize,
    positions: Range<usize>,
    scores: *mut f32,
) {
    let mut p = positions.start / V::N * V::N;
    while p < positions.end {
        // SAFETY: the caller's promise.
        unsafe {
            if p + 2 * V::N <= n_keys {
                score_lanes::<V, Q, 2>(q, head_dim, keys.add(p), stride, scores.add(p));
                p += 2 * V::N;
            } else {
                score_lanes::<V, Q, 1>(q, head_dim, keys.add(p), stride, scores.add(p));
                p += V::N;
            }
        }
    }
}

/// [`score_columns`] for `P` registers of positions.
///
/// # Safety
/// As there.
#[inline(always)]
unsafe fn score_lanes<V: Lanes, const Q: usize, const P: usize>(
    q: *const f32,
    head_dim: usize,
    keys: *const f32,
    stride: usize,
    scores: *mut f32,
) {
    // SAFETY: the caller's promise.
    unsafe {
        // Lanes of a row are summed in fours, and fours as `Lanes::sum4` does.
        let mut fours = [MaybeUninit::<[[V; P]; Q]>::uninit(); MAX_FOURS];
        for f in 0..V::N / 4 {
            let [a, b, c, d] = V::FOUR;
            let first = pair_sums::<V, Q, P>(q, head_dim, keys, stride, [4 * f + a, 4 * f + b]);
            let second = pair_sums::<V, Q, P>(q, head_dim, keys, stride, [4 * f + c, 4 * f + d]);
            let mut sums = first;
            for j in 0..Q {
                for p in 0..P {
                    sums[j][p] = first[j][p].add(second[j][p]);
                }
            }
            fours[f].write(sums);
        }
        for j in 0..Q {
            for p in 0..P {
                let of = |f: usize| fours[f].as_ptr().cast::<V>().add(j * P + p).read();
                let sum = match V::N / 4 {
                    1 => of(0),
                    2 => of(0).add(of(1)),
                    _ => of(0).add(of(2)).add(of(1).add(of(3))),
                };
                sum.store(scores.add(j * BLOCK + p * V::N));
            }
        }
    }
}

/// What two lanes of a register would hold after all of a row, added.
///
/// # Safety
/// As [`score_columns`]; the lanes are below `V::N`.
#[inline(always)]
unsafe fn pair_sums<V: Lanes, const Q: usize, const P: usize>(
    q: *const f32,
    head_dim: usize,
    keys: *const f32,
    stride: usize,
    lanes: [usize; 2],
) -> [[V; P]; Q] {
    // SAFETY: the caller's promise.
    unsafe {
        // Two arrays, because the compiler keeps no array of three dimensions in registers.
        let mut sums = [[V::splat(0.0); P]; Q];
        let mut others = [[V::splat(0.0); P]; Q];
        let mut d = 0;
        while d < head_dim {
            add_products::<V, Q, P>(q.add(d + lanes[0]), head_dim, keys.add((d + lanes[0]) * stride), &mut sums);
            add_products::<V, Q, P>(q.add(d + lanes[1]), head_dim, keys.add((d + lanes[1]) * stride), &mut others);
            d += V::N;
        }
        let mut both = [[V::splat(0.0); P]; Q];
        for j in 0..Q {
            for p in 0..P {
                both[j][p] = sums[j][p].add(others[j][p]);
            }
        }
        both
    }
}

/// Adds the products of one element of `Q` queries and `P` registers of positions.
///
/// # Safety
/// As [`score_columns`].
#[inline(always)]
unsafe fn add_products<V: Lanes, const Q: usize, const P: usize>(
    q: *const f32,
    head_dim: usize,
    keys: *const f32,
    sums: &mut [[V; P]; Q],
) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut k = [V::splat(0.0); P];
        for p in 0..P {
            k[p] = V::load(keys.add(p * V::N));
        }
        for j in 0..Q {
            let q = V::splat(*q.add(j * head_dim));
            for p in 0..P {
                sums[j][p] = q.fma(k[p], sums[j][p]);
            }
        }
    }
}

//! Attention of some queries over a run of cached positions, without a matrix of scores.
//!
//! For one query, in plain words:
//! ```text
//! for each block of 64 positions that it sees a part of:
//!     s[p] = q . k[p]                          (soft-capped where the model says so)
//!     m'   = max(m, max s)
//!     acc *= exp(m - m'); sum *= exp(m - m')    (only if the maximum grew)
//!     w[p] = exp(s[p] - m')
//!     sum += sum of w;  acc += sum of w[p] * v[p]
//! ```
//! and at the end `acc / sum` (Dao et al., FlashAttention, 2022; Milakov and Gimelshein, 2018, for the running maximum).
//! What the code adds:
//! 1. Queries are taken a few at a time (the heads of a group, or neighbouring tokens), so that each row of K and V is read and
//!    widened once for all of them. Blocks are the outer loop: 64 rows of K and V stay in the first-level cache.
//! 2. Four positions' dot products are added up across lanes together.
//! 3. Each query's arithmetic has one order, given by its own visible range alone: products run over the head's elements in
//!    registers, positions are added one by one in ascending order. Positions that only some queries of a tile see are added for
//!    those alone, so a hidden row of V (which may hold anything) is never multiplied, not even by zero.

#![allow(
    clippy::needless_range_loop,
    reason = "iterator adapters around intrinsics are not always inlined, see `for_lanes`"
)]

use std::ops::Range;

use super::exp::{exp, tanh};
use super::kv::Element;
use super::lanes::{Lanes, for_lanes, load_n, store_n};

/// Positions whose scores are held at once: 64 rows of 64 halves are 8 KiB of K and 8 KiB of V.
const BLOCK: usize = 64;
/// Positions in one score tile.
const POSITIONS: usize = 4;

/// The running state of some queries. Start from [`AttnState::clear`].
#[derive(Debug)]
pub struct AttnState<'a> {
    /// The greatest score so far, one a query; minus infinity before the first.
    pub max: &'a mut [f32],
    /// The sum of exp(score - max), one a query.
    pub sum: &'a mut [f32],
    /// `(n_q, head_dim)`: the sum of exp(score - max) * v.
    pub acc: &'a mut [f32],
}

impl AttnState<'_> {
    /// Nothing seen yet.
    pub fn clear(&mut self) {
        self.max.fill(f32::NEG_INFINITY);
        self.sum.fill(0.0);
        self.acc.fill(0.0);
    }
}

/// A finished part of the attention of some queries, to be merged: the fields of [`AttnState`], read only.
#[derive(Clone, Copy, Debug)]
pub struct AttnPart<'a> {
    /// The greatest score, one a query.
    pub max: &'a [f32],
    /// The sum of exp(score - max), one a query.
    pub sum: &'a [f32],
    /// `(n_q, head_dim)`.
    pub acc: &'a [f32],
}

/// What queries attend to: one KV head's rows and who sees which of them.
#[derive(Clone, Copy, Debug)]
pub struct AttnInput<'a, T = u16> {
    /// `(n_q, head_dim)`, already scaled.
    pub q: &'a [f32],
    /// Elements of a head.
    pub head_dim: usize,
    /// `(n_pos, head_dim)`, in half precision (bits in a `u16`), Q8_0 blocks (bytes) or f32.
    pub k: &'a [T],
    /// `(n_pos, head_dim)`.
    pub v: &'a [T],
    /// For each query the positions that it sees, within `0..n_pos`.
    pub visible: &'a [Range<usize>],
    /// Scores become `cap * tanh(score / cap)`.
    pub soft_cap: Option<f32>,
}

#[allow(private_bounds, reason = "nothing here is public")]
impl<T: Element> AttnInput<'_, T> {
    /// Elements of `k` and `v` a position.
    #[inline(always)]
    pub(super) fn row_len(&self) -> usize {
        T::row_len(self.head_dim).unwrap_or(0)
    }

    #[inline(always)]
    fn n_pos(&self) -> usize {
        self.k.len() / self.row_len()
    }
}

/// [`attend`] over a cache in half precision.
///
/// # Safety
/// As [`attend`].
#[inline(always)]
pub(super) unsafe fn attend_f16<V: Lanes>(input: &AttnInput<'_, u16>, state: &mut AttnState<'_>) {
    // SAFETY: the caller's promise.
    unsafe { attend::<V, u16>(input, state) }
}

/// [`attend`] over a cache in Q8_0 blocks.
///
/// # Safety
/// As [`attend`].
#[inline(always)]
pub(super) unsafe fn attend_q8_0<V: Lanes>(input: &AttnInput<'_, u8>, state: &mut AttnState<'_>) {
    // SAFETY: the caller's promise.
    unsafe { attend::<V, u8>(input, state) }
}

/// [`attend`] over a cache in f32.
///
/// # Safety
/// As [`attend`].
#[inline(always)]
pub(super) unsafe fn attend_f32<V: Lanes>(input: &AttnInput<'_, f32>, state: &mut AttnState<'_>) {
    // SAFETY: the caller's promise.
    unsafe { attend::<V, f32>(input, state) }
}

/// # Safety
/// As [`Lanes`]; all slices have the documented lengths, `head_dim` is positive, ranges end within `n_pos`.
#[inline(always)]
unsafe fn attend<V: Lanes, T: Element>(input: &AttnInput<'_, T>, state: &mut AttnState<'_>) {
    let n_q = input.visible.len();
    for first in (0..input.n_pos()).step_by(BLOCK) {
        let mut query = 0;
        while query < n_q {
            let n = V::QUERIES.min(n_q - query);
            // SAFETY: queries query..query + n exist; the rest is the caller's promise.
            unsafe {
                match n {
                    1 => attend_tile::<V, T, 1>(input, state, query, first),
                    2 => attend_tile::<V, T, 2>(input, state, query, first),
                    // Known when this is compiled for one instruction set: no code where a tile is two queries.
                    _ if V::QUERIES == 2 => unreachable!("a tile is at most two queries"),
                    3 => attend_tile::<V, T, 3>(input, state, query, first),
                    _ => attend_tile::<V, T, 4>(input, state, query, first),
                }
            }
            query += n;
        }
    }
}

/// `Q` queries over the block of positions that begins at `first`.
///
/// # Safety
/// As [`attend`]; `query + Q` queries exist.
#[inline(always)]
unsafe fn attend_tile<V: Lanes, T: Element, const Q: usize>(
    input: &AttnInput<'_, T>,
    state: &mut AttnState<'_>,
    query: usize,
    first: usize,
) {
    let (head_dim, row_len) = (input.head_dim, input.row_len());
    let seen: [Range<usize>; Q] = std::array::from_fn(|j| {
        let range = &input.visible[query + j];
        range.start.clamp(first, first + BLOCK) - first..range.end.clamp(first, first + BLOCK) - first
    });
    let used = || seen.iter().filter(|r| !r.is_empty());
    let (Some(start), Some(end)) = (used().map(|r| r.start).min(), used().map(|r| r.end).max()) else { return };

    let mut scores = [[0.0f32; BLOCK]; Q];
    // SAFETY: rows are clamped to the last position, tiles of scores to the block; queries exist by the caller's promise.
    unsafe {
        let q = input.q.as_ptr().add(query * head_dim);
        let last = input.n_pos() - 1;
        for position in (start / POSITIONS * POSITIONS..end).step_by(POSITIONS) {
            let mut rows = [input.k.as_ptr(); POSITIONS];
            for (p, row) in rows.iter_mut().enumerate() {
                *row = row.add((first + position + p).min(last) * row_len);
            }
            let tile = score_tile::<V, T, Q>(q, head_dim, rows);
            for (row, tile) in scores.iter_mut().zip(tile) {
                row[position..position + POSITIONS].copy_from_slice(&tile);
            }
        }
        for ((j, row), seen) in scores.iter_mut().enumerate().zip(&seen) {
            if !seen.is_empty() {
                let acc = &mut state.acc[(query + j) * head_dim..][..head_dim];
                weigh::<V>(row, seen, input.soft_cap, &mut state.max[query + j], &mut state.sum[query + j], acc);
            }
        }
        let acc = state.acc.as_mut_ptr().add(query * head_dim);
        let v = input.v.as_ptr().add(first * row_len);
        let shared = seen.iter().map(|r| r.start).max().unwrap_or(0)..seen.iter().map(|r| r.end).min().unwrap_or(0);
        // Without a shared part, everything is before it.
        let shared = if shared.is_empty() { BLOCK..BLOCK } else { shared };
        for (j, seen) in seen.iter().enumerate() {
            let before = seen.start..seen.end.min(shared.start);
            add_values::<V, T, 1>(&scores[j..], v, head_dim, before, acc.add(j * head_dim));
        }
        add_values::<V, T, Q>(&scores, v, head_dim, shared.clone(), acc);
        for (j, seen) in seen.iter().enumerate() {
            let after = seen.start.max(shared.end)..seen.end;
            add_values::<V, T, 1>(&scores[j..], v, head_dim, after, acc.add(j * head_dim));
        }
    }
}

/// The dot products of `Q` neighbouring queries with four rows of K.
///
/// # Safety
/// As [`Lanes`]; `q` holds `(Q, head_dim)`, each row `head_dim` elements.
#[inline(always)]
unsafe fn score_tile<V: Lanes, T: Element, const Q: usize>(
    q: *const f32,
    head_dim: usize,
    rows: [*const T; POSITIONS],
) -> [[f32; POSITIONS]; Q] {
    // SAFETY: offsets stay below head_dim.
    unsafe {
        let mut sums = [[V::splat(0.0); POSITIONS]; Q];
        let full = head_dim / V::N * V::N;
        let mut d = 0;
        while d < full {
            let mut keys = [V::splat(0.0); POSITIONS];
            for p in 0..POSITIONS {
                keys[p] = T::load(rows[p], d, V::N);
            }
            for j in 0..Q {
                let q = V::load(q.add(j * head_dim + d));
                for p in 0..POSITIONS {
                    sums[j][p] = q.fma(keys[p], sums[j][p]);
                }
            }
            d += V::N;
        }
        if d < head_dim {
            let n = head_dim - d;
            let mut keys = [V::splat(0.0); POSITIONS];
            for p in 0..POSITIONS {
                keys[p] = T::load(rows[p], d, n);
            }
            for j in 0..Q {
                let q = V::load_part(q.add(j * head_dim + d), n);
                for p in 0..POSITIONS {
                    sums[j][p] = q.fma(keys[p], sums[j][p]);
                }
            }
        }
        let mut scores = [[0.0; POSITIONS]; Q];
        for j in 0..Q {
            scores[j] = V::sum4(sums[j]);
        }
        scores
    }
}

/// Turns one query's scores of a block into weights relative to the new maximum, and brings its state up to that maximum.
///
/// # Safety
/// As [`Lanes`]; `seen` is within the block and not empty.
#[inline(always)]
unsafe fn weigh<V: Lanes>(
    scores: &mut [f32; BLOCK],
    seen: &Range<usize>,
    soft_cap: Option<f32>,
    max: &mut f32,
    sum: &mut f32,
    acc: &mut [f32],
) {
    // SAFETY: a block is a whole number of registers; acc is walked within its length.
    unsafe {
        let at = scores.as_mut_ptr();
        if let Some(cap) = soft_cap {
            for i in (0..BLOCK).step_by(V::N) {
                tanh(V::load(at.add(i)).div(V::splat(cap))).mul(V::splat(cap)).store(at.add(i));
            }
        }
        scores[..seen.start].fill(f32::NEG_INFINITY);
        scores[seen.end..].fill(f32::NEG_INFINITY);
        let mut block_max = V::splat(f32::NEG_INFINITY);
        for i in (0..BLOCK).step_by(V::N) {
            block_max = V::load(at.add(i)).max(block_max);
        }
        let block_max = block_max.greatest();
        if block_max > *max {
            let factor = exp(V::splat(*max).sub(V::splat(block_max)));
            let (to, len) = (acc.as_mut_ptr(), acc.len());
            for_lanes!(V, to, len, |v, i, n| store_n(v.mul(factor), to.add(i), n));
            let mut sums = [0.0];
            V::splat(*sum).mul(factor).store_part(sums.as_mut_ptr(), 1);
            (*max, *sum) = (block_max, sums[0]);
        }
        let shift = V::splat(*max);
        let mut sums = V::splat(0.0);
        for i in (0..BLOCK).step_by(V::N) {
            let weights = exp(V::load(at.add(i)).sub(shift));
            weights.store(at.add(i));
            sums = sums.add(weights);
        }
        *sum += sums.sum();
    }
}

/// Adds weight * value of the positions `range` to the accumulators of `Q` neighbouring queries, whose weights come first.
///
/// # Safety
/// As [`Lanes`]; `range` is within the block, `v` holds its rows, `acc` `(Q, head_dim)`.
#[inline(always)]
unsafe fn add_values<V: Lanes, T: Element, const Q: usize>(
    weights: &[[f32; BLOCK]],
    v: *const T,
    head_dim: usize,
    range: Range<usize>,
    acc: *mut f32,
) {
    if range.is_empty() {
        return;
    }
    let mut d = 0;
    // SAFETY: offsets stay below head_dim.
    unsafe {
        while d + 4 * V::N <= head_dim {
            add_value_columns::<V, T, Q, 4>(weights, v, head_dim, d, range.clone(), acc, V::N);
            d += 4 * V::N;
        }
        while d < head_dim {
            let n = V::N.min(head_dim - d);
            add_value_columns::<V, T, Q, 1>(weights, v, head_dim, d, range.clone(), acc, n);
            d += n;
        }
    }
}

/// [`add_values`] for `C` registers of a head's elements from `first` on, of which the last holds `n` lanes.
///
/// # Safety
/// As [`add_values`]; rows have `first + (C - 1) * N + n` elements.
#[inline(always)]
unsafe fn add_value_columns<V: Lanes, T: Element, const Q: usize, const C: usize>(
    weights: &[[f32; BLOCK]],
    v: *const T,
    head_dim: usize,
    first: usize,
    range: Range<usize>,
    acc: *mut f32,
    n: usize,
) {
    // SAFETY: only the last register of a row may be partial, and `lanes` says so.
    unsafe {
        let row_len = T::row_len(head_dim).unwrap_or(0);
        let acc = acc.add(first);
        let weights = &weights[..Q];
        let lanes = |c: usize| if c + 1 == C { n } else { V::N };
        let mut sums = [[V::splat(0.0); C]; Q];
        for j in 0..Q {
            for c in 0..C {
                sums[j][c] = load_n(acc.add(j * head_dim + c * V::N), lanes(c));
            }
        }
        for position in range {
            let row = v.add(position * row_len);
            let mut values = [V::splat(0.0); C];
            for c in 0..C {
                values[c] = T::load(row, first + c * V::N, lanes(c));
            }
            for j in 0..Q {
                let weight = V::splat(weights[j][position]);
                for c in 0..C {
                    sums[j][c] = weight.fma(values[c], sums[j][c]);
                }
            }
        }
        for j in 0..Q {
            for c in 0..C {
                store_n(sums[j][c], acc.add(j * head_dim + c * V::N), lanes(c));
            }
        }
    }
}

/// # Safety
/// As [`Lanes`]; both have the same lengths, those of [`AttnState`].
#[inline(always)]
pub(super) unsafe fn merge<V: Lanes>(head_dim: usize, into: &mut AttnState<'_>, part: &AttnPart<'_>) {
    for query in 0..part.max.len() {
        let (a, b) = (into.max[query], part.max[query]);
        if part.sum[query] == 0.0 {
            continue; // that part saw nothing
        }
        let max = if b > a { b } else { a };
        // SAFETY: offsets stay below head_dim in each row.
        unsafe {
            let (fa, fb) = (exp(V::splat(a).sub(V::splat(max))), exp(V::splat(b).sub(V::splat(max))));
            let mut sum = [0.0];
            V::splat(into.sum[query]).mul(fa).add(V::splat(part.sum[query]).mul(fb)).store_part(sum.as_mut_ptr(), 1);
            (into.max[query], into.sum[query]) = (max, sum[0]);
            let to = into.acc[query * head_dim..][..head_dim].as_mut_ptr();
            let from = &part.acc[query * head_dim..][..head_dim];
            for_lanes!(V, from.as_ptr(), head_dim, |v, i, n| {
                store_n(load_n::<V>(to.add(i), n).mul(fa).add(v.mul(fb)), to.add(i), n);
            });
        }
    }
}

/// # Safety
/// As [`Lanes`]; `acc` is `(sum.len(), head_dim)`.
#[inline(always)]
pub(super) unsafe fn finish<V: Lanes>(head_dim: usize, sum: &[f32], acc: &mut [f32]) {
    for (&sum, acc) in sum.iter().zip(acc.chunks_exact_mut(head_dim)) {
        let (to, len) = (acc.as_mut_ptr(), acc.len());
        // A query that saw nothing has a zero accumulator, and keeps it.
        let sum = if sum == 0.0 { 1.0 } else { sum };
        // SAFETY: offsets stay below len.
        unsafe { for_lanes!(V, to, len, |v, i, n| store_n(v.div(V::splat(sum)), to.add(i), n)) }
    }
}

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
//! and at the end `acc / sum` (Dao et al., FlashAttention, 2022; Milakov and Gimelshein, 2018, for
//! the running maximum). What the code adds:
//! 1. Queries are taken a few at a time (the heads of a group, or neighbouring tokens), so that
//!    each row of K and V is read once for all of them. Blocks are the outer loop: 64 rows of K and
//!    V stay in the first-level cache. Where more queries than one tile go over the same rows,
//!    these are widened to f32 once for all ([`attend_many`]), with the same bits.
//! 2. Four positions' dot products are added up across lanes together. Where keys are widened for
//!    many queries, they are also turned over: sixteen positions' products (one a lane) then need
//!    no sum across lanes. [`score_columns`] makes the same partial sums, one for each lane that a
//!    row would have, and adds them up in the same order.
//! 3. Each query's arithmetic has one order, given by its own visible range alone: products run
//!    over the head's elements in registers, positions are added one by one in ascending order.
//!    Positions that only some queries of a tile see are added for those alone, so a hidden row of
//!    V (which may hold anything) is never multiplied, not even by zero.

#![allow(
    clippy::needless_range_loop,
    reason = "iterator adapters around intrinsics are not always inlined, see `for_lanes`"
)]

use std::ops::Range;

use super::columns::{BLOCK, POSITIONS, score_columns, transpose};
use super::exp::{exp, exp_or_zero, tanh};
use super::input::{AttnInput, AttnPart, AttnState, Bend, Line};
use super::kv::Element;
use super::lanes::{Lanes, for_lanes, load_n, store_n};

/// Queries from which on widening rows first is no slower, when K and V are in a cache anyway: 8
/// queries lose a quarter by it and 32 as much as nothing (heads of 64 to 256, f16, AVX2, a Zen 3
/// server, keys not transposed). A prompt has twice as many; with 64 it gains 1.2 times behind 4096
/// positions of f16, and 1.4 times of Q8_0.
pub(super) const MANY_FROM: usize = 32;
/// Queries whose scores are held at once: 16 KiB.
pub(super) const MANY: usize = 64;
/// Floats of widened rows: 16 KiB, half of a small first-level cache.
const WIDE_LEN: usize = 4096;

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

/// Runs `call` with the constant `Q` equal to `n`, which is at most `most` (4 or less). What is
/// more than `most` is known when this is compiled for one instruction set: no code where tiles are
/// smaller.
macro_rules! for_queries {
    ($most:expr, $n:expr, $Q:ident => $call:expr) => {
        match $n {
            1 => {
                const $Q: usize = 1;
                $call
            }
            2 => {
                const $Q: usize = 2;
                $call
            }
            3 if $most >= 3 => {
                const $Q: usize = 3;
                $call
            }
            _ if $most >= 4 => {
                const $Q: usize = 4;
                $call
            }
            _ => unreachable!("a tile is at most {} queries", $most),
        }
    };
}
pub(super) use for_queries;

/// # Safety
/// As [`Lanes`]; all slices have the documented lengths, `head_dim` and `value_dim` are positive,
/// ranges end within `n_pos`.
#[inline(always)]
unsafe fn attend<V: Lanes, T: Element>(input: &AttnInput<'_, T>, state: &mut AttnState<'_>) {
    let n_q = input.visible.len();
    if n_q >= MANY_FROM && input.head_dim.max(input.value_dim) * POSITIONS <= WIDE_LEN {
        // SAFETY: the caller's promise.
        return unsafe { attend_many::<V, T>(input, state) };
    }
    // Tiles as even as can be: two of two queries are faster than one of three and one of one.
    let at_once = n_q.div_ceil(n_q.div_ceil(V::QUERIES).max(1)).max(1);
    for first in (0..input.n_pos()).step_by(BLOCK) {
        for query in (0..n_q).step_by(at_once) {
            let n = at_once.min(n_q - query);
            // SAFETY: queries query..query + n exist; the rest is the caller's promise.
            unsafe { for_queries!(V::QUERIES, n, Q => attend_tile::<V, T, Q>(input, state, query, first)) }
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
    let (head_dim, value_dim) = (input.head_dim, input.value_dim);
    let (key_len, value_len) = (input.key_len(), input.value_len());
    let seen: [Range<usize>; Q] = std::array::from_fn(|j| within(&input.visible[query + j], first..first + BLOCK));
    let Some(all) = union(&seen) else { return };

    let mut scores = [[0.0f32; BLOCK]; Q];
    // SAFETY: rows are clamped to the last position, tiles of scores to the block; queries exist by
    // the caller's promise.
    unsafe {
        let q = input.q.as_ptr().add(query * head_dim);
        let last = input.n_pos() - 1;
        let v = input.v.as_ptr().add(first * value_len);
        // The first tile of a block requests what is read next: values while it reads keys, the
        // next block's keys while it reads values.
        let ahead = if query == 0 { next_keys(input, first) } else { None };
        for position in (all.start / POSITIONS * POSITIONS..all.end).step_by(POSITIONS) {
            if query == 0 {
                request::<V, T>(v, position * value_len, POSITIONS * value_len);
            }
            let mut rows = [input.k.as_ptr(); POSITIONS];
            for (p, row) in rows.iter_mut().enumerate() {
                *row = row.add((first + position + p).min(last) * key_len);
            }
            let tile = score_tile::<V, T, Q>(q, head_dim, rows);
            for (row, tile) in scores.iter_mut().zip(tile) {
                row[position..position + POSITIONS].copy_from_slice(&tile);
            }
        }
        weigh_seen::<V>(&mut scores, &seen, input.bend(query, first), state, query, value_dim);
        let acc = state.acc.as_mut_ptr().add(query * value_dim);
        add_seen::<V, T, Q>(scores.as_ptr().cast(), v, value_dim, &seen, acc, ahead);
    }
}

/// The keys that are read after the block that begins at `first`: the next block's, or those that the
/// caller names.
#[inline(always)]
fn next_keys<T: Element>(input: &AttnInput<'_, T>, first: usize) -> Option<*const T> {
    let behind = first + BLOCK;
    match behind < input.n_pos() {
        true => Some(input.k.as_ptr().wrapping_add(behind * input.key_len())),
        false => (!input.next.is_empty()).then_some(input.next.as_ptr()),
    }
}

/// Requests `len` elements of rows from `at` on, which may lie anywhere. Memory would otherwise
/// wait for arithmetic and arithmetic for memory: with requests a group of three heads reads 9 to
/// 11 GB/s, without them 6 to 7 (heads of 64 to 256, f16, AVX2, one thread of a Zen 3 server).
///
/// # Safety
/// As [`Lanes`].
#[inline(always)]
unsafe fn request<V: Lanes, T: Element>(rows: *const T, at: usize, len: usize) {
    // SAFETY: the caller's promise.
    unsafe { V::request(rows.wrapping_add(at).cast(), len * size_of::<T>()) };
}

/// The part of `range` that lies within `block`, counted from its beginning.
#[inline(always)]
pub(super) fn within(range: &Range<usize>, block: Range<usize>) -> Range<usize> {
    let clamp = |x: usize| x.clamp(block.start, block.end) - block.start;
    clamp(range.start)..clamp(range.end)
}

/// The range from the first to the last position that one of the ranges has; `None` if all are
/// empty.
#[inline(always)]
pub(super) fn union(ranges: &[Range<usize>]) -> Option<Range<usize>> {
    let used = || ranges.iter().filter(|r| !r.is_empty());
    Some(used().map(|r| r.start).min()?..used().map(|r| r.end).max()?)
}

/// Rows of K or V as f32, aligned as cache lines are.
#[repr(align(64))]
struct Wide([f32; WIDE_LEN]);

/// [`attend`] for more queries than a tile has: each few rows of K and V are widened once, and then
/// all queries go over them.
///
/// One query's operations are the same, in the same order, as in [`attend_tile`].
///
/// # Safety
/// As [`attend`]; `WIDE_LEN` holds [`POSITIONS`] rows of K, and of V.
#[inline(always)]
unsafe fn attend_many<V: Lanes, T: Element>(input: &AttnInput<'_, T>, state: &mut AttnState<'_>) {
    let (head_dim, value_dim, n_q) = (input.head_dim, input.value_dim, input.visible.len());
    let (key_len, value_len) = (input.key_len(), input.value_len());
    let at_once = |len: usize| (WIDE_LEN / len / POSITIONS * POSITIONS).min(BLOCK);
    let (keys_at_once, values_at_once) = (at_once(head_dim), at_once(value_dim));
    // Keys that are transposed at a time; none where that is not possible.
    let columns_at_once = if V::COLUMN_QUERIES > 0 && head_dim.is_multiple_of(V::N) {
        (WIDE_LEN / head_dim / V::N * V::N).min(BLOCK)
    } else {
        0
    };
    let last = input.n_pos().saturating_sub(1);
    let mut scores = [[0.0f32; BLOCK]; MANY];
    let mut wide = Wide([0.0; WIDE_LEN]);
    let wide = wide.0.as_mut_ptr();
    for first in (0..input.n_pos()).step_by(BLOCK) {
        for query in (0..n_q).step_by(MANY) {
            let queries = query..n_q.min(query + MANY);
            let mut seen = [const { 0..0 }; MANY];
            for (seen, range) in seen.iter_mut().zip(&input.visible[queries.clone()]) {
                *seen = within(range, first..first + BLOCK);
            }
            let seen = &seen[..queries.len()];
            let Some(all) = union(seen) else { continue };
            // SAFETY: rows are clamped to the last position; queries are those of `input`; so many
            // rows at once fit `wide`.
            unsafe {
                if V::COLUMN_QUERIES > 0 && columns_at_once > 0 {
                    for sub in (all.start / V::N * V::N..all.end).step_by(columns_at_once) {
                        let n_rows = columns_at_once.min(all.end - sub).next_multiple_of(V::N);
                        for r in (0..n_rows).step_by(POSITIONS) {
                            let mut rows = [input.k.as_ptr(); POSITIONS];
                            for (p, row) in rows.iter_mut().enumerate() {
                                *row = row.add((first + sub + r + p).min(last) * key_len);
                            }
                            transpose::<V, T>(rows, head_dim, wide.add(r), columns_at_once);
                        }
                        for j in (0..queries.len()).step_by(V::COLUMN_QUERIES) {
                            let n = V::COLUMN_QUERIES.min(queries.len() - j);
                            let Some(tile) = union(&seen[j..j + n]) else { continue };
                            let tile = within(&tile, sub..sub + n_rows);
                            let q = input.q.as_ptr().add((query + j) * head_dim);
                            let scores = scores[j..j + n].as_mut_ptr().cast::<f32>().add(sub);
                            for_queries!(V::COLUMN_QUERIES, n, Q => {
                                score_columns::<V, Q>(q, head_dim, wide, columns_at_once, n_rows, tile, scores)
                            });
                        }
                    }
                } else {
                    for sub in (all.start / POSITIONS * POSITIONS..all.end).step_by(keys_at_once) {
                        let n_rows = keys_at_once.min(all.end - sub).next_multiple_of(POSITIONS);
                        for r in 0..n_rows {
                            let row = input.k.as_ptr().add((first + sub + r).min(last) * key_len);
                            widen::<V, T>(row, head_dim, wide.add(r * head_dim));
                        }
                        for j in (0..queries.len()).step_by(V::MANY_QUERIES) {
                            let n = V::MANY_QUERIES.min(queries.len() - j);
                            let Some(tile) = union(&seen[j..j + n]) else { continue };
                            let tile = within(&tile, sub..sub + n_rows);
                            let q = input.q.as_ptr().add((query + j) * head_dim);
                            let scores = scores[j..j + n].as_mut_ptr().cast::<f32>().add(sub);
                            for_queries!(V::MANY_QUERIES, n, Q => score_rows::<V, Q>(q, head_dim, wide, tile, scores));
                        }
                    }
                }
                weigh_seen::<V>(&mut scores, seen, input.bend(query, first), state, query, value_dim);
                for sub in (all.start..all.end).step_by(values_at_once) {
                    let n_rows = values_at_once.min(all.end - sub);
                    for r in 0..n_rows {
                        let row = input.v.as_ptr().add((first + sub + r) * value_len);
                        widen::<V, T>(row, value_dim, wide.add(r * value_dim));
                    }
                    for j in (0..queries.len()).step_by(V::MANY_QUERIES) {
                        let n = V::MANY_QUERIES.min(queries.len() - j);
                        let acc = state.acc.as_mut_ptr().add((query + j) * value_dim);
                        let weights = scores[j..j + n].as_ptr().cast::<f32>().add(sub);
                        for_queries!(V::MANY_QUERIES, n, Q => {
                            let seen: [_; Q] = std::array::from_fn(|i| within(&seen[j + i], sub..sub + n_rows));
                            add_seen::<V, f32, Q>(weights, wide, value_dim, &seen, acc, None);
                        });
                    }
                }
            }
        }
    }
}

/// Writes a row's elements as f32.
///
/// # Safety
/// As [`Lanes`]; the row and `out` have `len` elements.
#[inline(always)]
unsafe fn widen<V: Lanes, T: Element>(row: *const T, len: usize, out: *mut f32) {
    // SAFETY: offsets stay below len.
    unsafe {
        for d in (0..len).step_by(V::N) {
            let n = V::N.min(len - d);
            store_n(T::load::<V>(row, d, n), out.add(d), n);
        }
    }
}

/// The scores of `Q` neighbouring queries with some rows of K: query `j` and row `p` to
/// `scores[j * BLOCK + p]`, for whole tiles that cover the rows.
///
/// # Safety
/// As [`Lanes`]; `q` holds `(Q, head_dim)`, `k` rows up to the next whole tile, `scores` as many
/// columns.
#[inline(always)]
unsafe fn score_rows<V: Lanes, const Q: usize>(
    q: *const f32,
    head_dim: usize,
    k: *const f32,
    rows: Range<usize>,
    scores: *mut f32,
) {
    for p in (rows.start / POSITIONS * POSITIONS..rows.end).step_by(POSITIONS) {
        let mut keys = [k; POSITIONS];
        // SAFETY: the caller's promise.
        unsafe {
            for (i, key) in keys.iter_mut().enumerate() {
                *key = key.add((p + i) * head_dim);
            }
            let tile = score_tile::<V, f32, Q>(q, head_dim, keys);
            for (j, tile) in tile.iter().enumerate() {
                scores.add(j * BLOCK + p).cast::<[f32; POSITIONS]>().write(*tile);
            }
        }
    }
}

/// Adds weight * value of the positions that each of `Q` neighbouring queries sees: weight
/// `j * BLOCK + p` is that of query `j` and row `p` of `v`.
///
/// # Safety
/// As [`Lanes`]; the ranges are within the rows of `v` and a block, `acc` is `(Q, value_dim)`.
#[inline(always)]
unsafe fn add_seen<V: Lanes, T: Element, const Q: usize>(
    weights: *const f32,
    v: *const T,
    value_dim: usize,
    seen: &[Range<usize>; Q],
    acc: *mut f32,
    ahead: Option<*const T>,
) {
    let shared = seen.iter().map(|r| r.start).max().unwrap_or(0)..seen.iter().map(|r| r.end).min().unwrap_or(0);
    // Without a shared part, everything is before it.
    let shared = if shared.is_empty() { BLOCK..BLOCK } else { shared };
    // SAFETY: the caller's promise.
    unsafe {
        for (j, seen) in seen.iter().enumerate() {
            let before = seen.start..seen.end.min(shared.start);
            add_values::<V, T, 1>(weights.add(j * BLOCK), v, value_dim, before, acc.add(j * value_dim), None);
        }
        add_values::<V, T, Q>(weights, v, value_dim, shared.clone(), acc, ahead);
        for (j, seen) in seen.iter().enumerate() {
            let after = seen.start.max(shared.end)..seen.end;
            add_values::<V, T, 1>(weights.add(j * BLOCK), v, value_dim, after, acc.add(j * value_dim), None);
        }
    }
}

/// Sums that fit into registers beside what they are made of: rows that are f32 already need none
/// to be widened in.
#[inline(always)]
const fn sums<V: Lanes, T: Element>() -> usize {
    if T::IS_WIDE { 4 * V::MANY_QUERIES } else { V::SUMS }
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
    let mut scores = [[0.0; POSITIONS]; Q];
    // SAFETY: the caller's promise.
    unsafe {
        if Q * POSITIONS <= sums::<V, T>() {
            score_some::<V, T, Q, POSITIONS>(q, head_dim, rows, &mut scores, 0);
        } else {
            for p in (0..POSITIONS).step_by(2) {
                score_some::<V, T, Q, 2>(q, head_dim, [rows[p], rows[p + 1]], &mut scores, p);
            }
        }
    }
    scores
}

/// [`score_tile`] for `P` of its rows, whose scores stand from column `first` on.
///
/// # Safety
/// As [`score_tile`].
#[inline(always)]
unsafe fn score_some<V: Lanes, T: Element, const Q: usize, const P: usize>(
    q: *const f32,
    head_dim: usize,
    rows: [*const T; P],
    scores: &mut [[f32; POSITIONS]; Q],
    first: usize,
) {
    // SAFETY: offsets stay below head_dim.
    unsafe {
        let mut sums = [[V::splat(0.0); P]; Q];
        let full = head_dim / V::N * V::N;
        let mut d = 0;
        while d < full {
            let mut queries = [V::splat(0.0); Q];
            for j in 0..Q {
                queries[j] = V::load(q.add(j * head_dim + d));
            }
            for p in 0..P {
                let key: V = T::load(rows[p], d, V::N);
                for j in 0..Q {
                    sums[j][p] = queries[j].fma(key, sums[j][p]);
                }
            }
            d += V::N;
        }
        if d < head_dim {
            let n = head_dim - d;
            let mut keys = [V::splat(0.0); P];
            for p in 0..P {
                keys[p] = T::load(rows[p], d, n);
            }
            for j in 0..Q {
                let q = V::load_part(q.add(j * head_dim + d), n);
                for p in 0..P {
                    sums[j][p] = q.fma(keys[p], sums[j][p]);
                }
            }
        }
        // Four sums at a time: of one query, or of two. (No index is beyond a row where P is 2,
        // which the compiler would refuse.)
        if P == POSITIONS {
            for j in 0..Q {
                scores[j] = V::sum4([sums[j][0], sums[j][1], sums[j][P - 2], sums[j][P - 1]]);
            }
        } else {
            for j in (0..Q).step_by(2) {
                let other = if j + 1 < Q { j + 1 } else { j };
                let four = V::sum4([sums[j][0], sums[j][1], sums[other][0], sums[other][1]]);
                scores[j][first] = four[0];
                scores[j][first + 1] = four[1];
                scores[other][first] = four[2];
                scores[other][first + 1] = four[3];
            }
        }
    }
}

/// Turns the scores of neighbouring queries, from `first` on, into weights relative to their new
/// maximums, and brings their states up to those; leaves out queries that see nothing.
///
/// In three loops: whether a maximum grew cannot be predicted, and what a processor has begun
/// behind a wrong guess is lost. So what takes long stands where nothing is guessed.
///
/// # Safety
/// As [`Lanes`]; the ranges are within the block.
#[inline(always)]
pub(super) unsafe fn weigh_seen<V: Lanes>(
    scores: &mut [[f32; BLOCK]],
    seen: &[Range<usize>],
    bend: Bend<'_>,
    state: &mut AttnState<'_>,
    first: usize,
    value_dim: usize,
) {
    let mut maximums = [f32::NEG_INFINITY; MANY];
    // SAFETY: the caller's promise.
    unsafe {
        for (j, ((max, scores), seen)) in maximums.iter_mut().zip(&mut *scores).zip(seen).enumerate() {
            if !seen.is_empty() {
                if let Some(line) = bend.lines.get(j) {
                    cap_and_add::<V>(scores, &bend, line);
                }
                let soft_cap = bend.soft_cap.filter(|_| bend.lines.is_empty());
                *max = greatest_seen::<V>(scores, seen, soft_cap);
            }
        }
        for (j, &max) in maximums[..seen.len()].iter().enumerate() {
            let acc = &mut state.acc[(first + j) * value_dim..][..value_dim];
            raise::<V>(max, &mut state.max[first + j], &mut state.sum[first + j], acc);
        }
        for (j, (scores, seen)) in scores.iter_mut().zip(seen).enumerate() {
            if !seen.is_empty() {
                weigh::<V>(scores, state.max[first + j], &mut state.sum[first + j]);
            }
        }
    }
}

/// Caps one query's scores of a block, if they are capped, and adds its line to them.
///
/// # Safety
/// As [`Lanes`].
#[inline(always)]
unsafe fn cap_and_add<V: Lanes>(scores: &mut [f32; BLOCK], bend: &Bend<'_>, line: &Line) {
    const STEPS: [f32; BLOCK] = {
        let mut steps = [0.0; BLOCK];
        let mut i = 0;
        while i < BLOCK {
            steps[i] = i as f32;
            i += 1;
        }
        steps
    };
    // SAFETY: a block is a whole number of registers.
    unsafe {
        let (at, steps) = (scores.as_mut_ptr(), STEPS.as_ptr());
        let start = V::splat(line.start + line.slope * bend.block as f32);
        for i in (0..BLOCK).step_by(V::N) {
            let mut score = V::load(at.add(i));
            if let Some(cap) = bend.soft_cap {
                score = tanh(score.div(V::splat(cap))).mul(V::splat(cap));
            }
            V::load(steps.add(i)).mul(V::splat(line.slope)).add(start).add(score).store(at.add(i));
        }
    }
}

/// The greatest of one query's scores of a block; those of positions that it does not see become
/// minus infinity.
///
/// # Safety
/// As [`Lanes`]; `seen` is within the block and not empty.
#[inline(always)]
unsafe fn greatest_seen<V: Lanes>(scores: &mut [f32; BLOCK], seen: &Range<usize>, soft_cap: Option<f32>) -> f32 {
    // SAFETY: a block is a whole number of registers.
    unsafe {
        let at = scores.as_mut_ptr();
        if let Some(cap) = soft_cap {
            for i in (0..BLOCK).step_by(V::N) {
                tanh(V::load(at.add(i)).div(V::splat(cap))).mul(V::splat(cap)).store(at.add(i));
            }
        }
        if *seen != (0..BLOCK) {
            scores[..seen.start].fill(f32::NEG_INFINITY);
            scores[seen.end..].fill(f32::NEG_INFINITY);
        }
        let mut max = V::splat(f32::NEG_INFINITY);
        for i in (0..BLOCK).step_by(V::N) {
            max = V::load(at.add(i)).max(max);
        }
        max.greatest()
    }
}

/// Brings one query's state up to a block's maximum, if that is greater.
///
/// # Safety
/// As [`Lanes`].
#[inline(always)]
unsafe fn raise<V: Lanes>(block_max: f32, max: &mut f32, sum: &mut f32, acc: &mut [f32]) {
    if block_max > *max {
        // SAFETY: acc is walked within its length.
        unsafe {
            let factor = exp_or_zero(V::splat(*max).sub(V::splat(block_max)));
            let (to, len) = (acc.as_mut_ptr(), acc.len());
            for_lanes!(V, to, len, |v, i, n| store_n(v.mul(factor), to.add(i), n));
            let mut sums = [0.0];
            V::splat(*sum).mul(factor).store_part(sums.as_mut_ptr(), 1);
            (*max, *sum) = (block_max, sums[0]);
        }
    }
}

/// Turns one query's scores of a block into weights relative to the maximum, and adds these to the
/// sum.
///
/// # Safety
/// As [`Lanes`].
#[inline(always)]
unsafe fn weigh<V: Lanes>(scores: &mut [f32; BLOCK], max: f32, sum: &mut f32) {
    // SAFETY: a block is a whole number of registers.
    unsafe {
        let at = scores.as_mut_ptr();
        let shift = V::splat(max);
        let mut sums = V::splat(0.0);
        for i in (0..BLOCK).step_by(V::N) {
            let weights = exp_or_zero(V::load(at.add(i)).sub(shift));
            weights.store(at.add(i));
            sums = sums.add(weights);
        }
        *sum += sums.sum();
    }
}

/// Adds weight * value of the positions `range` to the accumulators of `Q` neighbouring queries.
///
/// # Safety
/// As [`Lanes`]; `v` and `weights` (see [`add_seen`]) have the positions of `range`, `acc` is
/// `(Q, value_dim)`.
#[inline(always)]
unsafe fn add_values<V: Lanes, T: Element, const Q: usize>(
    weights: *const f32,
    v: *const T,
    value_dim: usize,
    range: Range<usize>,
    acc: *mut f32,
    ahead: Option<*const T>,
) {
    if range.is_empty() {
        return;
    }
    let mut d = 0;
    // SAFETY: offsets stay below value_dim.
    unsafe {
        while d + 4 * V::N <= value_dim && Q * 4 <= sums::<V, T>() {
            add_value_columns::<V, T, Q, 4>(weights, v, value_dim, (d, V::N), range.clone(), acc, ahead);
            d += 4 * V::N;
        }
        while d + 2 * V::N <= value_dim && Q * 4 > sums::<V, T>() {
            add_value_columns::<V, T, Q, 2>(weights, v, value_dim, (d, V::N), range.clone(), acc, ahead);
            d += 2 * V::N;
        }
        while d < value_dim {
            let n = V::N.min(value_dim - d);
            add_value_columns::<V, T, Q, 1>(weights, v, value_dim, (d, n), range.clone(), acc, None);
            d += n;
        }
    }
}

/// [`add_values`] for `C` registers of a value's elements from `first` on, of which the last holds
/// `n` lanes. (A pair and no range, from which the compiler does not see that a register is full.)
///
/// # Safety
/// As [`add_values`]; rows have `first + (C - 1) * N + n` elements.
#[inline(always)]
unsafe fn add_value_columns<V: Lanes, T: Element, const Q: usize, const C: usize>(
    weights: *const f32,
    v: *const T,
    value_dim: usize,
    (first, n): (usize, usize),
    range: Range<usize>,
    acc: *mut f32,
    ahead: Option<*const T>,
) {
    // SAFETY: only the last register of a row may be partial, and `lanes` says so.
    unsafe {
        let row_len = T::row_len(value_dim).unwrap_or(0);
        let acc = acc.add(first);
        let lanes = |c: usize| if c + 1 == C { n } else { V::N };
        let mut sums = [[V::splat(0.0); C]; Q];
        for j in 0..Q {
            for c in 0..C {
                sums[j][c] = load_n(acc.add(j * value_dim + c * V::N), lanes(c));
            }
        }
        // Each run of columns requests as much as it reads itself, in the order in which it lies:
        // of keys that are longer than values the beginning.
        let len = T::row_len(C * V::N).unwrap_or(0);
        let before = first / (C * V::N) * BLOCK * len;
        for position in range {
            if let Some(keys) = ahead {
                request::<V, T>(keys, before + position * len, len);
            }
            let row = v.add(position * row_len);
            let mut factors = [V::splat(0.0); Q];
            for j in 0..Q {
                factors[j] = V::splat(*weights.add(j * BLOCK + position));
            }
            for c in 0..C {
                let value: V = T::load(row, first + c * V::N, lanes(c));
                for j in 0..Q {
                    sums[j][c] = factors[j].fma(value, sums[j][c]);
                }
            }
        }
        for j in 0..Q {
            for c in 0..C {
                store_n(sums[j][c], acc.add(j * value_dim + c * V::N), lanes(c));
            }
        }
    }
}

/// # Safety
/// As [`Lanes`]; both have the same lengths, those of [`AttnState`].
#[inline(always)]
pub(super) unsafe fn merge<V: Lanes>(value_dim: usize, into: &mut AttnState<'_>, part: &AttnPart<'_>) {
    for query in 0..part.max.len() {
        let (a, b) = (into.max[query], part.max[query]);
        if part.sum[query] == 0.0 {
            continue; // that part saw nothing
        }
        let max = if b > a { b } else { a };
        // SAFETY: offsets stay below value_dim in each row.
        unsafe {
            let (fa, fb) = (exp(V::splat(a).sub(V::splat(max))), exp(V::splat(b).sub(V::splat(max))));
            let mut sum = [0.0];
            V::splat(into.sum[query]).mul(fa).add(V::splat(part.sum[query]).mul(fb)).store_part(sum.as_mut_ptr(), 1);
            (into.max[query], into.sum[query]) = (max, sum[0]);
            let to = into.acc[query * value_dim..][..value_dim].as_mut_ptr();
            let from = &part.acc[query * value_dim..][..value_dim];
            for_lanes!(V, from.as_ptr(), value_dim, |v, i, n| {
                store_n(load_n::<V>(to.add(i), n).mul(fa).add(v.mul(fb)), to.add(i), n);
            });
        }
    }
}

/// # Safety
/// As [`Lanes`]; `acc` is `(sum.len(), value_dim)`.
#[inline(always)]
pub(super) unsafe fn finish<V: Lanes>(value_dim: usize, sum: &[f32], acc: &mut [f32]) {
    for (&sum, acc) in sum.iter().zip(acc.chunks_exact_mut(value_dim)) {
        let (to, len) = (acc.as_mut_ptr(), acc.len());
        // A query that saw nothing has a zero accumulator, and keeps it.
        let sum = if sum == 0.0 { 1.0 } else { sum };
        // SAFETY: offsets stay below len.
        unsafe { for_lanes!(V, to, len, |v, i, n| store_n(v.div(V::splat(sum)), to.add(i), n)) }
    }
}

//! Attention over keys and values in 16-bit integers, a scale to a row: products of integers, two
//! to a word of a register, take half the instructions of f32's, and rows are multiplied as they
//! are stored.
//!
//! The way of [`attend`](super::attend) with three roundings more:
//! ```text
//! q[j] = query_scale * integers                          once a query
//! s[p] = sum of integers * key_scale[p] * query_scale
//! for each block of 64 positions, with w[p] = exp(s[p] - max) as there:
//!     w[p] * value_scale[p] = weight_scale * integers     weight_scale such that the greatest just fits
//!     acc += sum of integers * weight_scale               every 32 positions
//! ```
//! Integers have so many bits that no sum overflows, whatever they are ([`row_bits`],
//! [`query_bits`], [`WEIGHT_BITS`]). So sums of them are exact, their order is free, and a query
//! has the same bits alone and among others.

#![allow(
    clippy::needless_range_loop,
    reason = "iterator adapters around intrinsics are not always inlined, see `for_lanes`"
)]

use std::mem::MaybeUninit;
use std::ops::Range;

use modelembed_terms::MAX_I16_HEAD;

use super::attend::{MANY, MANY_FROM, for_queries, union, weigh_seen, within};
use super::columns::{BLOCK, POSITIONS};
use super::input::{AttnInput, AttnState};
use super::lanes::{IntLanes, Lanes, load_n, store_n};

/// Integers of the queries that are multiplied together: 32 KiB.
const QUERIES_LEN: usize = 16384;
/// Integers of keys that are transposed: 16 KiB, half of a small first-level cache.
const KEYS_LEN: usize = 8192;
/// Positions whose weighted values are summed as integers.
const RUN: usize = 32;
/// Bits of a weight's magnitude.
const WEIGHT_BITS: u32 = 13;
/// Queries of a tile where rows are transposed or paired before.
const TILE: usize = 4;

/// Bits of the sum of magnitudes of `n` products that are below `2^bits`.
const fn sum_bits(n: usize) -> u32 {
    n.next_power_of_two().trailing_zeros()
}

/// Bits of the magnitude of a row's integers: of the 31 of a sum half of what its length leaves,
/// and no more than weights leave.
const fn row_bits(head_dim: usize) -> u32 {
    let bits = (31 - sum_bits(head_dim)).div_ceil(2);
    let most = 31 - sum_bits(RUN) - WEIGHT_BITS;
    if bits < most { bits } else { most }
}

/// Bits of the magnitude of a query's integers: what its keys leave.
const fn query_bits(head_dim: usize) -> u32 {
    let bits = 31 - sum_bits(head_dim) - row_bits(head_dim);
    if bits < 15 { bits } else { 15 }
}

/// The greatest integer of some bits, as f32.
const fn greatest(bits: u32) -> f32 {
    ((1 << bits) - 1) as f32
}

/// Rounds `x` to integers of some bits and returns their scale: NaN, for zeros, if an element is no
/// finite number.
///
/// Plain operations that every instruction set rounds alike: all give the same integers.
#[inline(always)]
fn round(x: &[f32], bits: u32, out: &mut [i16]) -> f32 {
    // 1.5 * 2^23: adding it rounds to an integer, ties to even.
    const ROUNDER: f32 = 12_582_912.0;
    // The bits of magnitudes are ordered as the magnitudes are, with infinity and then NaN on top.
    let amax = f32::from_bits(x.iter().fold(0, |max, x| max.max(x.to_bits() & 0x7fff_ffff)));
    let most = greatest(bits);
    // Of less, the inverse would overflow.
    let inverse = if amax.is_finite() && amax > most * f32::MIN_POSITIVE { most / amax } else { 0.0 };
    for (q, x) in out.iter_mut().zip(x) {
        // The low bits of the sum are the integer in two's complement; those of a NaN are zero.
        *q = (x * inverse + ROUNDER).to_bits() as i16;
    }
    if amax.is_finite() { amax / most } else { f32::NAN }
}

/// A query as its integers say it.
#[cfg(test)]
pub(super) fn rounded_query(q: &[f32]) -> Vec<f32> {
    let mut integers = vec![0; q.len()];
    let scale = round(q, query_bits(q.len()), &mut integers);
    integers.into_iter().map(|x| f32::from(x) * scale).collect()
}

/// Turns a head into a row and returns its scale.
///
/// # Safety
/// As [`Lanes`]; both have the same length.
#[inline(always)]
pub(super) unsafe fn to_i16<V: Lanes>(x: &[f32], row: &mut [i16]) -> f32 {
    round(x, row_bits(x.len()), row)
}

/// The reverse.
///
/// # Safety
/// As [`Lanes`]; both have the same length.
#[inline(always)]
pub(super) unsafe fn from_i16<V: Lanes>(row: &[i16], scale: f32, out: &mut [f32]) {
    for (out, &q) in out.iter_mut().zip(row) {
        *out = scale * f32::from(q);
    }
}

/// Room for some queries as integers.
struct Queries {
    integers: [i16; QUERIES_LEN],
    scales: [f32; MANY],
}

/// Some queries as integers, and their scales.
#[derive(Clone, Copy)]
struct Rounded {
    /// `(n, stride)`: elements, then zeros to the end of a register.
    integers: *const i16,
    scales: *const f32,
    stride: usize,
}

impl Rounded {
    /// Those from query `j` on.
    ///
    /// # Safety
    /// There is one.
    #[inline(always)]
    unsafe fn from(self, j: usize) -> Rounded {
        // SAFETY: the caller's promise.
        unsafe { Rounded { integers: self.integers.add(j * self.stride), scales: self.scales.add(j), ..self } }
    }
}

/// Rows of a run of positions, and their scales.
#[derive(Clone, Copy)]
struct Rows<'a> {
    integers: *const i16,
    scales: &'a [f32],
    /// Integers of a row.
    len: usize,
}

impl Rows<'_> {
    /// The row of a position; beyond the last one that.
    ///
    /// # Safety
    /// There is a row for each scale.
    #[inline(always)]
    unsafe fn row(self, position: usize) -> *const i16 {
        // SAFETY: the caller's promise; there is one at least.
        unsafe { self.integers.add(position.min(self.scales.len() - 1) * self.len) }
    }

    /// The rows of a position and of the next one; where that does not exist, the first again.
    ///
    /// # Safety
    /// As [`row`](Self::row); the position exists.
    #[inline(always)]
    unsafe fn pair(self, position: usize) -> [*const i16; 2] {
        // SAFETY: the caller's promise.
        unsafe {
            let first = self.integers.add(position * self.len);
            [first, if position + 1 < self.scales.len() { first.add(self.len) } else { first }]
        }
    }

    /// Requests `n` rows, which need not exist.
    ///
    /// # Safety
    /// As [`Lanes`].
    #[inline(always)]
    unsafe fn request<V: Lanes>(self, position: usize, n: usize) {
        let len = self.len * size_of::<i16>();
        // SAFETY: the caller's promise; requests may lie anywhere.
        unsafe { V::request(self.integers.cast::<u8>().wrapping_add(position * len), n * len) };
    }

    /// The scales of a block; 0 beyond the last position.
    #[inline(always)]
    fn block_scales(self, block: usize) -> [f32; BLOCK] {
        let mut scales = [0.0; BLOCK];
        let there = &self.scales[block..self.scales.len().min(block + BLOCK)];
        scales[..there.len()].copy_from_slice(there);
        scales
    }
}

/// Attention over a cache in 16-bit integers.
///
/// # Safety
/// As [`attend`](super::attend::attend_f16); `head_dim` and `value_dim` are at most
/// [`MAX_I16_HEAD`].
#[inline(always)]
pub(super) unsafe fn attend_i16<V: IntLanes>(
    input: &AttnInput<'_, i16>,
    [k_scales, v_scales]: [&[f32]; 2],
    state: &mut AttnState<'_>,
) {
    let (head_dim, n_q) = (input.head_dim, input.visible.len());
    let stride = head_dim.next_multiple_of(2 * V::N);
    let k = Rows { integers: input.k.as_ptr(), scales: k_scales, len: head_dim };
    let v = Rows { integers: input.v.as_ptr(), scales: v_scales, len: input.value_dim };
    // Positions whose keys are transposed at a time.
    let columns = (KEYS_LEN / stride / V::N * V::N).min(BLOCK);
    let is_many = n_q >= MANY_FROM;
    let at_once =
        if is_many { MANY.min(QUERIES_LEN / stride) } else { n_q.div_ceil(n_q.div_ceil(V::QUERIES).max(1)).max(1) };
    let mut queries = MaybeUninit::<Queries>::uninit();
    let mut wide = MaybeUninit::<Wide>::uninit();
    let wide = wide.as_mut_ptr().cast::<i16>();
    for first in (0..n_q).step_by(at_once) {
        let n = at_once.min(n_q - first);
        // SAFETY: `at_once` queries fit; the rest is the caller's promise.
        unsafe {
            let q = round_queries(&input.q[first * head_dim..], head_dim, n, stride, &mut queries);
            for block in (0..k_scales.len()).step_by(BLOCK) {
                if is_many {
                    many::<V>(input, state, (k, v), q, first..first + n, block, (wide, columns));
                } else {
                    let ahead = first == 0;
                    for_queries!(V::QUERIES, n, Q => few::<V, Q>(input, state, (k, v), q, first, block, ahead));
                }
            }
        }
    }
}

/// Keys that are transposed, or values of a run in pairs, aligned as cache lines are.
#[repr(align(64))]
struct Wide(#[allow(dead_code, reason = "written and read through pointers")] [i16; RUN * MAX_I16_HEAD]);

/// Rounds `n` queries.
///
/// # Safety
/// `n * stride` integers and `n` scales fit.
#[inline(always)]
unsafe fn round_queries(
    q: &[f32],
    head_dim: usize,
    n: usize,
    stride: usize,
    queries: &mut MaybeUninit<Queries>,
) -> Rounded {
    // SAFETY: all that is read later is written here.
    unsafe {
        let integers = (&raw mut (*queries.as_mut_ptr()).integers).cast::<i16>();
        let scales = (&raw mut (*queries.as_mut_ptr()).scales).cast::<f32>();
        for (j, q) in q.chunks_exact(head_dim).take(n).enumerate() {
            let to = integers.add(j * stride);
            std::ptr::write_bytes(to.add(head_dim), 0, stride - head_dim);
            let to = std::slice::from_raw_parts_mut(to, head_dim);
            scales.add(j).write(round(q, query_bits(head_dim), to));
        }
        Rounded { integers, scales, stride }
    }
}

/// `Q` queries over a block of positions.
///
/// # Safety
/// As [`attend_i16`]; queries and rows are there.
#[inline(always)]
unsafe fn few<V: IntLanes, const Q: usize>(
    input: &AttnInput<'_, i16>,
    state: &mut AttnState<'_>,
    (k, v): (Rows<'_>, Rows<'_>),
    q: Rounded,
    first: usize,
    block: usize,
    ahead: bool,
) {
    let (head_dim, value_dim) = (input.head_dim, input.value_dim);
    let seen: [Range<usize>; Q] = std::array::from_fn(|j| within(&input.visible[first + j], block..block + BLOCK));
    let Some(all) = union(&seen) else { return };
    let mut scores = [[0.0f32; BLOCK]; Q];
    // SAFETY: rows are clamped to the last position, tiles of scores to the block; the rest is the
    // caller's promise.
    unsafe {
        // The first tile of a block requests what is read next: values while it reads keys, the
        // next block's keys while it reads values.
        for position in (all.start / POSITIONS * POSITIONS..all.end).step_by(POSITIONS) {
            if ahead {
                v.request::<V>(block + position, POSITIONS);
            }
            let mut rows = [k.integers; POSITIONS];
            for (p, row) in rows.iter_mut().enumerate() {
                *row = k.row(block + position + p);
            }
            let tile = score_rows::<V, Q>(q, head_dim, rows);
            for j in 0..Q {
                scores[j][position..position + POSITIONS].copy_from_slice(&tile[j]);
            }
        }
        let k_scales = k.block_scales(block);
        for j in 0..Q {
            let (scores, scale) = (scores[j].as_mut_ptr(), V::splat(*q.scales.add(j)));
            for p in (0..BLOCK).step_by(V::N) {
                V::load(scores.add(p)).mul(V::load(k_scales.as_ptr().add(p))).mul(scale).store(scores.add(p));
            }
        }
        weigh_seen::<V>(&mut scores, &seen, input.bend(first, block), state, first, value_dim);
        let values = ValueScales::new(v.block_scales(block));
        let mut weights = [[0i16; BLOCK]; Q];
        let mut weight_scales = [0.0; Q];
        for j in 0..Q {
            weight_scales[j] = round_weights::<V>(&scores[j], &seen[j], &values.scales, &mut weights[j]);
        }
        let acc = state.acc.as_mut_ptr().add(first * value_dim);
        let next = match block + BLOCK < k.scales.len() {
            true => Some(k.integers.wrapping_add((block + BLOCK) * head_dim)),
            false => (!input.next.is_empty()).then_some(input.next.as_ptr()),
        };
        let next = next.filter(|_| ahead);
        for run in (all.start / RUN * RUN..all.end).step_by(RUN) {
            let pairs = all.start.max(run) / 2..all.end.min(run + RUN).div_ceil(2);
            let values = Stored { rows: v, block, next };
            add_values::<V, Stored<'_>, Q>(values, weights.as_ptr().cast(), &weight_scales, pairs, value_dim, acc);
        }
        for j in 0..Q {
            values.mark(&seen[j], &mut state.acc[(first + j) * value_dim..][..value_dim]);
        }
    }
}

/// Many queries over a block of positions: keys are transposed, and values paired, once for all of
/// them.
///
/// # Safety
/// As [`attend_i16`]; `columns` keys fit `wide`.
#[inline(always)]
unsafe fn many<V: IntLanes>(
    input: &AttnInput<'_, i16>,
    state: &mut AttnState<'_>,
    (k, v): (Rows<'_>, Rows<'_>),
    q: Rounded,
    queries: Range<usize>,
    block: usize,
    (wide, columns): (*mut i16, usize),
) {
    let (head_dim, value_dim, n) = (input.head_dim, input.value_dim, queries.len());
    let mut seen = [const { 0..0 }; MANY];
    for (seen, range) in seen.iter_mut().zip(&input.visible[queries.clone()]) {
        *seen = within(range, block..block + BLOCK);
    }
    let seen = &seen[..n];
    let Some(all) = union(seen) else { return };
    let mut scores = [[0.0f32; BLOCK]; MANY];
    let mut weights = [[0i16; BLOCK]; MANY];
    let mut weight_scales = [0.0f32; MANY];
    // SAFETY: rows are clamped to the last position; what is used of `wide` fits; queries are
    // there.
    unsafe {
        let k_scales = k.block_scales(block);
        for sub in (all.start / V::N * V::N..all.end).step_by(columns) {
            let n_rows = columns.min(all.end - sub).next_multiple_of(V::N);
            for r in (0..n_rows).step_by(POSITIONS) {
                let mut rows = [k.integers; POSITIONS];
                for (p, row) in rows.iter_mut().enumerate() {
                    *row = k.row(block + sub + r + p);
                }
                transpose::<V>(rows, head_dim, wide.add(2 * r), columns);
            }
            for j in (0..n).step_by(TILE) {
                let tile = TILE.min(n - j);
                let Some(part) = union(&seen[j..j + tile]) else { continue };
                let part = within(&part, sub..sub + n_rows);
                let q = q.from(j);
                let (scores, k_scales) =
                    (scores[j..j + tile].as_mut_ptr().cast::<f32>().add(sub), k_scales.as_ptr().add(sub));
                for_queries!(TILE, tile, Q => {
                    score_columns::<V, Q>(q, (wide, columns, k_scales), n_rows, part, scores)
                });
            }
        }
        weigh_seen::<V>(&mut scores, seen, input.bend(queries.start, block), state, queries.start, value_dim);
        let values = ValueScales::new(v.block_scales(block));
        for j in 0..n {
            weight_scales[j] = round_weights::<V>(&scores[j], &seen[j], &values.scales, &mut weights[j]);
        }
        for run in (all.start / RUN * RUN..all.end).step_by(RUN) {
            let len = value_dim.next_multiple_of(V::N);
            for pair in all.start.max(run) / 2..all.end.min(run + RUN).div_ceil(2) {
                pair_up::<V>(v.pair(block + 2 * pair), value_dim, wide.add((pair - run / 2) * 2 * len));
            }
            let values = Paired { first: wide, first_pair: run / 2, len: 2 * len };
            for j in (0..n).step_by(TILE) {
                let tile = TILE.min(n - j);
                let Some(part) = union(&seen[j..j + tile]).map(|part| within(&part, run..run + RUN)) else { continue };
                if !part.is_empty() {
                    let pairs = (run + part.start) / 2..(run + part.end).div_ceil(2);
                    let weights = weights[j..j + tile].as_ptr().cast::<i16>();
                    let acc = state.acc.as_mut_ptr().add((queries.start + j) * value_dim);
                    for_queries!(TILE, tile, Q => {
                        let mut scales = [0.0; Q];
                        scales.copy_from_slice(&weight_scales[j..j + Q]);
                        add_values::<V, Paired, Q>(values, weights, &scales, pairs, value_dim, acc)
                    });
                }
            }
        }
        for j in 0..n {
            values.mark(&seen[j], &mut state.acc[(queries.start + j) * value_dim..][..value_dim]);
        }
    }
}

/// The dot products of `Q` neighbouring queries with four rows, in units of their scales.
///
/// # Safety
/// As [`Lanes`]; there are `Q` queries, each row has `head_dim` integers.
#[inline(always)]
unsafe fn score_rows<V: IntLanes, const Q: usize>(
    q: Rounded,
    head_dim: usize,
    rows: [*const i16; POSITIONS],
) -> [[f32; POSITIONS]; Q] {
    let mut scores = [[0.0; POSITIONS]; Q];
    // SAFETY: a register that goes beyond a row is loaded in part.
    unsafe {
        let mut sums = [[V::zero(); POSITIONS]; Q];
        let full = head_dim / (2 * V::N) * (2 * V::N);
        let mut d = 0;
        while d < full {
            for p in 0..POSITIONS {
                let key = V::load_words(rows[p].add(d));
                for j in 0..Q {
                    sums[j][p] = V::dot(sums[j][p], V::load_words(q.integers.add(j * q.stride + d)), key);
                }
            }
            d += 2 * V::N;
        }
        if d < head_dim {
            for p in 0..POSITIONS {
                let key = V::load_words_part(rows[p].add(d), head_dim - d);
                for j in 0..Q {
                    sums[j][p] = V::dot(sums[j][p], V::load_words(q.integers.add(j * q.stride + d)), key);
                }
            }
        }
        for j in 0..Q {
            scores[j] = V::sum4_words(sums[j]);
        }
    }
    scores
}

/// The first `n` integers of a register, or all where there are more.
///
/// # Safety
/// As [`Lanes`]; so many can be read.
#[inline(always)]
unsafe fn load_words_n<V: IntLanes>(from: *const i16, n: usize) -> V::Int {
    // SAFETY: the caller's promise.
    unsafe { if n >= 2 * V::N { V::load_words(from) } else { V::load_words_part(from, n) } }
}

/// Writes word `i` of four rows to words `i * columns..` of `out`, zeros behind the rows' ends up
/// to a whole register.
///
/// # Safety
/// As [`Lanes`]; the rows have `head_dim` integers.
#[inline(always)]
unsafe fn transpose<V: IntLanes>(rows: [*const i16; POSITIONS], head_dim: usize, out: *mut i16, columns: usize) {
    for d in (0..head_dim).step_by(2 * V::N) {
        // SAFETY: the caller's promise.
        unsafe {
            let mut four = [V::zero(); POSITIONS];
            for p in 0..POSITIONS {
                four[p] = load_words_n::<V>(rows[p].add(d), head_dim - d);
            }
            V::store_word_columns(four, out.add(d * columns), columns);
        }
    }
}

/// The scores of `Q` neighbouring queries with keys that are transposed: query `j` and key `p` to
/// `scores[j * BLOCK + p]`, for whole registers that cover the positions.
///
/// # Safety
/// As [`Lanes`]; there are `Q` queries, `keys` `(stride / 2, columns)` words, of which `n_keys`
/// columns are used, and as many scales; `n_keys` and `columns` are whole registers.
#[inline(always)]
unsafe fn score_columns<V: IntLanes, const Q: usize>(
    q: Rounded,
    (keys, columns, scales): (*const i16, usize, *const f32),
    n_keys: usize,
    positions: Range<usize>,
    scores: *mut f32,
) {
    let mut p = positions.start / V::N * V::N;
    while p < positions.end {
        // SAFETY: the caller's promise.
        unsafe {
            let keys = (keys.add(2 * p), columns, scales.add(p));
            if p + 2 * V::N <= n_keys {
                score_lanes::<V, Q, 2>(q, keys, scores.add(p));
                p += 2 * V::N;
            } else {
                score_lanes::<V, Q, 1>(q, keys, scores.add(p));
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
unsafe fn score_lanes<V: IntLanes, const Q: usize, const P: usize>(
    q: Rounded,
    (keys, columns, scales): (*const i16, usize, *const f32),
    scores: *mut f32,
) {
    // SAFETY: the caller's promise.
    unsafe {
        let mut sums = [[V::zero(); P]; Q];
        for word in 0..q.stride / 2 {
            let mut k = [V::zero(); P];
            for p in 0..P {
                k[p] = V::load_words(keys.add(2 * (word * columns + p * V::N)));
            }
            for j in 0..Q {
                let q = V::splat_word(q.integers.add(j * q.stride + 2 * word));
                for p in 0..P {
                    sums[j][p] = V::dot(sums[j][p], q, k[p]);
                }
            }
        }
        for j in 0..Q {
            let scale = V::splat(*q.scales.add(j));
            for p in 0..P {
                let score = V::widen(sums[j][p]).mul(V::load(scales.add(p * V::N))).mul(scale);
                score.store(scores.add(j * BLOCK + p * V::N));
            }
        }
    }
}

/// The scales of a block's values.
struct ValueScales {
    /// 0 where a row is not a number.
    scales: [f32; BLOCK],
    /// The positions where that is so, a bit each.
    bad: u64,
}

impl ValueScales {
    #[inline(always)]
    fn new(mut scales: [f32; BLOCK]) -> ValueScales {
        let mut bad = 0;
        // Scales are not negative, and the bits of such numbers are ordered as they are, with
        // infinity and then NaN on top.
        if f32::from_bits(scales.iter().fold(0, |max, x| max.max(x.to_bits()))).is_finite() {
            return ValueScales { scales, bad };
        }
        for (p, scale) in scales.iter_mut().enumerate() {
            if !scale.is_finite() {
                bad |= 1 << p;
                *scale = 0.0;
            }
        }
        ValueScales { scales, bad }
    }

    /// Makes a query's sums NaN if it sees a row that is.
    #[inline(always)]
    fn mark(&self, seen: &Range<usize>, acc: &mut [f32]) {
        if self.bad != 0 && seen.clone().any(|p| self.bad >> p & 1 != 0) {
            acc.fill(f32::NAN);
        }
    }
}

/// Rounds one query's weights, times the scales of the values that they meet; returns the scale of
/// the integers.
///
/// # Safety
/// As [`Lanes`].
#[inline(always)]
unsafe fn round_weights<V: IntLanes>(
    weights: &[f32; BLOCK],
    seen: &Range<usize>,
    value_scales: &[f32; BLOCK],
    integers: &mut [i16; BLOCK],
) -> f32 {
    if seen.is_empty() {
        // Its scores were never computed.
        *integers = [0; BLOCK];
        return 0.0;
    }
    // SAFETY: a block is a whole number of registers.
    unsafe {
        let mut scaled = [0.0f32; BLOCK];
        let mut max = V::splat(0.0);
        for p in (0..BLOCK).step_by(V::N) {
            let x = V::load(weights.as_ptr().add(p)).mul(V::load(value_scales.as_ptr().add(p)));
            x.store(scaled.as_mut_ptr().add(p));
            max = x.max(max);
        }
        let max = max.greatest();
        let most = greatest(WEIGHT_BITS);
        let inverse = if max > most * f32::MIN_POSITIVE { most / max } else { 0.0 };
        for p in (0..BLOCK).step_by(V::N) {
            V::load(scaled.as_ptr().add(p)).mul(V::splat(inverse)).store_i16(integers.as_mut_ptr().add(p));
        }
        max / most
    }
}

/// Values of which two neighbouring positions make the words of a register.
trait Values: Copy {
    /// Where the two rows of a pair of positions are, of which elements `first..first + n` are
    /// read; may request what is read later.
    unsafe fn pair<V: IntLanes>(self, pair: usize, first: usize, n: usize) -> [*const i16; 2];
    /// IntLanes of elements `d..d + n`, `n <= N`.
    unsafe fn load<V: IntLanes>(rows: [*const i16; 2], d: usize, n: usize) -> V::Int;
}

/// As they stand in the cache, from a block on.
#[derive(Clone, Copy)]
struct Stored<'a> {
    rows: Rows<'a>,
    block: usize,
    /// Keys to request meanwhile.
    next: Option<*const i16>,
}

impl Values for Stored<'_> {
    #[inline(always)]
    unsafe fn pair<V: IntLanes>(self, pair: usize, first: usize, n: usize) -> [*const i16; 2] {
        // SAFETY: the caller's promise; requests may lie anywhere.
        unsafe {
            // Each run of columns requests as much as it reads itself, in the order in which it
            // lies: of keys that are longer than values the beginning.
            if let Some(keys) = self.next {
                let keys = keys.wrapping_add(first * BLOCK + 2 * pair * n);
                V::request(keys.cast(), 2 * n * size_of::<i16>());
            }
            self.rows.pair(self.block + 2 * pair)
        }
    }

    #[inline(always)]
    unsafe fn load<V: IntLanes>([first, second]: [*const i16; 2], d: usize, n: usize) -> V::Int {
        // SAFETY: the caller's promise.
        unsafe {
            if n == V::N { V::pair(first.add(d), second.add(d)) } else { V::pair_part(first.add(d), second.add(d), n) }
        }
    }
}

/// As [`pair_up`] writes them, from a pair on.
#[derive(Clone, Copy)]
struct Paired {
    first: *const i16,
    first_pair: usize,
    /// Integers of a pair.
    len: usize,
}

impl Values for Paired {
    #[inline(always)]
    unsafe fn pair<V: IntLanes>(self, pair: usize, _: usize, _: usize) -> [*const i16; 2] {
        // SAFETY: the caller's promise.
        [unsafe { self.first.add((pair - self.first_pair) * self.len) }; 2]
    }

    #[inline(always)]
    unsafe fn load<V: IntLanes>([words, _]: [*const i16; 2], d: usize, _: usize) -> V::Int {
        // SAFETY: pairs are whole registers.
        unsafe { V::load_words(words.add(2 * d)) }
    }
}

/// Writes the words of two rows, zeros behind them up to a whole register.
///
/// # Safety
/// As [`Lanes`]; the rows have `value_dim` integers.
#[inline(always)]
unsafe fn pair_up<V: IntLanes>(rows: [*const i16; 2], value_dim: usize, out: *mut i16) {
    for d in (0..value_dim).step_by(V::N) {
        // SAFETY: the caller's promise.
        unsafe { V::store_words(Stored::load::<V>(rows, d, V::N.min(value_dim - d)), out.add(2 * d)) };
    }
}

/// Adds weight * value of some pairs of positions, within a run, to the accumulators of `Q`
/// neighbouring queries.
///
/// # Safety
/// As [`Lanes`]; `weights` is `(Q, BLOCK)`, `acc` `(Q, value_dim)`, the pairs' values are there.
#[inline(always)]
unsafe fn add_values<V: IntLanes, S: Values, const Q: usize>(
    values: S,
    weights: *const i16,
    scales: &[f32; Q],
    pairs: Range<usize>,
    value_dim: usize,
    acc: *mut f32,
) {
    let mut d = 0;
    // SAFETY: offsets stay below value_dim.
    unsafe {
        while 4 * Q <= V::VALUE_SUMS && d + 4 * V::N <= value_dim {
            add_columns::<V, S, Q, 4>(values, weights, scales, pairs.clone(), value_dim, (d, V::N), acc);
            d += 4 * V::N;
        }
        while 4 * Q > V::VALUE_SUMS && d + 2 * V::N <= value_dim {
            add_columns::<V, S, Q, 2>(values, weights, scales, pairs.clone(), value_dim, (d, V::N), acc);
            d += 2 * V::N;
        }
        while d < value_dim {
            let n = V::N.min(value_dim - d);
            add_columns::<V, S, Q, 1>(values, weights, scales, pairs.clone(), value_dim, (d, n), acc);
            d += n;
        }
    }
}

/// [`add_values`] for `C` registers of a value's elements from `first` on, of which the last holds
/// `n` lanes.
///
/// # Safety
/// As there; rows have `first + (C - 1) * N + n` elements.
#[inline(always)]
unsafe fn add_columns<V: IntLanes, S: Values, const Q: usize, const C: usize>(
    values: S,
    weights: *const i16,
    scales: &[f32; Q],
    pairs: Range<usize>,
    value_dim: usize,
    (first, n): (usize, usize),
    acc: *mut f32,
) {
    // SAFETY: only the last register of a row may be partial.
    unsafe {
        let mut sums = [[V::zero(); C]; Q];
        for pair in pairs {
            let rows = values.pair::<V>(pair, first, C * V::N);
            let mut words = [V::zero(); C];
            for c in 0..C {
                words[c] = S::load::<V>(rows, first + c * V::N, if c + 1 == C { n } else { V::N });
            }
            for j in 0..Q {
                let weight = V::splat_word(weights.add(j * BLOCK + 2 * pair));
                for c in 0..C {
                    sums[j][c] = V::dot(sums[j][c], weight, words[c]);
                }
            }
        }
        for j in 0..Q {
            let scale = V::splat(scales[j]);
            for c in 0..C {
                let (at, n) = (acc.add(j * value_dim + first + c * V::N), if c + 1 == C { n } else { V::N });
                store_n(V::widen(sums[j][c]).fma(scale, load_n(at, n)), at, n);
            }
        }
    }
}

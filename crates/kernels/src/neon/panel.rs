//! Panels of quantised weights, for CPUs with the dot-product instructions: rows in lanes, four
//! activations an operand.
//!
//! A panel's record of one run of 32 elements, for two vectors of four rows:
//! ```text
//! (2, 4, 2, 16)     bytes: 16 elements of four rows fill four registers, as `PanelSums::arrange` places them
//! (2, Head::LEN, 4) what belongs to the run, as `rows::Head` says
//! ```

use std::arch::aarch64::*;
use std::ops::Range;

use super::dot::{Sdot, sdot_by_four};
use super::dots::{ActRun, accumulate, scaled};
use super::rows::{Blocks4, Format4, Head, MAX_HEADS, ROWS, RUN, transpose};
use crate::matrix::ActLayout;
use crate::panel::{Panel, PanelRows, TileCols};

/// Vectors of four rows in a record.
pub(super) const VECTORS: usize = 2;
/// Rows of a record.
pub(super) const RECORD_ROWS: usize = ROWS * VECTORS;
/// Columns of a tile: eight integer and eight f32 sums, eight vectors of weights and four of
/// activations fit 32 registers.
pub(super) const COLS: usize = 4;
/// Bytes of a run's integers.
const INT_BYTES: usize = RUN * RECORD_ROWS;

/// How the integers of a record stand and meet columns.
///
/// # Safety
/// The CPU has the implementor's instructions; records and columns have the run that is asked for.
pub(super) unsafe trait PanelSums {
    /// The panels of a format that are made of such records.
    type Panel<F: Format4>: Panel;
    /// The columns of a tile.
    type Columns: Copy;

    /// 16 elements of four rows as a record has them.
    unsafe fn arrange(rows: [int8x16_t; ROWS]) -> [int8x16_t; ROWS];

    /// The sums of the rows, in lanes, with each column, over `n` halves of run `run` from half
    /// `first` on.
    unsafe fn sums<const NC: usize>(
        record: *const u8,
        first: usize,
        n: usize,
        cols: Self::Columns,
        run: usize,
    ) -> [[int32x4_t; NC]; VECTORS];

    /// What else belongs to run `run` of column `c`.
    unsafe fn act_run<F: Format4>(cols: Self::Columns, run: usize, c: usize) -> ActRun;
}

/// Register `i` of the four that hold a half of a run of one vector of rows.
///
/// # Safety
/// `record` is one.
#[target_feature(enable = "neon")]
#[inline]
pub(super) unsafe fn weights(record: *const u8, half: usize, i: usize, vector: usize) -> int8x16_t {
    // SAFETY: the caller vouches for the record.
    unsafe { vld1q_s8(record.add(((half * 4 + i) * VECTORS + vector) * 16).cast()) }
}

/// The records of a format, and the panels that `sdot` wants: one record a run.
pub(super) struct Quantised<F>(F);

impl<F: Format4> Quantised<F> {
    const HEAD_BYTES: usize = Head::<F>::LEN * 16;
    pub(super) const RECORD_BYTES: usize = INT_BYTES + VECTORS * Self::HEAD_BYTES;
}

// SAFETY: the functions need what the trait's callers vouch for, the dot-product instructions
// included.
unsafe impl<F: Format4> Panel for Quantised<F> {
    const ROWS: usize = RECORD_ROWS;
    const COLS: usize = COLS;
    // Two runs at least, so that a step is whole lines of 64 bytes.
    const STEP: usize = RUN * if F::BLOCK_RUNS == 1 { 2 } else { F::BLOCK_RUNS };
    const STEP_BYTES: usize = Self::STEP / RUN * Self::RECORD_BYTES;

    #[target_feature(enable = "neon")]
    unsafe fn pack(rows: &PanelRows, k: usize, n: usize, panel: *mut u8) {
        // SAFETY: the caller's duties are handed on.
        unsafe { pack::<F, Sdot>(rows, 0, k, n, panel) };
    }

    #[target_feature(enable = "neon")]
    unsafe fn tile(panel: *const u8, n: usize, _n_rows: usize, cols: &TileCols, acc: *mut f32, stride: usize) {
        let (runs, layout) = (cols.k / RUN..(cols.k + n) / RUN, cols.layout);
        // SAFETY: the caller's duties are handed on.
        unsafe {
            let x = std::array::from_fn(|c| cols.first.add(c.min(cols.n_cols - 1) * layout.col_bytes()));
            tile::<F, Sdot>(panel, runs, InPlace { x, layout }, cols.n_cols, acc, stride);
        }
    }
}

/// Packs elements `k..k + n` of rows `first..first + RECORD_ROWS`, a record for each run.
///
/// # Safety
/// As for [`Panel::pack`], with room for the records.
#[target_feature(enable = "neon")]
pub(super) unsafe fn pack<F: Format4, S: PanelSums>(
    rows: &PanelRows,
    first: usize,
    k: usize,
    n: usize,
    records: *mut u8,
) {
    let block_len = RUN * F::BLOCK_RUNS;
    for vector in 0..VECTORS {
        // SAFETY: the caller vouches for the rows and for room.
        unsafe {
            let blocks: Blocks4 =
                std::array::from_fn(|r| rows.row(first + vector * ROWS + r).add(k / block_len * F::BYTES));
            let heads = records.add(INT_BYTES + vector * Quantised::<F>::HEAD_BYTES);
            pack_rows::<F, S>(blocks, n / block_len, records.add(vector * 16), heads);
        }
    }
}

/// Writes the integers and heads of four rows into records.
///
/// # Safety
/// There are `n_blocks` blocks, and as many blocks' records of room.
#[target_feature(enable = "neon")]
unsafe fn pack_rows<F: Format4, S: PanelSums>(
    mut blocks: Blocks4,
    n_blocks: usize,
    mut ints: *mut u8,
    mut to_heads: *mut u8,
) {
    // SAFETY: the caller vouches for blocks and records, and pointers move on by one of each.
    unsafe {
        let mut heads = [vdupq_n_f32(0.0); MAX_HEADS];
        for _ in 0..n_blocks {
            F::heads(blocks, heads.as_mut_ptr());
            for g in 0..F::BLOCK_RUNS {
                let mut halves = [[vdupq_n_s8(0); ROWS]; 2];
                for r in 0..ROWS {
                    [halves[0][r], halves[1][r]] = F::quants(blocks[r], g);
                }
                for (half, rows) in halves.into_iter().enumerate() {
                    for (i, register) in S::arrange(rows).into_iter().enumerate() {
                        vst1q_s8(ints.add((half * 4 + i) * 16 * VECTORS).cast(), register);
                    }
                }
                for i in 0..Head::<F>::LEN {
                    vst1q_f32(to_heads.add(i * 16).cast(), heads[g * Head::<F>::LEN + i]);
                }
                let record_bytes = Quantised::<F>::RECORD_BYTES;
                (ints, to_heads) = (ints.wrapping_add(record_bytes), to_heads.wrapping_add(record_bytes));
            }
            for block in &mut blocks {
                *block = block.wrapping_add(F::BYTES);
            }
        }
    }
}

/// Adds to `acc[c * stride + r]` the products of the records' row `r` and the first `n_cols`
/// columns' `c`, over some runs.
///
/// # Safety
/// There is a record and a run of the columns for each of `runs`, `1..=COLS` columns, and room for
/// `RECORD_ROWS` rows of each in `acc`.
#[target_feature(enable = "neon")]
#[inline]
pub(super) unsafe fn tile<F: Format4, S: PanelSums>(
    records: *const u8,
    runs: Range<usize>,
    cols: S::Columns,
    n_cols: usize,
    acc: *mut f32,
    stride: usize,
) {
    // SAFETY: the caller's duties are handed on.
    unsafe {
        match n_cols {
            1 => tile_of::<F, S, 1>(records, runs, cols, acc, stride),
            2 => tile_of::<F, S, 2>(records, runs, cols, acc, stride),
            3 => tile_of::<F, S, 3>(records, runs, cols, acc, stride),
            _ => tile_of::<F, S, 4>(records, runs, cols, acc, stride),
        }
    }
}

/// See [`tile`].
///
/// # Safety
/// As there, for `NC` columns.
#[target_feature(enable = "neon")]
unsafe fn tile_of<F: Format4, S: PanelSums, const NC: usize>(
    records: *const u8,
    runs: Range<usize>,
    cols: S::Columns,
    acc: *mut f32,
    stride: usize,
) {
    // SAFETY: the caller vouches for records, columns and accumulators.
    unsafe {
        let mut sums = [[vdupq_n_f32(0.0); NC]; VECTORS];
        for v in 0..VECTORS {
            for c in 0..NC {
                sums[v][c] = vld1q_f32(acc.add(c * stride + v * ROWS));
            }
        }
        let mut record = records;
        for run in runs {
            let heads: [*const float32x4_t; VECTORS] =
                std::array::from_fn(|v| record.add(INT_BYTES + v * Quantised::<F>::HEAD_BYTES).cast());
            let mut dots = S::sums::<NC>(record, 0, if F::SUB_SCALED { 1 } else { 2 }, cols, run);
            if F::SUB_SCALED {
                let second = S::sums::<NC>(record, 1, 1, cols, run);
                for v in 0..VECTORS {
                    for c in 0..NC {
                        dots[v][c] = scaled(heads[v], [dots[v][c], second[v][c]]);
                    }
                }
            }
            for v in 0..VECTORS {
                for c in 0..NC {
                    sums[v][c] = accumulate::<F>(sums[v][c], dots[v][c], heads[v], S::act_run::<F>(cols, run, c));
                }
            }
            record = record.wrapping_add(Quantised::<F>::RECORD_BYTES);
        }
        for v in 0..VECTORS {
            for c in 0..NC {
                vst1q_f32(acc.add(c * stride + v * ROWS), sums[v][c]);
            }
        }
    }
}

/// Columns where they are.
#[derive(Clone, Copy)]
pub(super) struct InPlace {
    x: [*const u8; COLS],
    layout: ActLayout,
}

/// Four elements of four rows fill a register, and `sdot` by element multiplies it with four of the
/// sixteen activations in another one and completes their sums: no shuffle and no broadcast is left
/// for the columns.
// SAFETY: `sdot` is what is needed.
unsafe impl PanelSums for Sdot {
    type Panel<F: Format4> = Quantised<F>;
    type Columns = InPlace;

    #[target_feature(enable = "neon")]
    #[inline]
    unsafe fn arrange([a, b, c, d]: [int8x16_t; ROWS]) -> [int8x16_t; ROWS] {
        let words =
            [vreinterpretq_s32_s8(a), vreinterpretq_s32_s8(b), vreinterpretq_s32_s8(c), vreinterpretq_s32_s8(d)];
        let [a, b, c, d] = transpose(words);
        [vreinterpretq_s8_s32(a), vreinterpretq_s8_s32(b), vreinterpretq_s8_s32(c), vreinterpretq_s8_s32(d)]
    }

    #[target_feature(enable = "neon")]
    #[inline]
    unsafe fn sums<const NC: usize>(
        record: *const u8,
        first: usize,
        n: usize,
        cols: InPlace,
        run: usize,
    ) -> [[int32x4_t; NC]; VECTORS] {
        let mut sums = [[vdupq_n_s32(0); NC]; VECTORS];
        for half in first..first + n {
            // SAFETY: the caller vouches for record and columns.
            unsafe { add_half(record, half, &cols.x, run, &mut sums) };
        }
        sums
    }

    #[target_feature(enable = "neon")]
    #[inline]
    unsafe fn act_run<F: Format4>(cols: InPlace, run: usize, c: usize) -> ActRun {
        // SAFETY: the caller vouches for the columns.
        unsafe { ActRun::read::<F>(cols.x[c], run, cols.layout) }
    }
}

/// Adds the products of elements 0..16 or 16..32 of a run.
///
/// # Safety
/// As for [`PanelSums::sums`] of [`Sdot`].
#[target_feature(enable = "neon")]
#[inline]
unsafe fn add_half<const NC: usize>(
    record: *const u8,
    half: usize,
    x: &[*const u8; COLS],
    run: usize,
    sums: &mut [[int32x4_t; NC]; VECTORS],
) {
    // SAFETY: the caller vouches for all of it.
    unsafe {
        let mut w = [[vdupq_n_s8(0); 4]; VECTORS];
        for v in 0..VECTORS {
            for i in 0..4 {
                w[v][i] = weights(record, half, i, v);
            }
        }
        for c in 0..NC {
            let x = vld1q_s8(x[c].add(run * RUN + half * 16).cast());
            // In this order, neighbouring instructions do not wait for each other.
            for v in 0..VECTORS {
                sums[v][c] = sdot_by_four::<0>(sums[v][c], w[v][0], x);
            }
            for v in 0..VECTORS {
                sums[v][c] = sdot_by_four::<1>(sums[v][c], w[v][1], x);
            }
            for v in 0..VECTORS {
                sums[v][c] = sdot_by_four::<2>(sums[v][c], w[v][2], x);
            }
            for v in 0..VECTORS {
                sums[v][c] = sdot_by_four::<3>(sums[v][c], w[v][3], x);
            }
        }
    }
}

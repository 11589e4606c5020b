//! Panels of quantised weights, for CPUs with the dot-product instructions: rows in lanes, four activations an operand.
//!
//! A panel's record of one run of 32 elements, for two vectors of four rows:
//! ```text
//! (8, 2, 4, 4)      bytes: four elements of four rows fill a register
//! (2, Head::LEN, 4) what belongs to the run, as `rows::Head` says
//! ```
//! `sdot` by element multiplies a register with four of the sixteen activations in another one and completes their sums: no shuffle and
//! no broadcast is left for the columns.

use std::arch::aarch64::*;

use super::dot::sdot_by_four;
use super::dots::{accumulate, scaled};
use super::rows::{Blocks4, Format4, Head, MAX_HEADS, ROWS, RUN, transpose};
use crate::panel::{Panel, PanelRows, TileCols};

/// Vectors of four rows in a panel.
const VECTORS: usize = 2;
/// Columns of a tile: eight integer and eight f32 sums, eight vectors of weights and four of activations fit 32 registers.
const COLS: usize = 4;
/// Bytes of a run's integers.
const INT_BYTES: usize = RUN * ROWS * VECTORS;

/// The panels of a format.
pub(super) struct Quantised<F>(F);

impl<F: Format4> Quantised<F> {
    const HEAD_BYTES: usize = Head::<F>::LEN * 16;
    const RECORD_BYTES: usize = INT_BYTES + VECTORS * Self::HEAD_BYTES;
}

// SAFETY: the functions need what the trait's callers vouch for, the dot-product instructions included.
unsafe impl<F: Format4> Panel for Quantised<F> {
    const ROWS: usize = ROWS * VECTORS;
    const COLS: usize = COLS;
    // Two runs at least, so that a step is whole lines of 64 bytes.
    const STEP: usize = RUN * if F::BLOCK_RUNS == 1 { 2 } else { F::BLOCK_RUNS };
    const STEP_BYTES: usize = Self::STEP / RUN * Self::RECORD_BYTES;

    #[target_feature(enable = "neon")]
    unsafe fn pack(rows: &PanelRows, k: usize, n: usize, panel: *mut u8) {
        let block_len = RUN * F::BLOCK_RUNS;
        for vector in 0..VECTORS {
            // SAFETY: the caller vouches for the rows and for room.
            unsafe {
                let blocks: Blocks4 =
                    std::array::from_fn(|r| rows.row(vector * ROWS + r).add(k / block_len * F::BYTES));
                let heads = panel.add(INT_BYTES + vector * Self::HEAD_BYTES);
                pack_rows::<F>(blocks, n / block_len, panel.add(vector * 16), heads);
            }
        }
    }

    #[target_feature(enable = "neon")]
    unsafe fn tile(panel: *const u8, n: usize, _n_rows: usize, cols: &TileCols, acc: *mut f32, stride: usize) {
        // SAFETY: the caller's duties are handed on.
        unsafe {
            match cols.n_cols {
                1 => tile::<F, 1>(panel, n, cols, acc, stride),
                2 => tile::<F, 2>(panel, n, cols, acc, stride),
                3 => tile::<F, 3>(panel, n, cols, acc, stride),
                _ => tile::<F, 4>(panel, n, cols, acc, stride),
            }
        }
    }
}

/// Writes the integers and heads of four rows into records.
///
/// # Safety
/// There are `n_blocks` blocks, and as many blocks' records of room.
#[target_feature(enable = "neon")]
unsafe fn pack_rows<F: Format4>(mut blocks: Blocks4, n_blocks: usize, mut ints: *mut u8, mut to_heads: *mut u8) {
    // SAFETY: the caller vouches for blocks and records, and pointers move on by one of each.
    unsafe {
        let mut heads = [vdupq_n_f32(0.0); MAX_HEADS];
        for _ in 0..n_blocks {
            F::heads(blocks, heads.as_mut_ptr());
            for g in 0..F::BLOCK_RUNS {
                let mut halves = [[vdupq_n_s32(0); ROWS]; 2];
                for r in 0..ROWS {
                    let [low, high] = F::quants(blocks[r], g);
                    (halves[0][r], halves[1][r]) = (vreinterpretq_s32_s8(low), vreinterpretq_s32_s8(high));
                }
                for (half, rows) in halves.into_iter().enumerate() {
                    for (j, four) in transpose(rows).into_iter().enumerate() {
                        vst1q_s32(ints.add((half * 4 + j) * 16 * VECTORS).cast(), four);
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

/// See [`Panel::tile`].
///
/// # Safety
/// As there, for `NC` columns.
#[target_feature(enable = "neon")]
unsafe fn tile<F: Format4, const NC: usize>(panel: *const u8, n: usize, cols: &TileCols, acc: *mut f32, stride: usize) {
    let layout = cols.layout;
    // SAFETY: the caller vouches for panel, columns and accumulators.
    unsafe {
        let x: [*const u8; NC] = std::array::from_fn(|c| cols.first.add(c * layout.col_bytes()));
        let mut sums = [[vdupq_n_f32(0.0); NC]; VECTORS];
        for v in 0..VECTORS {
            for c in 0..NC {
                sums[v][c] = vld1q_f32(acc.add(c * stride + v * ROWS));
            }
        }
        let mut record = panel;
        for run in cols.k / RUN..(cols.k + n) / RUN {
            let heads: [*const float32x4_t; VECTORS] =
                std::array::from_fn(|v| record.add(INT_BYTES + v * Quantised::<F>::HEAD_BYTES).cast());
            let mut dots = [[vdupq_n_s32(0); NC]; VECTORS];
            half_sums(record, 0, &x, run, &mut dots);
            if F::SUB_SCALED {
                let mut second = [[vdupq_n_s32(0); NC]; VECTORS];
                half_sums(record, 1, &x, run, &mut second);
                for v in 0..VECTORS {
                    for c in 0..NC {
                        dots[v][c] = scaled(heads[v], [dots[v][c], second[v][c]]);
                    }
                }
            } else {
                half_sums(record, 1, &x, run, &mut dots);
            }
            for v in 0..VECTORS {
                for c in 0..NC {
                    sums[v][c] = accumulate::<F>(sums[v][c], dots[v][c], heads[v], x[c], run, layout);
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

/// Adds the products of elements 0..16 or 16..32 of a run.
///
/// # Safety
/// The CPU has the dot-product instructions; `ints` is a record; the columns have the run.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn half_sums<const NC: usize>(
    ints: *const u8,
    half: usize,
    x: &[*const u8; NC],
    run: usize,
    sums: &mut [[int32x4_t; NC]; VECTORS],
) {
    // SAFETY: the caller vouches for all of it.
    unsafe {
        let weights = |four: usize, v: usize| vld1q_s8(ints.add(((half * 4 + four) * VECTORS + v) * 16).cast());
        let mut w = [[vdupq_n_s8(0); 4]; VECTORS];
        for v in 0..VECTORS {
            w[v] = [weights(0, v), weights(1, v), weights(2, v), weights(3, v)];
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

//! Sums by the 8-bit matrix instruction of Armv8.6, which multiplies two rows with two columns,
//! eight elements at a time.
//!
//! Its operands want eight bytes of one row and then of the other; weights and activations are
//! paired to that shape by one `zip` a register. Row-dots do both as they go; a panel keeps them
//! (`paired`).
//! ```text
//!   columns          weights                 sums
//!   c0: k0..k8       r0: k0..k8              c0 r0, c0 r1
//!   c1: k0..k8       r1: k0..k8              c1 r0, c1 r1
//! ```
//! With columns as the first operand, the sums of a column are halves of two registers, so that
//! another `zip` puts four rows into lanes: from there on, scales and the order of additions are
//! those of the other tables.

use std::arch::aarch64::*;

use super::dots::{self, RunSums};
use super::rows::{Blocks4, Format4, ROWS, RUN};

/// Pairs of columns at most, in row-dots and tiles. A column without a partner is paired with
/// itself.
pub(super) const MAX_PAIRS: usize = dots::COLS / 2;

/// The sums of two pairs of rows with a pair of columns: `(2 pairs of rows, 2 columns, 2 rows)`.
pub(super) type Pairs = [int32x4_t; 2];

/// The `smmla` instruction. Its intrinsic is not stable yet.
pub(super) struct Smmla;

/// Adds to `sums`, two by two, the products of each eight bytes of `a` with each eight bytes of
/// `b`.
///
/// # Safety
/// The CPU has the instruction.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn smmla(mut sums: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: the caller vouches for the instruction, which changes nothing but its output
    // register.
    unsafe {
        std::arch::asm!(
            ".arch_extension i8mm",
            "smmla {sums:v}.4s, {a:v}.16b, {b:v}.16b",
            sums = inout(vreg) sums,
            a = in(vreg) a,
            b = in(vreg) b,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sums
}

/// The first eight bytes of `a` and `b`, and the last eight.
#[target_feature(enable = "neon")]
#[inline]
pub(super) fn pair(a: int8x16_t, b: int8x16_t) -> [int8x16_t; 2] {
    let (a, b) = (vreinterpretq_s64_s8(a), vreinterpretq_s64_s8(b));
    [vreinterpretq_s8_s64(vzip1q_s64(a, b)), vreinterpretq_s8_s64(vzip2q_s64(a, b))]
}

/// 16 elements of four rows: elements 0..8 of rows 0 and 1, of rows 2 and 3, then elements 8..16 of
/// both.
#[target_feature(enable = "neon")]
#[inline]
pub(super) fn pair_rows([a, b, c, d]: [int8x16_t; ROWS]) -> [int8x16_t; ROWS] {
    let ([ab0, ab1], [cd0, cd1]) = (pair(a, b), pair(c, d));
    [ab0, cd0, ab1, cd1]
}

/// Half `half` of run `run` of the first `NC` columns, in pairs.
///
/// # Safety
/// The columns have the run.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn pair_columns<const NC: usize>(x: &[*const u8], run: usize, half: usize) -> [[int8x16_t; 2]; MAX_PAIRS] {
    let mut pairs = [[vdupq_n_s8(0); 2]; MAX_PAIRS];
    for p in 0..NC.div_ceil(2) {
        let at = run * RUN + half * 16;
        // SAFETY: the caller vouches for the run.
        pairs[p] =
            unsafe { pair(vld1q_s8(x[2 * p].add(at).cast()), vld1q_s8(x[(2 * p + 1).min(NC - 1)].add(at).cast())) };
    }
    pairs
}

/// Adds the products of 16 elements of four rows, as [`pair_rows`] has them, with the columns.
///
/// # Safety
/// The CPU has the instruction.
#[target_feature(enable = "neon")]
#[inline]
pub(super) unsafe fn add<const NC: usize>(
    sums: &mut [Pairs; MAX_PAIRS],
    w: [int8x16_t; ROWS],
    x: &[[int8x16_t; 2]; MAX_PAIRS],
) {
    // In this order, neighbouring instructions do not wait for each other.
    for eight in 0..2 {
        for rows in 0..2 {
            for p in 0..NC.div_ceil(2) {
                // SAFETY: the caller vouches for the instruction.
                sums[p][rows] = unsafe { smmla(sums[p][rows], x[p][eight], w[eight * 2 + rows]) };
            }
        }
    }
}

/// For each column the sums of four rows, in lanes.
#[target_feature(enable = "neon")]
#[inline]
pub(super) fn by_column<const NC: usize>(sums: [Pairs; MAX_PAIRS]) -> [int32x4_t; NC] {
    let mut columns = [vdupq_n_s32(0); NC];
    for c in 0..NC {
        let [a, b] = sums[c / 2];
        let (a, b) = (vreinterpretq_s64_s32(a), vreinterpretq_s64_s32(b));
        columns[c] = vreinterpretq_s32_s64(if c % 2 == 0 { vzip1q_s64(a, b) } else { vzip2q_s64(a, b) });
    }
    columns
}

/// For two columns and more: for a single one, half of each product would be for nothing.
// SAFETY: `smmla` is what is needed.
unsafe impl RunSums for Smmla {
    #[target_feature(enable = "neon")]
    #[inline]
    unsafe fn sums<F: Format4, const NC: usize>(
        blocks: Blocks4,
        g: usize,
        x: &[*const u8; dots::COLS],
        run: usize,
    ) -> [[int32x4_t; 2]; NC] {
        let mut halves = [[vdupq_n_s8(0); ROWS]; 2];
        for r in 0..ROWS {
            // SAFETY: the caller vouches for the blocks.
            [halves[0][r], halves[1][r]] = unsafe { F::quants(blocks[r], g) };
        }
        let zero = [[vdupq_n_s32(0); 2]; MAX_PAIRS];
        let mut first = zero;
        // SAFETY: the caller vouches for columns and instruction.
        unsafe { add::<NC>(&mut first, pair_rows(halves[0]), &pair_columns::<NC>(x, run, 0)) };
        let mut second = if F::SUB_SCALED { zero } else { first };
        // SAFETY: as above.
        unsafe { add::<NC>(&mut second, pair_rows(halves[1]), &pair_columns::<NC>(x, run, 1)) };
        let (first, second) = (by_column::<NC>(first), by_column::<NC>(second));
        let mut sums = [[vdupq_n_s32(0); 2]; NC];
        for c in 0..NC {
            sums[c] = [first[c], second[c]];
        }
        sums
    }
}

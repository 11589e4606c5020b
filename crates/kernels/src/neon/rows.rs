//! Four rows at a time: the unit in which the NEON kernels read every quantised format.
//!
//! Rows stand in lanes: four sums or four scales are one register, in the order of the rows, so
//! that no sum crosses lanes at the end of a row, whatever its length.

use std::arch::aarch64::*;

use crate::vector::f16x4_to_f32;

/// Rows that are read together.
pub(super) const ROWS: usize = 4;
/// Elements in a run.
pub(super) const RUN: usize = 32;

/// The first bytes of the blocks of four rows.
pub(super) type Blocks4 = [*const u8; ROWS];

/// How to read a format.
///
/// # Safety
/// For both functions: all bytes of the blocks at the pointers may be read. Nothing beyond them is
/// read.
pub(super) unsafe trait Format4 {
    /// Bytes of one block.
    const BYTES: usize;
    /// Runs of 32 elements in one block: 1 or 8.
    const BLOCK_RUNS: usize;
    /// Each 16 elements have an integer scale.
    const SUB_SCALED: bool = false;
    /// The sums of activations are multiplied with something: a minimum or an offset of the
    /// integers.
    const OFFSET: bool = true;

    /// Writes a [`Head`] for each run of the block: vectors of one value a row.
    unsafe fn heads(blocks: Blocks4, heads: *mut float32x4_t);

    /// The integers of run `g` of one row, a byte each, in order: signed, or not negative and
    /// below 64.
    unsafe fn quants(block: *const u8, g: usize) -> [int8x16_t; 2];
}

/// Where the values of one run stand among those of [`Format4::heads`].
///
/// | vector | content, one a row |
/// |---|---|
/// | 0 | f32 scale |
/// | then, if sub-scaled | two vectors of the i32 scale of 16 elements |
/// | then, if `OFFSET` | f32 factor of the sum of the activations: one vector, or one for each 16 elements if sub-scaled |
pub(super) struct Head<F>(F);

impl<F: Format4> Head<F> {
    /// Vectors of a run.
    pub const LEN: usize = Self::OFFSETS_AT + Self::N_OFFSETS;
    pub const OFFSETS_AT: usize = if F::SUB_SCALED { 3 } else { 1 };
    pub const N_OFFSETS: usize = match (F::OFFSET, F::SUB_SCALED) {
        (false, _) => 0,
        (true, false) => 1,
        (true, true) => 2,
    };
}

/// Most vectors in the heads of a block.
pub(super) const MAX_HEADS: usize = 8 * 5;

/// The f16 `at` bytes into four blocks.
///
/// # Safety
/// Two bytes can be read there.
#[target_feature(enable = "neon")]
#[inline]
pub(super) unsafe fn f16x4(blocks: Blocks4, at: usize) -> float32x4_t {
    let mut halves = vdup_n_u16(0);
    // SAFETY: the caller vouches for the bytes.
    unsafe {
        let half = |row: usize| blocks[row].add(at).cast::<u16>().read_unaligned();
        halves = vset_lane_u16::<0>(half(0), halves);
        halves = vset_lane_u16::<1>(half(1), halves);
        halves = vset_lane_u16::<2>(half(2), halves);
        halves = vset_lane_u16::<3>(half(3), halves);
    }
    f16x4_to_f32(halves)
}

/// Four rows of four 32-bit values: value `j` of all rows, in vector `j`.
#[target_feature(enable = "neon")]
#[inline]
pub(super) fn transpose([a, b, c, d]: [int32x4_t; 4]) -> [int32x4_t; 4] {
    let pairs = |a, b| (vreinterpretq_s64_s32(vtrn1q_s32(a, b)), vreinterpretq_s64_s32(vtrn2q_s32(a, b)));
    let ((ab0, ab1), (cd0, cd1)) = (pairs(a, b), pairs(c, d)); // values 0 and 2, values 1 and 3
    let low = |a, b| vreinterpretq_s32_s64(vtrn1q_s64(a, b));
    let high = |a, b| vreinterpretq_s32_s64(vtrn2q_s64(a, b));
    [low(ab0, cd0), low(ab1, cd1), high(ab0, cd0), high(ab1, cd1)]
}

/// Four rows of sixteen bytes: bytes `4 * j..4 * j + 4` of all rows in vector `j`, each byte's four
/// rows together.
#[target_feature(enable = "neon")]
#[inline]
pub(super) fn transpose_bytes([a, b, c, d]: [int8x16_t; 4]) -> [int8x16_t; 4] {
    let pairs = |a, b| (vreinterpretq_s16_s8(vzip1q_s8(a, b)), vreinterpretq_s16_s8(vzip2q_s8(a, b)));
    let ((ab0, ab1), (cd0, cd1)) = (pairs(a, b), pairs(c, d)); // bytes 0 to 7, bytes 8 to 15
    let low = |a, b| vreinterpretq_s8_s16(vzip1q_s16(a, b));
    let high = |a, b| vreinterpretq_s8_s16(vzip2q_s16(a, b));
    [low(ab0, cd0), high(ab0, cd0), low(ab1, cd1), high(ab1, cd1)]
}

/// 16 signed bytes as integers of 32 bits, in order.
#[target_feature(enable = "neon")]
#[inline]
pub(super) fn widen(bytes: int8x16_t) -> [int32x4_t; 4] {
    let (low, high) = (vmovl_s8(vget_low_s8(bytes)), vmovl_high_s8(bytes));
    [vmovl_s16(vget_low_s16(low)), vmovl_high_s16(low), vmovl_s16(vget_low_s16(high)), vmovl_high_s16(high)]
}

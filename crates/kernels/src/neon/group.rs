//! Eight runs of 32 weights: the unit in which the NEON kernels read every quantised format.

use std::arch::aarch64::*;

use crate::vector::f16x4_to_f32;

/// Runs in a group.
pub(super) const RUNS: usize = 8;
/// Elements in a run.
pub(super) const RUN: usize = 32;

/// The scales of a group.
#[derive(Clone, Copy)]
pub(super) struct Head {
    /// f32 scale of each run.
    pub scale: [float32x4_t; 2],
    /// What multiplies the sum of the activations: of each run (the first two vectors) or, in formats of 16-element sub-blocks, of
    /// each 16 elements.
    pub offset: [float32x4_t; 4],
    /// Formats of 16-element sub-blocks: their integer scales. Others: unused.
    pub mult: [int32x4_t; 4],
}

impl Head {
    // SAFETY: all bits of these vectors may be zero.
    pub const ZERO: Head = unsafe { std::mem::zeroed() };
}

/// How to read a format group by group.
///
/// # Safety
/// For all functions: `p` points at the first of the `n` runs of a group (`n` is 8 for formats of 256-element blocks), all of
/// whose bytes may be read. Nothing beyond them is read.
pub(super) unsafe trait Group {
    /// Bytes of one block.
    const BYTES: usize;
    /// Runs in one block: 1 or 8.
    const BLOCK_RUNS: usize;
    /// Sub-blocks have 16 elements and an integer scale each.
    const SUB16: bool = false;
    /// [`Head::offset`] is used.
    const OFFSET: bool = true;

    /// The scales of `n` runs; those beyond are zero.
    unsafe fn head(p: *const u8, n: usize) -> Head;

    /// The 32 weights of run `g`, a byte each, in order: signed, or not negative and below 64.
    unsafe fn quants(p: *const u8, g: usize) -> [int8x16_t; 2];
}

/// The f16 at `p`.
///
/// # Safety
/// Two bytes can be read.
#[target_feature(enable = "neon")]
#[inline]
pub(super) unsafe fn f16_at(p: *const u8) -> f32 {
    // SAFETY: the caller vouches for the two bytes.
    unsafe { vgetq_lane_f32::<0>(f16x4_to_f32(vdup_n_u16(p.cast::<u16>().read_unaligned()))) }
}

/// 16 signed bytes as integers of 32 bits, in order.
#[target_feature(enable = "neon")]
#[inline]
pub(super) fn widen(bytes: int8x16_t) -> [int32x4_t; 4] {
    let (low, high) = (vmovl_s8(vget_low_s8(bytes)), vmovl_high_s8(bytes));
    [vmovl_s16(vget_low_s16(low)), vmovl_high_s16(low), vmovl_s16(vget_low_s16(high)), vmovl_high_s16(high)]
}

/// 16 signed bytes times `factor`, in order.
#[target_feature(enable = "neon")]
#[inline]
pub(super) fn scaled(bytes: int8x16_t, factor: f32) -> [float32x4_t; 4] {
    let [a, b, c, d] = widen(bytes);
    let times = |v| vmulq_n_f32(vcvtq_f32_s32(v), factor);
    [times(a), times(b), times(c), times(d)]
}

/// The value of the sub-blocks of 16: scale and offset of each, for exact arithmetic.
#[target_feature(enable = "neon")]
#[inline]
pub(super) fn sub_scales<G: Group>(head: &Head) -> ([f32; 16], [f32; 16]) {
    let (mut scale8, mut offset, mut mult) = ([0.0f32; 8], [0.0f32; 16], [0i32; 16]);
    // SAFETY: each array is as large as what is stored.
    unsafe {
        for i in 0..2 {
            vst1q_f32(scale8.as_mut_ptr().add(i * 4), head.scale[i]);
        }
        for i in 0..4 {
            vst1q_f32(offset.as_mut_ptr().add(i * 4), head.offset[i]);
            vst1q_s32(mult.as_mut_ptr().add(i * 4), head.mult[i]);
        }
    }
    if G::SUB16 {
        (std::array::from_fn(|j| scale8[j / 2] * mult[j] as f32), offset)
    } else {
        (std::array::from_fn(|j| scale8[j / 2]), std::array::from_fn(|j| offset[j / 2]))
    }
}

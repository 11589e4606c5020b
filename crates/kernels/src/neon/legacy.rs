//! The formats of 32-element blocks: a block is a run.

use std::arch::aarch64::*;

use super::rows::{Blocks4, Format4, Head, f16x4};

/// 16 bytes of low and high nibbles to 32 bytes: low ones first.
///
/// # Safety
/// 16 bytes can be read.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn nibbles(p: *const u8) -> [uint8x16_t; 2] {
    // SAFETY: the caller vouches for them.
    let both = unsafe { vld1q_u8(p) };
    [vandq_u8(both, vdupq_n_u8(15)), vshrq_n_u8::<4>(both)]
}

/// Bit `i` of a 32-bit word to bit 4 of byte `i`.
///
/// # Safety
/// Four bytes can be read.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn fifth_bits(p: *const u8) -> [uint8x16_t; 2] {
    // SAFETY: the caller vouches for them.
    let word = unsafe { p.cast::<u32>().read_unaligned() };
    let bytes = vreinterpretq_u8_u32(vdupq_n_u32(word));
    let bit = vreinterpretq_u8_u64(vdupq_n_u64(0x8040_2010_0804_0201));
    let pick = |first: u8| {
        let index = vcombine_u8(vdup_n_u8(first), vdup_n_u8(first + 1));
        vandq_u8(vtstq_u8(vqtbl1q_u8(bytes, index), bit), vdupq_n_u8(16))
    };
    [pick(0), pick(2)]
}

/// # Safety
/// 16 bytes of nibbles can be read at `low`, four bytes of fifth bits at `high`.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn five_bits(low: *const u8, high: *const u8) -> [int8x16_t; 2] {
    // SAFETY: the caller vouches for them.
    let ([a, b], [fifth_a, fifth_b]) = unsafe { (nibbles(low), fifth_bits(high)) };
    signed([vorrq_u8(a, fifth_a), vorrq_u8(b, fifth_b)])
}

#[target_feature(enable = "neon")]
#[inline]
fn signed([a, b]: [uint8x16_t; 2]) -> [int8x16_t; 2] {
    [vreinterpretq_s8_u8(a), vreinterpretq_s8_u8(b)]
}

/// Scales, and offsets of `factor * scale`.
#[target_feature(enable = "neon")]
#[inline]
fn with_factor(scale: float32x4_t, factor: f32) -> [float32x4_t; 2] {
    [scale, vmulq_n_f32(scale, factor)]
}

macro_rules! legacy {
    ($name:ident, $bytes:literal, offset: $offset:literal, |$p:ident| $heads:expr, |$b:ident| $quants:expr) => {
        #[doc = concat!("See the format's definition, `format::", stringify!($name), "`.")]
        pub(crate) struct $name;
        // SAFETY: reads only within the `BYTES` bytes of the blocks that the caller vouches for.
        unsafe impl Format4 for $name {
            const BYTES: usize = $bytes;
            const BLOCK_RUNS: usize = 1;
            const OFFSET: bool = $offset;
            #[target_feature(enable = "neon")]
            #[inline]
            unsafe fn heads($p: Blocks4, heads: *mut float32x4_t) {
                // SAFETY: the caller vouches for the blocks and room for a head.
                unsafe {
                    let head = $heads;
                    for i in 0..Head::<Self>::LEN {
                        heads.add(i).write(head[i]);
                    }
                }
            }
            #[target_feature(enable = "neon")]
            #[inline]
            unsafe fn quants($b: *const u8, _g: usize) -> [int8x16_t; 2] {
                // SAFETY: the caller vouches for the block.
                unsafe { $quants }
            }
        }
    };
}

legacy!(Q4_0, 18, offset: true, |p| with_factor(f16x4(p, 0), -8.0), |b| signed(nibbles(b.add(2))));
legacy!(Q4_1, 20, offset: true, |p| [f16x4(p, 0), f16x4(p, 2)], |b| signed(nibbles(b.add(4))));
legacy!(Q5_0, 22, offset: true, |p| with_factor(f16x4(p, 0), -16.0), |b| five_bits(b.add(6), b.add(2)));
legacy!(Q5_1, 24, offset: true, |p| [f16x4(p, 0), f16x4(p, 2)], |b| five_bits(b.add(8), b.add(4)));
legacy!(Q8_0, 34, offset: false, |p| [f16x4(p, 0)], |b| [vld1q_s8(b.add(2).cast()), vld1q_s8(b.add(18).cast())]);

//! The formats of 32-element blocks. A group is eight blocks; the last group of a row may have fewer.

use std::arch::aarch64::*;

use super::group::{Group, Head, RUNS};
use crate::vector::f16x4_to_f32;

/// The f16 `at` bytes into each of `n` blocks of `bytes` bytes, 0 beyond.
///
/// # Safety
/// `n` blocks, which have two bytes there, can be read at `p`; `n` is at most 8.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn f16x8(p: *const u8, bytes: usize, at: usize, n: usize) -> [float32x4_t; 2] {
    let mut halves = [0u16; RUNS];
    // SAFETY: the caller vouches for the blocks; the array has eight halves.
    unsafe {
        if n == RUNS {
            halves = std::array::from_fn(|i| p.add(i * bytes + at).cast::<u16>().read_unaligned());
        } else {
            for (i, half) in halves.iter_mut().enumerate().take(n) {
                *half = p.add(i * bytes + at).cast::<u16>().read_unaligned();
            }
        }
        [f16x4_to_f32(vld1_u16(halves.as_ptr())), f16x4_to_f32(vld1_u16(halves.as_ptr().add(4)))]
    }
}

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

/// A head with these offsets.
#[target_feature(enable = "neon")]
#[inline]
fn head(scale: [float32x4_t; 2], [low, high]: [float32x4_t; 2]) -> Head {
    Head { scale, offset: [low, high, vdupq_n_f32(0.0), vdupq_n_f32(0.0)], ..Head::ZERO }
}

/// A head with offsets of `factor * scale`.
#[target_feature(enable = "neon")]
#[inline]
fn head_with_factor([low, high]: [float32x4_t; 2], factor: f32) -> Head {
    head([low, high], [vmulq_n_f32(low, factor), vmulq_n_f32(high, factor)])
}

macro_rules! legacy {
    ($name:ident, $bytes:literal, offset: $offset:literal, |$p:ident, $n:ident| $head:expr, |$q:ident| $quants:expr) => {
        #[doc = concat!("See the format's definition, `format::", stringify!($name), "`.")]
        pub(crate) struct $name;
        // SAFETY: reads `BYTES` bytes of each of the blocks that the caller vouches for, and nothing else.
        unsafe impl Group for $name {
            const BYTES: usize = $bytes;
            const BLOCK_RUNS: usize = 1;
            const OFFSET: bool = $offset;
            #[target_feature(enable = "neon")]
            #[inline]
            unsafe fn head($p: *const u8, $n: usize) -> Head {
                // SAFETY: the caller vouches for `n` blocks.
                unsafe { $head }
            }
            #[target_feature(enable = "neon")]
            #[inline]
            unsafe fn quants(p: *const u8, g: usize) -> [int8x16_t; 2] {
                // SAFETY: the caller vouches for block `g`.
                unsafe {
                    let $q = p.add(g * $bytes);
                    $quants
                }
            }
        }
    };
}

legacy!(Q4_0, 18, offset: true, |p, n| head_with_factor(f16x8(p, 18, 0, n), -8.0), |b| signed(nibbles(b.add(2))));
legacy!(Q4_1, 20, offset: true, |p, n| head(f16x8(p, 20, 0, n), f16x8(p, 20, 2, n)), |b| signed(nibbles(b.add(4))));
legacy!(Q5_0, 22, offset: true, |p, n| head_with_factor(f16x8(p, 22, 0, n), -16.0), |b| five_bits(b.add(6), b.add(2)));
legacy!(Q5_1, 24, offset: true, |p, n| head(f16x8(p, 24, 0, n), f16x8(p, 24, 2, n)), |b| five_bits(b.add(8), b.add(4)));
legacy!(Q8_0, 34, offset: false, |p, n| head_with_factor(f16x8(p, 34, 0, n), 0.0), |b| {
    [vld1q_s8(b.add(2).cast()), vld1q_s8(b.add(18).cast())]
});

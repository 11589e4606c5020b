//! The products of 16 signed bytes: the step in which the instruction sets of this folder differ.

use std::arch::aarch64::*;

/// Adds the 16 products of two vectors of signed bytes to four sums. Which product goes to which
/// sum is left open: only their total counts.
///
/// # Safety
/// The CPU has the implementor's instruction. No product exceeds 128 * 127 in magnitude: `b` is
/// activations, which are never -128.
pub(super) unsafe trait Dot {
    unsafe fn add(sums: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t;
}

/// Plain NEON: products of 16 bits, of which two add up without overflow (2 * 128 * 127 = 32512),
/// then pairs of those.
pub(super) struct Widening;

// SAFETY: NEON is part of every 64-bit Arm target.
unsafe impl Dot for Widening {
    #[target_feature(enable = "neon")]
    #[inline]
    unsafe fn add(sums: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
        let pairs = vmlal_high_s8(vmull_s8(vget_low_s8(a), vget_low_s8(b)), a, b);
        vpadalq_s16(sums, pairs)
    }
}

/// The `sdot` instruction. Its intrinsic is not stable yet.
pub(super) struct Sdot;

// SAFETY: computes what the trait says, with no other effect.
unsafe impl Dot for Sdot {
    #[target_feature(enable = "neon")]
    #[inline]
    unsafe fn add(mut sums: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
        // SAFETY: the caller vouches for the instruction, which changes nothing but its output
        // register.
        unsafe {
            // The directive lets the assembler take an instruction that the code around is not
            // compiled for: so the same generic code serves both instruction sets, and this still
            // inlines.
            std::arch::asm!(
                ".arch_extension dotprod",
                "sdot {sums:v}.4s, {a:v}.16b, {b:v}.16b",
                sums = inout(vreg) sums,
                a = in(vreg) a,
                b = in(vreg) b,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        sums
    }
}

/// Adds to lane `i` of the sums the products of bytes `4 * i..4 * i + 4` of `a` with the four bytes
/// `4 * FOUR..4 * FOUR + 4` of `b`.
///
/// # Safety
/// The CPU has the dot-product instructions.
#[target_feature(enable = "neon")]
#[inline]
pub(super) unsafe fn sdot_by_four<const FOUR: usize>(mut sums: int32x4_t, a: int8x16_t, b: int8x16_t) -> int32x4_t {
    // SAFETY: as for `Sdot`.
    unsafe {
        std::arch::asm!(
            ".arch_extension dotprod",
            "sdot {sums:v}.4s, {a:v}.16b, {b:v}.4b[{four}]",
            sums = inout(vreg) sums,
            a = in(vreg) a,
            b = in(vreg) b,
            four = const FOUR,
            options(pure, nomem, nostack, preserves_flags),
        );
    }
    sums
}

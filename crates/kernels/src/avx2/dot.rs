//! The products of bytes: the step in which the instruction sets of this folder differ.

use std::arch::x86_64::*;

/// Adds the products of each four neighbouring unsigned bytes `a` and signed bytes `b` to an i32.
///
/// # Safety
/// The CPU has AVX2 and the implementor's instruction. Of the four products no two exceed 16 bits
/// when added.
pub(super) unsafe trait Dot {
    /// One instruction does it: nothing is gained by adding up in 16 bits.
    const AT_ONCE: bool;
    unsafe fn add(sums: __m256i, a: __m256i, b: __m256i) -> __m256i;
}

/// Plain AVX2: products of 16 bits, pair by pair, are widened by a multiplication with ones.
pub(super) struct Maddubs;

// SAFETY: computes what the trait says, with no other effect.
unsafe impl Dot for Maddubs {
    const AT_ONCE: bool = false;
    #[target_feature(enable = "avx2,fma,f16c")]
    #[inline]
    unsafe fn add(sums: __m256i, a: __m256i, b: __m256i) -> __m256i {
        _mm256_add_epi32(sums, _mm256_madd_epi16(_mm256_maddubs_epi16(a, b), _mm256_set1_epi16(1)))
    }
}

/// The `vpdpbusd` instruction of AVX-VNNI.
pub(super) struct Vnni;

// SAFETY: as above.
unsafe impl Dot for Vnni {
    const AT_ONCE: bool = true;
    #[target_feature(enable = "avx2,fma,f16c")]
    #[inline]
    unsafe fn add(mut sums: __m256i, a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: the caller vouches for the instruction, which changes nothing but its output
        // register. Unlike the intrinsic it needs no function that is compiled for it: so the same
        // generic code serves both instruction sets.
        unsafe {
            std::arch::asm!(
                "{{vex}} vpdpbusd {sums}, {a}, {b}",
                sums = inout(ymm_reg) sums,
                a = in(ymm_reg) a,
                b = in(ymm_reg) b,
                options(pure, nomem, nostack, preserves_flags),
            );
        }
        sums
    }
}

//! The formats of 32-element blocks: a block is a run.

use std::arch::x86_64::*;

use super::rows::{Blocks8, Format8, Head, Width, f16x8, f16x8_pairs, load2};

/// 16 bytes of nibbles of two rows: the low ones, the high ones.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn nibbles(both: __m256i) -> [__m256i; 2] {
    let mask = _mm256_set1_epi8(15);
    [_mm256_and_si256(both, mask), _mm256_and_si256(_mm256_srli_epi16::<4>(both), mask)]
}

/// Adds the fifth bits, 32 at the start of each row's `word`: bit `i` belongs to element `i`.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn with_fifth_bits([low, high]: [__m256i; 2], word: __m256i) -> [__m256i; 2] {
    #[rustfmt::skip]
    let byte = _mm256_setr_epi8(
        0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1,
    );
    let bit = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64 as i64);
    let set = |word: __m256i, pick: __m256i| {
        let set = _mm256_cmpeq_epi8(_mm256_and_si256(_mm256_shuffle_epi8(word, pick), bit), bit);
        _mm256_and_si256(set, _mm256_set1_epi8(16))
    };
    let next = _mm256_add_epi8(byte, _mm256_set1_epi8(2));
    [_mm256_or_si256(low, set(word, byte)), _mm256_or_si256(high, set(word, next))]
}

macro_rules! legacy {
    (
        $name:ident, $bytes:literal, $width:ident, offset: $offset:literal,
        |$p:ident| $heads:expr, |$b:ident| $halves:expr
    ) => {
        #[doc = concat!("See the format's definition, `format::", stringify!($name), "`.")]
        pub(crate) struct $name;
        // SAFETY: reads only within the `BYTES` bytes of the blocks that the caller vouches for.
        unsafe impl Format8 for $name {
            const BYTES: usize = $bytes;
            const BLOCK_RUNS: usize = 1;
            const WIDTH: Width = Width::$width;
            const OFFSET: bool = $offset;

            #[target_feature(enable = "avx2,fma,f16c")]
            #[inline]
            unsafe fn heads($p: Blocks8, heads: *mut __m256) {
                // SAFETY: the caller vouches for AVX2, F16C, the blocks and room for a head.
                unsafe {
                    let head = $heads;
                    for i in 0..Head::<Self>::LEN {
                        heads.add(i).write(head[i]);
                    }
                }
            }

            #[target_feature(enable = "avx2,fma,f16c")]
            #[inline]
            unsafe fn halves($b: [*const u8; 2], _g: usize, _pair: *const u8) -> [__m256i; 2] {
                // SAFETY: the caller vouches for AVX2 and for the blocks.
                unsafe { $halves }
            }
        }
    };
}

legacy!(Q4_0, 18, Nibble, offset: true, |p| with_factor(f16x8(p, 0), -8.0), |b| nibbles(load2(b, 2)));
legacy!(Q4_1, 20, Nibble, offset: true, |p| f16x8_pairs(p, 0), |b| nibbles(load2(b, 4)));
legacy!(Q5_0, 22, FiveBits, offset: true, |p| with_factor(f16x8(p, 0), -16.0), |b| {
    with_fifth_bits(nibbles(load2(b, 6)), load2(b, 2))
});
legacy!(Q5_1, 24, FiveBits, offset: true, |p| f16x8_pairs(p, 0), |b| {
    with_fifth_bits(nibbles(load2(b, 8)), load2(b, 4))
});
legacy!(Q8_0, 34, Signed, offset: false, |p| [f16x8(p, 0)], |b| [load2(b, 2), load2(b, 18)]);

/// Scales, and offsets of `factor * scale`.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn with_factor(scale: __m256, factor: f32) -> [__m256; 2] {
    [scale, _mm256_mul_ps(scale, _mm256_set1_ps(factor))]
}

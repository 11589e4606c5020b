//! The formats of 32-element blocks. A group is eight blocks; the last group of a row may have fewer.

use std::arch::x86_64::*;

use super::group::{Group, Head};

/// The f16 at the start of `n` blocks of `bytes` bytes, 0 beyond.
///
/// # Safety
/// AVX2 and F16C; `n` blocks can be read at `p`; `n` is at most 8.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
unsafe fn f16x8(p: *const u8, bytes: usize, n: usize) -> __m256 {
    // SAFETY: the caller vouches for the instruction set and for `n` blocks; only the first two bytes of each are read.
    unsafe {
        let at = |i: usize| p.add(i * bytes).cast::<u16>().read_unaligned();
        let half = if n == 8 {
            _mm_setr_epi16(
                at(0) as i16,
                at(1) as i16,
                at(2) as i16,
                at(3) as i16,
                at(4) as i16,
                at(5) as i16,
                at(6) as i16,
                at(7) as i16,
            )
        } else {
            let pack =
                |from: usize| (from..n.min(from + 4)).fold(0u64, |v, i| v | u64::from(at(i)) << (16 * (i - from)));
            _mm_set_epi64x(pack(4) as i64, pack(0) as i64)
        };
        _mm256_cvtph_ps(half)
    }
}

/// The two f16 at the start of `n` blocks of `bytes` bytes: all first ones and all second ones, 0 beyond.
///
/// # Safety
/// AVX2 and F16C; `n` blocks can be read at `p`; `n` is at most 8.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
unsafe fn f16x8_pairs(p: *const u8, bytes: usize, n: usize) -> [__m256; 2] {
    // SAFETY: the caller vouches for the instruction set and for `n` blocks; only the first four bytes of each are read.
    unsafe {
        let at = |i: usize| p.add(i * bytes).cast::<i32>().read_unaligned();
        let (low, high) = if n == 8 {
            (_mm_setr_epi32(at(0), at(1), at(2), at(3)), _mm_setr_epi32(at(4), at(5), at(6), at(7)))
        } else {
            let some = |i: usize| if i < n { at(i) } else { 0 };
            (_mm_setr_epi32(some(0), some(1), some(2), some(3)), _mm_setr_epi32(some(4), some(5), some(6), some(7)))
        };
        // First f16 of each pair to the low 64 bits, second to the high.
        let split = _mm_setr_epi8(0, 1, 4, 5, 8, 9, 12, 13, 2, 3, 6, 7, 10, 11, 14, 15);
        let (low, high) = (_mm_shuffle_epi8(low, split), _mm_shuffle_epi8(high, split));
        [_mm256_cvtph_ps(_mm_unpacklo_epi64(low, high)), _mm256_cvtph_ps(_mm_unpackhi_epi64(low, high))]
    }
}

/// 16 bytes of low and high nibbles to 32 bytes: low ones first.
///
/// # Safety
/// AVX2; 16 bytes can be read.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
unsafe fn nibbles(p: *const u8) -> __m256i {
    // SAFETY: the caller vouches for both.
    unsafe {
        let both = _mm256_broadcastsi128_si256(_mm_loadu_si128(p.cast()));
        _mm256_and_si256(_mm256_srlv_epi64(both, _mm256_setr_epi64x(0, 0, 4, 4)), _mm256_set1_epi8(15))
    }
}

/// Bit `i` of a 32-bit word to bit 4 of byte `i`.
///
/// # Safety
/// AVX2; four bytes can be read.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
unsafe fn fifth_bits(p: *const u8) -> __m256i {
    // SAFETY: the caller vouches for both.
    unsafe {
        let word = _mm256_set1_epi32(p.cast::<i32>().read_unaligned());
        #[rustfmt::skip]
        let byte = _mm256_setr_epi8(
            0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 3, 3, 3, 3, 3, 3, 3, 3,
        );
        let bit = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64 as i64);
        let set = _mm256_cmpeq_epi8(_mm256_and_si256(_mm256_shuffle_epi8(word, byte), bit), bit);
        _mm256_and_si256(set, _mm256_set1_epi8(16))
    }
}

/// A head with offsets of `factor * scale`.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn head_with_factor(scale: __m256, factor: f32) -> Head {
    let offset = _mm256_mul_ps(scale, _mm256_set1_ps(factor));
    Head { scale, offset: [offset, _mm256_setzero_ps()], mult: _mm256_setzero_si256() }
}

macro_rules! legacy {
    ($name:ident, $bytes:literal, [$($const:tt)*], |$p:ident, $n:ident| $head:expr, |$q:ident| $quants:expr) => {
        #[doc = concat!("See the format's definition, `format::", stringify!($name), "`.")]
        pub(crate) struct $name;
        // SAFETY: reads `BYTES` bytes of each of the blocks that the caller vouches for, and nothing else.
        unsafe impl Group for $name {
            const BYTES: usize = $bytes;
            const BLOCK_RUNS: usize = 1;
            $($const)*
            #[target_feature(enable = "avx2,fma,f16c")]
            #[inline]
            unsafe fn head($p: *const u8, $n: usize) -> Head {
                // SAFETY: the caller vouches for AVX2, F16C and `n` blocks.
                unsafe { $head }
            }
            #[target_feature(enable = "avx2,fma,f16c")]
            #[inline]
            unsafe fn quants(p: *const u8, g: usize) -> __m256i {
                // SAFETY: the caller vouches for AVX2 and for block `g`.
                unsafe {
                    let $q = p.add(g * $bytes);
                    $quants
                }
            }
        }
    };
}

legacy!(Q4_0, 18, [], |p, n| head_with_factor(f16x8(p, 18, n), -8.0), |b| nibbles(b.add(2)));
legacy!(Q4_1, 20, [], |p, n| head_with_offset(f16x8_pairs(p, 20, n)), |b| nibbles(b.add(4)));
legacy!(Q5_0, 22, [], |p, n| head_with_factor(f16x8(p, 22, n), -16.0), |b| {
    _mm256_or_si256(nibbles(b.add(6)), fifth_bits(b.add(2)))
});
legacy!(Q5_1, 24, [], |p, n| head_with_offset(f16x8_pairs(p, 24, n)), |b| {
    _mm256_or_si256(nibbles(b.add(8)), fifth_bits(b.add(4)))
});
legacy!(
    Q8_0,
    34,
    [
        const SIGNED: bool = true;
        const OFFSET: bool = false;
    ],
    |p, n| head_with_factor(f16x8(p, 34, n), 0.0),
    |b| _mm256_loadu_si256(b.add(2).cast())
);

#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn head_with_offset([scale, offset]: [__m256; 2]) -> Head {
    Head { scale, offset: [offset, _mm256_setzero_ps()], mult: _mm256_setzero_si256() }
}

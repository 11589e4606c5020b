//! The formats of 256-element blocks: a group is one block.

use std::arch::x86_64::*;

use super::group::{Group, Head, RUNS, f16_at, halves, scaled16};

/// # Safety
/// AVX2; 32 bytes can be read.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
unsafe fn load(p: *const u8) -> __m256i {
    // SAFETY: the caller vouches for both.
    unsafe { _mm256_loadu_si256(p.cast()) }
}

/// Bits `shift..shift + width` of each byte, moved down to bit `to`.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn bits(v: __m256i, shift: usize, width: usize, to: usize) -> __m256i {
    let mask = _mm256_set1_epi8((((1u32 << width) - 1) << to) as u8 as i8);
    // Shifting 16-bit lanes drags neighbours' bits in, which the mask removes.
    let moved = if shift >= to {
        _mm256_srl_epi16(v, _mm_cvtsi32_si128((shift - to) as i32))
    } else {
        _mm256_sll_epi16(v, _mm_cvtsi32_si128((to - shift) as i32))
    };
    _mm256_and_si256(moved, mask)
}

/// The head of Q4_K and Q5_K: f16 d, f16 dmin, 12 bytes with 8 scales and 8 minimums of 6 bits.
///
/// # Safety
/// AVX2 and F16C; 16 bytes can be read.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
unsafe fn scales_and_mins(p: *const u8) -> Head {
    // SAFETY: the caller vouches for both.
    unsafe {
        let word = |i: usize| p.add(4 + i * 4).cast::<u32>().read_unaligned();
        let (a, b, c) = (word(0), word(1), word(2));
        let high2 = |v: u32| (v >> 2) & 0x3030_3030; // bits 6-7 of each byte to bits 4-5
        let scales = u64::from(a & 0x3f3f_3f3f) | u64::from(c & 0x0f0f_0f0f | high2(a)) << 32;
        let mins = u64::from(b & 0x3f3f_3f3f) | u64::from((c >> 4) & 0x0f0f_0f0f | high2(b)) << 32;
        let floats = |v: u64| _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(_mm_cvtsi64_si128(v as i64)));
        let scale = _mm256_mul_ps(_mm256_set1_ps(f16_at(p)), floats(scales));
        let offset = _mm256_mul_ps(_mm256_set1_ps(-f16_at(p.add(2))), floats(mins));
        Head { scale, offset: [offset, _mm256_setzero_ps()], mult: _mm256_setzero_si256() }
    }
}

/// A head for 16 integer scales, a common factor and the offsets.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn head16(d: f32, scales: __m128i, offset: [__m256; 2]) -> Head {
    Head { scale: _mm256_set1_ps(d), offset, mult: halves(scales) }
}

macro_rules! kquant {
    ($name:ident, $bytes:literal, sub16: $sub16:literal, |$p:ident| $head:expr, |$q:ident, $g:ident| $quants:expr) => {
        #[allow(non_camel_case_types, reason = "the format's own name")]
        #[doc = concat!("See the format's definition, `format::", stringify!($name), "`.")]
        pub(crate) struct $name;
        // SAFETY: reads only within the `BYTES` bytes of the block that the caller vouches for.
        unsafe impl Group for $name {
            const BYTES: usize = $bytes;
            const BLOCK_RUNS: usize = RUNS;
            const SUB16: bool = $sub16;
            #[target_feature(enable = "avx2,fma,f16c")]
            #[inline]
            unsafe fn head($p: *const u8, _n: usize) -> Head {
                // SAFETY: the caller vouches for AVX2, F16C and the block.
                unsafe { $head }
            }
            #[target_feature(enable = "avx2,fma,f16c")]
            #[inline]
            unsafe fn quants($q: *const u8, $g: usize) -> __m256i {
                // SAFETY: the caller vouches for AVX2 and the block; `g` is below 8.
                unsafe { $quants }
            }
        }
    };
}

kquant!(
    Q2_K,
    84,
    sub16: true,
    |p| {
        let both = _mm_loadu_si128(p.cast());
        let low = _mm_set1_epi8(15);
        let (scales, mins) = (_mm_and_si128(both, low), _mm_and_si128(_mm_srli_epi16::<4>(both), low));
        head16(f16_at(p.add(80)), scales, scaled16(mins, -f16_at(p.add(82))))
    },
    |p, g| bits(load(p.add(16 + g / 4 * 32)), g % 4 * 2, 2, 0)
);

kquant!(
    Q3_K,
    110,
    sub16: true,
    |p| {
        let word = |i: usize| p.add(96 + i * 4).cast::<u32>().read_unaligned();
        let (a, b, c) = (word(0), word(1), word(2));
        let low = |v: u32| v & 0x0f0f_0f0f;
        let high = |v: u32| (v & 0x0303_0303) << 4;
        let first = u64::from(low(a) | high(c)) | u64::from(low(b) | high(c >> 2)) << 32;
        let second = u64::from(low(a >> 4) | high(c >> 4)) | u64::from(low(b >> 4) | high(c >> 6)) << 32;
        let scales = _mm_sub_epi8(_mm_set_epi64x(second as i64, first as i64), _mm_set1_epi8(32));
        let d = f16_at(p.add(108));
        head16(d, scales, scaled16(scales, -4.0 * d))
    },
    |p, g| _mm256_or_si256(bits(load(p.add(32 + g / 4 * 32)), g % 4 * 2, 2, 0), bits(load(p), g, 1, 2))
);

kquant!(
    Q4_K,
    144,
    sub16: false,
    |p| scales_and_mins(p),
    |p, g| bits(load(p.add(16 + g / 2 * 32)), g % 2 * 4, 4, 0)
);

kquant!(
    Q5_K,
    176,
    sub16: false,
    |p| scales_and_mins(p),
    |p, g| _mm256_or_si256(bits(load(p.add(48 + g / 2 * 32)), g % 2 * 4, 4, 0), bits(load(p.add(16)), g, 1, 4))
);

kquant!(
    Q6_K,
    210,
    sub16: true,
    |p| {
        let (d, scales) = (f16_at(p.add(208)), _mm_loadu_si128(p.add(192).cast()));
        head16(d, scales, scaled16(scales, -32.0 * d))
    },
    |p, g| {
        let low = bits(load(p.add(g / 4 * 64 + g % 2 * 32)), g % 4 / 2 * 4, 4, 0);
        _mm256_or_si256(low, bits(load(p.add(128 + g / 4 * 32)), g % 4 * 2, 2, 4))
    }
);

//! Eight runs of 32 weights: the unit in which the AVX2 kernels read every quantised format.

use std::arch::x86_64::*;

/// Runs in a group.
pub(super) const RUNS: usize = 8;
/// Elements in a run.
pub(super) const RUN: usize = 32;

/// The scales of a group.
#[derive(Clone, Copy)]
pub(super) struct Head {
    /// f32 scale of each run.
    pub scale: __m256,
    /// What multiplies the sum of the activations: of each run (the first vector; the second is unused) or, in formats of 16-element
    /// sub-blocks, of each 16 elements (16 values in order).
    pub offset: [__m256; 2],
    /// Formats of 16-element sub-blocks: the integer scales as i16, those of the first halves of the runs in the low 128 bits, those
    /// of the second halves in the high. Others: unused.
    pub mult: __m256i,
}

impl Head {
    // SAFETY: all bits of these vectors may be zero.
    pub const ZERO: Head = unsafe { std::mem::zeroed() };
}

/// How to read a format group by group.
///
/// # Safety
/// For all functions: the CPU has AVX2, FMA and F16C, and `p` points at the first of the `n` runs of a group (`n` is 8 for
/// formats of 256-element blocks), all of whose bytes may be read. Nothing beyond them is read.
pub(super) unsafe trait Group {
    /// Bytes of one block.
    const BYTES: usize;
    /// Runs in one block: 1 or 8.
    const BLOCK_RUNS: usize;
    /// Weights are i8; else they are unsigned and below 64.
    const SIGNED: bool = false;
    /// Sub-blocks have 16 elements and an integer scale each.
    const SUB16: bool = false;
    /// [`Head::offset`] is used.
    const OFFSET: bool = true;

    /// The scales of `n` runs; those beyond are zero.
    unsafe fn head(p: *const u8, n: usize) -> Head;

    /// The 32 weights of run `g`, a byte each, in order.
    unsafe fn quants(p: *const u8, g: usize) -> __m256i;
}

/// A factor for `madd` in run `g`: ones, or the two integer scales of its halves.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
pub(super) fn multiplier<G: Group>(head: &Head, g: usize) -> __m256i {
    if G::SUB16 {
        // Element g of each 128-bit half, eight times.
        let pick = _mm256_set1_epi16((2 * g + ((2 * g + 1) << 8)) as i16);
        _mm256_shuffle_epi8(head.mult, pick)
    } else {
        _mm256_set1_epi16(1)
    }
}

/// The integer scales of 16 sub-blocks, as [`Head::mult`] wants them.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
pub(super) fn halves(scales: __m128i) -> __m256i {
    let even_odd = _mm_setr_epi8(0, 2, 4, 6, 8, 10, 12, 14, 1, 3, 5, 7, 9, 11, 13, 15);
    _mm256_cvtepi8_epi16(_mm_shuffle_epi8(scales, even_odd))
}

/// 16 i8 times `factor`, in order.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
pub(super) fn scaled16(ints: __m128i, factor: f32) -> [__m256; 2] {
    let factor = _mm256_set1_ps(factor);
    let low = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(ints));
    let high = _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_unpackhi_epi64(ints, ints)));
    [_mm256_mul_ps(low, factor), _mm256_mul_ps(high, factor)]
}

/// The f16 at `p`.
///
/// # Safety
/// F16C; two bytes can be read.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
pub(super) unsafe fn f16_at(p: *const u8) -> f32 {
    // SAFETY: the caller vouches for the instruction set and the two bytes.
    unsafe { _mm_cvtss_f32(_mm_cvtph_ps(_mm_cvtsi32_si128(i32::from(p.cast::<u16>().read_unaligned())))) }
}

/// The value of the sub-blocks of 16: scale and offset of each, for exact arithmetic.
///
/// # Safety
/// AVX2.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
pub(super) unsafe fn sub_scales<G: Group>(head: &Head) -> ([f32; 16], [f32; 16]) {
    let (mut scale, mut offset) = ([0.0f32; 16], [0.0f32; 16]);
    let (mut scale8, mut offset8, mut mult) = ([0.0f32; 8], [0.0f32; 8], [0i16; 16]);
    // SAFETY: the caller vouches for AVX2; each array is as large as what is stored.
    unsafe {
        _mm256_storeu_ps(scale8.as_mut_ptr(), head.scale);
        _mm256_storeu_ps(offset8.as_mut_ptr(), head.offset[0]);
        _mm256_storeu_si256(mult.as_mut_ptr().cast(), head.mult);
        _mm256_storeu_ps(offset.as_mut_ptr(), head.offset[0]);
        _mm256_storeu_ps(offset.as_mut_ptr().add(8), head.offset[1]);
    }
    for j in 0..16 {
        scale[j] = scale8[j / 2];
        if G::SUB16 {
            scale[j] *= f32::from(mult[j / 2 + j % 2 * 8]);
        } else {
            offset[j] = offset8[j / 2];
        }
    }
    (scale, offset)
}

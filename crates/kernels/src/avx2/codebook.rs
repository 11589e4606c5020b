//! The formats of 4-bit integers that are places in a list of 16 values: `pshufb` looks all of them
//! up at once, and what it gives are signed bytes.

use std::arch::x86_64::*;

use super::rows::{Blocks8, Format8, Width, f16x8, load2, transpose_bytes};
use crate::format::{E2M1, IQ4};

/// 16 bytes of nibbles of two rows to the values that they name: the low ones, the high ones.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn look_up(values: &[i8; 16], both: __m256i) -> [__m256i; 2] {
    // SAFETY: 16 bytes.
    let values = unsafe { _mm256_broadcastsi128_si256(_mm_loadu_si128(values.as_ptr().cast())) };
    let mask = _mm256_set1_epi8(15);
    let places = [_mm256_and_si256(both, mask), _mm256_and_si256(_mm256_srli_epi16::<4>(both), mask)];
    [_mm256_shuffle_epi8(values, places[0]), _mm256_shuffle_epi8(values, places[1])]
}

/// What makes every value of [`E2M1`] at least 0: integers below 32 take fewer steps than signed
/// ones, eight products to a 16-bit sum.
const LEAST: i32 = 12;
/// The values of [`E2M1`] and that.
const E2M1_UP: [i8; 16] = {
    let (mut up, mut i) = (E2M1, 0);
    while i < up.len() {
        up[i] += LEAST as i8;
        i += 1;
    }
    up
};

/// The powers of two of eight blocks' first bytes, as the format halves them.
///
/// # Safety
/// A byte can be read at each.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
unsafe fn half_e8m0(p: Blocks8) -> __m256 {
    // In a register of the processor: eight stores would have to be over before one wide load.
    let mut bytes = 0u64;
    for (i, p) in p.iter().enumerate() {
        // SAFETY: the caller vouches for the byte.
        bytes |= u64::from(unsafe { p.read() }) << (8 * i);
    }
    let e = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(bytes.cast_signed()));
    let normal = _mm256_slli_epi32::<23>(_mm256_sub_epi32(e, _mm256_set1_epi32(1)));
    let subnormal = _mm256_sllv_epi32(_mm256_set1_epi32(0x0020_0000), e);
    let is_normal = _mm256_cmpgt_epi32(e, _mm256_set1_epi32(1));
    _mm256_castsi256_ps(_mm256_blendv_epi8(subnormal, normal, is_normal))
}

macro_rules! codebook {
    (
        $name:ident, $bytes:literal, $runs:literal, $width:ident, $centre:expr,
        |$p:ident, $heads:ident| $head:expr, |$b:ident, $g:ident| $halves:expr
    ) => {
        #[allow(non_camel_case_types, reason = "the format's own name")]
        #[doc = concat!("See the format's definition, `format::", stringify!($name), "`.")]
        pub(crate) struct $name;
        // SAFETY: reads only within the `BYTES` bytes of the blocks that the caller vouches for.
        unsafe impl Format8 for $name {
            const BYTES: usize = $bytes;
            const BLOCK_RUNS: usize = $runs;
            const WIDTH: Width = Width::$width;
            const OFFSET: bool = $centre != 0;
            const CENTRE: i32 = $centre;
            #[target_feature(enable = "avx2,fma,f16c")]
            #[inline]
            unsafe fn heads($p: Blocks8, $heads: *mut __m256) {
                // SAFETY: the caller vouches for AVX2, F16C, the blocks and room for the heads.
                unsafe { $head }
            }
            #[target_feature(enable = "avx2,fma,f16c")]
            #[inline]
            unsafe fn halves($b: [*const u8; 2], $g: usize, _pair: *const u8) -> [__m256i; 2] {
                // SAFETY: the caller vouches for AVX2 and the blocks; `g` is a run of them.
                unsafe { $halves }
            }
        }
    };
}

codebook!(IQ4_NL, 18, 1, Signed, 0, |p, heads| heads.write(f16x8(p, 0)), |b, _g| look_up(&IQ4, load2(b, 2)));
codebook!(
    MXFP4,
    17,
    1,
    FiveBits,
    LEAST,
    |p, heads| {
        let d = half_e8m0(p);
        heads.write(d);
        heads.add(1).write(_mm256_mul_ps(d, _mm256_set1_ps(-LEAST as f32)));
    },
    |b, _g| look_up(&E2M1_UP, load2(b, 1))
);
codebook!(
    IQ4_XS,
    136,
    8,
    Signed,
    0,
    |p, heads| {
        let mut rows = [_mm256_setzero_si256(); 4];
        for (i, row) in rows.iter_mut().enumerate() {
            *row = scales(load2([p[i], p[i + 4]], 0));
        }
        let columns = transpose_bytes(rows);
        let d = f16x8(p, 0);
        for g in 0..8 {
            let scale = _mm256_cvtepi32_ps(byte_column(&columns, g));
            heads.add(g).write(_mm256_mul_ps(d, scale));
        }
    },
    |b, g| look_up(&IQ4, load2(b, 8 + g * 16))
);

/// The eight 6-bit scales less 32 of two rows, a byte each at the start of their halves, from the
/// first 16 bytes of their blocks.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn scales(v: __m256i) -> __m256i {
    let both = |v| _mm256_broadcastsi128_si256(v);
    // A word for each scale: first the lower four bits of four scales, or the upper two bits of
    // eight, then their own, moved to the word's top by a multiplication and down by a shift.
    let low = _mm256_shuffle_epi8(v, both(_mm_setr_epi8(4, 5, 4, 5, 4, 5, 4, 5, 6, 7, 6, 7, 6, 7, 6, 7)));
    let low = _mm256_mullo_epi16(low, both(_mm_setr_epi16(1 << 12, 1 << 8, 1 << 4, 1, 1 << 12, 1 << 8, 1 << 4, 1)));
    let high = _mm256_shuffle_epi8(v, both(_mm_setr_epi8(2, 3, 2, 3, 2, 3, 2, 3, 2, 3, 2, 3, 2, 3, 2, 3)));
    let up = both(_mm_setr_epi16(1 << 14, 1 << 12, 1 << 10, 1 << 8, 1 << 6, 1 << 4, 1 << 2, 1));
    let high = _mm256_slli_epi16::<4>(_mm256_srli_epi16::<14>(_mm256_mullo_epi16(high, up)));
    let scale = _mm256_or_si256(_mm256_srli_epi16::<12>(low), high);
    let scale = _mm256_sub_epi16(scale, _mm256_set1_epi16(32));
    _mm256_packs_epi16(scale, scale)
}

/// Signed byte `j` of each row, from what [`transpose_bytes`] gives.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn byte_column(columns: &[__m256i; 4], j: usize) -> __m256i {
    // Bytes 4 * (j % 4).. of each half belong to four rows: row r's to the top of dword r, zeros
    // below it.
    let rows = _mm_setr_epi32(0x0080_8080, 0x0180_8080, 0x0280_8080, 0x0380_8080);
    let pick = _mm256_add_epi8(_mm256_broadcastsi128_si256(rows), _mm256_set1_epi8((j % 4 * 4) as i8));
    _mm256_srai_epi32::<24>(_mm256_shuffle_epi8(columns[j / 4], pick))
}

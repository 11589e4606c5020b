//! The formats of 256-element blocks.

use std::arch::x86_64::*;

use super::rows::{Blocks8, Format8, Head, Width, f16x8_pairs, load2, transpose_bytes};

/// Bits `shift..shift + width` of each byte, moved to bit `to`.
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

/// [`bits`] of 32 bytes of two rows, in halves.
///
/// # Safety
/// AVX2; the bytes can be read.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
unsafe fn bits32(b: [*const u8; 2], at: usize, shift: usize, width: usize, to: usize) -> [__m256i; 2] {
    // SAFETY: the caller vouches for both.
    unsafe { [bits(load2(b, at), shift, width, to), bits(load2(b, at + 16), shift, width, to)] }
}

#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn or(a: [__m256i; 2], b: [__m256i; 2]) -> [__m256i; 2] {
    [_mm256_or_si256(a[0], b[0]), _mm256_or_si256(a[1], b[1])]
}

/// For rows `i` and `i + 4`: what `$each` makes of 16 bytes of both, and of all the transpose.
macro_rules! byte_columns {
    ($blocks:ident, $at:literal, |$v:ident| $each:expr) => {{
        let mut rows = [_mm256_setzero_si256(); 4];
        for (i, row) in rows.iter_mut().enumerate() {
            let $v = load2([$blocks[i], $blocks[i + 4]], $at);
            *row = $each;
        }
        transpose_bytes(rows)
    }};
}

/// Byte `j` of the sixteen, one a row, from what [`transpose_bytes`] gives: in each of the row's
/// bytes where `keep` is set, else 0.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn byte_column(columns: &[__m256i; 4], j: usize, keep: u32) -> __m256i {
    let rows = _mm256_broadcastsi128_si256(_mm_setr_epi32(0, 0x0101_0101, 0x0202_0202, 0x0303_0303));
    // An index with its top bit set gives zero.
    let pick = _mm256_add_epi8(rows, _mm256_set1_epi8((j % 4 * 4) as i8));
    let pick = _mm256_or_si256(pick, _mm256_set1_epi32(!keep as i32 & 0x8080_8080_u32 as i32));
    _mm256_shuffle_epi8(columns[j / 4], pick)
}

/// The heads of Q4_K and Q5_K: f16 d, f16 dmin, 12 bytes with 8 scales and 8 minimums of 6 bits.
///
/// # Safety
/// AVX2 and F16C; 16 bytes of each block can be read, and room for eight heads.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
unsafe fn scales_and_mins(blocks: Blocks8, heads: *mut __m256) {
    // SAFETY: the caller vouches for all of it.
    unsafe {
        // With a, b, c the three words of the twelve bytes:
        //   scales 0..4  a & 63    scales 4..8  c & 15 | (a >> 6) << 4
        //   mins 0..4    b & 63    mins 4..8    c >> 4 | (b >> 6) << 4
        let columns = byte_columns!(blocks, 0, |v| {
            let down = _mm256_broadcastsi128_si256(_mm_setr_epi32(0, 0, 0, 4));
            let low = _mm256_srlv_epi32(_mm256_shuffle_epi32::<0b11_10_11_01>(v), down); // a, c, b, c >> 4
            let low_mask = _mm_setr_epi32(0x3f3f_3f3f, 0x0f0f_0f0f, 0x3f3f_3f3f, 0x0f0f_0f0f);
            let high = _mm256_srli_epi32::<2>(_mm256_shuffle_epi32::<0b10_10_01_01>(v)); // a, a, b, b
            let high_mask = _mm_setr_epi32(0, 0x3030_3030, 0, 0x3030_3030);
            _mm256_or_si256(
                _mm256_and_si256(low, _mm256_broadcastsi128_si256(low_mask)),
                _mm256_and_si256(high, _mm256_broadcastsi128_si256(high_mask)),
            )
        });
        let [d, dmin] = f16x8_pairs(blocks, 0);
        let minus_dmin = _mm256_sub_ps(_mm256_setzero_ps(), dmin);
        for g in 0..8 {
            let scale = _mm256_cvtepi32_ps(byte_column(&columns, g, 0xff));
            let min = _mm256_cvtepi32_ps(byte_column(&columns, 8 + g, 0xff));
            heads.add(g * 2).write(_mm256_mul_ps(d, scale));
            heads.add(g * 2 + 1).write(_mm256_mul_ps(minus_dmin, min));
        }
    }
}

/// Heads of a common scale and, for each 16 elements, a signed integer scale (byte `j` of `scales`)
/// and an offset: `factor` times that scale or, where there are minimums, times those.
///
/// # Safety
/// AVX2; room for eight heads.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
unsafe fn sub_scaled<F: Format8>(
    d: __m256,
    scales: [__m256i; 4],
    factor: __m256,
    mins: Option<[__m256i; 4]>,
    heads: *mut __m256,
) {
    const { assert!(Head::<F>::LEN == 5) };
    // SAFETY: the caller vouches for AVX2 and for room.
    unsafe {
        for g in 0..8 {
            let head = heads.add(g * 5);
            head.write(d);
            for i in 0..2 {
                let j = g * 2 + i;
                let scale = _mm256_srai_epi16::<8>(byte_column(&scales, j, 0xff00_ff00)); // two equal i16 a row
                head.add(1 + i).write(_mm256_castsi256_ps(scale));
                let times = match &mins {
                    Some(mins) => byte_column(mins, j, 0xff),
                    None => _mm256_srai_epi32::<16>(scale),
                };
                head.add(3 + i).write(_mm256_mul_ps(factor, _mm256_cvtepi32_ps(times)));
            }
        }
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn times(v: __m256, factor: f32) -> __m256 {
    _mm256_mul_ps(v, _mm256_set1_ps(factor))
}

macro_rules! kquant {
    ($name:ident, $bytes:literal, $width:ident, |$p:ident, $heads:ident| $head:expr, |$b:ident, $g:ident| $halves:expr) => {
        #[allow(non_camel_case_types, reason = "the format's own name")]
        #[doc = concat!("See the format's definition, `format::", stringify!($name), "`.")]
        pub(crate) struct $name;
        // SAFETY: reads only within the `BYTES` bytes of the blocks that the caller vouches for.
        unsafe impl Format8 for $name {
            const BYTES: usize = $bytes;
            const BLOCK_RUNS: usize = 8;
            const WIDTH: Width = Width::$width;
            #[target_feature(enable = "avx2,fma,f16c")]
            #[inline]
            unsafe fn heads($p: Blocks8, $heads: *mut __m256) {
                // SAFETY: the caller vouches for AVX2, F16C, the blocks and room for eight heads.
                unsafe { $head }
            }
            #[target_feature(enable = "avx2,fma,f16c")]
            #[inline]
            unsafe fn halves($b: [*const u8; 2], $g: usize, _pair: *const u8) -> [__m256i; 2] {
                // SAFETY: the caller vouches for AVX2 and the blocks; `g` is below 8.
                unsafe { $halves }
            }
        }
    };
}

kquant!(
    Q2_K,
    84,
    SubScaled,
    |p, heads| {
        let low = _mm256_set1_epi8(15);
        let scales = byte_columns!(p, 0, |v| _mm256_and_si256(v, low));
        let mins = byte_columns!(p, 0, |v| _mm256_and_si256(_mm256_srli_epi16::<4>(v), low));
        let [d, dmin] = f16x8_pairs(p, 80);
        sub_scaled::<Q2_K>(d, scales, times(dmin, -1.0), Some(mins), heads);
    },
    |b, g| bits32(b, 16 + g / 4 * 32, g % 4 * 2, 2, 0)
);

kquant!(
    Q3_K,
    110,
    SubScaled,
    |p, heads| {
        // The twelve bytes of scales are the third to fourteenth of these sixteen, which end with
        // the block.
        let scales = byte_columns!(p, 94, |v| {
            let spread = |i: [u8; 4]| {
                let words = i.map(|i| i32::from(i) * 0x0101_0101 + 0x0302_0100);
                _mm256_broadcastsi128_si256(_mm_setr_epi32(words[0], words[1], words[2], words[3]))
            };
            let low = _mm256_shuffle_epi8(v, spread([2, 6, 2, 6]));
            let low = _mm256_srlv_epi64(low, _mm256_setr_epi64x(0, 4, 0, 4));
            let high = _mm256_shuffle_epi8(v, spread([10; 4]));
            let high = _mm256_srlv_epi32(high, _mm256_setr_epi32(0, 2, 4, 6, 0, 2, 4, 6));
            let high = _mm256_slli_epi16::<4>(_mm256_and_si256(high, _mm256_set1_epi8(3)));
            let scale = _mm256_or_si256(_mm256_and_si256(low, _mm256_set1_epi8(15)), high);
            _mm256_sub_epi8(scale, _mm256_set1_epi8(32))
        });
        let d = f16x8_end(p, 108);
        sub_scaled::<Q3_K>(d, scales, times(d, -4.0), None, heads);
    },
    |b, g| or(bits32(b, 32 + g / 4 * 32, g % 4 * 2, 2, 0), bits32(b, 0, g, 1, 2))
);

kquant!(Q4_K, 144, Nibble, |p, heads| scales_and_mins(p, heads), |b, g| bits32(b, 16 + g / 2 * 32, g % 2 * 4, 4, 0));

kquant!(Q5_K, 176, FiveBits, |p, heads| scales_and_mins(p, heads), |b, g| {
    or(bits32(b, 48 + g / 2 * 32, g % 2 * 4, 4, 0), bits32(b, 16, g, 1, 4))
});

kquant!(
    Q6_K,
    210,
    SubScaled,
    |p, heads| {
        let scales = byte_columns!(p, 192, |v| v);
        let d = f16x8_end(p, 208);
        sub_scaled::<Q6_K>(d, scales, times(d, -32.0), None, heads);
    },
    |b, g| {
        let low = bits32(b, g / 4 * 64 + g % 2 * 32, g % 4 / 2 * 4, 4, 0);
        or(low, bits32(b, 128 + g / 4 * 32, g % 4 * 2, 2, 4))
    }
);

/// The f16 of eight blocks, where the blocks end with the f16, at byte `at`.
///
/// # Safety
/// As [`f16x8_pairs`], with the two bytes before the f16 instead of those behind.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
unsafe fn f16x8_end(blocks: Blocks8, at: usize) -> __m256 {
    // SAFETY: the caller vouches for bytes at - 2..at + 2.
    unsafe { f16x8_pairs(blocks, at - 2)[1] }
}

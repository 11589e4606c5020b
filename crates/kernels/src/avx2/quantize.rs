//! Activations to `Q8`.

use std::arch::x86_64::*;

use crate::matrix::{ACT_BLOCK, ActLayout};
use crate::scalar::act_scale;

/// See [`crate::functions::Quantize`].
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn quantize(layout: ActLayout, x: &[f32], out: &mut [u8]) {
    assert!(x.len() == layout.k() && out.len() >= layout.col_bytes());
    let (ints, floats) = out.split_at_mut(layout.scales_at());
    let mut put = |at: usize, v: f32| floats[at - layout.scales_at()..][..4].copy_from_slice(&v.to_ne_bytes());
    for (b, (run, ints)) in x.as_chunks::<ACT_BLOCK>().0.iter().zip(ints.as_chunks_mut::<ACT_BLOCK>().0).enumerate() {
        let mut v = [_mm256_setzero_ps(); 4];
        for i in 0..4 {
            // SAFETY: `run` has four times eight f32.
            v[i] = unsafe { _mm256_loadu_ps(run.as_ptr().add(i * 8)) };
        }
        let (scale, inverse) = act_scale(max_magnitude(v));
        let mut sums = [0, 0];
        if inverse == 0.0 {
            *ints = [0; ACT_BLOCK];
        } else {
            let factor = _mm256_set1_ps(inverse);
            let mut q = [_mm256_setzero_si256(); 4];
            for i in 0..4 {
                q[i] = _mm256_cvtps_epi32(_mm256_mul_ps(v[i], factor));
            }
            let pairs = _mm256_packs_epi16(_mm256_packs_epi32(q[0], q[1]), _mm256_packs_epi32(q[2], q[3]));
            // Packing works within 128-bit halves: put the runs of four back in order.
            let q = _mm256_permutevar8x32_epi32(pairs, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
            let fours = _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_set1_epi8(1), q), _mm256_set1_epi16(1));
            sums = [sum4(_mm256_castsi256_si128(fours)), sum4(_mm256_extracti128_si256::<1>(fours))];
            // SAFETY: `ints` has 32 bytes.
            unsafe { _mm256_storeu_si256(ints.as_mut_ptr().cast(), q) };
        }
        put(layout.scales_at() + b * 4, scale);
        put(layout.sums32_at() + b * 4, scale * (sums[0] + sums[1]) as f32);
        put(layout.sums16_at() + b * 8, scale * sums[0] as f32);
        put(layout.sums16_at() + b * 8 + 4, scale * sums[1] as f32);
    }
}

/// The largest magnitude of 32 values; NaN counts as the largest.
#[target_feature(enable = "avx2")]
#[inline]
fn max_magnitude(v: [__m256; 4]) -> f32 {
    // The bits of magnitudes are ordered as the magnitudes are, with infinity and then NaN on top.
    let mut eight = _mm256_setzero_si256();
    for v in v {
        let magnitudes = _mm256_and_si256(_mm256_castps_si256(v), _mm256_set1_epi32(0x7fff_ffff));
        eight = _mm256_max_epu32(eight, magnitudes);
    }
    let four = _mm_max_epu32(_mm256_castsi256_si128(eight), _mm256_extracti128_si256::<1>(eight));
    let two = _mm_max_epu32(four, _mm_unpackhi_epi64(four, four));
    let one = _mm_max_epu32(two, _mm_shuffle_epi32::<1>(two));
    f32::from_bits(_mm_cvtsi128_si32(one) as u32)
}

#[target_feature(enable = "avx2")]
#[inline]
fn sum4(v: __m128i) -> i32 {
    let two = _mm_add_epi32(v, _mm_unpackhi_epi64(v, v));
    _mm_cvtsi128_si32(_mm_add_epi32(two, _mm_shuffle_epi32::<1>(two)))
}

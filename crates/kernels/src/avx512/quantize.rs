//! Activations to `Q8`.

use std::arch::x86_64::*;

use crate::matrix::{ACT_BLOCK, ActLayout};
use crate::scalar::act_scale;

/// See [`crate::table::Quantize`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi,gfni,fma,f16c")]
pub(super) unsafe fn quantize(layout: ActLayout, x: &[f32], out: &mut [u8]) {
    assert!(x.len() == layout.k() && out.len() >= layout.col_bytes());
    let (ints, floats) = out.split_at_mut(layout.scales_at());
    let mut put = |at: usize, v: f32| floats[at - layout.scales_at()..][..4].copy_from_slice(&v.to_ne_bytes());
    for (b, (run, ints)) in x.as_chunks::<ACT_BLOCK>().0.iter().zip(ints.as_chunks_mut::<ACT_BLOCK>().0).enumerate() {
        // SAFETY: `run` has twice 16 f32.
        let v = unsafe { [_mm512_loadu_ps(run.as_ptr()), _mm512_loadu_ps(run.as_ptr().add(16))] };
        // The bits of magnitudes are ordered as the magnitudes are, with infinity and then NaN on top.
        let magnitudes = [_mm512_castps_si512(_mm512_abs_ps(v[0])), _mm512_castps_si512(_mm512_abs_ps(v[1]))];
        let greatest = _mm512_reduce_max_epu32(_mm512_max_epu32(magnitudes[0], magnitudes[1]));
        let (scale, inverse) = act_scale(f32::from_bits(greatest));
        let mut sums = [0, 0];
        if inverse == 0.0 {
            *ints = [0; ACT_BLOCK];
        } else {
            for (half, (v, sum)) in v.into_iter().zip(&mut sums).enumerate() {
                let q = _mm512_cvtps_epi32(_mm512_mul_ps(v, _mm512_set1_ps(inverse)));
                *sum = _mm512_reduce_add_epi32(q);
                // SAFETY: each half of `ints` has 16 bytes.
                unsafe { _mm_storeu_si128(ints.as_mut_ptr().add(half * 16).cast(), _mm512_cvtepi32_epi8(q)) };
            }
        }
        put(layout.scales_at() + b * 4, scale);
        put(layout.sums32_at() + b * 4, scale * (sums[0] + sums[1]) as f32);
        put(layout.sums16_at() + b * 8, scale * sums[0] as f32);
        put(layout.sums16_at() + b * 8 + 4, scale * sums[1] as f32);
    }
}

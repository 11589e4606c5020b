//! Activations to `Q8`.

use std::arch::aarch64::*;

use crate::matrix::{ACT_BLOCK, ActLayout};
use crate::scalar::act_scale;

/// See [`crate::functions::Quantize`].
#[target_feature(enable = "neon")]
pub(super) unsafe fn quantize(layout: ActLayout, x: &[f32], out: &mut [u8]) {
    assert!(x.len() == layout.k() && out.len() >= layout.col_bytes());
    let (ints, floats) = out.split_at_mut(layout.scales_at());
    let mut put = |at: usize, v: f32| floats[at - layout.scales_at()..][..4].copy_from_slice(&v.to_ne_bytes());
    for (b, (run, ints)) in x.as_chunks::<ACT_BLOCK>().0.iter().zip(ints.as_chunks_mut::<ACT_BLOCK>().0).enumerate() {
        let mut v = [vdupq_n_f32(0.0); 8];
        for i in 0..8 {
            // SAFETY: `run` has eight times four f32.
            v[i] = unsafe { vld1q_f32(run.as_ptr().add(i * 4)) };
        }
        let (scale, inverse) = act_scale(max_magnitude(v));
        let mut sums = [0, 0];
        if inverse == 0.0 {
            *ints = [0; ACT_BLOCK];
        } else {
            for half in 0..2 {
                // Rounded to nearest even.
                let int = |i: usize| vqmovn_s32(vcvtnq_s32_f32(vmulq_n_f32(v[half * 4 + i], inverse)));
                let low = vqmovn_s16(vcombine_s16(int(0), int(1)));
                let q = vcombine_s8(low, vqmovn_s16(vcombine_s16(int(2), int(3))));
                sums[half] = i32::from(vaddlvq_s8(q));
                // SAFETY: `ints` has twice 16 bytes.
                unsafe { vst1q_s8(ints.as_mut_ptr().add(half * 16).cast(), q) };
            }
        }
        put(layout.scales_at() + b * 4, scale);
        put(layout.sums32_at() + b * 4, scale * (sums[0] + sums[1]) as f32);
        put(layout.sums16_at() + b * 8, scale * sums[0] as f32);
        put(layout.sums16_at() + b * 8 + 4, scale * sums[1] as f32);
    }
}

/// The largest magnitude of 32 values; NaN counts as the largest.
#[target_feature(enable = "neon")]
#[inline]
fn max_magnitude(v: [float32x4_t; 8]) -> f32 {
    // The bits of magnitudes are ordered as the magnitudes are, with infinity and then NaN on top.
    let mut four = vdupq_n_u32(0);
    for v in v {
        four = vmaxq_u32(four, vreinterpretq_u32_f32(vabsq_f32(v)));
    }
    f32::from_bits(vmaxvq_u32(four))
}

//! Activations to `Q8`.

use std::arch::x86_64::*;

use super::rows::{lane_sums, transpose_lanes};
use crate::matrix::{ACT_BLOCK, ActLayout};
use crate::scalar::{MIN_AMAX, act_scale};

/// Runs whose scales fill a register.
const GROUP: usize = 16;

/// See [`crate::functions::Quantize`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi,gfni,fma,f16c")]
pub(super) unsafe fn quantize(layout: ActLayout, x: &[f32], out: &mut [u8]) {
    assert!(x.len() == layout.k() && out.len() >= layout.col_bytes());
    let runs = x.as_chunks::<ACT_BLOCK>().0;
    let (groups, rest) = runs.as_chunks::<GROUP>();
    for (g, runs) in groups.iter().enumerate() {
        // SAFETY: runs g * 16.. exist, sixteen of them: `x` has `k / 32`, and `out` a column's room
        // for as many.
        unsafe { group(layout, runs, g * GROUP, out.as_mut_ptr()) };
    }
    for (run, b) in rest.iter().zip(groups.len() * GROUP..) {
        one(layout, run, b, out);
    }
}

/// Sixteen runs: their magnitudes, scales and sums are found side by side.
///
/// # Safety
/// The CPU has the features; `out` is a column of `layout` that has runs `first..first + 16`.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi,gfni,fma,f16c")]
#[inline]
unsafe fn group(layout: ActLayout, runs: &[[f32; ACT_BLOCK]; GROUP], first: usize, out: *mut u8) {
    // SAFETY: a run is twice 16 f32; the caller vouches for the column.
    unsafe {
        let mut greatest = [_mm512_setzero_si512(); GROUP];
        for r in 0..GROUP {
            let at = runs[r].as_ptr();
            let halves = [_mm512_abs_ps(_mm512_loadu_ps(at)), _mm512_abs_ps(_mm512_loadu_ps(at.add(16)))];
            // The bits of magnitudes are ordered as the magnitudes are, with infinity and then NaN
            // on top.
            greatest[r] = _mm512_max_epu32(_mm512_castps_si512(halves[0]), _mm512_castps_si512(halves[1]));
        }
        // As `act_scale` has it, lane by lane.
        let amax = _mm512_castsi512_ps(greatest_of_each(greatest));
        let is_finite = _mm512_cmp_ps_mask::<_CMP_LT_OQ>(amax, _mm512_set1_ps(f32::INFINITY));
        let counts = _mm512_cmp_ps_mask::<_CMP_NLT_UQ>(amax, _mm512_set1_ps(MIN_AMAX)) & is_finite;
        let full = _mm512_set1_ps(127.0);
        let scale = _mm512_maskz_div_ps(counts, amax, full);
        let scale = _mm512_mask_mov_ps(_mm512_set1_ps(f32::NAN), is_finite, scale);
        let mut inverse = [0.0f32; GROUP];
        _mm512_storeu_ps(inverse.as_mut_ptr(), _mm512_maskz_div_ps(counts, full, amax));

        // Turns dwords 0, 4, 8, 12 into a lane, and so on: packing and adding up both work within
        // lanes.
        let order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15);
        // In each dword the sum of a half of a run: of the first eight runs, then of the others.
        let mut halves = [_mm512_setzero_si512(); 2];
        for eight in 0..2 {
            let mut fours = [_mm512_setzero_si512(); 4];
            for pair in 0..4 {
                let r = eight * 8 + pair * 2;
                let mut q = [_mm512_setzero_si512(); 4];
                for i in 0..4 {
                    let x = _mm512_loadu_ps(runs[r + i / 2].as_ptr().add(i % 2 * 16));
                    let factor = _mm512_set1_ps(inverse[r + i / 2]);
                    // A run without a scale has infinities, which 0 would make NaN.
                    let counts = if counts >> (r + i / 2) & 1 == 1 { !0 } else { 0 };
                    q[i] = _mm512_cvtps_epi32(_mm512_maskz_mul_ps(counts, x, factor));
                }
                let pairs = _mm512_packs_epi16(_mm512_packs_epi32(q[0], q[1]), _mm512_packs_epi32(q[2], q[3]));
                let bytes = _mm512_permutexvar_epi32(order, pairs);
                _mm512_storeu_si512(out.add((first + r) * ACT_BLOCK).cast(), bytes);
                fours[pair] = _mm512_dpbusd_epi32(_mm512_setzero_si512(), _mm512_set1_epi8(1), bytes);
            }
            halves[eight] = _mm512_permutexvar_epi32(order, lane_sums(fours));
        }
        let put = |at: usize, v: __m512| _mm512_storeu_ps(out.add(at).cast(), v);
        put(layout.scales_at() + first * 4, scale);
        let even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
        let odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
        let sums = _mm512_add_epi32(
            _mm512_permutex2var_epi32(halves[0], even, halves[1]),
            _mm512_permutex2var_epi32(halves[0], odd, halves[1]),
        );
        put(layout.sums32_at() + first * 4, _mm512_mul_ps(scale, _mm512_cvtepi32_ps(sums)));
        let twice = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
        for eight in 0..2 {
            let runs = _mm512_add_epi32(twice, _mm512_set1_epi32(eight as i32 * 8));
            let sums = _mm512_mul_ps(_mm512_permutexvar_ps(runs, scale), _mm512_cvtepi32_ps(halves[eight]));
            put(layout.sums16_at() + (first + eight * 8) * 8, sums);
        }
    }
}

/// In lane `i`: the greatest lane of register `i`.
///
/// # Safety
/// AVX-512 F.
#[inline(always)]
unsafe fn greatest_of_each(v: [__m512i; GROUP]) -> __m512i {
    // SAFETY: the caller vouches for AVX-512.
    unsafe {
        // In lane `j`, dword `i` of register `g`: the greatest of lane `j` of register `4 * g + i`.
        let mut by_four = [_mm512_setzero_si512(); 4];
        for g in 0..4 {
            let v = [v[g * 4], v[g * 4 + 1], v[g * 4 + 2], v[g * 4 + 3]];
            let ab = _mm512_max_epu32(_mm512_unpacklo_epi32(v[0], v[1]), _mm512_unpackhi_epi32(v[0], v[1]));
            let cd = _mm512_max_epu32(_mm512_unpacklo_epi32(v[2], v[3]), _mm512_unpackhi_epi32(v[2], v[3]));
            by_four[g] = _mm512_max_epu32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
        }
        let [a, b, c, d] = transpose_lanes(by_four);
        _mm512_max_epu32(_mm512_max_epu32(a, b), _mm512_max_epu32(c, d))
    }
}

/// Run `b` of a column.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi,gfni,fma,f16c")]
#[inline]
fn one(layout: ActLayout, run: &[f32; ACT_BLOCK], b: usize, out: &mut [u8]) {
    let (ints, floats) = out.split_at_mut(layout.scales_at());
    let mut put = |at: usize, v: f32| floats[at - layout.scales_at()..][..4].copy_from_slice(&v.to_ne_bytes());
    let ints = &mut ints.as_chunks_mut::<ACT_BLOCK>().0[b];
    // SAFETY: `run` has twice 16 f32.
    let v = unsafe { [_mm512_loadu_ps(run.as_ptr()), _mm512_loadu_ps(run.as_ptr().add(16))] };
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

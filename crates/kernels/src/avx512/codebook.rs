//! The formats of 4-bit integers that are places in a list of 16 values, which a shuffle of bytes
//! looks up in every lane.

use std::arch::x86_64::*;

use super::kquants::{per_lane, row_scales};
use super::legacy::{HIGH, LOW, fields, gather, header, plain, sixteen};
use super::step::{Bytes, Format, ROWS, Scales, Words, bits, load, row_in_lane, signed_floats};
use crate::format::{E2M1, IQ4};

/// 16 bytes of nibbles in each lane to the values that they name: the low ones, the high ones.
///
/// # Safety
/// AVX-512 BW and GFNI.
#[inline(always)]
unsafe fn look_up(values: &[i8; 16], both: __m512i) -> [__m512i; 2] {
    // SAFETY: the caller vouches for the CPU; 16 bytes.
    unsafe {
        let values = _mm512_broadcast_i32x4(_mm_loadu_si128(values.as_ptr().cast()));
        [_mm512_shuffle_epi8(values, bits(both, &LOW)), _mm512_shuffle_epi8(values, bits(both, &HIGH))]
    }
}

/// Scales without offsets.
///
/// # Safety
/// AVX-512 F.
#[inline(always)]
unsafe fn only(scale: __m512) -> Scales {
    // SAFETY: the caller vouches for it.
    let zero = unsafe { _mm512_setzero_ps() };
    Scales { scale, sub: [zero; 2], offset: [zero; 2] }
}

/// See the format's definition, `format::IQ4_NL`.
#[allow(non_camel_case_types, reason = "the format's own name")]
pub(super) struct IQ4_NL;
// SAFETY: loads are within four blocks, masked to `n_bytes` in the tail.
unsafe impl Format for IQ4_NL {
    const BYTES: usize = 18;
    const BLOCK_RUNS: usize = 1;
    const SIGNED: bool = true;
    const OFFSETS: usize = 0;
    type Head = Scales;

    #[inline(always)]
    unsafe fn head<const TAIL: bool>(rows: [*const u8; ROWS], n_bytes: usize) -> Scales {
        static INDEX: Words = header(18, 8);
        // SAFETY: the caller vouches for the CPU and the bytes.
        unsafe { plain(fields::<TAIL>(rows, 18, 8, &INDEX, n_bytes)) }
    }

    #[inline(always)]
    unsafe fn scales(head: &Scales, _step: usize) -> Scales {
        *head
    }

    #[inline(always)]
    unsafe fn quants<const TAIL: bool>(row: *const u8, _step: usize, n_bytes: usize) -> [__m512i; 2] {
        static INDEX: Bytes = sixteen(18, 2, 8);
        // SAFETY: the caller vouches for the CPU and the bytes.
        unsafe { look_up(&IQ4, gather::<TAIL>(row, 8, &INDEX, n_bytes)) }
    }
}

/// See the format's definition, `format::MXFP4`.
pub(super) struct MXFP4;
// SAFETY: loads are within four blocks, masked to `n_bytes` in the tail.
unsafe impl Format for MXFP4 {
    const BYTES: usize = 17;
    const BLOCK_RUNS: usize = 1;
    const SIGNED: bool = true;
    const OFFSETS: usize = 0;
    type Head = Scales;

    #[inline(always)]
    unsafe fn head<const TAIL: bool>(rows: [*const u8; ROWS], n_bytes: usize) -> Scales {
        // The first byte of block `l / 4`, of whatever row, to dword `l`.
        static INDEX: Bytes = {
            let mut out = [0; 64];
            let mut l = 0;
            while l < 16 {
                out[l * 4] = (l / 4 * 17) as u8;
                l += 1;
            }
            Bytes(out)
        };
        // SAFETY: the caller vouches for the CPU and the bytes.
        unsafe {
            let mut e = _mm512_setzero_si512();
            for (i, row) in rows.into_iter().enumerate() {
                let own = 0x0001_0001_0001_0001u64 << (4 * i);
                e = _mm512_mask_permutexvar_epi8(e, own, INDEX.get(), load::<TAIL>(row, 0, n_bytes));
            }
            let normal = _mm512_slli_epi32::<23>(_mm512_sub_epi32(e, _mm512_set1_epi32(1)));
            let subnormal = _mm512_sllv_epi32(_mm512_set1_epi32(0x0020_0000), e);
            let is_normal = _mm512_cmpgt_epi32_mask(e, _mm512_set1_epi32(1));
            only(_mm512_castsi512_ps(_mm512_mask_blend_epi32(is_normal, subnormal, normal)))
        }
    }

    #[inline(always)]
    unsafe fn scales(head: &Scales, _step: usize) -> Scales {
        *head
    }

    #[inline(always)]
    unsafe fn quants<const TAIL: bool>(row: *const u8, _step: usize, n_bytes: usize) -> [__m512i; 2] {
        static INDEX: Bytes = sixteen(17, 1, 4);
        // SAFETY: the caller vouches for the CPU and the bytes.
        unsafe { look_up(&E2M1, gather::<TAIL>(row, 4, &INDEX, n_bytes)) }
    }
}

/// What belongs to the eight sub-blocks of four rows of IQ4_XS.
#[derive(Clone, Copy)]
pub(super) struct Eighths {
    d: __m512,
    /// Signed integer scales: row `i`'s lane begins with a byte for each sub-block.
    scales: __m512i,
}

/// The index of [`signed_floats`] for four neighbouring bytes of each row's lane.
const fn signed_run_bytes(at: usize) -> Bytes {
    let mut out = [0; 64];
    let mut l = 0;
    while l < 16 {
        out[l * 4 + 3] = (16 * (l % 4) + at + l / 4) as u8;
        l += 1;
    }
    Bytes(out)
}

/// See the format's definition, `format::IQ4_XS`.
#[allow(non_camel_case_types, reason = "the format's own name")]
pub(super) struct IQ4_XS;
// SAFETY: loads are within the block's 136 bytes.
unsafe impl Format for IQ4_XS {
    const BYTES: usize = 136;
    const BLOCK_RUNS: usize = 8;
    const SIGNED: bool = true;
    const OFFSETS: usize = 0;
    type Head = Eighths;

    #[inline(always)]
    unsafe fn head<const TAIL: bool>(rows: [*const u8; ROWS], _n_bytes: usize) -> Eighths {
        static LOW_WORDS: Bytes = per_lane([4, 5, 4, 5, 4, 5, 4, 5, 6, 7, 6, 7, 6, 7, 6, 7]);
        static HIGH_WORDS: Bytes = per_lane([2, 3, 2, 3, 2, 3, 2, 3, 2, 3, 2, 3, 2, 3, 2, 3]);
        // SAFETY: the caller vouches for the CPU and the block.
        unsafe {
            // A word for each scale: first the lower four bits of four scales, or the upper two
            // bits of eight, then their own.
            let v = row_in_lane(rows);
            let places = _mm512_broadcast_i32x4(_mm_setr_epi16(0, 4, 8, 12, 0, 4, 8, 12));
            let low = _mm512_srlv_epi16(_mm512_shuffle_epi8(v, LOW_WORDS.get()), places);
            let places = _mm512_broadcast_i32x4(_mm_setr_epi16(0, 2, 4, 6, 8, 10, 12, 14));
            let high = _mm512_srlv_epi16(_mm512_shuffle_epi8(v, HIGH_WORDS.get()), places);
            let low = _mm512_and_si512(low, _mm512_set1_epi16(15));
            let high = _mm512_slli_epi16::<4>(_mm512_and_si512(high, _mm512_set1_epi16(3)));
            let scales = _mm512_sub_epi16(_mm512_or_si512(low, high), _mm512_set1_epi16(32));
            Eighths { d: row_scales(rows, 0), scales: _mm512_packs_epi16(scales, scales) }
        }
    }

    #[inline(always)]
    unsafe fn scales(head: &Eighths, step: usize) -> Scales {
        static INDEX: [Bytes; 2] = [signed_run_bytes(0), signed_run_bytes(4)];
        // SAFETY: the caller vouches for the CPU.
        unsafe { only(_mm512_mul_ps(head.d, signed_floats(head.scales, &INDEX[step]))) }
    }

    #[inline(always)]
    unsafe fn quants<const TAIL: bool>(row: *const u8, step: usize, _n_bytes: usize) -> [__m512i; 2] {
        // SAFETY: the caller vouches for the CPU and the block.
        unsafe { look_up(&IQ4, load::<false>(row, 8 + 64 * step, 0)) }
    }
}

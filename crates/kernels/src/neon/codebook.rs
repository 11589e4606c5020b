//! The formats of 4-bit integers that are places in a list of 16 values: `tbl` looks all of them up
//! at once, and what it gives are signed bytes.

use std::arch::aarch64::*;

use super::rows::{Blocks4, Format4, ROWS, f16x4, transpose_bytes, widen};
use crate::format::{E2M1, IQ4};

/// 16 bytes of nibbles to the values that they name: the low ones, the high ones.
///
/// # Safety
/// 16 bytes can be read.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn look_up(values: &[i8; 16], p: *const u8) -> [int8x16_t; 2] {
    // SAFETY: 16 values; the caller vouches for the bytes.
    let (values, both) = unsafe { (vld1q_s8(values.as_ptr()), vld1q_u8(p)) };
    [vqtbl1q_s8(values, vandq_u8(both, vdupq_n_u8(15))), vqtbl1q_s8(values, vshrq_n_u8::<4>(both))]
}

/// The powers of two of four blocks' first bytes, as the format halves them.
///
/// # Safety
/// A byte can be read at each.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn half_e8m0(p: Blocks4) -> float32x4_t {
    let mut e = [0i32; ROWS];
    for (e, p) in e.iter_mut().zip(p) {
        // SAFETY: the caller vouches for the byte.
        *e = i32::from(unsafe { p.read() });
    }
    // SAFETY: four integers.
    let e = unsafe { vld1q_s32(e.as_ptr()) };
    let one = vdupq_n_s32(1);
    let normal = vshlq_n_s32::<23>(vsubq_s32(e, one));
    let subnormal = vshlq_s32(vdupq_n_s32(0x0020_0000), vminq_s32(e, one));
    vreinterpretq_f32_s32(vbslq_s32(vcgtq_s32(e, one), normal, subnormal))
}

macro_rules! codebook {
    (
        $name:ident, $bytes:literal, $runs:literal,
        |$p:ident, $heads:ident| $head:expr, |$b:ident, $g:ident| $quants:expr
    ) => {
        #[allow(non_camel_case_types, reason = "the format's own name")]
        #[doc = concat!("See the format's definition, `format::", stringify!($name), "`.")]
        pub(crate) struct $name;
        // SAFETY: reads only within the `BYTES` bytes of the blocks that the caller vouches for.
        unsafe impl Format4 for $name {
            const BYTES: usize = $bytes;
            const BLOCK_RUNS: usize = $runs;
            const OFFSET: bool = false;
            #[target_feature(enable = "neon")]
            #[inline]
            unsafe fn heads($p: Blocks4, $heads: *mut float32x4_t) {
                // SAFETY: the caller vouches for the blocks and room for the heads.
                unsafe { $head }
            }
            #[target_feature(enable = "neon")]
            #[inline]
            unsafe fn quants($b: *const u8, $g: usize) -> [int8x16_t; 2] {
                // SAFETY: the caller vouches for the block; `g` is a run of it.
                unsafe { $quants }
            }
        }
    };
}

codebook!(IQ4_NL, 18, 1, |p, heads| heads.write(f16x4(p, 0)), |b, _g| look_up(&IQ4, b.add(2)));
codebook!(MXFP4, 17, 1, |p, heads| heads.write(half_e8m0(p)), |b, _g| look_up(&E2M1, b.add(1)));
codebook!(
    IQ4_XS,
    136,
    8,
    |p, heads| {
        let mut rows = [vdupq_n_s8(0); ROWS];
        for (row, p) in rows.iter_mut().zip(p) {
            *row = scales(p);
        }
        let columns = transpose_bytes(rows);
        let d = f16x4(p, 0);
        for four in 0..2 {
            for (j, scale) in widen(columns[four]).into_iter().enumerate() {
                heads.add(four * 4 + j).write(vmulq_f32(d, vcvtq_f32_s32(scale)));
            }
        }
    },
    |b, g| look_up(&IQ4, b.add(8 + g * 16))
);

/// The eight 6-bit scales less 32 of a block, in the lower half.
///
/// # Safety
/// The block's first eight bytes can be read.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn scales(block: *const u8) -> int8x16_t {
    // SAFETY: the caller vouches for the bytes.
    let (high, low) = unsafe { (block.add(2).cast::<u16>().read_unaligned(), vld1_u8(block)) };
    // Nibbles in turn: the lower four bits of all scales.
    let low = vext_u8::<4>(low, low);
    let low = vzip1_u8(vand_u8(low, vdup_n_u8(15)), vshr_n_u8::<4>(low));
    // A word for each scale's upper two bits, moved down.
    let down: [i16; 8] = [0, -2, -4, -6, -8, -10, -12, -14];
    // SAFETY: eight words.
    let high = vshlq_u16(vdupq_n_u16(high), unsafe { vld1q_s16(down.as_ptr()) });
    let high = vshl_n_u8::<4>(vand_u8(vmovn_u16(high), vdup_n_u8(3)));
    let scales = vsub_s8(vreinterpret_s8_u8(vorr_u8(low, high)), vdup_n_s8(32));
    vcombine_s8(scales, vdup_n_s8(0))
}

//! The formats of 256-element blocks.

use std::arch::aarch64::*;

use super::rows::{Blocks4, Format4, Head, ROWS, f16x4, transpose_bytes, widen};

/// # Safety
/// 32 bytes can be read.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn load(p: *const u8) -> [uint8x16_t; 2] {
    // SAFETY: the caller vouches for them.
    unsafe { [vld1q_u8(p), vld1q_u8(p.add(16))] }
}

/// Bits `shift..shift + width` of each byte, moved to bit `to`. `shift` and `to` are constants
/// wherever speed counts, so that one of the shifts remains.
#[target_feature(enable = "neon")]
#[inline]
fn bits([a, b]: [uint8x16_t; 2], shift: usize, width: usize, to: usize) -> [uint8x16_t; 2] {
    macro_rules! moved {
        ($v:expr) => {
            match shift as isize - to as isize {
                7 => vshrq_n_u8::<7>($v),
                6 => vshrq_n_u8::<6>($v),
                5 => vshrq_n_u8::<5>($v),
                4 => vshrq_n_u8::<4>($v),
                3 => vshrq_n_u8::<3>($v),
                2 => vshrq_n_u8::<2>($v),
                1 => vshrq_n_u8::<1>($v),
                -1 => vshlq_n_u8::<1>($v),
                -2 => vshlq_n_u8::<2>($v),
                -3 => vshlq_n_u8::<3>($v),
                -4 => vshlq_n_u8::<4>($v),
                _ => $v,
            }
        };
    }
    let mask = vdupq_n_u8((((1u32 << width) - 1) << to) as u8);
    [vandq_u8(moved!(a), mask), vandq_u8(moved!(b), mask)]
}

#[target_feature(enable = "neon")]
#[inline]
fn signed([a, b]: [uint8x16_t; 2]) -> [int8x16_t; 2] {
    [vreinterpretq_s8_u8(a), vreinterpretq_s8_u8(b)]
}

#[target_feature(enable = "neon")]
#[inline]
fn or([a, b]: [uint8x16_t; 2], [c, d]: [uint8x16_t; 2]) -> [int8x16_t; 2] {
    signed([vorrq_u8(a, c), vorrq_u8(b, d)])
}

/// For each row what `$each` makes of its block, and of all the transpose.
macro_rules! byte_columns {
    ($blocks:ident, |$p:ident| $each:expr) => {{
        let mut rows = [vdupq_n_s8(0); ROWS];
        for (row, $p) in rows.iter_mut().zip($blocks) {
            *row = $each;
        }
        transpose_bytes(rows)
    }};
}

/// The heads of Q4_K and Q5_K: f16 d, f16 dmin, 12 bytes with 8 scales and 8 minimums of 6 bits.
///
/// # Safety
/// 16 bytes of each block can be read, and there is room for eight heads.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn scales_and_mins(blocks: Blocks4, heads: *mut float32x4_t) {
    // SAFETY: the caller vouches for all of it.
    unsafe {
        // With a, b, c the three words of the twelve bytes:
        //   scales 0..4  a & 63    scales 4..8  c & 15 | (a >> 6) << 4
        //   mins 0..4    b & 63    mins 4..8    c >> 4 | (b >> 6) << 4
        let columns = byte_columns!(blocks, |p| {
            let word = |i: usize| u32::from_le(p.add(4 + i * 4).cast::<u32>().read_unaligned());
            let (a, b, c) = (word(0), word(1), word(2));
            let high2 = |v: u32| (v >> 2) & 0x3030_3030; // bits 6-7 of each byte to bits 4-5
            let scales = u64::from(a & 0x3f3f_3f3f) | u64::from(c & 0x0f0f_0f0f | high2(a)) << 32;
            let mins = u64::from(b & 0x3f3f_3f3f) | u64::from((c >> 4) & 0x0f0f_0f0f | high2(b)) << 32;
            vcombine_s8(vcreate_s8(scales), vcreate_s8(mins))
        });
        let (d, minus_dmin) = (f16x4(blocks, 0), vnegq_f32(f16x4(blocks, 2)));
        for four in 0..2 {
            let (scales, mins) = (widen(columns[four]), widen(columns[2 + four]));
            for j in 0..4 {
                let head = heads.add((four * 4 + j) * 2);
                head.write(vmulq_f32(d, vcvtq_f32_s32(scales[j])));
                head.add(1).write(vmulq_f32(minus_dmin, vcvtq_f32_s32(mins[j])));
            }
        }
    }
}

/// Heads of a common scale and, for each 16 elements, a signed integer scale (byte `j` of `scales`)
/// and an offset: `factor` times that scale or, where there are minimums, times those.
///
/// # Safety
/// There is room for eight heads.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn sub_scaled<F: Format4>(
    d: float32x4_t,
    scales: [int8x16_t; 4],
    factor: float32x4_t,
    mins: Option<[int8x16_t; 4]>,
    heads: *mut float32x4_t,
) {
    const { assert!(Head::<F>::LEN == 5) };
    for four in 0..4 {
        let scales = widen(scales[four]);
        let times = match &mins {
            Some(mins) => widen(mins[four]),
            None => scales,
        };
        for j in 0..4 {
            let (g, half) = (four * 2 + j / 2, j % 2);
            // SAFETY: the caller vouches for room.
            unsafe {
                let head = heads.add(g * 5);
                head.write(d);
                head.add(1 + half).write(vreinterpretq_f32_s32(scales[j]));
                head.add(3 + half).write(vmulq_f32(factor, vcvtq_f32_s32(times[j])));
            }
        }
    }
}

macro_rules! kquant {
    ($name:ident, $bytes:literal, sub_scaled: $sub:literal, |$p:ident, $to:ident| $heads:expr, |$b:ident, $g:ident| $quants:expr) => {
        #[allow(non_camel_case_types, reason = "the format's own name")]
        #[doc = concat!("See the format's definition, `format::", stringify!($name), "`.")]
        pub(crate) struct $name;
        // SAFETY: reads only within the `BYTES` bytes of the blocks that the caller vouches for.
        unsafe impl Format4 for $name {
            const BYTES: usize = $bytes;
            const BLOCK_RUNS: usize = 8;
            const SUB_SCALED: bool = $sub;
            #[target_feature(enable = "neon")]
            #[inline]
            unsafe fn heads($p: Blocks4, $to: *mut float32x4_t) {
                // SAFETY: the caller vouches for the blocks and room for eight heads.
                unsafe { $heads }
            }
            #[target_feature(enable = "neon")]
            #[inline]
            unsafe fn quants($b: *const u8, $g: usize) -> [int8x16_t; 2] {
                // SAFETY: the caller vouches for the block; `g` is below 8.
                unsafe { $quants }
            }
        }
    };
}

kquant!(
    Q2_K,
    84,
    sub_scaled: true,
    |p, heads| {
        let scales = byte_columns!(p, |p| vreinterpretq_s8_u8(vandq_u8(vld1q_u8(p), vdupq_n_u8(15))));
        let mins = byte_columns!(p, |p| vreinterpretq_s8_u8(vshrq_n_u8::<4>(vld1q_u8(p))));
        sub_scaled::<Q2_K>(f16x4(p, 80), scales, vnegq_f32(f16x4(p, 82)), Some(mins), heads);
    },
    |b, g| signed(bits(load(b.add(16 + g / 4 * 32)), g % 4 * 2, 2, 0))
);

kquant!(
    Q3_K,
    110,
    sub_scaled: true,
    |p, heads| {
        let scales = byte_columns!(p, |p| {
            let word = |i: usize| u32::from_le(p.add(96 + i * 4).cast::<u32>().read_unaligned());
            let (a, b, c) = (word(0), word(1), word(2));
            let low = |v: u32| v & 0x0f0f_0f0f;
            let high = |v: u32| (v & 0x0303_0303) << 4;
            let first = u64::from(low(a) | high(c)) | u64::from(low(b) | high(c >> 2)) << 32;
            let second = u64::from(low(a >> 4) | high(c >> 4)) | u64::from(low(b >> 4) | high(c >> 6)) << 32;
            vsubq_s8(vcombine_s8(vcreate_s8(first), vcreate_s8(second)), vdupq_n_s8(32))
        });
        let d = f16x4(p, 108);
        sub_scaled::<Q3_K>(d, scales, vmulq_n_f32(d, -4.0), None, heads);
    },
    |b, g| or(bits(load(b.add(32 + g / 4 * 32)), g % 4 * 2, 2, 0), bits(load(b), g, 1, 2))
);

kquant!(
    Q4_K,
    144,
    sub_scaled: false,
    |p, heads| scales_and_mins(p, heads),
    |b, g| signed(bits(load(b.add(16 + g / 2 * 32)), g % 2 * 4, 4, 0))
);

kquant!(
    Q5_K,
    176,
    sub_scaled: false,
    |p, heads| scales_and_mins(p, heads),
    |b, g| or(bits(load(b.add(48 + g / 2 * 32)), g % 2 * 4, 4, 0), bits(load(b.add(16)), g, 1, 4))
);

kquant!(
    Q6_K,
    210,
    sub_scaled: true,
    |p, heads| {
        let scales = byte_columns!(p, |p| vld1q_s8(p.add(192).cast()));
        let d = f16x4(p, 208);
        sub_scaled::<Q6_K>(d, scales, vmulq_n_f32(d, -32.0), None, heads);
    },
    |b, g| {
        let low = bits(load(b.add(g / 4 * 64 + g % 2 * 32)), g % 4 / 2 * 4, 4, 0);
        or(low, bits(load(b.add(128 + g / 4 * 32)), g % 4 * 2, 2, 4))
    }
);

//! The formats of 256-element blocks: a group is one block.

use std::arch::aarch64::*;

use super::group::{Group, Head, RUNS, f16_at, scaled, widen};

/// # Safety
/// 32 bytes can be read.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn load(p: *const u8) -> [uint8x16_t; 2] {
    // SAFETY: the caller vouches for them.
    unsafe { [vld1q_u8(p), vld1q_u8(p.add(16))] }
}

/// Bits `shift..shift + width` of each byte, moved to bit `to`. `shift` and `to` are constants wherever speed counts, so that one
/// of the shifts remains.
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

/// The head of Q4_K and Q5_K: f16 d, f16 dmin, 12 bytes with 8 scales and 8 minimums of 6 bits.
///
/// # Safety
/// 16 bytes can be read.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn scales_and_mins(p: *const u8) -> Head {
    // SAFETY: the caller vouches for them.
    let (d, dmin, [a, b, c]) = unsafe {
        let word = |i: usize| u32::from_le(p.add(4 + i * 4).cast::<u32>().read_unaligned());
        (f16_at(p), f16_at(p.add(2)), [word(0), word(1), word(2)])
    };
    let high2 = |v: u32| (v >> 2) & 0x3030_3030; // bits 6-7 of each byte to bits 4-5
    let scales = u64::from(a & 0x3f3f_3f3f) | u64::from(c & 0x0f0f_0f0f | high2(a)) << 32;
    let mins = u64::from(b & 0x3f3f_3f3f) | u64::from((c >> 4) & 0x0f0f_0f0f | high2(b)) << 32;
    let floats = |eight: u64, factor: f32| {
        let wide = vmovl_u8(vcreate_u8(eight));
        let (low, high) = (vmovl_u16(vget_low_u16(wide)), vmovl_high_u16(wide));
        [vmulq_n_f32(vcvtq_f32_u32(low), factor), vmulq_n_f32(vcvtq_f32_u32(high), factor)]
    };
    let [low, high] = floats(mins, -dmin);
    Head { scale: floats(scales, d), offset: [low, high, vdupq_n_f32(0.0), vdupq_n_f32(0.0)], ..Head::ZERO }
}

/// A head of 16 integer scales times `d`, with these offsets.
#[target_feature(enable = "neon")]
#[inline]
fn head16(d: f32, scales: int8x16_t, offset: [float32x4_t; 4]) -> Head {
    Head { scale: [vdupq_n_f32(d); 2], offset, mult: widen(scales) }
}

macro_rules! kquant {
    ($name:ident, $bytes:literal, sub16: $sub16:literal, |$p:ident| $head:expr, |$q:ident, $g:ident| $quants:expr) => {
        #[allow(non_camel_case_types, reason = "the format's own name")]
        #[doc = concat!("See the format's definition, `format::", stringify!($name), "`.")]
        pub(crate) struct $name;
        // SAFETY: reads only within the `BYTES` bytes of the block that the caller vouches for.
        unsafe impl Group for $name {
            const BYTES: usize = $bytes;
            const BLOCK_RUNS: usize = RUNS;
            const SUB16: bool = $sub16;
            #[target_feature(enable = "neon")]
            #[inline]
            unsafe fn head($p: *const u8, _n: usize) -> Head {
                // SAFETY: the caller vouches for the block.
                unsafe { $head }
            }
            #[target_feature(enable = "neon")]
            #[inline]
            unsafe fn quants($q: *const u8, $g: usize) -> [int8x16_t; 2] {
                // SAFETY: the caller vouches for the block; `g` is below 8.
                unsafe { $quants }
            }
        }
    };
}

kquant!(
    Q2_K,
    84,
    sub16: true,
    |p| {
        let both = vld1q_u8(p);
        let [scales, mins] = signed([vandq_u8(both, vdupq_n_u8(15)), vshrq_n_u8::<4>(both)]);
        head16(f16_at(p.add(80)), scales, scaled(mins, -f16_at(p.add(82))))
    },
    |p, g| signed(bits(load(p.add(16 + g / 4 * 32)), g % 4 * 2, 2, 0))
);

kquant!(
    Q3_K,
    110,
    sub16: true,
    |p| {
        let word = |i: usize| u32::from_le(p.add(96 + i * 4).cast::<u32>().read_unaligned());
        let (a, b, c) = (word(0), word(1), word(2));
        let low = |v: u32| v & 0x0f0f_0f0f;
        let high = |v: u32| (v & 0x0303_0303) << 4;
        let first = u64::from(low(a) | high(c)) | u64::from(low(b) | high(c >> 2)) << 32;
        let second = u64::from(low(a >> 4) | high(c >> 4)) | u64::from(low(b >> 4) | high(c >> 6)) << 32;
        let scales = vsubq_s8(vcombine_s8(vcreate_s8(first), vcreate_s8(second)), vdupq_n_s8(32));
        let d = f16_at(p.add(108));
        head16(d, scales, scaled(scales, -4.0 * d))
    },
    |p, g| or(bits(load(p.add(32 + g / 4 * 32)), g % 4 * 2, 2, 0), bits(load(p), g, 1, 2))
);

kquant!(
    Q4_K,
    144,
    sub16: false,
    |p| scales_and_mins(p),
    |p, g| signed(bits(load(p.add(16 + g / 2 * 32)), g % 2 * 4, 4, 0))
);

kquant!(
    Q5_K,
    176,
    sub16: false,
    |p| scales_and_mins(p),
    |p, g| or(bits(load(p.add(48 + g / 2 * 32)), g % 2 * 4, 4, 0), bits(load(p.add(16)), g, 1, 4))
);

kquant!(
    Q6_K,
    210,
    sub16: true,
    |p| {
        let (d, scales) = (f16_at(p.add(208)), vld1q_s8(p.add(192).cast()));
        head16(d, scales, scaled(scales, -32.0 * d))
    },
    |p, g| {
        let low = bits(load(p.add(g / 4 * 64 + g % 2 * 32)), g % 4 / 2 * 4, 4, 0);
        or(low, bits(load(p.add(128 + g / 4 * 32)), g % 4 * 2, 2, 4))
    }
);

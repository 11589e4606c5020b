//! The formats of grids: an index names an entry of eight or four magnitudes, and each magnitude
//! has a sign.
//!
//! 1. An entry is bytes in the order of its elements, and is loaded from the definition's own table
//!    as one integer: all magnitudes fit a signed byte.
//! 2. A byte of signs, spread over eight bytes and tested bit by bit, gives -1 where an element is
//!    negative and 0 elsewhere. With that mask `m` an integer is `(magnitude ^ m) - m`, so that
//!    nothing has an offset.
//! 3. Where signs are packed seven to an entry, the eighth makes their number even: it is the
//!    lowest bit of how many there are.

use std::arch::aarch64::*;

use super::rows::{Blocks4, Format4, Head, ROWS, f16x4, transpose, transpose_bytes, widen};
use crate::format::grids;

/// Four entries of eight.
#[target_feature(enable = "neon")]
#[inline]
fn eights(entries: [&[i8; 8]; 4]) -> [int8x16_t; 2] {
    // SAFETY: eight bytes.
    let [a, b, c, d] = entries.map(|entry| unsafe { vld1_s8(entry.as_ptr()) });
    [vcombine_s8(a, b), vcombine_s8(c, d)]
}

/// Eight entries of four.
#[target_feature(enable = "neon")]
#[inline]
fn fours(entries: [[i8; 4]; 8]) -> [int8x16_t; 2] {
    let entries = entries.map(|entry| u64::from(u32::from_le_bytes(entry.map(|q| q as u8))));
    let two = |i: usize| vcreate_s8(entries[i] | entries[i + 1] << 32);
    [vcombine_s8(two(0), two(2)), vcombine_s8(two(4), two(6))]
}

/// The integers of a run from their magnitudes. The signs of eight of them are byte 0 of `signs`,
/// those of the next eight byte `STEP`, and so on.
#[target_feature(enable = "neon")]
#[inline]
fn signed<const STEP: u8>(magnitudes: [int8x16_t; 2], signs: uint8x16_t) -> [int8x16_t; 2] {
    let bit = vreinterpretq_u8_u64(vdupq_n_u64(0x8040_2010_0804_0201));
    let half = |magnitudes: int8x16_t, first: u8| {
        let spread = vqtbl1q_u8(signs, vcombine_u8(vdup_n_u8(first), vdup_n_u8(first + STEP)));
        let negative = vreinterpretq_s8_u8(vtstq_u8(spread, bit));
        vsubq_s8(veorq_s8(magnitudes, negative), negative)
    };
    [half(magnitudes[0], 0), half(magnitudes[1], 2 * STEP)]
}

/// Eight signs of each byte from its lowest seven bits, of which an even number is set.
#[target_feature(enable = "neon")]
#[inline]
fn even_signs(bytes: uint8x16_t) -> uint8x16_t {
    let seven = vandq_u8(bytes, vdupq_n_u8(127));
    vsliq_n_u8::<7>(seven, vcntq_u8(seven))
}

/// Four times seven signs in the lowest 28 bits of a word: four bytes of eight signs each, four
/// bytes apart.
///
/// # Safety
/// Four bytes can be read.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn packed_signs(p: *const u8) -> uint8x16_t {
    let down: [i32; 4] = [0, -7, -14, -21];
    // SAFETY: the caller vouches for the word; four integers.
    let (word, down) = unsafe { (vdupq_n_u32(p.cast::<u32>().read_unaligned()), vld1q_s32(down.as_ptr())) };
    even_signs(vreinterpretq_u8_u32(vshlq_u32(word, down)))
}

/// Four bytes of eight signs each.
///
/// # Safety
/// Four bytes can be read.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn plain_signs(p: *const u8) -> uint8x16_t {
    // SAFETY: the caller vouches for them.
    vreinterpretq_u8_u32(vdupq_n_u32(unsafe { p.cast::<u32>().read_unaligned() }))
}

/// 16 bytes of four rows as words: word `j` of all rows in vector `j`.
///
/// # Safety
/// They can be read `at` bytes into each block.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn words(blocks: Blocks4, at: usize) -> [uint32x4_t; 4] {
    let mut rows = [vdupq_n_s32(0); ROWS];
    for (row, p) in rows.iter_mut().zip(blocks) {
        // SAFETY: the caller vouches for the bytes.
        *row = vreinterpretq_s32_u8(unsafe { vld1q_u8(p.add(at)) });
    }
    let [a, b, c, d] = transpose(rows);
    [vreinterpretq_u32_s32(a), vreinterpretq_u32_s32(b), vreinterpretq_u32_s32(c), vreinterpretq_u32_s32(d)]
}

/// Scales whose four bits are the uppermost of each word: `d * (bits + 1/2)`, divided by two
/// `HALVINGS - 1` times.
#[target_feature(enable = "neon")]
#[inline]
fn upper_scale<const HALVINGS: i32>(d: float32x4_t, words: uint32x4_t) -> float32x4_t {
    let odd = vorrq_u32(vshrq_n_u32::<27>(words), vdupq_n_u32(1)); // 2 * bits + 1
    vmulq_f32(d, vcvtq_n_f32_u32::<HALVINGS>(odd))
}

/// The heads of IQ2_XS and IQ2_S, whose 4-bit scales of each 16 elements are the eight bytes from
/// `at` on, the lower four bits first: an eighth of `d`, and `2 * bits + 1`.
///
/// # Safety
/// These bytes can be read; there is room for eight heads.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn sub_scaled<F: Format4>(blocks: Blocks4, at: usize, heads: *mut float32x4_t) {
    const { assert!(Head::<F>::LEN == 3) };
    let mut rows = [vdupq_n_s8(0); ROWS];
    for (row, p) in rows.iter_mut().zip(blocks) {
        // SAFETY: the caller vouches for the bytes.
        let bytes = unsafe { vld1_u8(p.add(at)) };
        let (low, high) = (vand_u8(bytes, vdup_n_u8(15)), vshr_n_u8::<4>(bytes));
        let bits = vcombine_u8(vzip1_u8(low, high), vzip2_u8(low, high));
        *row = vreinterpretq_s8_u8(vorrq_u8(vshlq_n_u8::<1>(bits), vdupq_n_u8(1)));
    }
    // SAFETY: the block begins with `d`.
    let d = vmulq_n_f32(unsafe { f16x4(blocks, 0) }, 0.125);
    for (four, scales) in transpose_bytes(rows).into_iter().enumerate() {
        for (j, scale) in widen(scales).into_iter().enumerate() {
            let (g, half) = (four * 2 + j / 2, j % 2);
            // SAFETY: the caller vouches for room.
            unsafe {
                let head = heads.add(g * 3);
                head.write(d);
                head.add(1 + half).write(vreinterpretq_f32_s32(scale));
            }
        }
    }
}

macro_rules! grid {
    (
        $name:ident, $bytes:literal, sub_scaled: $sub:literal,
        |$p:ident, $heads:ident| $head:expr, |$b:ident, $g:ident| $quants:expr
    ) => {
        #[allow(non_camel_case_types, reason = "the format's own name")]
        #[doc = concat!("See the format's definition, `format::", stringify!($name), "`.")]
        pub(crate) struct $name;
        // SAFETY: reads only within the `BYTES` bytes of the blocks that the caller vouches for.
        unsafe impl Format4 for $name {
            const BYTES: usize = $bytes;
            const BLOCK_RUNS: usize = 8;
            const SUB_SCALED: bool = $sub;
            const OFFSET: bool = false;
            #[target_feature(enable = "neon")]
            #[inline]
            unsafe fn heads($p: Blocks4, $heads: *mut float32x4_t) {
                // SAFETY: the caller vouches for the blocks and room for eight heads.
                unsafe { $head }
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

grid!(
    IQ3_XXS,
    98,
    sub_scaled: false,
    |p, heads| {
        let d = f16x4(p, 0);
        for half in 0..2 {
            for (j, words) in words(p, 66 + half * 16).into_iter().enumerate() {
                heads.add(half * 4 + j).write(upper_scale::<2>(d, words));
            }
        }
    },
    |b, g| {
        let entry = |i: usize| grids::IQ3_XXS[usize::from(b.add(2 + g * 8 + i).read())];
        signed::<4>(fours(std::array::from_fn(entry)), packed_signs(b.add(66 + g * 4)))
    }
);

grid!(
    IQ3_S,
    110,
    sub_scaled: false,
    |p, heads| {
        let d = f16x4(p, 0);
        let word = p.map(|p| p.add(106).cast::<u32>().read_unaligned());
        let mut bits = vld1q_u32(word.as_ptr());
        for g in 0..8 {
            let odd = vsliq_n_u32::<1>(vdupq_n_u32(1), vandq_u32(bits, vdupq_n_u32(15)));
            heads.add(g).write(vmulq_f32(d, vcvtq_f32_u32(odd)));
            bits = vshrq_n_u32::<4>(bits);
        }
    },
    |b, g| {
        // The ninth bit of index `i` is bit `i` of a byte.
        let bit: [u16; 8] = [1, 2, 4, 8, 16, 32, 64, 128];
        let ninth = vtstq_u16(vdupq_n_u16(b.add(66 + g).cast::<u16>().read_unaligned()), vld1q_u16(bit.as_ptr()));
        let indices = vsliq_n_u16::<8>(vmovl_u8(vld1_u8(b.add(2 + g * 8))), ninth);
        let indices = vreinterpretq_u64_u16(indices);
        let indices = [vgetq_lane_u64::<0>(indices), vgetq_lane_u64::<1>(indices)];
        let entry = |i: usize| grids::IQ3_S[(indices[i / 4] >> (i % 4 * 16)) as usize & 511];
        signed::<1>(fours(std::array::from_fn(entry)), plain_signs(b.add(74 + g * 4)))
    }
);

grid!(
    IQ2_XXS,
    66,
    sub_scaled: false,
    |p, heads| {
        let d = f16x4(p, 0);
        for pair in 0..4 {
            let [_, first, _, second] = words(p, 2 + pair * 16);
            heads.add(pair * 2).write(upper_scale::<3>(d, first));
            heads.add(pair * 2 + 1).write(upper_scale::<3>(d, second));
        }
    },
    |b, g| {
        let entry = |i: usize| &grids::IQ2_XXS[usize::from(b.add(2 + g * 8 + i).read())];
        signed::<4>(eights(std::array::from_fn(entry)), packed_signs(b.add(6 + g * 8)))
    }
);

grid!(
    IQ2_XS,
    74,
    sub_scaled: true,
    |p, heads| sub_scaled::<IQ2_XS>(p, 66, heads),
    |b, g| {
        let words = b.add(2 + g * 8).cast::<u64>().read_unaligned();
        let entry = |i: usize| &grids::IQ2_XS[(words >> (i * 16)) as usize & 511];
        let signs = vshrq_n_u16::<9>(vreinterpretq_u16_u64(vdupq_n_u64(words)));
        signed::<2>(eights(std::array::from_fn(entry)), even_signs(vreinterpretq_u8_u16(signs)))
    }
);

grid!(
    IQ2_S,
    82,
    sub_scaled: true,
    |p, heads| sub_scaled::<IQ2_S>(p, 74, heads),
    |b, g| {
        let high = usize::from(b.add(66 + g).read());
        let entry = |i: usize| &grids::IQ2_S[usize::from(b.add(2 + g * 4 + i).read()) | high << (8 - i * 2) & 0x300];
        signed::<1>(eights(std::array::from_fn(entry)), plain_signs(b.add(34 + g * 4)))
    }
);

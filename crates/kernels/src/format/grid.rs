//! The formats of 1 to 3 bits whose integers are looked up eight or four at a time: an index names
//! an entry of a grid, which holds the groups of magnitudes that occur most, and each magnitude has
//! a sign.

use super::grids::{self, Grid4, Grid8};
use super::{Decoded, Format, f16_at};

/// Eight integers: those of an entry, minus those whose bit is set in `signs`.
fn eight<const N: usize>(grid: &Grid8<N>, index: usize, signs: u8, q: &mut [i8]) {
    let entry = grid.entries[index];
    for (i, q) in q[..8].iter_mut().enumerate() {
        let value = grid.values[(entry >> (i * 2) & 3) as usize];
        *q = if signs >> i & 1 == 1 { -value } else { value };
    }
}

/// Two entries of four integers each.
fn fours<const N: usize>(grid: &Grid4<N>, index: [usize; 2], signs: u8, q: &mut [i8]) {
    let entries = index.map(|i| grid.entries[i]);
    for (i, q) in q[..8].iter_mut().enumerate() {
        let value = grid.values[(entries[i / 4] >> (i % 4 * 3) & 7) as usize];
        *q = if signs >> i & 1 == 1 { -value } else { value };
    }
}

/// Eight signs from the first seven: an even number of them is set.
fn even_signs(seven: u32) -> u8 {
    let seven = (seven & 127) as u8;
    seven | (seven.count_ones() as u8 & 1) << 7
}

fn u16_at(block: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([block[at], block[at + 1]])
}

fn u32_at(block: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([block[at], block[at + 1], block[at + 2], block[at + 3]])
}

/// 8 sub-blocks of 32. f16 d | for each sub-block 4 B of indices and a u32: four times seven signs,
/// then the 4-bit scale. Its factor is d * (scale + 1/2) / 4.
#[allow(non_camel_case_types, reason = "the format's own name")]
pub(crate) struct IQ2_XXS;
impl Format for IQ2_XXS {
    const LEN: usize = 256;
    const BYTES: usize = 66;
    const SUB: usize = 32;
    fn decode(block: &[u8], out: &mut Decoded) {
        let d = f16_at(block, 0);
        for (j, q) in out.q.chunks_exact_mut(32).enumerate() {
            let indices = &block[2 + j * 8..][..4];
            let word = u32_at(block, 6 + j * 8);
            out.scale[j] = d * (0.5 + (word >> 28) as f32) * 0.25;
            out.offset[j] = 0.0;
            for (l, q) in q.chunks_exact_mut(8).enumerate() {
                eight(&grids::IQ2_XXS, indices[l].into(), even_signs(word >> (7 * l)), q);
            }
        }
    }
}

/// The scales of IQ2_XS and IQ2_S: d * (4-bit scale + 1/2) / 4, the lower four bits first.
fn quarter_scales(d: f32, scales: &[u8], out: &mut Decoded) {
    for (j, scale) in out.scale.iter_mut().enumerate() {
        *scale = d * (0.5 + f32::from(scales[j / 2] >> (j % 2 * 4) & 15)) * 0.25;
    }
    out.offset.fill(0.0);
}

/// 16 sub-blocks of 16. f16 d | 32 u16: 9 bits of index, seven signs | 8 B of scales.
#[allow(non_camel_case_types, reason = "the format's own name")]
pub(crate) struct IQ2_XS;
impl Format for IQ2_XS {
    const LEN: usize = 256;
    const BYTES: usize = 74;
    const SUB: usize = 16;
    fn decode(block: &[u8], out: &mut Decoded) {
        quarter_scales(f16_at(block, 0), &block[66..74], out);
        for (l, q) in out.q.chunks_exact_mut(8).enumerate() {
            let word = u16_at(block, 2 + l * 2);
            eight(&grids::IQ2_XS, (word & 511).into(), even_signs(u32::from(word >> 9)), q);
        }
    }
}

/// 16 sub-blocks of 16. f16 d | 32 B of the lower 8 bits of indices | 32 B of signs | 8 B of the
/// upper two bits of indices, four a byte | 8 B of scales.
#[allow(non_camel_case_types, reason = "the format's own name")]
pub(crate) struct IQ2_S;
impl Format for IQ2_S {
    const LEN: usize = 256;
    const BYTES: usize = 82;
    const SUB: usize = 16;
    fn decode(block: &[u8], out: &mut Decoded) {
        quarter_scales(f16_at(block, 0), &block[74..82], out);
        for (l, q) in out.q.chunks_exact_mut(8).enumerate() {
            let high = usize::from(block[66 + l / 4] >> (l % 4 * 2) & 3);
            eight(&grids::IQ2_S, usize::from(block[2 + l]) | high << 8, block[34 + l], q);
        }
    }
}

/// 8 sub-blocks of 32. f16 d | 64 B of indices | for each sub-block a u32: four times seven signs,
/// then the 4-bit scale. Its factor is d * (scale + 1/2) / 2.
#[allow(non_camel_case_types, reason = "the format's own name")]
pub(crate) struct IQ3_XXS;
impl Format for IQ3_XXS {
    const LEN: usize = 256;
    const BYTES: usize = 98;
    const SUB: usize = 32;
    fn decode(block: &[u8], out: &mut Decoded) {
        let d = f16_at(block, 0);
        for (j, q) in out.q.chunks_exact_mut(32).enumerate() {
            let indices = &block[2 + j * 8..][..8];
            let word = u32_at(block, 66 + j * 4);
            out.scale[j] = d * (0.5 + (word >> 28) as f32) * 0.5;
            out.offset[j] = 0.0;
            for (l, q) in q.chunks_exact_mut(8).enumerate() {
                let pair = [indices[l * 2].into(), indices[l * 2 + 1].into()];
                fours(&grids::IQ3_XXS, pair, even_signs(word >> (7 * l)), q);
            }
        }
    }
}

/// 8 sub-blocks of 32 with the factor d * (2 * (4-bit scale) + 1). f16 d | 64 B of the lower 8 bits
/// of indices | 8 B of the ninth bits | 32 B of signs | 4 B of scales, low and high.
#[allow(non_camel_case_types, reason = "the format's own name")]
pub(crate) struct IQ3_S;
impl Format for IQ3_S {
    const LEN: usize = 256;
    const BYTES: usize = 110;
    const SUB: usize = 32;
    fn decode(block: &[u8], out: &mut Decoded) {
        let d = f16_at(block, 0);
        for j in 0..8 {
            out.scale[j] = d * f32::from(1 + 2 * (block[106 + j / 2] >> (j % 2 * 4) & 15));
            out.offset[j] = 0.0;
        }
        for (l, q) in out.q.chunks_exact_mut(8).enumerate() {
            let index = |i: usize| usize::from(block[2 + i]) | usize::from(block[66 + i / 8] >> (i % 8) & 1) << 8;
            fours(&grids::IQ3_S, [index(l * 2), index(l * 2 + 1)], block[74 + l], q);
        }
    }
}

/// Eight values of IQ1_S and IQ1_M in eighths: an entry is -1, 0 or 1 each, all moved up or down by
/// an eighth.
fn eighths(index: usize, down: bool, q: &mut [i8]) {
    eight(&grids::IQ1, index, 0, q);
    q.iter_mut().for_each(|q| *q = *q * 8 + if down { -1 } else { 1 });
}

/// 8 sub-blocks of 32 with the factor d * (2 * (3-bit scale) + 1). f16 d | 32 B of the lower 8 bits
/// of indices | for each sub-block a u16: four times the upper 3 bits, the scale, the direction.
#[allow(non_camel_case_types, reason = "the format's own name")]
pub(crate) struct IQ1_S;
impl Format for IQ1_S {
    const LEN: usize = 256;
    const BYTES: usize = 50;
    const SUB: usize = 32;
    fn decode(block: &[u8], out: &mut Decoded) {
        let d = f16_at(block, 0);
        for (j, q) in out.q.chunks_exact_mut(32).enumerate() {
            let word = u16_at(block, 34 + j * 2);
            out.scale[j] = d * f32::from(2 * (word >> 12 & 7) + 1) * 0.125;
            out.offset[j] = 0.0;
            for (l, q) in q.chunks_exact_mut(8).enumerate() {
                let high = usize::from(word >> (3 * l) & 7);
                eighths(usize::from(block[2 + j * 4 + l]) | high << 8, word >> 15 == 1, q);
            }
        }
    }
}

/// 16 sub-blocks of 16 with the factor d * (2 * (3-bit scale) + 1). 32 B of the lower 8 bits of
/// indices | 16 B of four bits each: the upper 3 bits, the direction of eight values | four u16:
/// four scales, then four bits of the f16 d, the lowest first.
#[allow(non_camel_case_types, reason = "the format's own name")]
pub(crate) struct IQ1_M;
impl Format for IQ1_M {
    const LEN: usize = 256;
    const BYTES: usize = 56;
    const SUB: usize = 16;
    fn decode(block: &[u8], out: &mut Decoded) {
        let words: [u16; 4] = std::array::from_fn(|i| u16_at(block, 48 + i * 2));
        let bits = words.iter().rev().fold(0, |bits, word| bits << 4 | word >> 12);
        let d = half::f16::from_bits(bits).to_f32();
        for (j, scale) in out.scale.iter_mut().enumerate() {
            *scale = d * f32::from(2 * (words[j / 4] >> (j % 4 * 3) & 7) + 1) * 0.125;
        }
        out.offset.fill(0.0);
        for (l, q) in out.q.chunks_exact_mut(8).enumerate() {
            let four = block[32 + l / 2] >> (l % 2 * 4) & 15;
            eighths(usize::from(block[l]) | usize::from(four & 7) << 8, four & 8 != 0, q);
        }
    }
}

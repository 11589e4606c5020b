//! The formats of 1 to 3 bits whose integers are looked up eight or four at a time: an index names
//! an entry of a grid, which holds the groups of magnitudes that occur most, and each magnitude has
//! a sign.

use super::grids::{self, SIGNS};
use super::{Decoded, Format, f16_at};

/// Eight integers: magnitudes, negative where a bit of `signs` is set.
fn signed(magnitudes: [i8; 8], signs: u8, q: &mut [i8; 8]) {
    let signs = &SIGNS[signs as usize];
    for i in 0..8 {
        q[i] = (magnitudes[i] ^ signs[i]) - signs[i];
    }
}

/// Two fours in a row.
fn both(first: [i8; 4], second: [i8; 4]) -> [i8; 8] {
    let mut out = [0; 8];
    out[..4].copy_from_slice(&first);
    out[4..].copy_from_slice(&second);
    out
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
            for (l, q) in q.as_chunks_mut().0.iter_mut().enumerate() {
                signed(grids::IQ2_XXS[indices[l] as usize], even_signs(word >> (7 * l)), q);
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
        for (l, q) in out.q.as_chunks_mut().0.iter_mut().enumerate() {
            let word = u16_at(block, 2 + l * 2);
            signed(grids::IQ2_XS[(word & 511) as usize], even_signs(u32::from(word >> 9)), q);
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
        for (l, q) in out.q.as_chunks_mut().0.iter_mut().enumerate() {
            let high = usize::from(block[66 + l / 4] >> (l % 4 * 2) & 3);
            signed(grids::IQ2_S[usize::from(block[2 + l]) | high << 8], block[34 + l], q);
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
            for (l, q) in q.as_chunks_mut().0.iter_mut().enumerate() {
                let entry = |i: u8| grids::IQ3_XXS[i as usize];
                signed(both(entry(indices[l * 2]), entry(indices[l * 2 + 1])), even_signs(word >> (7 * l)), q);
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
        for (l, q) in out.q.as_chunks_mut().0.iter_mut().enumerate() {
            let index = |i: usize| usize::from(block[2 + i]) | usize::from(block[66 + i / 8] >> (i % 8) & 1) << 8;
            let entry = |i: usize| grids::IQ3_S[index(i)];
            signed(both(entry(l * 2), entry(l * 2 + 1)), block[74 + l], q);
        }
    }
}

/// Eight values of IQ1_S and IQ1_M in eighths: an entry is -1, 0 or 1 each, all moved up or down by
/// an eighth.
fn eighths(index: usize, down: bool, q: &mut [i8; 8]) {
    let by = if down { -1 } else { 1 };
    *q = grids::IQ1[index].map(|value| value * 8 + by);
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
            for (l, q) in q.as_chunks_mut().0.iter_mut().enumerate() {
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
        for (l, q) in out.q.as_chunks_mut().0.iter_mut().enumerate() {
            let four = block[32 + l / 2] >> (l % 2 * 4) & 15;
            eighths(usize::from(block[l]) | usize::from(four & 7) << 8, four & 8 != 0, q);
        }
    }
}

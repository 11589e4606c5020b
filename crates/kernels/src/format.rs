//! What the bytes of each block format mean: the definition that every kernel is tested against.
//!
//! Layouts are those of GGUF's reference implementation (`ggml-common.h`, `dequantize_row_*` in
//! `ggml-quants.c`). A block is integers `q` and, for each sub-block of 16 or 32 of them, a `scale`
//! and an `offset`: an element is `scale * q + offset`. Scales are products of an 11-bit (f16) and
//! a small integer, so they are exact in f32, and so is `scale * q`.
//!
//! A format that stands here is complete: each instruction set has functions of its own for those
//! that it names in its `for_each_own`, and runs all others through what `decode` gives.

mod codebook;
mod grid;
pub(crate) mod grids;
mod ternary;

use half::f16;
use modelembed_gguf::TensorType;

pub(crate) use codebook::{E2M1, IQ4, IQ4_NL, IQ4_XS, MXFP4, NVFP4};
pub(crate) use grid::{IQ1_M, IQ1_S, IQ2_S, IQ2_XS, IQ2_XXS, IQ3_S, IQ3_XXS};
pub(crate) use ternary::{Q1_0, Q2_0, TQ1_0, TQ2_0};

/// The largest block, in elements.
pub(crate) const MAX_BLOCK: usize = 256;

/// One block, taken apart.
pub(crate) struct Decoded {
    pub q: [i8; MAX_BLOCK],
    pub scale: [f32; MAX_BLOCK / 16],
    pub offset: [f32; MAX_BLOCK / 16],
}

impl Decoded {
    /// The first elements as f32, from what [`Decoder::read`] gives.
    pub fn write_f32(&self, out: &mut [f32]) {
        for (i, out) in out.iter_mut().enumerate() {
            *out = self.scale[i / 16] * f32::from(self.q[i]) + self.offset[i / 16];
        }
    }

    pub fn new() -> Decoded {
        Decoded { q: [0; MAX_BLOCK], scale: [0.0; MAX_BLOCK / 16], offset: [0.0; MAX_BLOCK / 16] }
    }
}

/// A format of quantised blocks.
pub(crate) trait Format {
    /// Elements in a block.
    const LEN: usize;
    /// Bytes of a block.
    const BYTES: usize;
    /// Elements that share a scale: 16 or 32.
    const SUB: usize;
    /// Fills the first `LEN` integers and the first `LEN / SUB` scales and offsets from `BYTES`
    /// bytes.
    fn decode(block: &[u8], out: &mut Decoded);
}

/// Calls `$m!(A, B, ...)` with the name of every quantised format.
macro_rules! for_each_format {
    ($m:ident) => {
        $m!(
            Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, MXFP4, NVFP4, IQ4_NL, IQ4_XS, IQ3_S, IQ3_XXS,
            IQ2_S, IQ2_XS, IQ2_XXS, IQ1_M, IQ1_S, TQ1_0, TQ2_0, Q1_0, Q2_0
        )
    };
}
pub(crate) use for_each_format;

/// A [`Format`] as a value: what serves every format is compiled once, not for each of them.
#[derive(Clone, Copy)]
pub(crate) struct Decoder {
    /// Elements in a block.
    len: usize,
    /// Bytes of a block.
    bytes: usize,
    sub: usize,
    decode: fn(&[u8], &mut Decoded),
}

/// How this type's blocks are taken apart; `None` for floats and for what kernels do not know.
pub(crate) fn decoder(ty: TensorType) -> Option<Decoder> {
    macro_rules! table {
        ($($f:ident),*) => {
            match ty {
                $(TensorType::$f => {
                    Some(Decoder { len: $f::LEN, bytes: $f::BYTES, sub: $f::SUB, decode: $f::decode })
                })*
                _ => None,
            }
        };
    }
    for_each_format!(table)
}

impl Decoder {
    /// Bytes of `n` elements (whole blocks).
    pub fn row_bytes(&self, n: usize) -> usize {
        n / self.len * self.bytes
    }

    /// Takes some whole blocks apart, [`MAX_BLOCK`] elements at most: unlike [`Format::decode`],
    /// with a scale and an offset for each 16 elements.
    pub fn read(&self, blocks: &[u8], out: &mut Decoded) {
        let mut block = Decoded::new();
        for (b, bytes) in blocks.chunks_exact(self.bytes).enumerate() {
            (self.decode)(bytes, &mut block);
            let at = b * self.len;
            out.q[at..][..self.len].copy_from_slice(&block.q[..self.len]);
            for j in 0..self.len / 16 {
                out.scale[at / 16 + j] = block.scale[j * 16 / self.sub];
                out.offset[at / 16 + j] = block.offset[j * 16 / self.sub];
            }
        }
    }
}

/// Whether kernels decode this type: a quantised one of the list, or floats.
pub(crate) fn is_known(ty: TensorType) -> bool {
    macro_rules! quantised {
        ($($f:ident),*) => { matches!(ty, $(TensorType::$f)|*) };
    }
    matches!(ty, TensorType::F32 | TensorType::F16 | TensorType::BF16) || for_each_format!(quantised)
}

fn f16_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// 4 bits of each of 32 elements: byte `j` holds element `j` low and element `j + 16` high.
fn nibbles32(bytes: &[u8], q: &mut [i8]) {
    for (j, &b) in bytes[..16].iter().enumerate() {
        q[j] = (b & 15) as i8;
        q[j + 16] = (b >> 4) as i8;
    }
}

/// Adds the fifth bits: bit `i` of the little-endian word belongs to element `i`.
fn fifth_bits32(bytes: &[u8], q: &mut [i8]) {
    for (i, q) in q[..32].iter_mut().enumerate() {
        *q |= ((bytes[i / 8] >> (i % 8) & 1) << 4) as i8;
    }
}

/// 32 x (4-bit q - 8) * d.
pub(crate) struct Q4_0;
impl Format for Q4_0 {
    const LEN: usize = 32;
    const BYTES: usize = 18;
    const SUB: usize = 32;
    fn decode(block: &[u8], out: &mut Decoded) {
        out.scale[0] = f16_at(block, 0);
        out.offset[0] = 0.0;
        nibbles32(&block[2..], &mut out.q);
        out.q[..32].iter_mut().for_each(|q| *q -= 8);
    }
}

/// 32 x 4-bit q * d + m.
pub(crate) struct Q4_1;
impl Format for Q4_1 {
    const LEN: usize = 32;
    const BYTES: usize = 20;
    const SUB: usize = 32;
    fn decode(block: &[u8], out: &mut Decoded) {
        out.scale[0] = f16_at(block, 0);
        out.offset[0] = f16_at(block, 2);
        nibbles32(&block[4..], &mut out.q);
    }
}

/// 32 x (5-bit q - 16) * d.
pub(crate) struct Q5_0;
impl Format for Q5_0 {
    const LEN: usize = 32;
    const BYTES: usize = 22;
    const SUB: usize = 32;
    fn decode(block: &[u8], out: &mut Decoded) {
        out.scale[0] = f16_at(block, 0);
        out.offset[0] = 0.0;
        nibbles32(&block[6..], &mut out.q);
        fifth_bits32(&block[2..6], &mut out.q);
        out.q[..32].iter_mut().for_each(|q| *q -= 16);
    }
}

/// 32 x 5-bit q * d + m.
pub(crate) struct Q5_1;
impl Format for Q5_1 {
    const LEN: usize = 32;
    const BYTES: usize = 24;
    const SUB: usize = 32;
    fn decode(block: &[u8], out: &mut Decoded) {
        out.scale[0] = f16_at(block, 0);
        out.offset[0] = f16_at(block, 2);
        nibbles32(&block[8..], &mut out.q);
        fifth_bits32(&block[4..8], &mut out.q);
    }
}

/// 32 x 8-bit q * d.
pub(crate) struct Q8_0;
impl Format for Q8_0 {
    const LEN: usize = 32;
    const BYTES: usize = 34;
    const SUB: usize = 32;
    fn decode(block: &[u8], out: &mut Decoded) {
        out.scale[0] = f16_at(block, 0);
        out.offset[0] = 0.0;
        for (q, &b) in out.q.iter_mut().zip(&block[2..34]) {
            *q = b as i8;
        }
    }
}

/// 16 sub-blocks of 16 2-bit q: q * d * (4-bit scale) - dmin * (4-bit minimum). 16 B of scale (low)
/// and minimum (high) | 64 B of q: in each half, shift `2s` of 32 bytes gives elements `32s..` |
/// f16 d | f16 dmin.
#[allow(non_camel_case_types, reason = "the format's own name")]
pub(crate) struct Q2_K;
impl Format for Q2_K {
    const LEN: usize = 256;
    const BYTES: usize = 84;
    const SUB: usize = 16;
    fn decode(block: &[u8], out: &mut Decoded) {
        let (d, dmin) = (f16_at(block, 80), f16_at(block, 82));
        for (j, &both) in block[..16].iter().enumerate() {
            out.scale[j] = d * f32::from(both & 15);
            out.offset[j] = -dmin * f32::from(both >> 4);
        }
        for (i, q) in out.q.iter_mut().enumerate() {
            let byte = block[16 + i / 128 * 32 + i % 32];
            *q = (byte >> (i % 128 / 32 * 2) & 3) as i8;
        }
    }
}

/// 16 sub-blocks of 16 3-bit (q - 4) * d * (6-bit scale - 32). 32 B of third bits (bit `i / 32` of
/// byte `i % 32`) | 64 B of the low two bits, as in Q2_K | 12 B of scales | f16 d.
#[allow(non_camel_case_types, reason = "the format's own name")]
pub(crate) struct Q3_K;
impl Format for Q3_K {
    const LEN: usize = 256;
    const BYTES: usize = 110;
    const SUB: usize = 16;
    fn decode(block: &[u8], out: &mut Decoded) {
        let (scales, d) = (&block[96..108], f16_at(block, 108));
        for j in 0..16 {
            let low = scales[j % 8] >> (j / 8 * 4) & 15;
            let high = scales[8 + j % 4] >> (j / 4 * 2) & 3;
            out.scale[j] = d * (f32::from(low | high << 4) - 32.0);
            out.offset[j] = 0.0;
        }
        for (i, q) in out.q.iter_mut().enumerate() {
            let low = block[32 + i / 128 * 32 + i % 32] >> (i % 128 / 32 * 2) & 3;
            let high = block[i % 32] >> (i / 32) & 1;
            *q = (low | high << 2) as i8 - 4;
        }
    }
}

/// The 6-bit scale and minimum of sub-block `j` of Q4_K and Q5_K, from 12 bytes.
fn scale_and_min(bytes: &[u8], j: usize) -> (u8, u8) {
    if j < 4 {
        (bytes[j] & 63, bytes[j + 4] & 63)
    } else {
        (bytes[j + 4] & 15 | bytes[j - 4] >> 6 << 4, bytes[j + 4] >> 4 | bytes[j] >> 6 << 4)
    }
}

fn scales_and_mins(block: &[u8], out: &mut Decoded) {
    let (d, dmin) = (f16_at(block, 0), f16_at(block, 2));
    for j in 0..8 {
        let (scale, min) = scale_and_min(&block[4..16], j);
        out.scale[j] = d * f32::from(scale);
        out.offset[j] = -dmin * f32::from(min);
    }
}

/// 8 sub-blocks of 32 4-bit q: q * d * (6-bit scale) - dmin * (6-bit minimum). f16 d | f16 dmin |
/// 12 B of scales and minimums | 128 B of q: 32 bytes hold two sub-blocks, low then high.
#[allow(non_camel_case_types, reason = "the format's own name")]
pub(crate) struct Q4_K;
impl Format for Q4_K {
    const LEN: usize = 256;
    const BYTES: usize = 144;
    const SUB: usize = 32;
    fn decode(block: &[u8], out: &mut Decoded) {
        scales_and_mins(block, out);
        for (i, q) in out.q.iter_mut().enumerate() {
            *q = (block[16 + i / 64 * 32 + i % 32] >> (i % 64 / 32 * 4) & 15) as i8;
        }
    }
}

/// As Q4_K with a fifth bit: 32 B (bit `i / 32` of byte `i % 32`) before the 4-bit parts.
#[allow(non_camel_case_types, reason = "the format's own name")]
pub(crate) struct Q5_K;
impl Format for Q5_K {
    const LEN: usize = 256;
    const BYTES: usize = 176;
    const SUB: usize = 32;
    fn decode(block: &[u8], out: &mut Decoded) {
        scales_and_mins(block, out);
        for (i, q) in out.q.iter_mut().enumerate() {
            let low = block[48 + i / 64 * 32 + i % 32] >> (i % 64 / 32 * 4) & 15;
            let high = block[16 + i % 32] >> (i / 32) & 1;
            *q = (low | high << 4) as i8;
        }
    }
}

/// 16 sub-blocks of 16 6-bit (q - 32) * d * (signed 8-bit scale). In each half of 128: 64 B of low
/// nibbles (elements 0..64 low, 64..128 high) and 32 B of the upper two bits (shift `2s` gives
/// elements `32s..`). 128 B of the first | 64 B of the second | 16 scales | f16 d.
#[allow(non_camel_case_types, reason = "the format's own name")]
pub(crate) struct Q6_K;
impl Format for Q6_K {
    const LEN: usize = 256;
    const BYTES: usize = 210;
    const SUB: usize = 16;
    fn decode(block: &[u8], out: &mut Decoded) {
        let d = f16_at(block, 208);
        for j in 0..16 {
            out.scale[j] = d * f32::from(block[192 + j] as i8);
            out.offset[j] = 0.0;
        }
        for (i, q) in out.q.iter_mut().enumerate() {
            let (half, l) = (i / 128, i % 128);
            let low = block[half * 64 + l % 64] >> (l / 64 * 4) & 15;
            let high = block[128 + half * 32 + l % 32] >> (l / 32 * 2) & 3;
            *q = (low | high << 4) as i8 - 32;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_the_format_table() {
        macro_rules! check {
            ($($f:ident),*) => {
                $(assert_eq!(($f::LEN, $f::BYTES), (TensorType::$f.block_len(), TensorType::$f.block_bytes()), "{}", TensorType::$f);)*
            };
        }
        for_each_format!(check);
    }
}

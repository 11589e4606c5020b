//! The formats of 4-bit integers that are places in a list of 16 values.

use super::{Decoded, Format, f16_at, nibbles32};

/// The values of IQ4_NL and IQ4_XS: closer together around zero, as weights are.
pub(crate) const IQ4: [i8; 16] = [-127, -104, -83, -65, -49, -35, -22, -10, 1, 13, 25, 38, 53, 69, 89, 113];

/// The values of MXFP4 and NVFP4: twice those of a float with two bits of exponent and one of
/// fraction (E2M1), so that all are integers.
pub(crate) const E2M1: [i8; 16] = [0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12];

fn look_up(values: &[i8; 16], q: &mut [i8]) {
    q.iter_mut().for_each(|q| *q = values[(*q & 15) as usize]);
}

/// Half of the power of two that a byte of exponent (E8M0) stands for: the values that it
/// multiplies are doubled. Below 2 that is a subnormal number. The largest byte, which the format
/// of OCP calls NaN, is an exponent as any other here.
fn half_e8m0(e: u8) -> f32 {
    f32::from_bits(if e < 2 { 0x0020_0000 << e } else { u32::from(e - 1) << 23 })
}

/// Half of a float of four bits of exponent and three of fraction without a sign (the upper bit is
/// left out). 0x7f is zero.
fn half_ue4m3(byte: u8) -> f32 {
    let (exponent, fraction) = (byte >> 3 & 15, f32::from(byte & 7));
    let power = |e: i32| f32::from_bits(((127 + e) as u32) << 23);
    match (byte, exponent) {
        (0x7f, _) => 0.0,
        (_, 0) => fraction * power(-10),
        _ => (8.0 + fraction) * power(i32::from(exponent) - 11),
    }
}

/// 32 x (place in [`IQ4`]) * d.
#[allow(non_camel_case_types, reason = "the format's own name")]
pub(crate) struct IQ4_NL;
impl Format for IQ4_NL {
    const LEN: usize = 32;
    const BYTES: usize = 18;
    const SUB: usize = 32;
    fn decode(block: &[u8], out: &mut Decoded) {
        out.scale[0] = f16_at(block, 0);
        out.offset[0] = 0.0;
        nibbles32(&block[2..], &mut out.q);
        look_up(&IQ4, &mut out.q[..32]);
    }
}

/// 8 sub-blocks of 32 x (place in [`IQ4`]) * d * (6-bit scale - 32). f16 d | u16 with the upper two
/// bits of each scale | 4 B with the lower four | 128 B of q: 16 bytes hold a sub-block.
#[allow(non_camel_case_types, reason = "the format's own name")]
pub(crate) struct IQ4_XS;
impl Format for IQ4_XS {
    const LEN: usize = 256;
    const BYTES: usize = 136;
    const SUB: usize = 32;
    fn decode(block: &[u8], out: &mut Decoded) {
        let d = f16_at(block, 0);
        for (j, q) in out.q.chunks_exact_mut(32).enumerate() {
            let low = block[4 + j / 2] >> (j % 2 * 4) & 15;
            let high = block[2 + j / 4] >> (j % 4 * 2) & 3;
            out.scale[j] = d * (f32::from(low | high << 4) - 32.0);
            out.offset[j] = 0.0;
            nibbles32(&block[8 + j * 16..], q);
        }
        look_up(&IQ4, &mut out.q);
    }
}

/// 32 x (place in [`E2M1`]) * a power of two, in one byte before them.
pub(crate) struct MXFP4;
impl Format for MXFP4 {
    const LEN: usize = 32;
    const BYTES: usize = 17;
    const SUB: usize = 32;
    fn decode(block: &[u8], out: &mut Decoded) {
        out.scale[0] = half_e8m0(block[0]);
        out.offset[0] = 0.0;
        nibbles32(&block[1..], &mut out.q);
        look_up(&E2M1, &mut out.q[..32]);
    }
}

/// 4 sub-blocks of 16 x (place in [`E2M1`]) * an 8-bit float. 4 B of scales | 32 B of q: 8 bytes
/// hold a sub-block, elements 0..8 low and 8..16 high.
pub(crate) struct NVFP4;
impl Format for NVFP4 {
    const LEN: usize = 64;
    const BYTES: usize = 36;
    const SUB: usize = 16;
    fn decode(block: &[u8], out: &mut Decoded) {
        for j in 0..4 {
            out.scale[j] = half_ue4m3(block[j]);
            out.offset[j] = 0.0;
            for (i, &both) in block[4 + j * 8..][..8].iter().enumerate() {
                out.q[j * 16 + i] = (both & 15) as i8;
                out.q[j * 16 + 8 + i] = (both >> 4) as i8;
            }
        }
        look_up(&E2M1, &mut out.q[..64]);
    }
}

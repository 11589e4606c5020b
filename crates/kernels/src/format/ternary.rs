//! The formats of very few values: two, three or four.

use super::{Decoded, Format, f16_at};

/// 256 x (trit - 1) * d. Each of the first 48 bytes holds five trits, elements 32 or 16 apart: the
/// first 32 bytes elements 0..160, the next 16 elements 160..240; each of 4 bytes holds four, of
/// elements 240..256. f16 d comes last.
///
/// A byte is a fraction of 256: its first trit is the whole part of three times that.
#[allow(non_camel_case_types, reason = "the format's own name")]
pub(crate) struct TQ1_0;
impl Format for TQ1_0 {
    const LEN: usize = 256;
    const BYTES: usize = 54;
    const SUB: usize = 32;
    fn decode(block: &[u8], out: &mut Decoded) {
        const POWERS: [u8; 5] = [1, 3, 9, 27, 81];
        let d = f16_at(block, 52);
        out.scale[..8].fill(d);
        out.offset[..8].fill(0.0);
        let (mut rest, mut q) = (&block[..52], &mut out.q[..]);
        for (n_bytes, n_trits) in [(32, 5), (16, 5), (4, 4)] {
            let (bytes, after) = rest.split_at(n_bytes);
            let (these, others) = q.split_at_mut(n_bytes * n_trits);
            for (q, power) in these.chunks_exact_mut(n_bytes).zip(POWERS) {
                for (q, byte) in q.iter_mut().zip(bytes) {
                    *q = ((u16::from(byte.wrapping_mul(power)) * 3) >> 8) as i8 - 1;
                }
            }
            (rest, q) = (after, others);
        }
    }
}

/// 256 x (2-bit q - 1) * d. 64 B of q: shift `2s` of 32 bytes gives elements `32s..`, in each half
/// | f16 d.
#[allow(non_camel_case_types, reason = "the format's own name")]
pub(crate) struct TQ2_0;
impl Format for TQ2_0 {
    const LEN: usize = 256;
    const BYTES: usize = 66;
    const SUB: usize = 32;
    fn decode(block: &[u8], out: &mut Decoded) {
        out.scale[..8].fill(f16_at(block, 64));
        out.offset[..8].fill(0.0);
        for (i, q) in out.q.as_chunks_mut::<32>().0.iter_mut().enumerate() {
            for (q, byte) in q.iter_mut().zip(&block[i / 4 * 32..]) {
                *q = (byte >> (i % 4 * 2) & 3) as i8 - 1;
            }
        }
    }
}

/// 128 x d or -d. f16 d | 16 B: bit `i % 8` of byte `i / 8` says that element `i` is d.
#[allow(non_camel_case_types, reason = "the format's own name")]
pub(crate) struct Q1_0;
impl Format for Q1_0 {
    const LEN: usize = 128;
    const BYTES: usize = 18;
    const SUB: usize = 32;
    fn decode(block: &[u8], out: &mut Decoded) {
        out.scale[..4].fill(f16_at(block, 0));
        out.offset[..4].fill(0.0);
        for (q, byte) in out.q.as_chunks_mut::<8>().0.iter_mut().zip(&block[2..18]) {
            *q = std::array::from_fn(|i| (byte >> i & 1) as i8 * 2 - 1);
        }
    }
}

/// 64 x (2-bit q - 1) * d. f16 d | 16 B: bits `2 * (i % 4)..` of byte `i / 4` are element `i`.
#[allow(non_camel_case_types, reason = "the format's own name")]
pub(crate) struct Q2_0;
impl Format for Q2_0 {
    const LEN: usize = 64;
    const BYTES: usize = 18;
    const SUB: usize = 32;
    fn decode(block: &[u8], out: &mut Decoded) {
        out.scale[..2].fill(f16_at(block, 0));
        out.offset[..2].fill(0.0);
        for (q, byte) in out.q.as_chunks_mut::<4>().0.iter_mut().zip(&block[2..18]) {
            *q = std::array::from_fn(|i| (byte >> (i * 2) & 3) as i8 - 1);
        }
    }
}

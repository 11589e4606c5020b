//! Random tensors of every type, with values that spread like trained weights.

use half::{bf16, f16};
use modelembed_gguf::TensorType;

use crate::Rng;

/// One field of a block, in the order of the format.
enum Field {
    /// So many bytes in which every bit pattern is valid: quants and packed sub-scales.
    Bits(usize),
    /// The f16 scale `d`. Formats without a minimum also get negative ones, as real files do.
    Scale { signed: bool },
    /// An f16 that is this multiple of `d`, a few percent more or less: it centres the values
    /// around zero.
    Min(f32),
    /// The power of two next to `d`: a byte of exponent (MXFP4's).
    Exponent,
    /// `d`, a half more or less, as an 8-bit float of three bits of fraction (NVFP4's).
    F8,
    /// Four u16 whose upper four bits are the f16 `d`, the lowest bits first (IQ1_M's).
    ScaleInFourths,
}
use Field::{Bits, Exponent, F8, Min, Scale, ScaleInFourths};

/// A block's fields, and the standard deviation of its values when `d` is 1.
///
/// The deviations follow from uniformly random bits. A quant of b bits has mean (2^b - 1) / 2 and
/// variance (4^b - 1) / 12; Q2_K, Q4_K and Q5_K are `d * scale * quant - dmin * min` with
/// independent scale and min. Those of the types that look values up were measured on random
/// blocks. TQ2_0 and Q2_0 are `d * (quant - 1)`, so their mean is `d / 2` and the signs of `d` make
/// up for it.
fn fields(ty: TensorType) -> Option<(Vec<Field>, f32)> {
    Some(match ty {
        TensorType::Q4_0 => (vec![Scale { signed: true }, Bits(16)], 4.6),
        TensorType::Q4_1 => (vec![Scale { signed: false }, Min(-7.5), Bits(16)], 4.6),
        TensorType::Q5_0 => (vec![Scale { signed: true }, Bits(20)], 9.2),
        TensorType::Q5_1 => (vec![Scale { signed: false }, Min(-15.5), Bits(20)], 9.2),
        TensorType::Q8_0 => (vec![Scale { signed: true }, Bits(32)], 73.9),
        TensorType::Q2_K => (vec![Bits(80), Scale { signed: false }, Min(1.5)], 13.9),
        TensorType::Q3_K => (vec![Bits(108), Scale { signed: true }], 42.3),
        TensorType::Q4_K => (vec![Scale { signed: false }, Min(7.5), Bits(140)], 258.0),
        TensorType::Q5_K => (vec![Scale { signed: false }, Min(15.5), Bits(172)], 527.0),
        TensorType::Q6_K => (vec![Bits(208), Scale { signed: true }], 1366.0),
        TensorType::MXFP4 => (vec![Exponent, Bits(16)], 2.93),
        TensorType::NVFP4 => (vec![F8, F8, F8, F8, Bits(32)], 2.93),
        TensorType::IQ4_NL => (vec![Scale { signed: true }, Bits(16)], 67.4),
        TensorType::IQ4_XS => (vec![Scale { signed: true }, Bits(134)], 1245.0),
        TensorType::IQ3_S => (vec![Scale { signed: true }, Bits(108)], 139.9),
        TensorType::IQ3_XXS => (vec![Scale { signed: true }, Bits(96)], 142.4),
        TensorType::IQ2_S => (vec![Scale { signed: true }, Bits(80)], 56.4),
        TensorType::IQ2_XS => (vec![Scale { signed: true }, Bits(72)], 56.0),
        TensorType::IQ2_XXS => (vec![Scale { signed: true }, Bits(64)], 53.6),
        TensorType::IQ1_M => (vec![Bits(48), ScaleInFourths], 7.21),
        TensorType::IQ1_S => (vec![Scale { signed: true }, Bits(48)], 7.22),
        TensorType::TQ1_0 => (vec![Bits(52), Scale { signed: true }], 0.818),
        TensorType::TQ2_0 => (vec![Bits(64), Scale { signed: true }], 1.22),
        TensorType::Q1_0 => (vec![Scale { signed: true }, Bits(16)], 1.0),
        TensorType::Q2_0 => (vec![Scale { signed: true }, Bits(16)], 1.22),
        _ => return None,
    })
}

/// `rows * k` random values of standard deviation about `deviation` and mean about zero, as GGUF
/// stores them.
///
/// Floats are rounded from the random stream; quantised blocks are random bits under random scales
/// between half and one and a half times the fitting one, so every code, sub-scale and sign occurs.
///
/// # Panics
/// For a type whose blocks this does not know, or when `k` is not whole blocks.
pub fn random_tensor(ty: TensorType, rows: usize, k: usize, deviation: f32, rng: &mut Rng) -> Vec<u8> {
    let row_bytes = ty.row_bytes(k).unwrap_or_else(|| panic!("a row of {k} is not whole blocks of {ty}"));
    let mut out = Vec::with_capacity(rows * row_bytes);
    for _ in 0..rows * (k / ty.block_len()) {
        random_block(ty, deviation, rng, &mut out);
    }
    debug_assert_eq!(out.len(), rows * row_bytes);
    out
}

fn random_block(ty: TensorType, deviation: f32, rng: &mut Rng, out: &mut Vec<u8>) {
    match ty {
        TensorType::F32 => return out.extend_from_slice(&(rng.normal() * deviation).to_le_bytes()),
        TensorType::F16 => return out.extend_from_slice(&f16::from_f32(rng.normal() * deviation).to_le_bytes()),
        TensorType::BF16 => return out.extend_from_slice(&bf16::from_f32(rng.normal() * deviation).to_le_bytes()),
        _ => {}
    }
    let (fields, unit) = fields(ty).unwrap_or_else(|| panic!("no random blocks of {ty}"));
    let d = deviation / unit * (0.5 + rng.unit());
    for field in fields {
        match field {
            Bits(n) => rng.bytes(n, out),
            Scale { signed } => {
                let negative = signed && rng.below(2) == 1;
                out.extend_from_slice(&f16::from_f32(if negative { -d } else { d }).to_le_bytes());
            }
            // f32 has the same exponents; the upper bit of the fraction rounds.
            Exponent => out.push(((d.to_bits() + (1 << 22)) >> 23) as u8),
            F8 => out.push(f8(d * (0.5 + rng.unit()))),
            ScaleInFourths => {
                let negative = rng.below(2) == 1;
                let bits = f16::from_f32(if negative { -d } else { d }).to_bits();
                for i in 0..4 {
                    rng.bytes(2, out);
                    let high = out.len() - 1;
                    out[high] = out[high] & 15 | ((bits >> (4 * i) & 15) as u8) << 4;
                }
            }
            Min(ratio) => out.extend_from_slice(&f16::from_f32(d * ratio * (0.97 + 0.06 * rng.unit())).to_le_bytes()),
        }
    }
}

/// The float of four bits of exponent (biased by 7) and three of fraction below `x`, within its
/// range.
fn f8(x: f32) -> u8 {
    let units = (x * 512.0) as u32; // of the least number, 2^-9
    match units.checked_ilog2() {
        None | Some(0..3) => units as u8,
        Some(e @ 3..18) => ((e - 2) << 3 | (units >> (e - 3) & 7)) as u8,
        Some(_) => 0x7e,
    }
    .min(0x7e)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(field: &Field) -> usize {
        match field {
            Bits(n) => *n,
            Scale { .. } | Min(_) => 2,
            Exponent | F8 => 1,
            ScaleInFourths => 8,
        }
    }

    #[test]
    fn fields_fill_the_block() {
        for ty in TensorType::all() {
            let Some((fields, _)) = fields(ty) else { continue };
            let bytes: usize = fields.iter().map(bytes).sum();
            assert_eq!(bytes, ty.block_bytes(), "{ty}");
        }
    }

    #[test]
    fn f8_rounds_down_to_the_next_float() {
        let rows = [(0.0, 0), (0.0019, 0), (1.0 / 512.0, 1), (7.9 / 512.0, 7), (8.0 / 512.0, 8), (0.5, 0x30)];
        let others = [(1.0, 0x38), (1.2, 0x39), (1.9, 0x3f), (100.0, 0x6c), (448.0, 0x7e), (1e6, 0x7e)];
        for (x, byte) in rows.into_iter().chain(others) {
            assert_eq!(f8(x), byte, "{x}");
        }
    }

    #[test]
    fn q4_0_values_have_the_deviation_asked_for() {
        let bytes = random_tensor(TensorType::Q4_0, 8, 512, 0.25, &mut Rng::new(3));
        let mut values = Vec::new();
        for block in bytes.chunks(18) {
            let d = f64::from(f16::from_le_bytes([block[0], block[1]]));
            values.extend(block[2..].iter().flat_map(|b| [b & 15, b >> 4]).map(|q| d * (f64::from(q) - 8.0)));
        }
        let mean = values.iter().sum::<f64>() / values.len() as f64;
        let deviation = (values.iter().map(|v| v * v).sum::<f64>() / values.len() as f64).sqrt();
        assert!(mean.abs() < 0.02 && (0.22..0.30).contains(&deviation), "mean {mean}, deviation {deviation}");
    }
}

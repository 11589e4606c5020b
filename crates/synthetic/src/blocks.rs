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
}
use Field::{Bits, Min, Scale};

/// A block's fields, and the standard deviation of its values when `d` is 1.
///
/// The deviations follow from uniformly random bits. A quant of b bits has mean (2^b - 1) / 2 and
/// variance (4^b - 1) / 12; Q2_K, Q4_K and Q5_K are `d * scale * quant - dmin * min` with
/// independent scale and min.
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
            Min(ratio) => out.extend_from_slice(&f16::from_f32(d * ratio * (0.97 + 0.06 * rng.unit())).to_le_bytes()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_fill_the_block() {
        for ty in TensorType::all() {
            let Some((fields, _)) = fields(ty) else { continue };
            let bytes: usize = fields.iter().map(|f| if let Bits(n) = f { *n } else { 2 }).sum();
            assert_eq!(bytes, ty.block_bytes(), "{ty}");
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

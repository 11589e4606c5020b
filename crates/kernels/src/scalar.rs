//! The reference implementation: plain Rust, short rather than fast.
//!
//! Integer products are exact for each sub-block; everything after that is summed in f64, so that a
//! faster table's error is its own.

use half::{bf16, f16};
use modelembed_gguf::TensorType;

use crate::format::{self, Decoded, Format, MAX_BLOCK, for_each_format};
use crate::functions::{Dequantize, DotArgs, MAX_COLS, MatrixFns, PANEL_COLS, RowDots};
use crate::matrix::{ACT_BLOCK, ActKind, ActLayout};

pub(crate) static MATRIX: MatrixFns = MatrixFns {
    quantize: |l, x, out| quantize(l, x, out),
    row_dots,
    panel: |_, _| None,
    panel_cols: PANEL_COLS,
    dequantize,
};

fn row_dots(ty: TensorType, kind: ActKind) -> Option<RowDots> {
    macro_rules! table {
        ($($f:ident),*) => {
            match (ty, kind) {
                $((TensorType::$f, ActKind::Q8) => Some(|args, out, stride| dots_q8::<format::$f>(args, out, stride)),
                (TensorType::$f, ActKind::F32) => Some(|args, out, stride| dots_f32::<Blocks<format::$f>>(args, out, stride)),)*
                (TensorType::F32, ActKind::F32) => Some(|args, out, stride| dots_f32::<F32>(args, out, stride)),
                (TensorType::F16, ActKind::F32) => Some(|args, out, stride| dots_f32::<F16>(args, out, stride)),
                (TensorType::BF16, ActKind::F32) => Some(|args, out, stride| dots_f32::<Bf16>(args, out, stride)),
                _ => None,
            }
        };
    }
    for_each_format!(table)
}

fn dequantize(ty: TensorType) -> Option<Dequantize> {
    macro_rules! table {
        ($($f:ident),*) => {
            match ty {
                $(TensorType::$f => Some(|blocks, out| Blocks::<format::$f>::read(blocks, out)),)*
                TensorType::F32 => Some(|blocks, out| F32::read(blocks, out)),
                TensorType::F16 => Some(|blocks, out| F16::read(blocks, out)),
                TensorType::BF16 => Some(|blocks, out| Bf16::read(blocks, out)),
                _ => None,
            }
        };
    }
    for_each_format!(table)
}

/// Below this a run counts as zeros: 127 / amax must stay finite.
pub(crate) const MIN_AMAX: f32 = 1e-36;

/// The scale of a run of activations and the factor that turns them into integers, from the largest
/// magnitude. (AVX-512 has this once more, for sixteen runs.)
pub(crate) fn act_scale(amax: f32) -> (f32, f32) {
    if !amax.is_finite() {
        (f32::NAN, 0.0)
    } else if amax < MIN_AMAX {
        (0.0, 0.0)
    } else {
        (amax / 127.0, 127.0 / amax)
    }
}

fn quantize(layout: ActLayout, x: &[f32], out: &mut [u8]) {
    let (ints, floats) = out.split_at_mut(layout.scales_at());
    let mut put = |at: usize, v: f32| floats[at - layout.scales_at()..][..4].copy_from_slice(&v.to_ne_bytes());
    for (b, (run, ints)) in x.chunks_exact(ACT_BLOCK).zip(ints.chunks_exact_mut(ACT_BLOCK)).enumerate() {
        // The bits of magnitudes are ordered as the magnitudes are, with infinity and then NaN on
        // top.
        let amax = f32::from_bits(run.iter().map(|x| x.abs().to_bits()).max().unwrap_or(0));
        let (scale, inverse) = act_scale(amax);
        let mut sums = [0i32; 2];
        for (i, (out, x)) in ints.iter_mut().zip(run).enumerate() {
            let q = (x * inverse).round_ties_even() as i8; // NaN becomes 0
            *out = q as u8;
            sums[i / 16] += i32::from(q);
        }
        put(layout.scales_at() + b * 4, scale);
        put(layout.sums32_at() + b * 4, scale * (sums[0] + sums[1]) as f32);
        put(layout.sums16_at() + b * 8, scale * sums[0] as f32);
        put(layout.sums16_at() + b * 8 + 4, scale * sums[1] as f32);
    }
}

fn f32_at(bytes: &[u8], at: usize) -> f32 {
    f32::from_ne_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

fn dots_q8<F: Format>(args: &DotArgs<'_>, out: &mut [f32], stride: usize) {
    let layout = args.layout;
    let mut block = Decoded::new();
    for (r, row) in args.w.chunks_exact(args.row_bytes).take(args.n_rows).enumerate() {
        let mut acc = [0.0f64; MAX_COLS];
        for (b, bytes) in row.chunks_exact(F::BYTES).enumerate() {
            F::decode(bytes, &mut block);
            for (acc, x) in acc.iter_mut().zip(args.acts.chunks_exact(layout.col_bytes())) {
                for j in 0..F::LEN / F::SUB {
                    let at = b * F::LEN + j * F::SUB; // element in the row
                    let q = &block.q[j * F::SUB..][..F::SUB];
                    let dot: i32 = q.iter().zip(&x[at..]).map(|(&w, &x)| i32::from(w) * i32::from(x as i8)).sum();
                    let scale = f32_at(x, layout.scales_at() + at / ACT_BLOCK * 4);
                    let sums_at = if F::SUB == 16 { layout.sums16_at() } else { layout.sums32_at() };
                    let sum = f32_at(x, sums_at + at / F::SUB * 4);
                    *acc += f64::from(block.scale[j]) * f64::from(scale) * f64::from(dot);
                    *acc += f64::from(block.offset[j]) * f64::from(sum);
                }
            }
        }
        for c in 0..args.n_cols {
            out[c * stride + r] = acc[c] as f32;
        }
    }
}

/// Weights that can be read as f32, some whole blocks at a time.
trait ReadF32 {
    /// Elements in a block.
    const LEN: usize;
    const BYTES: usize;
    /// `out.len() / LEN` blocks.
    fn read(blocks: &[u8], out: &mut [f32]);
}

struct Blocks<F>(F);
impl<F: Format> ReadF32 for Blocks<F> {
    const LEN: usize = F::LEN;
    const BYTES: usize = F::BYTES;
    fn read(blocks: &[u8], out: &mut [f32]) {
        let mut block = Decoded::new();
        for (bytes, out) in blocks.chunks_exact(F::BYTES).zip(out.chunks_exact_mut(F::LEN)) {
            F::decode(bytes, &mut block);
            for (i, out) in out.iter_mut().enumerate() {
                *out = block.scale[i / F::SUB] * f32::from(block.q[i]) + block.offset[i / F::SUB];
            }
        }
    }
}

macro_rules! float_format {
    ($name:ident, $bytes:literal, $read:expr) => {
        struct $name;
        impl ReadF32 for $name {
            const LEN: usize = 1;
            const BYTES: usize = $bytes;
            fn read(blocks: &[u8], out: &mut [f32]) {
                let (blocks, _) = blocks.as_chunks::<$bytes>();
                for (&bytes, out) in blocks.iter().zip(out) {
                    *out = $read(bytes);
                }
            }
        }
    };
}
float_format!(F32, 4, f32::from_le_bytes);
float_format!(F16, 2, |b| f16::from_le_bytes(b).to_f32());
float_format!(Bf16, 2, |b| bf16::from_le_bytes(b).to_f32());

fn dots_f32<R: ReadF32>(args: &DotArgs<'_>, out: &mut [f32], stride: usize) {
    let mut w = [0.0f32; MAX_BLOCK];
    for (r, row) in args.w.chunks_exact(args.row_bytes).take(args.n_rows).enumerate() {
        let mut acc = [0.0f64; MAX_COLS];
        for (b, bytes) in row.chunks(MAX_BLOCK / R::LEN * R::BYTES).enumerate() {
            let w = &mut w[..bytes.len() / R::BYTES * R::LEN];
            R::read(bytes, w);
            for (acc, x) in acc.iter_mut().zip(args.acts.chunks_exact(args.layout.col_bytes())) {
                let (x, _) = x[b * MAX_BLOCK * 4..].as_chunks::<4>();
                *acc += w.iter().zip(x).map(|(&w, &x)| f64::from(w) * f64::from(f32::from_ne_bytes(x))).sum::<f64>();
            }
        }
        for c in 0..args.n_cols {
            out[c * stride + r] = acc[c] as f32;
        }
    }
}

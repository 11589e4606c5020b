//! Kernels for 64-bit Arm: plain NEON, which every such CPU has, and NEON with the dot-product instructions (Armv8.2).
//!
//! 1. Eight runs of 32 weights are one group, in every format, as for AVX2. A group's scales become two vectors of four f32
//!    ([`group::Head`]), multiplied once with the activations' scales.
//! 2. Weights and activations are signed bytes, which both integer products want: `sdot`, or a widening multiply and pairwise adds
//!    ([`dot::Dot`]). Offsets such as Q4_0's -8 and minimums go through the activations' precomputed sums, four at a time.
//! 3. The integer sums of four runs are added up across lanes together, so that four runs cost one conversion and one FMA. Sums of
//!    16-element sub-blocks are multiplied with their integer scales on the way.
//! 4. All that is rounded is that FMA, so that both instruction sets give the same bits. The sequence of operations on one
//!    accumulator is the same for every number of rows and columns, so a product's bits do not depend on it either.
//! 5. Several rows at a time where there are few columns: independent chains hide latencies.
//!
//! Written without hardware to measure on: tile sizes are those of AVX2, and nothing is prefetched by hand.

mod dot;
mod dots;
mod exact;
mod group;
mod kquants;
mod legacy;
mod quantize;

use modelembed_gguf::TensorType;

use crate::format::for_each_format;
use crate::matrix::ActKind;
use crate::table::{Dequantize, MatrixFns, RowDots};

pub(crate) static NEON: MatrixFns =
    MatrixFns { quantize: quantize::quantize, row_dots: row_dots::<dot::Widening>, panel: |_, _| None, dequantize };
pub(crate) static DOTPROD: MatrixFns =
    MatrixFns { quantize: quantize::quantize, row_dots: row_dots::<dot::Sdot>, panel: |_, _| None, dequantize };

use kquants::{Q2_K, Q3_K, Q4_K, Q5_K, Q6_K};
use legacy::{Q4_0, Q4_1, Q5_0, Q5_1, Q8_0};

fn row_dots<D: dot::Dot>(ty: TensorType, kind: ActKind) -> Option<RowDots> {
    macro_rules! table {
        ($($f:ident),*) => {
            match (ty, kind) {
                $((TensorType::$f, ActKind::Q8) => Some(dots::row_dots::<$f, D>),
                (TensorType::$f, ActKind::F32) => Some(exact::row_dots::<exact::Blocks<$f>>),)*
                (TensorType::F32, ActKind::F32) => Some(exact::row_dots::<exact::F32>),
                (TensorType::F16, ActKind::F32) => Some(exact::row_dots::<exact::F16>),
                (TensorType::BF16, ActKind::F32) => Some(exact::row_dots::<exact::Bf16>),
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
                $(TensorType::$f => Some(exact::dequantize::<exact::Blocks<$f>>),)*
                TensorType::F32 => Some(exact::dequantize::<exact::F32>),
                TensorType::F16 => Some(exact::dequantize::<exact::F16>),
                TensorType::BF16 => Some(exact::dequantize::<exact::Bf16>),
                _ => None,
            }
        };
    }
    for_each_format!(table)
}

//! Kernels for x86-64 with AVX2, FMA and F16C.
//!
//! 1. Eight runs of 32 weights are one group, in every format: a K-quant block is a group, the 32-element formats take eight
//!    blocks. A group's scales become one vector of eight f32 ([`group::Head`]), multiplied once with eight activation scales.
//! 2. Unsigned weights meet signed activations in `maddubs`, whose 16-bit sums cannot overflow for weights up to 6 bits. Offsets
//!    such as Q4_0's -8 and minimums go through the activations' precomputed sums, eight at a time. 8-bit weights lend their sign
//!    to the activation.
//! 3. `madd` then sums pairs, multiplied with the small integer scales of the formats that have 16 sub-blocks, else with ones.
//! 4. One f32 FMA a run; weights are unpacked once for all columns of a call. The sequence of operations on one accumulator is the
//!    same for every number of rows and columns, so a product's bits do not depend on it.
//! 5. Several rows at a time where there are few columns: independent chains hide the FMA's latency.

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

pub(crate) static MATRIX: MatrixFns = MatrixFns { quantize: quantize::quantize, row_dots, dequantize };

use kquants::{Q2_K, Q3_K, Q4_K, Q5_K, Q6_K};
use legacy::{Q4_0, Q4_1, Q5_0, Q5_1, Q8_0};

fn row_dots(ty: TensorType, kind: ActKind) -> Option<RowDots> {
    macro_rules! table {
        ($($f:ident),*) => {
            match (ty, kind) {
                $((TensorType::$f, ActKind::Q8) => Some(dots::row_dots::<$f>),
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

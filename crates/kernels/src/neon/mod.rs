//! Kernels for 64-bit Arm: plain NEON, which every such CPU has, and NEON with the dot-product
//! instructions (Armv8.2) and the 8-bit matrix instructions (Armv8.6).
//!
//! 1. Four rows are unpacked at a time ([`rows::Format4`]): with few columns in registers (`dots`),
//!    with many into a panel (`panel`). Rows in lanes need no sums across lanes at the end of a
//!    row, whatever its length.
//! 2. Weights and activations are signed bytes, which all integer products want: `sdot`, a widening
//!    multiply and pairwise adds ([`dot::Dot`]), or `smmla` of two rows with two columns
//!    ([`smmla`]). Offsets such as Q4_0's -8 and minimums go through the activations' precomputed
//!    sums.
//! 3. In registers, the integer sums of four rows are added up across lanes together. `smmla`, and
//!    in a panel `sdot` by element, leave no sum across lanes at all. Plain NEON has nothing to
//!    gain from a panel: its products of bytes need as many steps there, and row-dots unpack
//!    weights once for four columns. For `smmla` the columns of a tile are rearranged as well, once
//!    for the 32 rows of a strip (`paired`).
//! 4. The integer sum of a run is exact, and its way into the f32 sum is one function
//!    ([`dots::accumulate`]): a product has the same bits from all three instruction sets, and from
//!    row-dots and panels.
//! 5. Formats that have no functions of their own are unpacked by their definition (`decoded`): one
//!    panel for all of them, right rather than fast.
//!
//! Written without hardware to measure on: tile sizes follow from counting registers, and nothing
//! is prefetched by hand.

mod codebook;
mod decoded;
mod dot;
mod dots;
mod exact;
mod grid;
mod kquants;
mod legacy;
mod paired;
mod panel;
mod quantize;
mod rows;
mod smmla;

use modelembed_gguf::TensorType;

use crate::functions::{Dequantize, MatrixFns, PANEL_COLS, PanelMul, RowDots};
use crate::matrix::ActKind;
use crate::scalar;

pub(crate) static NEON: MatrixFns = MatrixFns {
    quantize: quantize::quantize,
    row_dots: row_dots::<dot::Widening, dot::Widening>,
    panel: |ty, kind| float_panel(ty).filter(|_| kind == ActKind::F32),
    panel_cols: PANEL_COLS,
    dequantize,
};
pub(crate) static DOTPROD: MatrixFns = MatrixFns {
    quantize: quantize::quantize,
    row_dots: row_dots::<dot::Sdot, dot::Sdot>,
    panel: panel::<dot::Sdot>,
    panel_cols: PANEL_COLS,
    dequantize,
};
pub(crate) static I8MM: MatrixFns = MatrixFns {
    quantize: quantize::quantize,
    row_dots: row_dots::<dot::Sdot, smmla::Smmla>,
    panel: panel::<smmla::Smmla>,
    panel_cols: PANEL_COLS,
    dequantize,
};

use codebook::{IQ4_NL, IQ4_XS, MXFP4};
use grid::{IQ2_S, IQ2_XS, IQ2_XXS, IQ3_S, IQ3_XXS};
use kquants::{Q2_K, Q3_K, Q4_K, Q5_K, Q6_K};
use legacy::{Q4_0, Q4_1, Q5_0, Q5_1, Q8_0};

/// Calls `$m!(A, B, ...)` with the formats that have functions of their own here.
macro_rules! for_each_own {
    ($m:ident) => {
        $m!(
            Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, MXFP4, IQ4_NL, IQ4_XS, IQ3_S, IQ3_XXS, IQ2_S,
            IQ2_XS, IQ2_XXS
        )
    };
}

fn row_dots<One: dot::Dot, Few: dots::RunSums>(ty: TensorType, kind: ActKind) -> Option<RowDots> {
    macro_rules! table {
        ($($f:ident),*) => {
            match (ty, kind) {
                $((TensorType::$f, ActKind::Q8) => Some(dots::row_dots::<$f, One, Few>),
                (TensorType::$f, ActKind::F32) => Some(exact::row_dots::<exact::Blocks<$f>>),)*
                (TensorType::F32, ActKind::F32) => Some(exact::row_dots::<exact::F32>),
                (TensorType::F16, ActKind::F32) => Some(exact::row_dots::<exact::F16>),
                (TensorType::BF16, ActKind::F32) => Some(exact::row_dots::<exact::Bf16>),
                (_, ActKind::Q8) => decoded::row_dots::<One>(ty),
                (_, ActKind::F32) => decoded::exact_row_dots(ty),
            }
        };
    }
    for_each_own!(table)
}

fn panel<S: panel::PanelSums>(ty: TensorType, kind: ActKind) -> Option<PanelMul> {
    macro_rules! table {
        ($($f:ident),*) => {
            match (ty, kind) {
                $((TensorType::$f, ActKind::Q8) => Some(crate::panel::mul::<S::Panel<$f>>),)*
                (_, ActKind::F32) => float_panel(ty),
                (_, ActKind::Q8) => decoded::panel::<dot::Sdot>(ty),
            }
        };
    }
    for_each_own!(table)
}

fn float_panel(ty: TensorType) -> Option<PanelMul> {
    macro_rules! table {
        ($($f:ident),*) => {
            match ty {
                $(TensorType::$f => Some(crate::panel::mul::<exact::Floats<exact::Blocks<$f>>>),)*
                TensorType::F32 => Some(crate::panel::mul::<exact::Floats<exact::F32>>),
                TensorType::F16 => Some(crate::panel::mul::<exact::Floats<exact::F16>>),
                TensorType::BF16 => Some(crate::panel::mul::<exact::Floats<exact::Bf16>>),
                _ => decoded::exact_panel(ty),
            }
        };
    }
    for_each_own!(table)
}

fn dequantize(ty: TensorType) -> Option<Dequantize> {
    macro_rules! table {
        ($($f:ident),*) => {
            match ty {
                $(TensorType::$f => Some(exact::dequantize::<exact::Blocks<$f>>),)*
                TensorType::F32 => Some(exact::dequantize::<exact::F32>),
                TensorType::F16 => Some(exact::dequantize::<exact::F16>),
                TensorType::BF16 => Some(exact::dequantize::<exact::Bf16>),
                _ => (scalar::MATRIX.dequantize)(ty),
            }
        };
    }
    for_each_own!(table)
}

/// The functions for formats that have none of their own, for any quantised format.
#[cfg(test)]
pub(crate) fn any_format(ty: TensorType, kind: ActKind) -> (RowDots, PanelMul) {
    let functions = match kind {
        ActKind::Q8 => (decoded::row_dots::<dot::Widening>(ty), decoded::panel::<dot::Widening>(ty)),
        ActKind::F32 => (decoded::exact_row_dots(ty), decoded::exact_panel(ty)),
    };
    (functions.0.expect("a quantised type"), functions.1.expect("a quantised type"))
}

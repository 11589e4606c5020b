//! Kernels for x86-64 with AVX2, FMA and F16C, and for those that have AVX-VNNI too.
//!
//! 1. Eight rows are unpacked at a time ([`rows::Format8`]): with few columns in registers
//!    (`dots`), with many into a panel (`panel`). Rows in lanes need no sums across lanes at the
//!    end of a row, whatever its length.
//! 2. Unsigned weights meet signed activations in `maddubs`, whose 16-bit sums are added up as far
//!    as a format's integers allow before `madd` widens them. Offsets such as Q4_0's -8 and
//!    minimums go through the activations' precomputed sums. 8-bit weights lend their sign to the
//!    activation. With AVX-VNNI, `vpdpbusd` does all of this where no integer scale comes between
//!    ([`dot`]); the bits are the same.
//! 3. `madd` multiplies with the small integer scales of the formats that have 16 sub-blocks, else
//!    with ones.
//! 4. The integer sum of a run is exact, and its way into the f32 sum is one function for row-dots
//!    and panels ([`dots::accumulate`]): a product has the same bits from both.
//! 5. Formats that look groups of magnitudes up in grids (`grid`) become unsigned integers with an
//!    offset, too.
//! 6. Formats that have no functions of their own are unpacked by their definition (`decoded`): one
//!    panel for all of them, right rather than fast.

mod codebook;
mod decoded;
mod dot;
mod dots;
pub(crate) mod exact;
mod floats;
mod grid;
mod kquants;
mod legacy;
mod panel;
mod quantize;
mod rows;

use modelembed_gguf::TensorType;

use crate::functions::{Dequantize, MatrixFns, PANEL_COLS, PanelMul, RowDots};
use crate::matrix::ActKind;
use crate::scalar;

/// Columns from which on a panel is faster than row-dots, which take two at a time: measured for
/// Q4_K, Q6_K, Q4_1, Q5_0 and Q8_0, see docs/benchmarks.md.
const AVX2_PANEL_COLS: usize = 7;

pub(crate) static AVX2: MatrixFns = MatrixFns {
    quantize: quantize::quantize,
    row_dots: row_dots::<dot::Maddubs>,
    panel: panel::<dot::Maddubs>,
    panel_cols: AVX2_PANEL_COLS,
    dequantize,
};
pub(crate) static AVX_VNNI: MatrixFns = MatrixFns {
    quantize: quantize::quantize,
    row_dots: row_dots::<dot::Vnni>,
    panel: panel::<dot::Vnni>,
    panel_cols: PANEL_COLS,
    dequantize,
};

pub(crate) use codebook::{IQ4_NL, IQ4_XS, MXFP4};
pub(crate) use grid::{IQ2_S, IQ2_XS, IQ2_XXS, IQ3_S, IQ3_XXS};
pub(crate) use kquants::{Q2_K, Q3_K, Q4_K, Q5_K, Q6_K};
pub(crate) use legacy::{Q4_0, Q4_1, Q5_0, Q5_1, Q8_0};

/// Calls `$m!(A, B, ...)` with the formats that have functions of their own here.
macro_rules! for_each_own {
    ($m:ident) => {
        $m!(
            Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, MXFP4, IQ4_NL, IQ4_XS, IQ3_S, IQ3_XXS, IQ2_S,
            IQ2_XS, IQ2_XXS
        )
    };
}

fn row_dots<D: dot::Dot>(ty: TensorType, kind: ActKind) -> Option<RowDots> {
    macro_rules! table {
        ($($f:ident),*) => {
            match (ty, kind) {
                $((TensorType::$f, ActKind::Q8) => Some(dots::row_dots::<$f, D>),
                (TensorType::$f, ActKind::F32) => Some(exact::row_dots::<exact::Blocks<$f>>),)*
                (TensorType::F32, ActKind::F32) => Some(floats::row_dots::<exact::F32>),
                (TensorType::F16, ActKind::F32) => Some(floats::row_dots::<exact::F16>),
                (TensorType::BF16, ActKind::F32) => Some(floats::row_dots::<exact::Bf16>),
                (_, ActKind::Q8) => decoded::row_dots::<D>(ty),
                (_, ActKind::F32) => decoded::exact_row_dots(ty),
            }
        };
    }
    for_each_own!(table)
}

fn panel<D: dot::Dot>(ty: TensorType, kind: ActKind) -> Option<PanelMul> {
    macro_rules! table {
        ($($f:ident),*) => {
            match (ty, kind) {
                $((TensorType::$f, ActKind::Q8) => Some(crate::panel::mul::<panel::Quantised<$f, D>>),
                (TensorType::$f, ActKind::F32) => Some(crate::panel::mul::<exact::Floats<exact::Blocks<$f>>>),)*
                (TensorType::F32, ActKind::F32) => Some(crate::panel::mul::<exact::Floats<exact::F32>>),
                (TensorType::F16, ActKind::F32) => Some(crate::panel::mul::<exact::Floats<exact::F16>>),
                (TensorType::BF16, ActKind::F32) => Some(crate::panel::mul::<exact::Floats<exact::Bf16>>),
                (_, ActKind::Q8) => decoded::panel::<D>(ty),
                (_, ActKind::F32) => decoded::exact_panel(ty),
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
        ActKind::Q8 => (decoded::row_dots::<dot::Maddubs>(ty), decoded::panel::<dot::Maddubs>(ty)),
        ActKind::F32 => (decoded::exact_row_dots(ty), decoded::exact_panel(ty)),
    };
    (functions.0.expect("a quantised type"), functions.1.expect("a quantised type"))
}

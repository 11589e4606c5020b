//! Kernels for x86-64 with AVX-512 (F, BW, DQ, VL, VNNI, VBMI), GFNI, FMA and F16C.
//!
//! 1. Four rows and four runs of 32 weights are one *step* (`step`): 128 weights of each row become
//!    two registers in which 128-bit lane `j` holds halves of run `j`, whatever the format. A byte
//!    permutation out of the blocks puts them there; one GFNI multiplication shifts and masks all
//!    bit fields, differently in each lane. Scales are decoded sixteen at a time in that same
//!    order.
//! 2. A row-dot (`dots`) takes one step after the other and keeps a sum in each lane. For a panel
//!    (`panel`), four steps side by side are sixteen rows (`rows`), whose registers are transposed
//!    into one of sixteen rows for each run.
//! 3. `vpdpbusd` multiplies unsigned weights with signed activations. A format's centre (Q4_0's 8)
//!    is taken off in integers, exactly: row-dots begin with minus centre times the activations; a
//!    panel holds signed weights, and of two signed factors one gets 128 added, which is undone
//!    likewise. Only minimums go through the activations' precomputed sums.
//! 4. Where sub-blocks have 16 elements, row-dots pack both halves' sums of four products to 16
//!    bits (they fit) and multiply by the integer scales in `vpdpwssd`; panels multiply the whole
//!    sums in f32 (they fit too).
//! 5. The integer sum of a run is exact, and its way into an f32 sum is AVX2's (without the offsets
//!    of centres). But there are four such sums, of every fourth run each, which are added up where
//!    the row ends or a panel of it: in row-dots they are lanes, in panels one comes after the
//!    other. So both give the same bits, and other bits than AVX2.

mod codebook;
mod dots;
mod exact;
mod kquants;
mod legacy;
mod panel;
mod quantize;
mod rows;
mod step;

use modelembed_gguf::TensorType;

use crate::avx2;
use crate::functions::{MatrixFns, PanelMul, RowDots};
use crate::matrix::ActKind;
use codebook::{IQ4_NL, IQ4_XS, MXFP4};
use kquants::{Q2_K, Q3_K, Q4_K, Q5_K, Q6_K};
use legacy::{Q4_0, Q4_1, Q5_0, Q5_1, Q8_0};

/// Columns from which on a panel is faster: row-dots take four at a time. Milliseconds for a prompt
/// of 8, 9, 12, 16 and 24 tokens of TinyLlama's shape through row-dots 57, 71, 87, 115 and 171,
/// through panels from 9 on 97, 110, 122 and 151 (two threads of a Zen 4 server, which others
/// shared: from 13 to 16 columns, and with smaller models, neither was reliably faster).
const PANEL_COLS: usize = 13;

/// Calls `$m!(A, B, ...)` with the formats that have functions of their own here; AVX2 has them too.
macro_rules! for_each_own {
    ($m:ident) => {
        $m!(Q4_0, Q4_1, Q5_0, Q5_1, Q8_0, Q2_K, Q3_K, Q4_K, Q5_K, Q6_K, MXFP4, IQ4_NL, IQ4_XS)
    };
}

/// Dequantisation and few columns of exact products are AVX2's, and so is everything of formats
/// without functions of their own.
pub(crate) static MATRIX: MatrixFns = MatrixFns {
    quantize: quantize::quantize,
    row_dots,
    panel,
    panel_cols: PANEL_COLS,
    dequantize: avx2::AVX2.dequantize,
};

fn panel(ty: TensorType, kind: ActKind) -> Option<PanelMul> {
    use avx2::exact::{Bf16, Blocks, F16, F32};
    macro_rules! table {
        ($($f:ident),*) => {
            match (ty, kind) {
                $((TensorType::$f, ActKind::Q8) => Some(crate::panel::mul::<panel::Quantised<$f>>),
                (TensorType::$f, ActKind::F32) => Some(crate::panel::mul::<exact::Floats<Blocks<avx2::$f>>>),)*
                (TensorType::F32, ActKind::F32) => Some(crate::panel::mul::<exact::Floats<F32>>),
                (TensorType::F16, ActKind::F32) => Some(crate::panel::mul::<exact::Floats<F16>>),
                (TensorType::BF16, ActKind::F32) => Some(crate::panel::mul::<exact::Floats<Bf16>>),
                _ => (avx2::AVX2.panel)(ty, kind),
            }
        };
    }
    for_each_own!(table)
}

fn row_dots(ty: TensorType, kind: ActKind) -> Option<RowDots> {
    if kind != ActKind::Q8 {
        return (avx2::AVX2.row_dots)(ty, kind);
    }
    macro_rules! table {
        ($($f:ident),*) => {
            match ty {
                $(TensorType::$f => Some(dots::row_dots::<$f>),)*
                _ => (avx2::AVX2.row_dots)(ty, kind),
            }
        };
    }
    for_each_own!(table)
}

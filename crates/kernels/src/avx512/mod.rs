//! Kernels for x86-64 with AVX-512 (F, BW, DQ, VL, VNNI, VBMI) and GFNI.
//!
//! A product of a row and a column, in plain words, for one format:
//! ```text
//! for each run of 32 weights:
//!     dot  = sum of q[i] * x[i]                 (integers, exact)
//!     acc += dot * (weight scale * activation scale) + minimum * (sum of the activations)
//! ```
//! What the code adds:
//! 1. Four rows and four runs are one *step*: 128 weights of each row become two registers in which 128-bit lane `j` holds halves of
//!    run `j`, whatever the format. A byte permutation out of the blocks puts them there; one GFNI multiplication shifts and masks all
//!    bit fields, differently in each lane. `vpdpbusd` multiplies with activations that lie likewise.
//! 2. The four rows' registers are summed by one transposition: 16 integers, lane `j` dword `i` = run `j` of row `i`. One conversion,
//!    one product of scales and one FMA serve 512 weights; scales are decoded sixteen at a time in that same order.
//! 3. `vpdpbusd` wants unsigned weights. A format's constant offset (Q4_0's -8, Q8_0's +128) is undone exactly, in integers: the
//!    accumulators start from minus offset times the activations.
//! 4. Formats with sub-blocks of 16 pack both halves to 16 bits (they fit) and multiply by the integer scales in `vpdpwssd`.
//! 5. Weights are unpacked once for up to eight columns.
//! 6. A product's arithmetic is the lane's own: it does not depend on the other rows and columns of the step. Rows beyond the last
//!    repeat the last; runs beyond the last are masked to zero.

mod dots;
mod kquants;
mod legacy;
mod quantize;
mod step;

use modelembed_gguf::TensorType;

use crate::avx2;
use crate::matrix::ActKind;
use crate::table::{MatrixFns, PanelMul, RowDots};
use kquants::{Q2_K, Q3_K, Q4_K, Q5_K, Q6_K};
use legacy::{Q4_0, Q4_1, Q5_0, Q5_1, Q8_0};

/// Exact products and dequantisation are AVX2's.
pub(crate) static MATRIX: MatrixFns =
    MatrixFns { quantize: quantize::quantize, row_dots, panel, dequantize: avx2::MATRIX.dequantize };

fn panel(ty: TensorType, kind: ActKind) -> Option<PanelMul> {
    match kind {
        ActKind::Q8 => None,
        ActKind::F32 => (avx2::MATRIX.panel)(ty, kind),
    }
}

fn row_dots(ty: TensorType, kind: ActKind) -> Option<RowDots> {
    if kind != ActKind::Q8 {
        return (avx2::MATRIX.row_dots)(ty, kind);
    }
    macro_rules! table {
        ($($f:ident),*) => {
            match ty {
                $(TensorType::$f => Some(dots::row_dots::<$f>),)*
                _ => None,
            }
        };
    }
    crate::format::for_each_format!(table)
}

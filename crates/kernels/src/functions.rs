//! What a table of matrix functions consists of.

use modelembed_gguf::TensorType;

use crate::matrix::{ActKind, ActLayout, Output};

/// Columns that one call of a [`RowDots`] takes at most.
pub(crate) const MAX_COLS: usize = 8;
/// Columns from which on a panel is faster, where row-dots take two columns at a time. They read
/// eight rows from memory for the first pair and from the first-level cache for the others; a panel
/// must be written before it is read. Milliseconds for a prompt of 2, 4, 8 and 12 tokens of SmolLM2
/// through row-dots 5, 8, 13 and 19, through panels 5, 13, 17 and 19 (two threads of a Zen 3
/// server).
pub(crate) const PANEL_COLS: usize = MAX_COLS + 1;

/// The products of some rows with some columns. Lengths have been proven by the caller.
pub(crate) struct DotArgs<'a> {
    /// What the rows consist of.
    pub ty: TensorType,
    /// `n_rows` rows, `row_bytes` each.
    pub w: &'a [u8],
    pub row_bytes: usize,
    pub n_rows: usize,
    /// `n_cols` columns, `layout.col_bytes()` each.
    pub acts: &'a [u8],
    pub layout: ActLayout,
    /// 1 to [`MAX_COLS`] for row-dots, any number for panels.
    pub n_cols: usize,
}

/// Writes the product of row `r` and column `c` to `out[c * stride + r]`.
///
/// A product's bits must depend on nothing but that row and that column.
///
/// # Safety
/// The CPU must have the instruction set of the table that the function stands in; `args` must be
/// as documented there, for the function's own weight type and kind of activations; `out` must hold
/// `(n_cols - 1) * stride + n_rows` elements.
pub(crate) type RowDots = unsafe fn(args: &DotArgs<'_>, out: &mut [f32], stride: usize);

/// Writes the product of row `r` and column `c` to `out.column(c)[r]`, for any number of columns;
/// see [`crate::panel`].
///
/// Gives the same bits as the table's [`RowDots`].
///
/// # Safety
/// As for [`RowDots`], but `n_cols` may be any number.
pub(crate) type PanelMul = unsafe fn(args: &DotArgs<'_>, out: &mut dyn Output);

/// Turns one column of f32 into [`ActKind::Q8`].
///
/// # Safety
/// The CPU must have the table's instruction set; `x` must have `layout.k()` elements and `out`
/// `layout.col_bytes()` bytes.
pub(crate) type Quantize = unsafe fn(layout: ActLayout, x: &[f32], out: &mut [u8]);

/// Turns whole blocks into as many f32 as `out` holds.
///
/// # Safety
/// The CPU must have the table's instruction set; `blocks` must be exactly the bytes of `out.len()`
/// elements.
pub(crate) type Dequantize = unsafe fn(blocks: &[u8], out: &mut [f32]);

/// The matrix functions of one instruction set. A look-up gives a function for every supported
/// type: a table that has none of its own hands out that of a lesser instruction set.
pub(crate) struct MatrixFns {
    pub quantize: Quantize,
    /// For a weight type and the kind of activations that it is multiplied with; `None` if
    /// [`Kernels::supports`](crate::Kernels::supports) is false, or for `Q8` activations with
    /// weights that are no integers.
    pub row_dots: fn(TensorType, ActKind) -> Option<RowDots>,
    /// The same for many columns, where the table has it.
    pub panel: fn(TensorType, ActKind) -> Option<PanelMul>,
    /// `Q8` columns from which on it is taken; of f32 it is [`PANEL_COLS`].
    pub panel_cols: usize,
    /// `None` if [`Kernels::supports`](crate::Kernels::supports) is false.
    pub dequantize: fn(TensorType) -> Option<Dequantize>,
}

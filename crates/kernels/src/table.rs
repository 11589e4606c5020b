//! The table of functions for one instruction set, and the checked calls through it.

use std::ops::Range;

use modelembed_gguf::TensorType;

#[cfg(target_arch = "x86_64")]
use crate::avx2;
#[cfg(target_arch = "x86_64")]
use crate::avx512;
use crate::format;
use crate::functions::{DotArgs, MAX_COLS, MatrixFns, PANEL_COLS};
use crate::isa::Isa;
use crate::matrix::{ActKind, ActLayout, Acts, MatRef, Output};
#[cfg(all(target_arch = "aarch64", target_endian = "little"))]
use crate::neon;
use crate::scalar;
use crate::vector::{self, VectorFns};

/// Rows that are swept over all columns before the next rows, when there are several groups of
/// columns.
const TILE_ROWS: usize = 64;
/// Weight bytes of such a tile: half of a 32 KiB first-level cache, the rest is for the columns.
const TILE_BYTES: usize = 16 << 10;

/// All functions for one instruction set that this CPU has.
pub struct Kernels {
    isa: Isa,
    matrix: &'static MatrixFns,
    pub(crate) vector: &'static VectorFns,
}

/// One table an instruction set, from the most general to the best.
static TABLES: &[Kernels] = &[
    Kernels { isa: Isa::Scalar, matrix: &scalar::MATRIX, vector: &vector::SCALAR },
    #[cfg(target_arch = "x86_64")]
    Kernels { isa: Isa::Avx2, matrix: &avx2::AVX2, vector: &vector::AVX2 },
    #[cfg(target_arch = "x86_64")]
    Kernels { isa: Isa::AvxVnni, matrix: &avx2::AVX_VNNI, vector: &vector::AVX2 },
    #[cfg(target_arch = "x86_64")]
    Kernels { isa: Isa::Avx512, matrix: &avx512::MATRIX, vector: &vector::AVX512 },
    #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
    Kernels { isa: Isa::Neon, matrix: &neon::NEON, vector: &vector::NEON },
    #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
    Kernels { isa: Isa::Dotprod, matrix: &neon::DOTPROD, vector: &vector::NEON },
    #[cfg(all(target_arch = "aarch64", target_endian = "little"))]
    Kernels { isa: Isa::I8mm, matrix: &neon::I8MM, vector: &vector::NEON },
];

impl Kernels {
    /// The tables that this CPU can run, the best last.
    pub fn all() -> impl DoubleEndedIterator<Item = &'static Kernels> {
        TABLES.iter().filter(|t| t.isa.is_available())
    }

    /// The fastest table that this CPU can run.
    pub fn best() -> &'static Kernels {
        Self::all().next_back().unwrap_or(&TABLES[0])
    }

    /// The table for one instruction set, if this CPU has it.
    pub fn by_isa(isa: Isa) -> Option<&'static Kernels> {
        Self::all().find(|t| t.isa == isa)
    }

    /// The instruction set that this table is compiled for.
    pub fn isa(&self) -> Isa {
        self.isa
    }

    /// Whether weights of this type can be multiplied and dequantised (by every table).
    pub fn supports(ty: TensorType) -> bool {
        format::is_known(ty)
    }

    /// What the activations that meet such weights must be.
    ///
    /// Quantised weights take `Q8`, float weights `F32`. With `exact` all take `F32`: weights are
    /// dequantised on the fly and nothing is rounded to integers, which is slower.
    pub fn act_kind(ty: TensorType, exact: bool) -> ActKind {
        match ty {
            TensorType::F32 | TensorType::F16 | TensorType::BF16 => ActKind::F32,
            _ if exact => ActKind::F32,
            _ => ActKind::Q8,
        }
    }

    /// Writes `x`, a column of `layout.k()` activations, as `layout` says.
    ///
    /// Each 32 elements share the scale `max|x| / 127` and are rounded to the nearest integer, ties
    /// to even. Every table gives the same bytes. A run that holds an infinity or a NaN gets a NaN
    /// scale, so that it shows in every product.
    ///
    /// # Panics
    /// If `x` is not `layout.k()` long or `out` is shorter than `layout.col_bytes()`.
    pub fn quantize(&self, layout: ActLayout, x: &[f32], out: &mut [u8]) {
        assert_eq!(x.len(), layout.k(), "activations of a column");
        let out = &mut out[..layout.col_bytes()];
        match layout.kind() {
            ActKind::F32 => {
                for (bytes, x) in out.chunks_exact_mut(4).zip(x) {
                    bytes.copy_from_slice(&x.to_ne_bytes());
                }
            }
            // SAFETY: holding a table proves that the CPU has its instructions; both lengths were
            // checked above.
            ActKind::Q8 => unsafe { (self.matrix.quantize)(layout, x, out) },
        }
    }

    /// The products of the weight rows `rows` with every column.
    ///
    /// `out.column(c)[i]` becomes the product of row `rows.start + i` and column `c`. Its bits
    /// depend only on that row and that column: not on how many others a call covers, so work may
    /// be split in any way.
    ///
    /// # Panics
    /// If the range ends beyond the matrix, if `acts` has another `k` or is quantised while the
    /// weights are floats, or if an output column is not `rows.len()` long.
    pub fn mul_rows(&self, w: MatRef<'_>, rows: Range<usize>, acts: Acts<'_>, out: &mut dyn Output) {
        let layout = acts.layout();
        assert_eq!(w.k(), layout.k(), "elements of a weight row and of an activation column");
        let Some(row_dots) = (self.matrix.row_dots)(w.ty(), layout.kind()) else {
            panic!("{} weights with {:?} activations", w.ty(), layout.kind());
        };
        let args = |rows: Range<usize>, cols: Range<usize>| DotArgs {
            ty: w.ty(),
            w: w.rows_data(rows.clone()),
            row_bytes: w.row_bytes(),
            n_rows: rows.len(),
            acts: acts.cols_data(cols.clone()),
            layout,
            n_cols: cols.len(),
        };
        let n_rows = rows.len();
        if acts.n_cols() == 1 {
            let column = out.column(0);
            assert_eq!(column.len(), n_rows, "rows of an output column");
            // SAFETY: holding a table proves the CPU's instructions; `rows_data` and `cols_data`
            // give slices of the documented lengths, `k` is the same on both sides, and the output
            // was just checked.
            unsafe { row_dots(&args(rows, 0..1), column, n_rows) };
            return;
        }
        let panel_cols = match layout.kind() {
            ActKind::Q8 => self.matrix.panel_cols,
            ActKind::F32 => PANEL_COLS,
        };
        if let Some(panel) = (self.matrix.panel)(w.ty(), layout.kind())
            && acts.n_cols() >= panel_cols
        {
            // SAFETY: as above; the output is checked column by column.
            unsafe { panel(&args(rows, 0..acts.n_cols()), out) };
            return;
        }
        let tile_rows = match acts.n_cols() {
            ..=MAX_COLS => TILE_ROWS,
            _ => (TILE_BYTES / w.row_bytes()).clamp(8, TILE_ROWS) / 8 * 8,
        };
        let mut tile = [0.0f32; MAX_COLS * TILE_ROWS];
        for first in (0..n_rows).step_by(tile_rows) {
            let n = tile_rows.min(n_rows - first);
            let tile_range = rows.start + first..rows.start + first + n;
            for col in (0..acts.n_cols()).step_by(MAX_COLS) {
                let cols = col..acts.n_cols().min(col + MAX_COLS);
                // SAFETY: as above; the tile holds MAX_COLS columns of TILE_ROWS >= n rows.
                unsafe { row_dots(&args(tile_range.clone(), cols.clone()), &mut tile, TILE_ROWS) };
                for (products, c) in tile.chunks_exact(TILE_ROWS).zip(cols) {
                    let column = out.column(c);
                    assert_eq!(column.len(), n_rows, "rows of an output column");
                    column[first..first + n].copy_from_slice(&products[..n]);
                }
            }
        }
    }

    /// Writes the `k` elements of one weight row.
    ///
    /// # Panics
    /// If there is no such row, or `out` is not `w.k()` long.
    pub fn dequantize_row(&self, w: MatRef<'_>, row: usize, out: &mut [f32]) {
        assert_eq!(out.len(), w.k(), "elements of a row");
        let Some(dequantize) = (self.matrix.dequantize)(w.ty()) else { panic!("no kernels for {}", w.ty()) };
        // SAFETY: holding a table proves the CPU's instructions; a row of `w` is exactly the bytes
        // of `w.k()` elements.
        unsafe { dequantize(w.rows_data(row..row + 1), out) }
    }
}

impl std::fmt::Debug for Kernels {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kernels").field("isa", &self.isa).finish_non_exhaustive()
    }
}

//! The shapes that kernels work on: weight matrices, activation columns, outputs.

use std::ops::Range;

use modelembed_gguf::TensorType;

use crate::format;

/// A weight matrix where the file holds it: `rows` rows of `k` elements, each row a run of blocks.
///
/// Its bytes may start at any address.
#[derive(Clone, Copy, Debug)]
pub struct MatRef<'a> {
    ty: TensorType,
    data: &'a [u8], // rows * row_bytes
    rows: usize,
    k: usize,
    row_bytes: usize,
}

impl<'a> MatRef<'a> {
    /// A view of `data` as a `(rows, k)` matrix.
    ///
    /// `None` if no kernel exists for the type, if `k` is zero or not a whole number of blocks, or
    /// if `data` is not exactly as long as the shape says. Holding a `MatRef` proves all of this.
    pub fn new(ty: TensorType, data: &'a [u8], rows: usize, k: usize) -> Option<MatRef<'a>> {
        let row_bytes = ty.row_bytes(k)?;
        let fits = k > 0 && row_bytes.checked_mul(rows)? == data.len();
        (fits && format::is_known(ty)).then_some(MatRef { ty, data, rows, k, row_bytes })
    }

    /// How the elements are stored.
    pub fn ty(&self) -> TensorType {
        self.ty
    }

    /// Number of rows: the length of the product with one column.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Elements in a row: the length of an activation column.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Bytes of one row.
    pub fn row_bytes(&self) -> usize {
        self.row_bytes
    }

    /// All bytes, row after row.
    pub fn data(&self) -> &'a [u8] {
        self.data
    }

    /// The bytes of some neighbouring rows.
    ///
    /// # Panics
    /// If the range ends beyond the last row.
    pub fn rows_data(&self, rows: Range<usize>) -> &'a [u8] {
        assert!(rows.start <= rows.end && rows.end <= self.rows, "rows {rows:?} of a matrix of {}", self.rows);
        &self.data[rows.start * self.row_bytes..rows.end * self.row_bytes]
    }
}

/// What activations are turned into before a product.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ActKind {
    /// Left as they are.
    F32,
    /// 8-bit integers with one f32 scale for each 32 of them.
    Q8,
}

/// Length of the run of activations that share a scale.
pub const ACT_BLOCK: usize = 32;

/// Where the parts of one activation column lie in its run of bytes.
///
/// | kind | content |
/// |---|---|
/// | `F32` | `k` f32 |
/// | `Q8` | `k` i8 in natural order, then f32 arrays: `k/32` scales, `k/32` of scale * (sum of the 32), `k/16` of scale * (sum of the 16) |
///
/// The sums serve formats with a minimum or an offset:
/// `sum((d*q + m) * x) = d * sum(q*x) + m * sum(x)`. Multi-byte values have the byte order of the
/// machine. A column takes [`ActLayout::col_bytes`], a multiple of 64, so that columns in an
/// aligned buffer stay aligned; kernels work at any address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ActLayout {
    kind: ActKind,
    k: usize,
}

impl ActLayout {
    /// The layout of columns of `k` elements.
    ///
    /// # Panics
    /// If `kind` is `Q8` and `k` is not a multiple of 32 (every quantised weight type's `k` is).
    pub fn new(kind: ActKind, k: usize) -> ActLayout {
        assert!(
            kind == ActKind::F32 || k.is_multiple_of(ACT_BLOCK),
            "quantised activations of {k} elements: not a multiple of 32"
        );
        ActLayout { kind, k }
    }

    /// What the elements are.
    pub fn kind(&self) -> ActKind {
        self.kind
    }

    /// Elements in a column.
    pub fn k(&self) -> usize {
        self.k
    }

    /// Bytes from one column to the next.
    pub fn col_bytes(&self) -> usize {
        let used = match self.kind {
            ActKind::F32 => self.k * 4,
            ActKind::Q8 => self.sums16_at() + self.k / 16 * 4,
        };
        used.next_multiple_of(64)
    }

    /// Takes a quantised column from the elements that it was made of: what remains is what it
    /// lost.
    ///
    /// Quantised again this makes a second column; the sum of both products is as exact as
    /// activations of 15 bits.
    ///
    /// # Panics
    /// If the layout is not `Q8`, or a length does not fit it.
    pub fn subtract(&self, column: &[u8], x: &mut [f32]) {
        assert_eq!(self.kind, ActKind::Q8, "only quantised activations lose anything");
        assert_eq!(x.len(), self.k, "elements of a column");
        let scales = column[self.scales_at()..self.sums32_at()].as_chunks().0.iter().map(|b| f32::from_ne_bytes(*b));
        let runs = x.chunks_exact_mut(ACT_BLOCK).zip(column.chunks_exact(ACT_BLOCK));
        for ((x, q), scale) in runs.zip(scales) {
            for (x, q) in x.iter_mut().zip(q) {
                *x -= scale * f32::from(*q as i8);
            }
        }
    }

    /// Offset of the scales, one f32 for each 32 elements (`Q8`).
    pub(crate) fn scales_at(&self) -> usize {
        self.k
    }

    /// Offset of scale * sum for each 32 elements (`Q8`).
    pub(crate) fn sums32_at(&self) -> usize {
        self.k + self.k / ACT_BLOCK * 4
    }

    /// Offset of scale * sum for each 16 elements (`Q8`).
    pub(crate) fn sums16_at(&self) -> usize {
        self.k + self.k / ACT_BLOCK * 8
    }
}

/// Activation columns, each as [`ActLayout`] says, one after the other.
#[derive(Clone, Copy, Debug)]
pub struct Acts<'a> {
    layout: ActLayout,
    data: &'a [u8], // n_cols * col_bytes
    n_cols: usize,
}

impl<'a> Acts<'a> {
    /// The first `n_cols` columns in `data`.
    ///
    /// # Panics
    /// If `data` is shorter than `n_cols * layout.col_bytes()`.
    pub fn new(layout: ActLayout, data: &'a [u8], n_cols: usize) -> Acts<'a> {
        Acts { layout, data: &data[..n_cols * layout.col_bytes()], n_cols }
    }

    /// What one column looks like.
    pub fn layout(&self) -> ActLayout {
        self.layout
    }

    /// Number of columns.
    pub fn n_cols(&self) -> usize {
        self.n_cols
    }

    /// Some neighbouring columns.
    ///
    /// # Panics
    /// If the range ends beyond the last column.
    pub fn columns(&self, cols: Range<usize>) -> Acts<'a> {
        assert!(cols.start <= cols.end && cols.end <= self.n_cols, "columns {cols:?} of {}", self.n_cols);
        Acts { data: self.cols_data(cols.clone()), n_cols: cols.len(), ..*self }
    }

    /// The bytes of some neighbouring columns.
    pub(crate) fn cols_data(&self, cols: Range<usize>) -> &'a [u8] {
        &self.data[cols.start * self.layout.col_bytes()..cols.end * self.layout.col_bytes()]
    }
}

/// Where products go: for each column of activations, a slice with one element for each row of the
/// call.
pub trait Output {
    /// The elements of column `c`, as many as the call has rows.
    fn column(&mut self, c: usize) -> &mut [f32];
}

/// One column.
impl Output for [f32] {
    fn column(&mut self, c: usize) -> &mut [f32] {
        assert_eq!(c, 0, "a slice is one column");
        self
    }
}

/// One column.
impl Output for &mut [f32] {
    fn column(&mut self, c: usize) -> &mut [f32] {
        assert_eq!(c, 0, "a slice is one column");
        self
    }
}

/// Columns `stride` elements apart in one slice; the call's rows come first in each.
#[derive(Debug)]
pub struct Strided<'a> {
    /// `(n_cols, stride)`, the last column may be cut to `rows`.
    pub data: &'a mut [f32],
    /// Elements from one column to the next.
    pub stride: usize,
    /// Rows of the call.
    pub rows: usize,
}

impl Output for Strided<'_> {
    fn column(&mut self, c: usize) -> &mut [f32] {
        &mut self.data[c * self.stride..][..self.rows]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matrices_must_fit_their_bytes() {
        let data = [0u8; 144 * 6];
        let cases = [
            (TensorType::Q4_K, 6, 256, true),
            (TensorType::Q4_K, 3, 512, true),
            (TensorType::Q4_K, 6, 255, false),
            (TensorType::Q4_K, 5, 256, false),
            (TensorType::Q4_K, usize::MAX, 256, false),
            (TensorType::Q4_K, 0, 0, false),
            (TensorType::NVFP4, 24, 64, true),
            (TensorType::NVFP4, 12, 96, false),
            (TensorType::Q8_K, 0, 256, false),
            (TensorType::F32, 24, 9, true),
        ];
        for (ty, rows, k, good) in cases {
            assert_eq!(MatRef::new(ty, &data, rows, k).is_some(), good, "{ty} ({rows}, {k})");
        }
    }

    #[test]
    fn columns_are_multiples_of_a_cache_line() {
        assert_eq!(ActLayout::new(ActKind::Q8, 32).col_bytes(), 64); // 32 + 4 + 4 + 8
        assert_eq!(ActLayout::new(ActKind::Q8, 576).col_bytes(), 896); // 576 + 72 + 72 + 144 = 864
        assert_eq!(ActLayout::new(ActKind::F32, 17).col_bytes(), 128);
    }
}

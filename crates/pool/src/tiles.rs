//! Matrices dealt in two directions: tiles of some rows and some columns.

use std::ops::Range;

use crate::split::{RawRows, Rows, RowsPart, Split, sealed::Sealed};

/// A matrix cut into tiles. They are numbered down the rows of the first columns, then down those
/// of the next: workers whose shares are contiguous keep to columns of their own as far as there
/// are enough of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grid {
    /// Rows of the matrix.
    pub n_rows: usize,
    /// Columns of the matrix.
    pub n_cols: usize,
    /// Rows of a tile; the last ones of a column may have fewer. At least 1.
    pub tile_rows: usize,
    /// Columns of a tile; the last ones may have fewer. At least 1.
    pub tile_cols: usize,
}

impl Grid {
    /// The number of tiles.
    ///
    /// # Panics
    /// If a tile has no rows or no columns.
    pub fn n_tiles(&self) -> usize {
        self.n_rows.div_ceil(self.tile_rows) * self.n_cols.div_ceil(self.tile_cols)
    }

    /// The rows and the columns of tile `i`.
    ///
    /// # Panics
    /// If there is no such tile.
    pub fn tile(&self, i: usize) -> (Range<usize>, Range<usize>) {
        assert!(i < self.n_tiles(), "tile {i} of {}", self.n_tiles());
        let down = self.n_rows.div_ceil(self.tile_rows);
        let (row, col) = (i % down * self.tile_rows, i / down * self.tile_cols);
        (row..self.n_rows.min(row + self.tile_rows), col..self.n_cols.min(col + self.tile_cols))
    }
}

/// A column-major matrix in tiles: item `i` is tile `i` of the grid. Element `(r, c)` is
/// `data[c * n_rows + r]`.
///
/// # Panics
/// [`Pool::run`](crate::Pool::run) does if the matrix is not as the grid says, if there are not as
/// many items as tiles, or if a chunk has more than one tile: the loop's `grain` has to be 1.
#[derive(Debug)]
pub struct Tiles<'a, T = f32> {
    /// `(n_cols, n_rows)`.
    pub data: &'a mut [T],
    /// How it is cut.
    pub grid: Grid,
}

#[doc(hidden)]
pub struct RawTiles<T> {
    rows: RawRows<T>,
    grid: Grid,
}

impl<T> Sealed for Tiles<'_, T> {}
// SAFETY: a part is the tile of its one item. Tiles are disjoint, since each is an interval of rows
// by one of columns out of intervals that do not overlap, and lie within the matrix, which
// `into_raw` checks to be all of `data`.
unsafe impl<T: Send + 'static> Split for Tiles<'_, T> {
    type Raw = RawTiles<T>;
    type Part<'p> = RowsPart<'p, T>;

    fn into_raw(self, n_items: usize) -> RawTiles<T> {
        let Tiles { data, grid } = self;
        let fits = grid.n_rows.checked_mul(grid.n_cols) == Some(data.len());
        assert!(fits, "{} elements for a matrix of {} rows and {} columns", data.len(), grid.n_rows, grid.n_cols);
        assert_eq!(n_items, grid.n_tiles(), "items of a loop over tiles");
        RawTiles { rows: Rows::new(data, grid.n_rows, grid.n_cols).into_raw(grid.n_rows), grid }
    }

    unsafe fn part<'p>(raw: &RawTiles<T>, items: Range<usize>) -> RowsPart<'p, T> {
        assert_eq!(items.len(), 1, "tiles of a chunk");
        let (rows, cols) = raw.grid.tile(items.start);
        // SAFETY: both ranges lie within the matrix that `into_raw` checked; that no other part has
        // the tile, and that the borrow lasts, is the caller's promise.
        unsafe { raw.rows.tile(rows, cols) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tiles_cover_each_element_once() {
        for (n_rows, n_cols, tile_rows, tile_cols) in
            [(7, 5, 3, 2), (1, 1, 1, 1), (4, 9, 8, 3), (6, 6, 2, 6), (0, 3, 1, 1)]
        {
            let grid = Grid { n_rows, n_cols, tile_rows, tile_cols };
            let mut seen = vec![0; n_rows * n_cols];
            for i in 0..grid.n_tiles() {
                let (rows, cols) = grid.tile(i);
                cols.for_each(|c| rows.clone().for_each(|r| seen[c * n_rows + r] += 1));
            }
            assert!(seen.iter().all(|&n| n == 1), "{grid:?}: {seen:?}");
        }
    }

    #[test]
    fn tiles_go_down_the_rows_first() {
        let grid = Grid { n_rows: 5, n_cols: 4, tile_rows: 2, tile_cols: 3 };
        assert_eq!(grid.n_tiles(), 6);
        assert_eq!(grid.tile(0), (0..2, 0..3));
        assert_eq!(grid.tile(2), (4..5, 0..3));
        assert_eq!(grid.tile(3), (0..2, 3..4));
    }
}

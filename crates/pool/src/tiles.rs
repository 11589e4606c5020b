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

/// A column-major matrix in tiles of some rows by columns of unequal numbers: item `i` is tile
/// `i % down` of the rows, `down` being how many a column has, in columns `cols[i / down]`.
/// Columns that no tile has are left as they are.
///
/// # Panics
/// [`Pool::run`](crate::Pool::run) does if the matrix is smaller than the tiles say, if tiles of
/// columns overlap or do not ascend, if there are not as many items as tiles, or if a chunk has
/// more than one tile: the loop's `grain` has to be 1.
#[derive(Debug)]
pub struct Strips<'a, T = f32> {
    /// `(columns, n_rows)`.
    pub data: &'a mut [T],
    /// How it is cut.
    pub cut: Cut<'a>,
}

/// How [`Strips`] are cut.
#[derive(Clone, Copy, Debug)]
pub struct Cut<'a> {
    /// Rows of the matrix.
    pub n_rows: usize,
    /// Rows of a tile; the last ones of a column may have fewer. At least 1.
    pub tile_rows: usize,
    /// Columns of the tiles, in ascending order.
    pub cols: &'a [Range<usize>],
}

impl Cut<'_> {
    /// The number of tiles.
    ///
    /// # Panics
    /// If a tile has no rows.
    pub fn n_tiles(&self) -> usize {
        self.n_rows.div_ceil(self.tile_rows) * self.cols.len()
    }

    /// The rows of tile `i`, and the index of its columns.
    ///
    /// # Panics
    /// If there is no such tile.
    pub fn tile(&self, i: usize) -> (Range<usize>, usize) {
        assert!(i < self.n_tiles(), "tile {i} of {}", self.n_tiles());
        let down = self.n_rows.div_ceil(self.tile_rows);
        let row = i % down * self.tile_rows;
        (row..self.n_rows.min(row + self.tile_rows), i / down)
    }
}

#[doc(hidden)]
pub struct RawStrips<'a, T> {
    rows: RawRows<T>,
    cut: Cut<'a>,
}

impl<T> Sealed for Strips<'_, T> {}
// SAFETY: a part is the tile of its one item. `into_raw` checks that columns ascend without an
// overlap, so tiles are disjoint, and that the last one lies within the matrix.
unsafe impl<'a, T: Send + 'static> Split for Strips<'a, T> {
    type Raw = RawStrips<'a, T>;
    type Part<'p> = RowsPart<'p, T>;

    fn into_raw(self, n_items: usize) -> RawStrips<'a, T> {
        let Strips { data, cut } = self;
        let mut n_cols = 0;
        for cols in cut.cols {
            assert!(n_cols <= cols.start && cols.start <= cols.end, "columns {cols:?} behind column {n_cols}");
            n_cols = cols.end;
        }
        assert_eq!(n_items, cut.n_tiles(), "items of a loop over tiles");
        RawStrips { rows: Rows::new(data, cut.n_rows, n_cols).into_raw(cut.n_rows), cut }
    }

    unsafe fn part<'p>(raw: &RawStrips<'a, T>, items: Range<usize>) -> RowsPart<'p, T> {
        assert_eq!(items.len(), 1, "tiles of a chunk");
        let (rows, cols) = raw.cut.tile(items.start);
        // SAFETY: both ranges lie within the matrix that `into_raw` checked; that no other part has
        // the tile, and that the borrow lasts, is the caller's promise.
        unsafe { raw.rows.tile(rows, raw.cut.cols[cols].clone()) }
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

    #[test]
    fn strips_cover_their_columns_and_no_others() {
        let pool = crate::Pool::new(3);
        let cols = [1..2, 2..5, 7..8, 8..8];
        let cut = Cut { n_rows: 5, tile_rows: 2, cols: &cols };
        assert_eq!((cut.n_tiles(), cut.tile(4)), (12, (2..4, 1)));
        let mut data = vec![0; 9 * 5];
        pool.run(cut.n_tiles(), 1, Strips { data: &mut data, cut }, |tile, mut part, _| {
            for c in 0..cut.cols[cut.tile(tile.start).1].len() {
                part.column(c).iter_mut().for_each(|x| *x += 1);
            }
        });
        for (c, column) in data.chunks_exact(5).enumerate() {
            let expected = i32::from(cols.iter().any(|cols| cols.contains(&c)));
            assert!(column.iter().all(|&n| n == expected), "column {c}: {column:?}");
        }
    }

    #[test]
    #[should_panic(expected = "columns 1..3 behind column 2")]
    fn strips_that_overlap_are_refused() {
        let cut = Cut { n_rows: 1, tile_rows: 1, cols: &[0..2, 1..3] };
        crate::Pool::new(1).run(2, 1, Strips { data: &mut [0; 3], cut }, |_, _, _| {});
    }
}

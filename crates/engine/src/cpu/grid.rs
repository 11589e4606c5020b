//! How the products of a weight matrix are dealt to workers.

use modelembed_pool::Grid;

/// Rows that a worker computes at a time at most: bounds its private output tile.
const MAX_GRAIN_ROWS: usize = 256;
/// The same for chunks of many columns.
const MAX_GRAIN_ROWS_WIDE: usize = 32;
/// Columns above which a chunk is wide.
pub(crate) const WIDE_COLS: usize = 8;

/// Products of a worker's tile, for chunks of up to `cols` columns.
pub(super) fn tile_len(cols: usize) -> usize {
    (cols * MAX_GRAIN_ROWS_WIDE).max(cols.min(WIDE_COLS) * MAX_GRAIN_ROWS)
}

/// Rows that a worker takes at a time.
///
/// Small enough for the last worker to finish soon after the others, large enough for the kernels'
/// blocks of rows.
pub(crate) fn grain_rows(rows: usize, cols: usize, threads: usize) -> usize {
    const CHUNKS_PER_WORKER: usize = 8;
    /// Rows that the widest kernels compute together: a partial block costs as much as a full one.
    const ROW_BLOCK: usize = 16;
    let max = if cols > WIDE_COLS { MAX_GRAIN_ROWS_WIDE } else { MAX_GRAIN_ROWS };
    (rows / (threads * CHUNKS_PER_WORKER)).next_multiple_of(ROW_BLOCK).clamp(ROW_BLOCK, max)
}

/// How the products of a weight matrix are dealt to workers.
///
/// Workers share the columns as long as each share is wide enough for unpacking the weights not to
/// count, and the rows beyond that. A worker then reads what it wrote itself in the steps before,
/// which are dealt by columns too: nothing but weights, keys and values crosses from core to core.
pub(crate) fn projection_grid(n_rows: usize, n_cols: usize, threads: usize) -> Grid {
    /// The least columns of a share: unpacking takes as long as the products of eight columns. (Zen
    /// 4, one core, Q4_1: 136 GMAC/s with 64 columns, 145 with 128, 150 with 256.)
    const MIN_COLS: usize = 128;
    /// Shares are multiples of as many: the columns of a tile of the kernels, and what the steps by
    /// columns take at a time.
    const COLS_BLOCK: usize = 12;
    let shares = (n_cols / MIN_COLS).clamp(1, threads);
    let tile_cols = n_cols.div_ceil(shares).next_multiple_of(COLS_BLOCK);
    Grid { n_rows, n_cols, tile_rows: grain_rows(n_rows, n_cols, threads.div_ceil(shares)), tile_cols }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tile_holds_what_a_worker_takes_at_a_time() {
        for (cols, threads) in (1..600).flat_map(|cols| [1, 2, 3, 7, 64].map(|threads| (cols, threads))) {
            let most = (1..=cols)
                .map(|n| {
                    let grid = projection_grid(1 << 20, n, threads);
                    grid.tile_rows * grid.tile_cols.min(n)
                })
                .max();
            assert!(most <= Some(tile_len(cols)), "{cols} columns, {threads} threads: {most:?} of {}", tile_len(cols));
        }
    }

    #[test]
    fn each_worker_has_columns_where_there_are_enough() {
        let rows = [
            // columns, threads, tiles' columns, shares of columns
            (1, 2, 12, 1),
            (255, 2, 264, 1),
            (256, 2, 132, 2),
            (512, 2, 264, 2),
            (512, 1, 516, 1),
            (512, 16, 132, 4),
        ];
        for (n_cols, threads, tile_cols, shares) in rows {
            let grid = projection_grid(576, n_cols, threads);
            let got = (grid.tile_cols, n_cols.div_ceil(grid.tile_cols));
            assert_eq!(got, (tile_cols, shares), "{n_cols} columns, {threads} threads");
        }
    }
}

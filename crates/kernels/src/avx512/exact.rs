//! Panels of f32 for f32 activations: what AVX2 packs, read sixteen rows at a time. The sums are
//! AVX2's, operation by operation.

use std::arch::x86_64::*;

use crate::avx2::exact::{CHUNK, ReadF32, SUM, pack_rows};
use crate::panel::{Panel, PanelRows, TileCols};

/// Rows of a register.
const ROWS: usize = 16;
/// Registers of rows in a panel.
const VECTORS: usize = 2;

/// Panels of f32: `(k, VECTORS, 16)`.
pub(super) struct Floats<R>(R);

// SAFETY: the functions need what the trait's callers vouch for, the features included.
unsafe impl<R: ReadF32> Panel for Floats<R> {
    const ROWS: usize = ROWS * VECTORS;
    /// With two vectors of rows, sixteen of 32 registers hold sums.
    const COLS: usize = 8;
    const STEP: usize = CHUNK;
    const STEP_BYTES: usize = CHUNK * ROWS * VECTORS * 4;

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi,gfni,fma,f16c")]
    unsafe fn pack(rows: &PanelRows, k: usize, n: usize, panel: *mut u8) {
        // SAFETY: the caller's duties are handed on; four vectors of eight rows are two of sixteen.
        // What is not packed is not read.
        unsafe { pack_rows::<R, { ROWS * VECTORS / 8 }>(rows, k, n, panel.cast()) }
    }

    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi,gfni,fma,f16c")]
    unsafe fn tile(panel: *const u8, n: usize, n_rows: usize, cols: &TileCols, acc: *mut f32, stride: usize) {
        // Numbers of columns between these are their sums, because each costs compile time and
        // code.
        let mut done = 0;
        while done < cols.n_cols {
            // SAFETY: the caller's duties are handed on, for columns from `done` on.
            unsafe {
                let first = cols.first.add(done * cols.layout.col_bytes());
                let part = TileCols { first, ..*cols };
                let acc = acc.add(done * stride);
                done += match (cols.n_cols - done, n_rows) {
                    (1, ..=ROWS) => tile::<1, 1>(panel.cast(), n, &part, acc, stride),
                    (1, _) => tile::<VECTORS, 1>(panel.cast(), n, &part, acc, stride),
                    (2..4, ..=ROWS) => tile::<1, 2>(panel.cast(), n, &part, acc, stride),
                    (2..4, _) => tile::<VECTORS, 2>(panel.cast(), n, &part, acc, stride),
                    (4..8, ..=ROWS) => tile::<1, 4>(panel.cast(), n, &part, acc, stride),
                    (4..8, _) => tile::<VECTORS, 4>(panel.cast(), n, &part, acc, stride),
                    (_, ..=ROWS) => tile::<1, 8>(panel.cast(), n, &part, acc, stride),
                    _ => tile::<VECTORS, 8>(panel.cast(), n, &part, acc, stride),
                };
            }
        }
    }
}

/// See [`Panel::tile`]: the first `V` vectors of rows. Returns `NC`.
///
/// # Safety
/// As there, for `NC` columns.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi,gfni,fma,f16c")]
unsafe fn tile<const V: usize, const NC: usize>(
    panel: *const f32,
    n: usize,
    cols: &TileCols,
    acc: *mut f32,
    stride: usize,
) -> usize {
    // SAFETY: the caller vouches for panel, columns and accumulators.
    unsafe {
        let mut x = [cols.first.add(cols.k * 4); NC];
        for c in 0..NC {
            x[c] = x[c].add(c * cols.layout.col_bytes());
        }
        for first in (0..n).step_by(SUM) {
            let mut sums = [[_mm512_setzero_ps(); NC]; V];
            for i in first..n.min(first + SUM) {
                let mut w = [_mm512_setzero_ps(); V];
                for v in 0..V {
                    w[v] = _mm512_load_ps(panel.add((i * VECTORS + v) * ROWS));
                }
                for c in 0..NC {
                    let x = _mm512_set1_ps(x[c].add(i * 4).cast::<f32>().read_unaligned());
                    for v in 0..V {
                        sums[v][c] = _mm512_fmadd_ps(w[v], x, sums[v][c]);
                    }
                }
            }
            for v in 0..V {
                for c in 0..NC {
                    let acc = acc.add(c * stride + v * ROWS);
                    _mm512_storeu_ps(acc, _mm512_add_ps(_mm512_loadu_ps(acc), sums[v][c]));
                }
            }
        }
    }
    NC
}

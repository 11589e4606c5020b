//! Panels for CPUs with the 8-bit matrix instructions: weights and columns both wait in pairs.
//!
//! A panel is a strip of 32 rows: the records of its first eight rows, run after run, then those of
//! the next eight.
//! ```text
//! for each chunk of runs:
//!     pair the columns                          once for all rows of the strip
//!     for each eight rows, for each four columns:
//!         acc += records * columns              loads, `smmla` and the float part; one `zip` four products
//! ```
//! Of 32 registers, eight hold integer sums, eight f32 sums, four weights and four columns; where
//! halves of a run have integer scales, eight hold the sums of the first half.

use std::arch::aarch64::*;
use std::mem::MaybeUninit;

use super::dots::ActRun;
use super::panel::{self, PanelSums, Quantised, RECORD_ROWS, VECTORS, weights};
use super::rows::{Format4, ROWS, RUN};
use super::smmla::{MAX_PAIRS, Smmla, add, by_column, pair, pair_rows};
use crate::panel::{Panel, PanelRows, TileCols};

/// Records of a run, side by side.
const OCTETS: usize = 4;
/// Groups of [`panel::COLS`] columns.
const QUADS: usize = 2;
/// Runs of columns that are paired at a time: 6 KiB for all of them, about as much as the records
/// of eight rows that they meet next, so that both stay in a first-level cache. An f32 sum is
/// loaded and stored once a chunk.
const CHUNK: usize = 16;

/// A run of four columns.
#[derive(Clone, Copy)]
#[repr(C)]
pub(super) struct Run4 {
    ints: [[int8x16_t; 4]; MAX_PAIRS], // (pairs, eights of elements, two columns of eight)
    // Of one kind together, so that one load brings those of two columns.
    scales: [f32; panel::COLS],
    sums: [[f32; panel::COLS]; 2],
}

/// The panels of a format.
pub(super) struct Paired<F>(F);

impl<F: Format4> Paired<F> {
    /// Bytes of the records of `n` elements of eight rows.
    fn records_bytes(n: usize) -> usize {
        n / RUN * Quantised::<F>::RECORD_BYTES
    }
}

// SAFETY: the functions need what the trait's callers vouch for, the 8-bit matrix instructions
// included.
unsafe impl<F: Format4> Panel for Paired<F> {
    const ROWS: usize = OCTETS * RECORD_ROWS;
    const COLS: usize = QUADS * panel::COLS;
    const STEP: usize = Quantised::<F>::STEP;
    const STEP_BYTES: usize = OCTETS * Quantised::<F>::STEP_BYTES;

    #[target_feature(enable = "neon")]
    unsafe fn pack(rows: &PanelRows, k: usize, n: usize, panel: *mut u8) {
        for octet in 0..rows.n_rows().min(Self::ROWS).div_ceil(RECORD_ROWS) {
            // SAFETY: the caller vouches for the rows and for room.
            unsafe {
                let records = panel.add(octet * Self::records_bytes(n));
                panel::pack::<F, Smmla>(rows, octet * RECORD_ROWS, k, n, records);
            }
        }
    }

    #[target_feature(enable = "neon")]
    unsafe fn tile(panel: *const u8, n: usize, n_rows: usize, cols: &TileCols, acc: *mut f32, stride: usize) {
        let mut paired = [[const { MaybeUninit::<Run4>::uninit() }; CHUNK]; QUADS];
        let n_quads = cols.n_cols.div_ceil(panel::COLS);
        for first in (0..n / RUN).step_by(CHUNK) {
            let len = CHUNK.min(n / RUN - first);
            for (quad, paired) in paired.iter_mut().enumerate().take(n_quads) {
                // SAFETY: the caller vouches for the columns.
                unsafe { pair_columns::<F>(cols, quad * panel::COLS, cols.k / RUN + first, &mut paired[..len]) };
            }
            for octet in 0..n_rows.div_ceil(RECORD_ROWS) {
                for (quad, paired) in paired.iter().enumerate().take(n_quads) {
                    // SAFETY: the caller vouches for the panel, which has these rows, and for
                    // `acc`; `len` runs were paired above.
                    unsafe {
                        let records = panel.add(octet * Self::records_bytes(n) + Self::records_bytes(first * RUN));
                        let n_cols = panel::COLS.min(cols.n_cols - quad * panel::COLS);
                        let acc = acc.add(quad * panel::COLS * stride + octet * RECORD_ROWS);
                        panel::tile::<F, Smmla>(records, 0..len, paired.as_ptr().cast(), n_cols, acc, stride);
                    }
                }
            }
        }
    }
}

/// Writes the runs from `run` on of the columns from `col` on; the last column stands for those
/// that are missing.
///
/// # Safety
/// The columns have the runs.
#[target_feature(enable = "neon")]
unsafe fn pair_columns<F: Format4>(cols: &TileCols, col: usize, run: usize, paired: &mut [MaybeUninit<Run4>]) {
    // SAFETY: the caller vouches for the columns.
    unsafe {
        let x: [*const u8; panel::COLS] =
            std::array::from_fn(|c| cols.first.add((col + c).min(cols.n_cols - 1) * cols.layout.col_bytes()));
        for (run, paired) in (run..).zip(paired) {
            let mut ints = [[vdupq_n_s8(0); 4]; MAX_PAIRS];
            for p in 0..MAX_PAIRS {
                for half in 0..2 {
                    let at = run * RUN + half * 16;
                    let two = pair(vld1q_s8(x[2 * p].add(at).cast()), vld1q_s8(x[2 * p + 1].add(at).cast()));
                    [ints[p][half * 2], ints[p][half * 2 + 1]] = two;
                }
            }
            let acts: [ActRun; panel::COLS] = std::array::from_fn(|c| ActRun::read::<F>(x[c], run, cols.layout));
            let sums = std::array::from_fn(|i| acts.map(|act| act.sums[i]));
            paired.write(Run4 { ints, scales: acts.map(|act| act.scale), sums });
        }
    }
}

// SAFETY: `smmla` is what is needed.
unsafe impl PanelSums for Smmla {
    type Panel<F: Format4> = Paired<F>;
    type Columns = *const Run4;

    #[target_feature(enable = "neon")]
    #[inline]
    unsafe fn arrange(rows: [int8x16_t; ROWS]) -> [int8x16_t; ROWS] {
        pair_rows(rows)
    }

    #[target_feature(enable = "neon")]
    #[inline]
    unsafe fn sums<const NC: usize>(
        record: *const u8,
        first: usize,
        n: usize,
        cols: *const Run4,
        run: usize,
    ) -> [[int32x4_t; NC]; VECTORS] {
        let mut sums = [[[vdupq_n_s32(0); 2]; MAX_PAIRS]; VECTORS];
        for half in first..first + n {
            let mut x = [[vdupq_n_s8(0); 2]; MAX_PAIRS];
            for p in 0..NC.div_ceil(2) {
                for eight in 0..2 {
                    // SAFETY: the caller vouches for the run.
                    x[p][eight] = unsafe { (*cols.add(run)).ints[p][half * 2 + eight] };
                }
            }
            for v in 0..VECTORS {
                let mut w = [vdupq_n_s8(0); ROWS];
                // SAFETY: the caller vouches for record and instruction.
                unsafe {
                    for i in 0..ROWS {
                        w[i] = weights(record, half, i, v);
                    }
                    add::<NC>(&mut sums[v], w, &x);
                }
            }
        }
        let mut columns = [[vdupq_n_s32(0); NC]; VECTORS];
        for v in 0..VECTORS {
            columns[v] = by_column(sums[v]);
        }
        columns
    }

    #[target_feature(enable = "neon")]
    #[inline]
    unsafe fn act_run<F: Format4>(cols: *const Run4, run: usize, c: usize) -> ActRun {
        // SAFETY: the caller vouches for the run.
        let cols = unsafe { &*cols.add(run) };
        ActRun { scale: cols.scales[c], sums: [cols.sums[0][c], cols.sums[1][c]] }
    }
}

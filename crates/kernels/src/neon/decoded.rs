//! Formats that have no functions of their own here: blocks are taken apart by the format's
//! definition. From there on all of them are the same, signed bytes with an f32 scale and an offset
//! for each 16, so that one panel serves them all, for any number of columns.
//!
//! A panel's record of 16 elements, for two vectors of four rows:
//! ```text
//! (8, 16)          bytes, row by row
//! (8)              f32 scales
//! (8)              f32 offsets
//! ```

use std::arch::aarch64::*;

use modelembed_gguf::TensorType;

use super::dot::Dot;
use super::exact::{F32, Floats, pack_read};
use super::rows::ROWS;
use crate::format::{Decoded, MAX_BLOCK, decoder};
use crate::functions::{DotArgs, PanelMul, RowDots};
use crate::matrix::{ACT_BLOCK, Strided};
use crate::panel::{self, Panel, PanelRows, TileCols};

/// Vectors of four rows in a panel.
const VECTORS: usize = 2;
/// Columns of a tile: eight of 32 registers hold sums, eight a record's weights.
const COLS: usize = 4;
/// Elements of a record.
const RECORD: usize = 16;
/// Where the parts of a record begin.
const SCALES_AT: usize = RECORD * ROWS * VECTORS;
const OFFSETS_AT: usize = SCALES_AT + ROWS * VECTORS * 4;
const RECORD_BYTES: usize = OFFSETS_AT + ROWS * VECTORS * 4;

/// See [`crate::functions::MatrixFns::row_dots`], for quantised activations.
pub(super) fn row_dots<D: Dot>(ty: TensorType) -> Option<RowDots> {
    decoder(ty).map(|_| by_panel::<Quantised<D>> as RowDots)
}

/// The same for many columns.
pub(super) fn panel<D: Dot>(ty: TensorType) -> Option<PanelMul> {
    decoder(ty).map(|_| panel::mul::<Quantised<D>> as PanelMul)
}

/// See [`crate::functions::MatrixFns::row_dots`], for activations in f32.
pub(super) fn exact_row_dots(ty: TensorType) -> Option<RowDots> {
    decoder(ty).map(|_| by_panel::<Exact> as RowDots)
}

/// The same for many columns.
pub(super) fn exact_panel(ty: TensorType) -> Option<PanelMul> {
    decoder(ty).map(|_| panel::mul::<Exact> as PanelMul)
}

/// See [`RowDots`]: the panel serves any number of columns.
unsafe fn by_panel<P: Panel>(args: &DotArgs<'_>, out: &mut [f32], stride: usize) {
    // SAFETY: the caller's duties are handed on.
    unsafe { panel::mul::<P>(args, &mut Strided { data: out, stride, rows: args.n_rows }) }
}

/// Panels of integers.
struct Quantised<D>(D);

// SAFETY: the functions need what the trait's callers vouch for, `D`'s instructions included.
unsafe impl<D: Dot> Panel for Quantised<D> {
    const ROWS: usize = ROWS * VECTORS;
    const COLS: usize = COLS;
    const STEP: usize = MAX_BLOCK;
    const STEP_BYTES: usize = MAX_BLOCK / RECORD * RECORD_BYTES;
    const BEGINS_AT_ZERO: bool = true;

    unsafe fn pack(rows: &PanelRows, k: usize, n: usize, panel: *mut u8) {
        let decoder = rows.decoder();
        let mut block = Decoded::new();
        for r in 0..Self::ROWS {
            for at in (0..n).step_by(MAX_BLOCK) {
                let len = MAX_BLOCK.min(n - at);
                // SAFETY: the caller vouches for the rows' elements k..k + n.
                unsafe { rows.decode(&decoder, r, k + at, len, &mut block) };
                for (i, q) in block.q[..len].as_chunks::<RECORD>().0.iter().enumerate() {
                    // SAFETY: the caller vouches for room.
                    unsafe {
                        let record = panel.add((at / RECORD + i) * RECORD_BYTES);
                        record.add(r * RECORD).cast::<[i8; RECORD]>().write(*q);
                        record.add(SCALES_AT + r * 4).cast::<f32>().write(block.scale[i]);
                        record.add(OFFSETS_AT + r * 4).cast::<f32>().write(block.offset[i]);
                    }
                }
            }
        }
    }

    #[target_feature(enable = "neon")]
    unsafe fn tile(panel: *const u8, n: usize, _n_rows: usize, cols: &TileCols, acc: *mut f32, stride: usize) {
        // SAFETY: the caller's duties are handed on.
        unsafe {
            match cols.n_cols {
                1 => tile::<D, 1>(panel, n, cols, acc, stride),
                2 => tile::<D, 2>(panel, n, cols, acc, stride),
                3 => tile::<D, 3>(panel, n, cols, acc, stride),
                _ => tile::<D, 4>(panel, n, cols, acc, stride),
            }
        }
    }
}

/// See [`Panel::tile`].
///
/// # Safety
/// As there, for `NC` columns.
#[target_feature(enable = "neon")]
unsafe fn tile<D: Dot, const NC: usize>(panel: *const u8, n: usize, cols: &TileCols, acc: *mut f32, stride: usize) {
    let layout = cols.layout;
    let zero = vdupq_n_s32(0);
    // SAFETY: the caller vouches for panel, columns, accumulators and instructions.
    unsafe {
        let x: [*const u8; NC] = std::array::from_fn(|c| cols.first.add(c * layout.col_bytes()));
        let mut sums = [[vdupq_n_f32(0.0); NC]; VECTORS];
        if cols.k > 0 {
            for v in 0..VECTORS {
                for c in 0..NC {
                    sums[v][c] = vld1q_f32(acc.add(c * stride + v * ROWS));
                }
            }
        }
        let mut record = panel;
        for sixteen in cols.k / RECORD..(cols.k + n) / RECORD {
            for v in 0..VECTORS {
                let mut w = [vdupq_n_s8(0); ROWS];
                for r in 0..ROWS {
                    w[r] = vld1q_s8(record.add((v * ROWS + r) * RECORD).cast());
                }
                let scales = vld1q_f32(record.add(SCALES_AT + v * ROWS * 4).cast());
                let offsets = vld1q_f32(record.add(OFFSETS_AT + v * ROWS * 4).cast());
                for c in 0..NC {
                    let ints = vld1q_s8(x[c].add(sixteen * RECORD).cast());
                    let [a, b] = [0, 2].map(|r| vpaddq_s32(D::add(zero, w[r], ints), D::add(zero, w[r + 1], ints)));
                    let dots = vcvtq_f32_s32(vpaddq_s32(a, b));
                    let float = |at: usize| x[c].add(at).cast::<f32>().read_unaligned();
                    let scale = float(layout.scales_at() + sixteen * RECORD / ACT_BLOCK * 4);
                    let sum = float(layout.sums16_at() + sixteen * 4);
                    sums[v][c] = vfmaq_f32(sums[v][c], dots, vmulq_n_f32(scales, scale));
                    sums[v][c] = vfmaq_n_f32(sums[v][c], offsets, sum);
                }
            }
            record = record.add(RECORD_BYTES);
        }
        for v in 0..VECTORS {
            for c in 0..NC {
                vst1q_f32(acc.add(c * stride + v * ROWS), sums[v][c]);
            }
        }
    }
}

/// Panels of f32, as those of [`Floats`].
struct Exact;

// SAFETY: the functions need what the trait's callers vouch for.
unsafe impl Panel for Exact {
    const ROWS: usize = Floats::<F32>::ROWS;
    const COLS: usize = Floats::<F32>::COLS;
    const STEP: usize = Floats::<F32>::STEP;
    const STEP_BYTES: usize = Floats::<F32>::STEP_BYTES;

    #[target_feature(enable = "neon")]
    unsafe fn pack(rows: &PanelRows, k: usize, n: usize, panel: *mut u8) {
        let decoder = rows.decoder();
        let read = |r: usize, at: usize, out: &mut [f32]| {
            let mut block = Decoded::new();
            // SAFETY: `pack_read` asks for elements that the caller vouches for.
            unsafe { rows.decode(&decoder, r, k + at, out.len(), &mut block) };
            block.write_f32(out);
        };
        // SAFETY: the caller's duties are handed on.
        unsafe { pack_read(n, panel, read) }
    }

    #[target_feature(enable = "neon")]
    unsafe fn tile(panel: *const u8, n: usize, n_rows: usize, cols: &TileCols, acc: *mut f32, stride: usize) {
        // SAFETY: the panel is one of f32, whatever its rows were.
        unsafe { Floats::<F32>::tile(panel, n, n_rows, cols, acc, stride) }
    }
}

//! Formats that have no functions of their own here: blocks are taken apart by the format's
//! definition. From there on all of them are the same, signed bytes with an f32 scale and an offset
//! for each 16, so that one panel serves them all, for any number of columns.
//!
//! A panel's record of 16 elements, for two vectors of eight rows:
//! ```text
//! (4, 2, 8, 4)     bytes: four elements of eight rows fill a register
//! (2, 8)           f32 scales
//! (2, 8)           f32 offsets
//! ```

use std::arch::x86_64::*;

use modelembed_gguf::TensorType;

use super::dot::Dot;
use super::exact::{F32, Floats, pack_read};
use super::rows::{ROWS, load2, transpose};
use crate::format::{Decoded, MAX_BLOCK, decoder};
use crate::functions::{DotArgs, PanelMul, RowDots};
use crate::matrix::{ACT_BLOCK, Strided};
use crate::panel::{self, Panel, PanelRows, TileCols};

/// Vectors of eight rows in a panel.
const VECTORS: usize = 2;
/// Columns of a tile: with two vectors of rows, eight of sixteen registers hold sums.
const COLS: usize = 4;
/// Elements of a record.
const RECORD: usize = 16;
/// Where the parts of a record begin.
const SCALES_AT: usize = RECORD * ROWS * VECTORS;
const OFFSETS_AT: usize = SCALES_AT + VECTORS * ROWS * 4;
const RECORD_BYTES: usize = OFFSETS_AT + VECTORS * ROWS * 4;

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

// SAFETY: the functions need what the trait's callers vouch for, AVX2, FMA and F16C included.
unsafe impl<D: Dot> Panel for Quantised<D> {
    const ROWS: usize = ROWS * VECTORS;
    const COLS: usize = COLS;
    const STEP: usize = MAX_BLOCK;
    const STEP_BYTES: usize = MAX_BLOCK / RECORD * RECORD_BYTES;
    const BEGINS_AT_ZERO: bool = true;

    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn pack(rows: &PanelRows, k: usize, n: usize, panel: *mut u8) {
        let decoder = rows.decoder();
        let mut blocks: [Decoded; ROWS] = std::array::from_fn(|_| Decoded::new());
        for vector in 0..VECTORS {
            for at in (0..n).step_by(MAX_BLOCK) {
                let len = MAX_BLOCK.min(n - at);
                for (r, block) in blocks.iter_mut().enumerate() {
                    // SAFETY: the caller vouches for the rows' elements k..k + n.
                    unsafe { rows.decode(&decoder, vector * ROWS + r, k + at, len, block) };
                }
                for i in 0..len / RECORD {
                    // SAFETY: the caller vouches for room; a block has the record's elements.
                    unsafe { pack_record(&blocks, i, panel.add((at / RECORD + i) * RECORD_BYTES), vector) };
                }
            }
        }
    }

    #[target_feature(enable = "avx2,fma,f16c")]
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

/// Writes one vector's part of a record: elements `16 * i..16 * i + 16` of eight rows.
///
/// # Safety
/// AVX2; `i` is below 16, and `record` has room for a record and is aligned to 32 bytes.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
unsafe fn pack_record(blocks: &[Decoded; ROWS], i: usize, record: *mut u8, vector: usize) {
    // SAFETY: the caller vouches for all of it.
    unsafe {
        let mut pairs = [_mm256_setzero_si256(); 4];
        for (r, pair) in pairs.iter_mut().enumerate() {
            *pair = load2([blocks[r].q.as_ptr().cast(), blocks[r + 4].q.as_ptr().cast()], i * RECORD);
        }
        for (four, column) in transpose(pairs).into_iter().enumerate() {
            _mm256_store_si256(record.add((four * VECTORS + vector) * 32).cast(), column);
        }
        for (r, block) in blocks.iter().enumerate() {
            let at = (vector * ROWS + r) * 4;
            record.add(SCALES_AT + at).cast::<f32>().write(block.scale[i]);
            record.add(OFFSETS_AT + at).cast::<f32>().write(block.offset[i]);
        }
    }
}

/// See [`Panel::tile`].
///
/// # Safety
/// As there, for `NC` columns.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn tile<D: Dot, const NC: usize>(panel: *const u8, n: usize, cols: &TileCols, acc: *mut f32, stride: usize) {
    let layout = cols.layout;
    // SAFETY: the caller vouches for panel, columns and accumulators.
    unsafe {
        let x: [*const u8; NC] = std::array::from_fn(|c| cols.first.add(c * layout.col_bytes()));
        let mut sums = [[_mm256_setzero_ps(); NC]; VECTORS];
        if cols.k > 0 {
            for v in 0..VECTORS {
                for c in 0..NC {
                    sums[v][c] = _mm256_loadu_ps(acc.add(c * stride + v * ROWS));
                }
            }
        }
        let mut record = panel;
        for sixteen in cols.k / RECORD..(cols.k + n) / RECORD {
            let mut dots = [[_mm256_setzero_si256(); NC]; VECTORS];
            for four in 0..RECORD / 4 {
                for c in 0..NC {
                    let at = sixteen * RECORD + four * 4;
                    let x = _mm256_set1_epi32(x[c].add(at).cast::<i32>().read_unaligned());
                    for v in 0..VECTORS {
                        let w = _mm256_load_si256(record.add((four * VECTORS + v) * 32).cast());
                        dots[v][c] = D::add(dots[v][c], _mm256_abs_epi8(w), _mm256_sign_epi8(x, w));
                    }
                }
            }
            for c in 0..NC {
                let float = |at: usize| _mm256_set1_ps(x[c].add(at).cast::<f32>().read_unaligned());
                let scale = float(layout.scales_at() + sixteen * RECORD / ACT_BLOCK * 4);
                let sum = float(layout.sums16_at() + sixteen * 4);
                for v in 0..VECTORS {
                    let scales = _mm256_load_ps(record.add(SCALES_AT + v * 32).cast());
                    let offsets = _mm256_load_ps(record.add(OFFSETS_AT + v * 32).cast());
                    let dots = _mm256_cvtepi32_ps(dots[v][c]);
                    sums[v][c] = _mm256_fmadd_ps(_mm256_mul_ps(scales, scale), dots, sums[v][c]);
                    sums[v][c] = _mm256_fmadd_ps(offsets, sum, sums[v][c]);
                }
            }
            record = record.add(RECORD_BYTES);
        }
        for v in 0..VECTORS {
            for c in 0..NC {
                _mm256_storeu_ps(acc.add(c * stride + v * ROWS), sums[v][c]);
            }
        }
    }
}

/// Panels of f32, as those of [`Floats`].
struct Exact;

// SAFETY: as above.
unsafe impl Panel for Exact {
    const ROWS: usize = Floats::<F32>::ROWS;
    const COLS: usize = Floats::<F32>::COLS;
    const STEP: usize = Floats::<F32>::STEP;
    const STEP_BYTES: usize = Floats::<F32>::STEP_BYTES;

    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn pack(rows: &PanelRows, k: usize, n: usize, panel: *mut u8) {
        let decoder = rows.decoder();
        let read = |r: usize, at: usize, out: &mut [f32]| {
            let mut block = Decoded::new();
            // SAFETY: `pack_read` asks for elements that the caller vouches for.
            unsafe { rows.decode(&decoder, r, k + at, out.len(), &mut block) };
            block.write_f32(out);
        };
        // SAFETY: the caller's duties are handed on.
        unsafe { pack_read::<VECTORS>(rows, n, panel.cast(), read) }
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn tile(panel: *const u8, n: usize, n_rows: usize, cols: &TileCols, acc: *mut f32, stride: usize) {
        // SAFETY: the panel is one of f32, whatever its rows were.
        unsafe { Floats::<F32>::tile(panel, n, n_rows, cols, acc, stride) }
    }
}

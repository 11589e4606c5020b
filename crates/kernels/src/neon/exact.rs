//! Dequantisation, and panels of f32 for f32 activations: weights become f32 on the fly.
//!
//! Sums are f32 over 64 elements, which are then added up in f32: that keeps the error near one f32
//! rounding of the terms.

use std::arch::aarch64::*;

use super::rows::{Format4, Head, MAX_HEADS, ROWS, RUN, f16x4, transpose, widen};
use crate::functions::DotArgs;
use crate::matrix::Strided;
use crate::panel::{self, Panel, PanelRows, TileCols};
use crate::vector::f16x4_to_f32;

/// Elements that are turned into f32 at a time.
const CHUNK: usize = 256;

/// Weights that can be read as f32.
pub(super) trait ReadF32 {
    /// Bytes of `n` elements (whole blocks).
    fn bytes(n: usize) -> usize;
    /// Writes `n` elements, at most [`CHUNK`] and whole blocks.
    ///
    /// # Safety
    /// `bytes(n)` bytes can be read at `p` and `n` f32 written at `out`.
    unsafe fn read(p: *const u8, n: usize, out: *mut f32);
}

/// A quantised format.
pub(super) struct Blocks<F>(F);

impl<F: Format4> ReadF32 for Blocks<F> {
    #[inline(always)]
    fn bytes(n: usize) -> usize {
        n / (RUN * F::BLOCK_RUNS) * F::BYTES
    }

    #[target_feature(enable = "neon")]
    #[inline]
    unsafe fn read(p: *const u8, n: usize, out: *mut f32) {
        // SAFETY: the caller vouches for `n` elements at `p` and for room at `out`.
        unsafe {
            let mut heads = [vdupq_n_f32(0.0); MAX_HEADS];
            for block in 0..n / (RUN * F::BLOCK_RUNS) {
                // One row in the place of all four.
                let p = p.add(block * F::BYTES);
                F::heads([p; ROWS], heads.as_mut_ptr());
                for g in 0..F::BLOCK_RUNS {
                    let head = &heads[g * Head::<F>::LEN..][..Head::<F>::LEN];
                    let run = out.add((block * F::BLOCK_RUNS + g) * RUN);
                    for (half, q) in F::quants(p, g).into_iter().enumerate() {
                        let (scale, offset) = sub_scale::<F>(head, half);
                        for (part, q) in widen(q).into_iter().enumerate() {
                            vst1q_f32(run.add(half * 16 + part * 4), vfmaq_f32(offset, vcvtq_f32_s32(q), scale));
                        }
                    }
                }
            }
        }
    }
}

/// Scale and offset of a row's elements 0..16 or 16..32 of a run, which stands in the place of all
/// four.
#[target_feature(enable = "neon")]
#[inline]
fn sub_scale<F: Format4>(head: &[float32x4_t], half: usize) -> (float32x4_t, float32x4_t) {
    let scale = match F::SUB_SCALED {
        true => vmulq_f32(head[0], vcvtq_f32_s32(vreinterpretq_s32_f32(head[1 + half]))),
        false => head[0],
    };
    let offset = match Head::<F>::N_OFFSETS {
        0 => vdupq_n_f32(0.0),
        n => head[Head::<F>::OFFSETS_AT + half % n],
    };
    (scale, offset)
}

macro_rules! float_format {
    ($name:ident, $bytes:literal, |$p:ident| $read4:expr, |$q:ident| $read1:expr) => {
        /// A float format.
        pub(super) struct $name;
        impl ReadF32 for $name {
            #[inline(always)]
            fn bytes(n: usize) -> usize {
                n * $bytes
            }
            #[target_feature(enable = "neon")]
            #[inline]
            unsafe fn read(p: *const u8, n: usize, out: *mut f32) {
                let mut i = 0;
                // SAFETY: the caller vouches for `n` elements on both sides.
                unsafe {
                    while i + 4 <= n {
                        let $p = p.add(i * $bytes);
                        vst1q_f32(out.add(i), $read4);
                        i += 4;
                    }
                    while i < n {
                        let $q = p.add(i * $bytes);
                        *out.add(i) = $read1;
                        i += 1;
                    }
                }
            }
        }
    };
}
float_format!(F32, 4, |p| vreinterpretq_f32_u8(vld1q_u8(p)), |p| p.cast::<f32>().read_unaligned());
float_format!(F16, 2, |p| f16x4_to_f32(vreinterpret_u16_u8(vld1_u8(p))), |p| vgetq_lane_f32::<0>(f16x4([p; ROWS], 0)));
float_format!(Bf16, 2, |p| vreinterpretq_f32_u32(vshll_n_u16::<16>(vreinterpret_u16_u8(vld1_u8(p)))), |p| {
    f32::from_bits(u32::from(p.cast::<u16>().read_unaligned()) << 16)
});

/// See [`crate::functions::Dequantize`].
#[target_feature(enable = "neon")]
pub(super) unsafe fn dequantize<R: ReadF32>(blocks: &[u8], out: &mut [f32]) {
    assert_eq!(blocks.len(), R::bytes(out.len()));
    let mut p = blocks.as_ptr();
    for out in out.chunks_mut(CHUNK) {
        // SAFETY: `blocks` holds all elements of `out`, as just checked, and `p` moves on with
        // `out`.
        unsafe {
            R::read(p, out.len(), out.as_mut_ptr());
            p = p.add(R::bytes(out.len()));
        }
    }
}

/// See [`crate::functions::RowDots`]: the panel serves any number of columns.
#[target_feature(enable = "neon")]
pub(super) unsafe fn row_dots<R: ReadF32>(args: &DotArgs<'_>, out: &mut [f32], stride: usize) {
    // SAFETY: the caller's duties are handed on.
    unsafe { panel::mul::<Floats<R>>(args, &mut Strided { data: out, stride, rows: args.n_rows }) }
}

/// Vectors of four rows in a panel.
const VECTORS: usize = 2;
/// Columns of a tile: sixteen of 32 registers hold sums, eight activations.
const COLS: usize = 8;
/// Elements whose products are summed before they meet those before them.
const SUM: usize = 64;

/// Panels of f32: `(k, VECTORS, 4)`.
pub(super) struct Floats<R>(R);

// SAFETY: the functions need what the trait's callers vouch for.
unsafe impl<R: ReadF32> Panel for Floats<R> {
    const ROWS: usize = ROWS * VECTORS;
    const COLS: usize = COLS;
    const STEP: usize = CHUNK;
    const STEP_BYTES: usize = CHUNK * ROWS * VECTORS * 4;

    #[target_feature(enable = "neon")]
    unsafe fn pack(rows: &PanelRows, k: usize, n: usize, panel: *mut u8) {
        let read = |r: usize, at: usize, out: &mut [f32]| {
            // SAFETY: `pack_read` asks for elements that the caller vouches for.
            unsafe { R::read(rows.row(r).add(R::bytes(k + at)), out.len(), out.as_mut_ptr()) }
        };
        // SAFETY: the caller's duties are handed on.
        unsafe { pack_read(n, panel, read) }
    }

    #[target_feature(enable = "neon")]
    unsafe fn tile(panel: *const u8, n: usize, _n_rows: usize, cols: &TileCols, acc: *mut f32, stride: usize) {
        // SAFETY: the caller's duties are handed on.
        unsafe {
            match cols.n_cols {
                1 => tile::<1>(panel.cast(), n, cols, acc, stride),
                2 => tile::<2>(panel.cast(), n, cols, acc, stride),
                3 => tile::<3>(panel.cast(), n, cols, acc, stride),
                4 => tile::<4>(panel.cast(), n, cols, acc, stride),
                5 => tile::<5>(panel.cast(), n, cols, acc, stride),
                6 => tile::<6>(panel.cast(), n, cols, acc, stride),
                7 => tile::<7>(panel.cast(), n, cols, acc, stride),
                _ => tile::<8>(panel.cast(), n, cols, acc, stride),
            }
        }
    }
}

/// Writes `n` elements of the rows of a panel with a function that writes some elements of a row as
/// f32: it is given the row, the first of these elements, counted from the panel's, and room for a
/// [`CHUNK`] of them at most.
///
/// # Safety
/// The panel has room for `n` elements, rounded up to whole chunks.
#[target_feature(enable = "neon")]
#[inline]
pub(super) unsafe fn pack_read(n: usize, panel: *mut u8, read: impl Fn(usize, usize, &mut [f32])) {
    let mut w = [[0.0f32; CHUNK]; ROWS];
    for at in (0..n).step_by(CHUNK) {
        let len = CHUNK.min(n - at);
        for vector in 0..VECTORS {
            for (r, w) in w.iter_mut().enumerate() {
                read(vector * ROWS + r, at, &mut w[..len]);
            }
            for i in (0..len).step_by(4) {
                // SAFETY: the caller vouches for room; `w` has CHUNK elements a row, a multiple of
                // four.
                unsafe {
                    let four = |row: usize| vld1q_s32(w[row].as_ptr().add(i).cast());
                    let columns = transpose([four(0), four(1), four(2), four(3)]);
                    for (j, column) in columns.into_iter().enumerate() {
                        vst1q_s32(panel.cast::<i32>().add(((at + i + j) * VECTORS + vector) * ROWS), column);
                    }
                }
            }
        }
    }
}

/// See [`Panel::tile`].
///
/// # Safety
/// As there, for `NC` columns.
#[target_feature(enable = "neon")]
unsafe fn tile<const NC: usize>(panel: *const f32, n: usize, cols: &TileCols, acc: *mut f32, stride: usize) {
    // SAFETY: the caller vouches for panel, columns and accumulators.
    unsafe {
        let mut x = [cols.first.add(cols.k * 4); NC];
        for c in 0..NC {
            x[c] = x[c].add(c * cols.layout.col_bytes());
        }
        let w = |i: usize, v: usize| vld1q_f32(panel.add((i * VECTORS + v) * ROWS));
        for first in (0..n).step_by(SUM) {
            let mut sums = [[vdupq_n_f32(0.0); NC]; VECTORS];
            let end = n.min(first + SUM);
            let mut i = first;
            while i + 4 <= end {
                let mut four = [vdupq_n_f32(0.0); NC];
                for c in 0..NC {
                    four[c] = vreinterpretq_f32_u8(vld1q_u8(x[c].add(i * 4)));
                }
                for v in 0..VECTORS {
                    let w = [w(i, v), w(i + 1, v), w(i + 2, v), w(i + 3, v)];
                    for c in 0..NC {
                        sums[v][c] = vfmaq_laneq_f32::<0>(sums[v][c], w[0], four[c]);
                    }
                    for c in 0..NC {
                        sums[v][c] = vfmaq_laneq_f32::<1>(sums[v][c], w[1], four[c]);
                    }
                    for c in 0..NC {
                        sums[v][c] = vfmaq_laneq_f32::<2>(sums[v][c], w[2], four[c]);
                    }
                    for c in 0..NC {
                        sums[v][c] = vfmaq_laneq_f32::<3>(sums[v][c], w[3], four[c]);
                    }
                }
                i += 4;
            }
            while i < end {
                for c in 0..NC {
                    let x = x[c].add(i * 4).cast::<f32>().read_unaligned();
                    for v in 0..VECTORS {
                        sums[v][c] = vfmaq_n_f32(sums[v][c], w(i, v), x);
                    }
                }
                i += 1;
            }
            for v in 0..VECTORS {
                for c in 0..NC {
                    let acc = acc.add(c * stride + v * ROWS);
                    vst1q_f32(acc, vaddq_f32(vld1q_f32(acc), sums[v][c]));
                }
            }
        }
    }
}

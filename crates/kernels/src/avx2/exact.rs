//! Dequantisation, and panels of f32 for f32 activations: weights become f32 on the fly.
//!
//! Sums are f32 over 64 elements, which are then added up in f32: that keeps the error near one f32
//! rounding of the terms.

use std::arch::x86_64::*;
use std::mem::MaybeUninit;

use super::rows::{Format8, Head, MAX_HEADS, ROWS, RUN, Width, transpose};
use crate::functions::DotArgs;
use crate::matrix::Strided;
use crate::panel::{self, Panel, PanelRows, TileCols};

/// Elements that are turned into f32 at a time.
pub(crate) const CHUNK: usize = 256;

/// Weights that can be read as f32.
pub(crate) trait ReadF32 {
    /// Bytes of `n` elements (whole blocks).
    fn bytes(n: usize) -> usize;
    /// Writes `n` elements, at most [`CHUNK`] and whole blocks.
    ///
    /// # Safety
    /// AVX2, FMA and F16C; `bytes(n)` bytes can be read at `p` and `n` f32 written at `out`.
    unsafe fn read(p: *const u8, n: usize, out: *mut f32);
}

/// Weights that are floats already.
pub(super) trait Float8: ReadF32 {
    /// Bytes of an element, at most 4.
    const LEN: usize;
    /// Eight elements as f32.
    ///
    /// # Safety
    /// AVX2, FMA and F16C; `8 * LEN` bytes can be read at `p`.
    unsafe fn load8(p: *const u8) -> __m256;
}

/// A quantised format.
pub(crate) struct Blocks<F>(F);

impl<F: Format8> ReadF32 for Blocks<F> {
    #[inline]
    fn bytes(n: usize) -> usize {
        n / (RUN * F::BLOCK_RUNS) * F::BYTES
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    #[inline]
    unsafe fn read(p: *const u8, n: usize, out: *mut f32) {
        // SAFETY: the caller vouches for the instruction set, for `n` elements at `p` and for room
        // at `out`.
        unsafe {
            let mut heads = [MaybeUninit::<__m256>::uninit(); MAX_HEADS];
            let heads = heads.as_mut_ptr().cast::<__m256>();
            for block in 0..n / (RUN * F::BLOCK_RUNS) {
                // One row in the place of all eight.
                let p = p.add(block * F::BYTES);
                F::heads([p; ROWS], heads);
                for g in 0..F::BLOCK_RUNS {
                    let head = std::slice::from_raw_parts(heads.add(g * Head::<F>::LEN), Head::<F>::LEN);
                    for (half, q) in F::halves([p; 2], g, Head::<F>::pair(heads, 0)).into_iter().enumerate() {
                        let (scale, offset) = sub_scale::<F>(head, half);
                        let q = _mm256_castsi256_si128(q);
                        for (part, q) in [q, _mm_unpackhi_epi64(q, q)].into_iter().enumerate() {
                            let wide = match F::WIDTH {
                                Width::Signed => _mm256_cvtepi8_epi32(q),
                                _ => _mm256_cvtepu8_epi32(q),
                            };
                            let product = if F::CENTRE == 0 {
                                _mm256_fmadd_ps(scale, _mm256_cvtepi32_ps(wide), offset)
                            } else {
                                let own = _mm256_sub_epi32(wide, _mm256_set1_epi32(F::CENTRE));
                                _mm256_mul_ps(scale, _mm256_cvtepi32_ps(own))
                            };
                            let run = block * F::BLOCK_RUNS + g;
                            _mm256_storeu_ps(out.add(run * RUN + half * 16 + part * 8), product);
                        }
                    }
                }
            }
        }
    }
}

/// Scale and offset of the first row's elements 0..16 or 16..32 of a run, in all lanes.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn sub_scale<F: Format8>(head: &[__m256], half: usize) -> (__m256, __m256) {
    let first = |v: __m256| _mm256_broadcastss_ps(_mm256_castps256_ps128(v));
    let scale = match Head::<F>::SUB_SCALED {
        true => {
            let integer = _mm256_srai_epi32::<16>(_mm256_castps_si256(first(head[1 + half])));
            _mm256_mul_ps(first(head[0]), _mm256_cvtepi32_ps(integer))
        }
        false => first(head[0]),
    };
    let offset = match Head::<F>::N_OFFSETS {
        0 => _mm256_setzero_ps(),
        n => first(head[Head::<F>::OFFSETS_AT + half % n]),
    };
    (scale, offset)
}

macro_rules! float_format {
    ($name:ident, $bytes:literal, |$p:ident| $read8:expr, |$q:ident| $read1:expr) => {
        /// A float format.
        pub(crate) struct $name;
        impl Float8 for $name {
            const LEN: usize = $bytes;
            #[target_feature(enable = "avx2,fma,f16c")]
            #[inline]
            unsafe fn load8($p: *const u8) -> __m256 {
                // SAFETY: the caller vouches for the instruction set and for eight elements.
                unsafe { $read8 }
            }
        }
        impl ReadF32 for $name {
            #[inline]
            fn bytes(n: usize) -> usize {
                n * $bytes
            }
            #[target_feature(enable = "avx2,fma,f16c")]
            #[inline]
            unsafe fn read(p: *const u8, n: usize, out: *mut f32) {
                let mut i = 0;
                // SAFETY: the caller vouches for the instruction set and for `n` elements on both
                // sides.
                unsafe {
                    while i + 8 <= n {
                        _mm256_storeu_ps(out.add(i), Self::load8(p.add(i * $bytes)));
                        i += 8;
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
float_format!(F32, 4, |p| _mm256_loadu_ps(p.cast()), |p| p.cast::<f32>().read_unaligned());
float_format!(F16, 2, |p| _mm256_cvtph_ps(_mm_loadu_si128(p.cast())), |p| half::f16::from_bits(
    p.cast::<u16>().read_unaligned()
)
.to_f32());
float_format!(
    Bf16,
    2,
    |p| _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast())))),
    |p| f32::from_bits(u32::from(p.cast::<u16>().read_unaligned()) << 16)
);

/// See [`crate::functions::Dequantize`].
#[target_feature(enable = "avx2,fma,f16c")]
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
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn row_dots<R: ReadF32>(args: &DotArgs<'_>, out: &mut [f32], stride: usize) {
    // SAFETY: the caller's duties are handed on.
    unsafe { panel::mul::<Floats<R>>(args, &mut Strided { data: out, stride, rows: args.n_rows }) }
}

/// Vectors of eight rows in a panel.
const VECTORS: usize = 2;
/// Columns of a tile: with two vectors of rows, twelve of sixteen registers hold sums.
const COLS: usize = 6;
/// Elements whose products are summed before they meet those before them.
pub(crate) const SUM: usize = 64;

/// Panels of f32: `(k, VECTORS, 8)`.
pub(super) struct Floats<R>(R);

// SAFETY: the functions need what the trait's callers vouch for, AVX2, FMA and F16C included.
unsafe impl<R: ReadF32> Panel for Floats<R> {
    const ROWS: usize = ROWS * VECTORS;
    const COLS: usize = COLS;
    const STEP: usize = CHUNK;
    const STEP_BYTES: usize = CHUNK * ROWS * VECTORS * 4;

    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn pack(rows: &PanelRows, k: usize, n: usize, panel: *mut u8) {
        // SAFETY: the caller's duties are handed on.
        unsafe { pack_rows::<R, VECTORS>(rows, k, n, panel.cast()) }
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn tile(panel: *const u8, n: usize, _n_rows: usize, cols: &TileCols, acc: *mut f32, stride: usize) {
        // SAFETY: the caller's duties are handed on.
        unsafe {
            match cols.n_cols {
                1 => tile::<1>(panel.cast(), n, cols, acc, stride),
                2 => tile::<2>(panel.cast(), n, cols, acc, stride),
                3 => tile::<3>(panel.cast(), n, cols, acc, stride),
                4 => tile::<4>(panel.cast(), n, cols, acc, stride),
                5 => tile::<5>(panel.cast(), n, cols, acc, stride),
                _ => tile::<6>(panel.cast(), n, cols, acc, stride),
            }
        }
    }
}

/// Writes elements `k..k + n` of `8 * V` rows as `(n, V, 8)`; vectors beyond the last row are left
/// out.
///
/// # Safety
/// AVX2, FMA and F16C; the rows have these elements and the panel has room for them, rounded up to
/// whole chunks, and is aligned to 32 bytes.
#[target_feature(enable = "avx2,fma,f16c")]
pub(crate) unsafe fn pack_rows<R: ReadF32, const V: usize>(rows: &PanelRows, k: usize, n: usize, panel: *mut f32) {
    let read = |r: usize, at: usize, out: &mut [f32]| {
        // SAFETY: `pack_read` asks for elements that the caller vouches for, and so is the
        // instruction set.
        unsafe { R::read(rows.row(r).add(R::bytes(k + at)), out.len(), out.as_mut_ptr()) }
    };
    // SAFETY: the caller's duties are handed on.
    unsafe { pack_read::<V>(rows, n, panel, read) }
}

/// The same with a function that writes some elements of a row as f32: it is given the row, the
/// first of these elements, counted from the panel's, and room for a [`CHUNK`] of them at most.
///
/// # Safety
/// AVX2; the panel is as for [`pack_rows`].
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
pub(super) unsafe fn pack_read<const V: usize>(
    rows: &PanelRows,
    n: usize,
    panel: *mut f32,
    read: impl Fn(usize, usize, &mut [f32]),
) {
    let mut w = [[0.0f32; CHUNK]; ROWS];
    for at in (0..n).step_by(CHUNK) {
        let len = CHUNK.min(n - at);
        for vector in 0..V.min(rows.n_rows().div_ceil(ROWS)) {
            for (r, w) in w.iter_mut().enumerate() {
                read(vector * ROWS + r, at, &mut w[..len]);
            }
            // SAFETY: the caller vouches for room.
            unsafe {
                let to = panel.add((at * V + vector) * ROWS);
                for eight in (0..len).step_by(8) {
                    transpose8::<V>(&w, eight, to.add(eight * V * ROWS));
                }
            }
        }
    }
}

/// Elements `at..at + 8` of eight rows to eight vectors of eight rows, `V` vectors apart.
///
/// # Safety
/// AVX2; there is room for them, aligned to 32 bytes; `at + 8` is at most [`CHUNK`].
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
unsafe fn transpose8<const V: usize>(w: &[[f32; CHUNK]; ROWS], at: usize, to: *mut f32) {
    for half in 0..2 {
        let mut pairs = [_mm256_setzero_si256(); 4];
        for i in 0..4 {
            // SAFETY: the caller vouches for `at`.
            unsafe {
                let four = |row: usize| _mm_loadu_si128(w[row].as_ptr().add(at + half * 4).cast());
                pairs[i] = _mm256_inserti128_si256::<1>(_mm256_castsi128_si256(four(i)), four(i + 4));
            }
        }
        let columns = transpose(pairs);
        for j in 0..4 {
            // SAFETY: the caller vouches for room.
            unsafe { _mm256_store_si256(to.add((half * 4 + j) * V * ROWS).cast(), columns[j]) };
        }
    }
}

/// See [`Panel::tile`].
///
/// # Safety
/// As there, for `NC` columns.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn tile<const NC: usize>(panel: *const f32, n: usize, cols: &TileCols, acc: *mut f32, stride: usize) {
    // SAFETY: the caller vouches for panel, columns and accumulators.
    unsafe {
        let mut x = [cols.first.add(cols.k * 4); NC];
        for c in 0..NC {
            x[c] = x[c].add(c * cols.layout.col_bytes());
        }
        for first in (0..n).step_by(SUM) {
            let mut sums = [[_mm256_setzero_ps(); NC]; VECTORS];
            for i in first..n.min(first + SUM) {
                let w: [__m256; VECTORS] = [
                    _mm256_load_ps(panel.add(i * VECTORS * ROWS)),
                    _mm256_load_ps(panel.add((i * VECTORS + 1) * ROWS)),
                ];
                for c in 0..NC {
                    let x = _mm256_set1_ps(x[c].add(i * 4).cast::<f32>().read_unaligned());
                    for v in 0..VECTORS {
                        sums[v][c] = _mm256_fmadd_ps(w[v], x, sums[v][c]);
                    }
                }
            }
            for v in 0..VECTORS {
                for c in 0..NC {
                    let acc = acc.add(c * stride + v * ROWS);
                    _mm256_storeu_ps(acc, _mm256_add_ps(_mm256_loadu_ps(acc), sums[v][c]));
                }
            }
        }
    }
}

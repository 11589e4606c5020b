//! Row-dots of float weights with few columns: eight rows are widened and transposed in registers.
//!
//! Sums are those of the panels ([`super::exact`]), operation by operation: f32 over 64 elements in
//! ascending order, which are then added up in f32, so that both give the same bits.

use std::arch::x86_64::*;

use super::exact::{Float8, SUM};
use super::rows::ROWS;
use crate::ahead;
use crate::functions::DotArgs;

/// Columns that are computed together.
const COLS: usize = 4;

/// See [`crate::functions::RowDots`].
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn row_dots<F: Float8>(args: &DotArgs<'_>, out: &mut [f32], stride: usize) {
    let distance = ahead::distance(ROWS * args.row_bytes);
    ahead::request(args.w.as_ptr(), distance.min(args.w.len()));
    for first in (0..args.n_rows).step_by(ROWS) {
        let n = ROWS.min(args.n_rows - first);
        // A last tile of fewer rows takes the last row again and again.
        let mut rows = [args.w.as_ptr(); ROWS];
        for (r, row) in rows.iter_mut().enumerate() {
            *row = args.w[(first + r.min(n - 1)) * args.row_bytes..].as_ptr();
        }
        let next = rows[0].wrapping_add(distance);
        for col in (0..args.n_cols).step_by(COLS) {
            let x = args.acts[col * args.layout.col_bytes()..].as_ptr();
            let out = &mut out[col * stride + first..];
            // SAFETY: rows and columns are those of `args`, whose lengths the caller vouches for.
            unsafe {
                match args.n_cols - col {
                    1 => tile::<F, 1>(args, rows, x, next, out, stride, n),
                    2 => tile::<F, 2>(args, rows, x, next, out, stride, n),
                    3 => tile::<F, 3>(args, rows, x, next, out, stride, n),
                    _ => tile::<F, 4>(args, rows, x, next, out, stride, n),
                }
            }
        }
    }
}

/// The products of eight rows with `NC` columns from `x` on, of which the first `n` rows are
/// written. Requests as many bytes as it reads, from `next` on.
///
/// # Safety
/// AVX2, FMA and F16C; rows and columns have the elements that `args` says.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn tile<F: Float8, const NC: usize>(
    args: &DotArgs<'_>,
    rows: [*const u8; ROWS],
    x: *const u8,
    mut next: *const u8,
    out: &mut [f32],
    stride: usize,
    n: usize,
) {
    let (k, col_bytes) = (args.layout.k(), args.layout.col_bytes());
    let mut acc = [_mm256_setzero_ps(); NC];
    for block in (0..k).step_by(SUM) {
        let mut sums = [_mm256_setzero_ps(); NC];
        let len = SUM.min(k - block);
        next = ahead::request(next, len * F::LEN * ROWS);
        for at in (block..block + len).step_by(8) {
            let n = (block + len - at).min(8);
            let mut v = [_mm256_setzero_ps(); ROWS];
            // SAFETY: elements at..at + n are there, on both sides.
            unsafe {
                for r in 0..ROWS {
                    let p = rows[r].add(at * F::LEN);
                    v[r] = if n == 8 { F::load8(p) } else { part::<F>(p, n) };
                }
                let v = transpose8(v);
                for i in 0..n {
                    for c in 0..NC {
                        let x = x.add(c * col_bytes + (at + i) * 4).cast::<f32>().read_unaligned();
                        sums[c] = _mm256_fmadd_ps(v[i], _mm256_set1_ps(x), sums[c]);
                    }
                }
            }
        }
        for c in 0..NC {
            acc[c] = _mm256_add_ps(acc[c], sums[c]);
        }
    }
    for c in 0..NC {
        let mut products = [0.0; ROWS];
        // SAFETY: room for eight f32.
        unsafe { _mm256_storeu_ps(products.as_mut_ptr(), acc[c]) };
        out[c * stride..][..n].copy_from_slice(&products[..n]);
    }
}

/// The last elements of a row, fewer than eight, and zeros.
///
/// # Safety
/// AVX2, FMA and F16C; `n` elements can be read.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn part<F: Float8>(p: *const u8, n: usize) -> __m256 {
    let mut copy = [0u8; 32];
    // SAFETY: the caller vouches for n < 8 elements, of at most four bytes.
    unsafe {
        std::ptr::copy_nonoverlapping(p, copy.as_mut_ptr(), n * F::LEN);
        F::load8(copy.as_ptr())
    }
}

/// Eight elements of eight rows: the first elements of all rows, the second ones, and so on.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn transpose8(v: [__m256; 8]) -> [__m256; 8] {
    let mut pairs = [_mm256_setzero_ps(); 8];
    for i in 0..4 {
        // Elements 0, 1 and 4, 5 of two rows; elements 2, 3 and 6, 7.
        pairs[2 * i] = _mm256_unpacklo_ps(v[2 * i], v[2 * i + 1]);
        pairs[2 * i + 1] = _mm256_unpackhi_ps(v[2 * i], v[2 * i + 1]);
    }
    let mut fours = [_mm256_setzero_ps(); 8];
    for i in 0..2 {
        // Element j in the low half and j + 4 in the high half, of four rows.
        let p = &pairs[4 * i..];
        fours[4 * i] = _mm256_shuffle_ps::<0b01_00_01_00>(p[0], p[2]);
        fours[4 * i + 1] = _mm256_shuffle_ps::<0b11_10_11_10>(p[0], p[2]);
        fours[4 * i + 2] = _mm256_shuffle_ps::<0b01_00_01_00>(p[1], p[3]);
        fours[4 * i + 3] = _mm256_shuffle_ps::<0b11_10_11_10>(p[1], p[3]);
    }
    let mut out = [_mm256_setzero_ps(); 8];
    for j in 0..4 {
        out[j] = _mm256_permute2f128_ps::<0x20>(fours[j], fours[4 + j]);
        out[4 + j] = _mm256_permute2f128_ps::<0x31>(fours[j], fours[4 + j]);
    }
    out
}

//! Panels of quantised weights: rows in lanes, activations broadcast four at a time.
//!
//! A panel's record of one run of 32 elements, for two vectors of eight rows:
//! ```text
//! (8, 2, 8, 4)     bytes: four elements of eight rows fill a register
//! (2, Head::LEN, 8) what belongs to the run, as `rows::Head` says
//! ```
//! `maddubs` multiplies a register with four activations, `madd` completes the sums of four. No
//! shuffle is left for the columns.

use std::arch::x86_64::*;
use std::mem::MaybeUninit;

use super::dot::Dot;
use super::dots::accumulate;
use super::rows::{Blocks8, Format8, Head, MAX_HEADS, ROWS, RUN, Width, transpose};
use crate::panel::{Panel, PanelRows, TileCols};

/// Vectors of eight rows in a panel.
const VECTORS: usize = 2;
/// Columns of a tile: with two vectors of rows, eight of sixteen registers hold sums.
const COLS: usize = 4;
/// Bytes of a run's integers.
const INT_BYTES: usize = RUN * ROWS * VECTORS;

/// The panels of a format.
pub(super) struct Quantised<F, D>(F, D);

impl<F: Format8, D: Dot> Quantised<F, D> {
    const RECORD_BYTES: usize = INT_BYTES + VECTORS * Head::<F>::LEN * 32;
}

// SAFETY: the functions need what the trait's callers vouch for, AVX2, FMA and F16C included.
unsafe impl<F: Format8, D: Dot> Panel for Quantised<F, D> {
    const ROWS: usize = ROWS * VECTORS;
    const COLS: usize = COLS;
    const STEP: usize = RUN * F::BLOCK_RUNS;
    const STEP_BYTES: usize = F::BLOCK_RUNS * Self::RECORD_BYTES;
    const BEGINS_AT_ZERO: bool = true;

    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn pack(rows: &PanelRows, k: usize, n: usize, panel: *mut u8) {
        for vector in 0..VECTORS {
            // SAFETY: the caller vouches for the rows and for room.
            unsafe {
                let blocks: Blocks8 =
                    std::array::from_fn(|r| rows.row(vector * ROWS + r).add(k / Self::STEP * F::BYTES));
                let ints = panel.add(vector * 32);
                let heads = panel.add(INT_BYTES + vector * Head::<F>::LEN * 32);
                pack_rows::<F>(blocks, n / Self::STEP, ints, heads, Self::RECORD_BYTES);
            }
        }
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    unsafe fn tile(panel: *const u8, n: usize, _n_rows: usize, cols: &TileCols, acc: *mut f32, stride: usize) {
        // SAFETY: the caller's duties are handed on.
        unsafe {
            match cols.n_cols {
                1 => tile::<F, D, 1>(panel, n, cols, acc, stride),
                2 => tile::<F, D, 2>(panel, n, cols, acc, stride),
                3 => tile::<F, D, 3>(panel, n, cols, acc, stride),
                _ => tile::<F, D, 4>(panel, n, cols, acc, stride),
            }
        }
    }
}

/// Writes the integers and heads of eight rows into records.
///
/// # Safety
/// AVX2, FMA and F16C; there are `n_blocks` blocks, and as many records' worth of room.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn pack_rows<F: Format8>(
    mut blocks: Blocks8,
    n_blocks: usize,
    mut ints: *mut u8,
    mut to_heads: *mut u8,
    record_bytes: usize,
) {
    // SAFETY: the caller vouches for blocks and records, and pointers move on by one of each; all
    // 32-byte parts are aligned, as panels and records are.
    unsafe {
        let mut heads = [MaybeUninit::<__m256>::uninit(); MAX_HEADS];
        let heads = heads.as_mut_ptr().cast::<__m256>();
        for _ in 0..n_blocks {
            F::heads(blocks, heads);
            for g in 0..F::BLOCK_RUNS {
                let (mut low, mut high) = ([_mm256_setzero_si256(); 4], [_mm256_setzero_si256(); 4]);
                for i in 0..4 {
                    [low[i], high[i]] = F::halves([blocks[i], blocks[i + 4]], g, Head::<F>::pair(heads, i));
                }
                let (low, high) = (transpose(low), transpose(high));
                for j in 0..4 {
                    _mm256_store_si256(ints.add(j * 32 * VECTORS).cast(), low[j]);
                    _mm256_store_si256(ints.add((j + 4) * 32 * VECTORS).cast(), high[j]);
                }
                for i in 0..Head::<F>::LEN {
                    _mm256_store_ps(to_heads.add(i * 32).cast(), heads.add(g * Head::<F>::LEN + i).read());
                }
                (ints, to_heads) = (ints.add(record_bytes), to_heads.add(record_bytes));
            }
            for block in &mut blocks {
                *block = block.wrapping_add(F::BYTES);
            }
        }
    }
}

/// See [`Panel::tile`].
///
/// # Safety
/// As there, for `NC` columns.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn tile<F: Format8, D: Dot, const NC: usize>(
    panel: *const u8,
    n: usize,
    cols: &TileCols,
    acc: *mut f32,
    stride: usize,
) {
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
        for run in cols.k / RUN..(cols.k + n) / RUN {
            let heads: [*const __m256; VECTORS] =
                std::array::from_fn(|v| record.add(INT_BYTES + v * Head::<F>::LEN * 32).cast());
            let dots = integer_sums::<F, D, NC>(record, heads, x, run);
            for v in 0..VECTORS {
                for c in 0..NC {
                    sums[v][c] = accumulate::<F>(sums[v][c], dots[v][c], heads[v], x[c], run, layout);
                }
            }
            record = record.add(Quantised::<F, D>::RECORD_BYTES);
        }
        for v in 0..VECTORS {
            for c in 0..NC {
                _mm256_storeu_ps(acc.add(c * stride + v * ROWS), sums[v][c]);
            }
        }
    }
}

/// The i32 sums of one run: of the products or, where 16 elements share an integer scale, of the
/// scaled products.
///
/// # Safety
/// AVX2 and `D`'s instruction; `ints` and `heads` are one record; the columns have the run.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
unsafe fn integer_sums<F: Format8, D: Dot, const NC: usize>(
    ints: *const u8,
    heads: [*const __m256; VECTORS],
    x: [*const u8; NC],
    run: usize,
) -> [[__m256i; NC]; VECTORS] {
    // SAFETY: the caller vouches for all of it.
    unsafe {
        let weights = |four: usize, v: usize| _mm256_load_si256(ints.add((four * VECTORS + v) * 32).cast());
        let activations =
            |four: usize, c: usize| _mm256_set1_epi32(x[c].add(run * RUN + four * 4).cast::<i32>().read_unaligned());
        let ones = _mm256_set1_epi16(1);
        let mut sums = [[_mm256_setzero_si256(); NC]; VECTORS];
        match F::WIDTH {
            Width::Nibble | Width::FiveBits | Width::SixBits | Width::SevenBits if D::AT_ONCE => {
                for four in 0..RUN / 4 {
                    let w = [weights(four, 0), weights(four, 1)];
                    for c in 0..NC {
                        let x = activations(four, c);
                        for v in 0..VECTORS {
                            sums[v][c] = D::add(sums[v][c], w[v], x);
                        }
                    }
                    hold(&mut sums);
                }
            }
            // All of the run fits 16 bits.
            Width::Nibble => {
                for four in 0..RUN / 4 {
                    let w = [weights(four, 0), weights(four, 1)];
                    for c in 0..NC {
                        let x = activations(four, c);
                        for v in 0..VECTORS {
                            sums[v][c] = _mm256_add_epi16(sums[v][c], _mm256_maddubs_epi16(w[v], x));
                        }
                    }
                    hold(&mut sums);
                }
                for v in 0..VECTORS {
                    for c in 0..NC {
                        sums[v][c] = _mm256_madd_epi16(sums[v][c], ones);
                    }
                }
            }
            // Eight elements fit.
            Width::FiveBits | Width::SixBits | Width::SubScaled => {
                for eight in 0..RUN / 8 {
                    let (a, b) = (eight * 2, eight * 2 + 1);
                    let w = [[weights(a, 0), weights(b, 0)], [weights(a, 1), weights(b, 1)]];
                    let mut factor = [ones; VECTORS];
                    if Head::<F>::SUB_SCALED {
                        for v in 0..VECTORS {
                            factor[v] = _mm256_castps_si256(heads[v].add(1 + eight / 2).read());
                        }
                    }
                    for c in 0..NC {
                        let x = [activations(a, c), activations(b, c)];
                        for v in 0..VECTORS {
                            let pairs = _mm256_add_epi16(
                                _mm256_maddubs_epi16(w[v][0], x[0]),
                                _mm256_maddubs_epi16(w[v][1], x[1]),
                            );
                            sums[v][c] = _mm256_add_epi32(sums[v][c], _mm256_madd_epi16(pairs, factor[v]));
                        }
                    }
                    hold(&mut sums);
                }
            }
            // Two elements fit.
            Width::SevenBits | Width::SubScaledSevenBits => {
                for four in 0..RUN / 4 {
                    let w = [weights(four, 0), weights(four, 1)];
                    let mut factor = [ones; VECTORS];
                    if Head::<F>::SUB_SCALED {
                        for v in 0..VECTORS {
                            factor[v] = _mm256_castps_si256(heads[v].add(1 + four / 4).read());
                        }
                    }
                    for c in 0..NC {
                        let x = activations(four, c);
                        for v in 0..VECTORS {
                            let pairs = _mm256_maddubs_epi16(w[v], x);
                            sums[v][c] = _mm256_add_epi32(sums[v][c], _mm256_madd_epi16(pairs, factor[v]));
                        }
                    }
                    hold(&mut sums);
                }
            }
            Width::Signed => {
                for four in 0..RUN / 4 {
                    let w = [weights(four, 0), weights(four, 1)];
                    let magnitude = [_mm256_abs_epi8(w[0]), _mm256_abs_epi8(w[1])];
                    for c in 0..NC {
                        let x = activations(four, c);
                        for v in 0..VECTORS {
                            sums[v][c] = D::add(sums[v][c], magnitude[v], _mm256_sign_epi8(x, w[v]));
                        }
                    }
                    hold(&mut sums);
                }
            }
        }
        sums
    }
}

/// Keeps sums in registers and the steps of a run apart. Left alone, the compiler adds up in
/// another order, for which it keeps many broadcast activations on the stack.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn hold<const NC: usize>(sums: &mut [[__m256i; NC]; VECTORS]) {
    for sums in sums {
        for sum in sums {
            // SAFETY: an empty instruction sequence.
            unsafe { std::arch::asm!("/* {0} */", inout(ymm_reg) * sum, options(nostack, preserves_flags)) };
        }
    }
}

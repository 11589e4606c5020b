//! Row-dots of quantised weights with `Q8` activations.

use std::arch::x86_64::*;
use std::mem::MaybeUninit;

use super::group::{Group, Head, RUN, RUNS, multiplier};
use crate::matrix::ActLayout;
use crate::table::DotArgs;

/// How far ahead of the reads weights are requested, in bytes, where `rows` rows are read at a time.
///
/// Hardware prefetchers stop at the ends of 4 KiB pages, which a row-dot crosses every few hundred cycles. The next rows of
/// the matrix follow, so whole steps of rows, at least a page ahead; but where such a step would not stay in a first-level cache,
/// further along in the same row.
fn prefetch_distance(rows: usize, row_bytes: usize) -> usize {
    let step = rows * row_bytes;
    if step > 16 << 10 { 2048 } else { 4096usize.next_multiple_of(step) }
}

/// See [`crate::table::RowDots`].
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn row_dots<G: Group>(args: &DotArgs<'_>, out: &mut [f32], stride: usize) {
    // SAFETY: the caller's duties are handed on.
    unsafe {
        match args.n_cols {
            1 => rows::<G, 4, 1>(args, out, stride),
            2 => rows::<G, 2, 2>(args, out, stride),
            3 => rows::<G, 2, 3>(args, out, stride),
            4 => rows::<G, 2, 4>(args, out, stride),
            5 => rows::<G, 1, 5>(args, out, stride),
            6 => rows::<G, 1, 6>(args, out, stride),
            7 => rows::<G, 1, 7>(args, out, stride),
            _ => rows::<G, 1, 8>(args, out, stride),
        }
    }
}

/// All rows, `NR` at a time and the rest one by one.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn rows<G: Group, const NR: usize, const NC: usize>(args: &DotArgs<'_>, out: &mut [f32], stride: usize) {
    assert!(args.n_cols == NC && out.len() >= (NC - 1) * stride + args.n_rows);
    let mut r = 0;
    while r + NR <= args.n_rows {
        // SAFETY: rows r..r + NR exist; the rest is the caller's duty.
        let sums = unsafe { tile::<G, NR, NC>(args, r) };
        for (i, sums) in sums.iter().enumerate() {
            for (c, &sum) in sums.iter().enumerate() {
                out[c * stride + r + i] = sum;
            }
        }
        r += NR;
    }
    while r < args.n_rows {
        // SAFETY: row r exists; the rest is the caller's duty.
        let [sums] = unsafe { tile::<G, 1, NC>(args, r) };
        for (c, &sum) in sums.iter().enumerate() {
            out[c * stride + r] = sum;
        }
        r += 1;
    }
}

/// The products of rows `first..first + NR` with all `NC` columns.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn tile<G: Group, const NR: usize, const NC: usize>(args: &DotArgs<'_>, first: usize) -> [[f32; NC]; NR] {
    let layout = args.layout;
    let w: [*const u8; NR] = std::array::from_fn(|r| args.w[(first + r) * args.row_bytes..].as_ptr());
    let x: [*const u8; NC] = std::array::from_fn(|c| args.acts[c * layout.col_bytes()..].as_ptr());
    let n_runs = layout.k() / RUN;
    let ahead = prefetch_distance(NR, args.row_bytes);
    // SAFETY: a row is n_runs / BLOCK_RUNS whole blocks and a column n_runs runs with their scales and sums, as the caller
    // vouches. Groups before the last have 8 runs; in the last one masks keep loads within `n` runs.
    unsafe {
        let mut acc = [[_mm256_setzero_ps(); NC]; NR];
        let mut run = 0;
        while run + RUNS <= n_runs {
            group::<G, NR, NC, true>(w, x, layout, ahead, run, RUNS, &mut acc);
            run += RUNS;
        }
        if G::BLOCK_RUNS == 1 && run < n_runs {
            group::<G, NR, NC, false>(w, x, layout, ahead, run, n_runs - run, &mut acc);
        }
        let mut sums = [[0.0; NC]; NR];
        for r in 0..NR {
            for c in 0..NC {
                sums[r][c] = lane_sum(acc[r][c]);
            }
        }
        sums
    }
}

/// Adds runs `run..run + n` to the accumulators and requests weights `ahead` bytes further on. `FULL` means that `n` is 8.
///
/// # Safety
/// As [`tile`]; each row and column has these runs.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
unsafe fn group<G: Group, const NR: usize, const NC: usize, const FULL: bool>(
    w: [*const u8; NR],
    x: [*const u8; NC],
    layout: ActLayout,
    ahead: usize,
    run: usize,
    n: usize,
    acc: &mut [[__m256; NC]; NR],
) {
    // SAFETY: the caller vouches for AVX2, FMA, F16C and for the runs in rows and columns; prefetching any address is harmless.
    unsafe {
        let mut heads = [Head::ZERO; NR];
        let mut at = w;
        for r in 0..NR {
            at[r] = w[r].add(run / G::BLOCK_RUNS * G::BYTES);
            heads[r] = G::head(at[r], if FULL { RUNS } else { n });
        }
        let w = at;
        // Products of weight and activation scales, eight runs each.
        let mut scales = [[[MaybeUninit::<f32>::uninit(); RUNS]; NC]; NR];
        for c in 0..NC {
            let scale = load8::<FULL>(x[c], layout.scales_at() + run * 4, n);
            for r in 0..NR {
                _mm256_storeu_ps(scales[r][c].as_mut_ptr().cast(), _mm256_mul_ps(heads[r].scale, scale));
            }
            if G::OFFSET && G::SUB16 {
                let at = layout.sums16_at() + run * 8;
                for (i, at) in [at, at + 32].into_iter().enumerate() {
                    let sums = load8::<FULL>(x[c], at, n);
                    for r in 0..NR {
                        acc[r][c] = _mm256_fmadd_ps(heads[r].offset[i], sums, acc[r][c]);
                    }
                }
            } else if G::OFFSET {
                let sums = load8::<FULL>(x[c], layout.sums32_at() + run * 4, n);
                for r in 0..NR {
                    acc[r][c] = _mm256_fmadd_ps(heads[r].offset[0], sums, acc[r][c]);
                }
            }
        }
        // Keep the products in memory, from where a broadcast is one load: held in registers, each would cost two shuffles.
        std::arch::asm!("/* {0} */", in(reg) scales.as_mut_ptr(), options(nostack, preserves_flags));
        if NC <= 4 {
            for w in w {
                for line in 0..(G::BYTES * RUNS / G::BLOCK_RUNS).div_ceil(64) {
                    _mm_prefetch::<_MM_HINT_T0>(w.wrapping_add(ahead + line * 64).cast());
                }
            }
        }
        macro_rules! step {
            ($g:expr) => {
                for r in 0..NR {
                    let q = G::quants(w[r], $g);
                    let mult = multiplier::<G>(&heads[r], $g);
                    for c in 0..NC {
                        let x = _mm256_loadu_si256(x[c].add((run + $g) * RUN).cast());
                        let pairs = if G::SIGNED {
                            _mm256_maddubs_epi16(_mm256_abs_epi8(q), _mm256_sign_epi8(x, q))
                        } else {
                            _mm256_maddubs_epi16(q, x)
                        };
                        let dots = _mm256_cvtepi32_ps(_mm256_madd_epi16(pairs, mult));
                        let scale = _mm256_broadcast_ss(scales[r][c][$g].assume_init_ref());
                        acc[r][c] = _mm256_fmadd_ps(scale, dots, acc[r][c]);
                    }
                }
            };
        }
        if FULL {
            // Written out, so that shifts by the run's number become constants.
            step!(0);
            step!(1);
            step!(2);
            step!(3);
            step!(4);
            step!(5);
            step!(6);
            step!(7);
        } else {
            for g in 0..n {
                step!(g);
            }
        }
    }
}

/// Eight f32, or the first `n` and zeros.
///
/// # Safety
/// AVX2; 8 or `n` f32 can be read `at` bytes behind `p`.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
unsafe fn load8<const FULL: bool>(p: *const u8, at: usize, n: usize) -> __m256 {
    // SAFETY: the caller vouches for the f32; masked lanes are not read.
    unsafe {
        let p = p.add(at).cast::<f32>();
        if FULL { _mm256_loadu_ps(p) } else { _mm256_maskload_ps(p, first_lanes(n)) }
    }
}

/// A mask of the first `n` of eight lanes.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn first_lanes(n: usize) -> __m256i {
    _mm256_cmpgt_epi32(_mm256_set1_epi32(n as i32), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7))
}

/// The sum of eight lanes, in a fixed order.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
pub(super) fn lane_sum(v: __m256) -> f32 {
    let four = _mm_add_ps(_mm256_castps256_ps128(v), _mm256_extractf128_ps::<1>(v));
    let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
    _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
}

//! Row-dots of quantised weights with few columns of `Q8` activations: weights are unpacked in
//! registers, four rows and four runs at a time.
//!
//! A row's sum has four parts, one for each run of a step, which stay in their lanes to the end of
//! the row, or of what a panel holds of it; a panel adds up in the same order. Nothing is
//! transposed on the way, and four rows are few enough for hardware prefetchers to follow (measured
//! beside sixteen transposed rows: docs/benchmarks.md).

use std::arch::x86_64::*;

use super::panel::Quantised;
use super::rows::lane_sums;
use super::step::{Format, ROWS, RUN, RUNS, load};
use crate::ahead;
use crate::functions::DotArgs;
use crate::matrix::ActLayout;
use crate::panel;

/// Rows that are read side by side.
type Rows = [*const u8; ROWS];

/// See [`crate::functions::RowDots`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi,gfni,fma,f16c")]
pub(super) unsafe fn row_dots<F: Format>(args: &DotArgs<'_>, out: &mut [f32], stride: usize) {
    let (n_rows, col_bytes) = (args.n_rows, args.layout.col_bytes());
    let distance = ahead::distance(ROWS * args.row_bytes);
    ahead::request(args.w.as_ptr(), distance.min(args.w.len()));
    for first in (0..n_rows).step_by(ROWS) {
        let n = ROWS.min(n_rows - first);
        // A last tile of fewer rows takes the last row again and again.
        let rows: Rows = std::array::from_fn(|r| args.w[(first + r.min(n - 1)) * args.row_bytes..].as_ptr());
        let next = rows[0].wrapping_add(distance);
        let mut col = 0;
        while col < args.n_cols {
            let x = args.acts[col * col_bytes..].as_ptr();
            let mut sums = [[0.0; ROWS]; 4];
            // SAFETY: rows and columns are those of `args`, whose lengths the caller vouches for.
            let n_cols = unsafe {
                match args.n_cols - col {
                    1 => {
                        [sums[0]] = tile::<F, 1>(rows, x, next, args.layout);
                        1
                    }
                    2..4 => {
                        [sums[0], sums[1]] = tile::<F, 2>(rows, x, next, args.layout);
                        2
                    }
                    _ => {
                        sums = tile::<F, 4>(rows, x, next, args.layout);
                        4
                    }
                }
            };
            for sums in &sums[..n_cols] {
                out[col * stride + first..][..n].copy_from_slice(&sums[..n]);
                col += 1;
            }
        }
    }
}

/// The products of four rows with `NC` columns from `x` on. Requests as many bytes as it reads,
/// from `next` on.
///
/// # Safety
/// The CPU has the features; rows and columns have the elements that `layout` says.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi,gfni,fma,f16c")]
unsafe fn tile<F: Format, const NC: usize>(
    rows: Rows,
    x: *const u8,
    mut next: *const u8,
    layout: ActLayout,
) -> [[f32; ROWS]; NC] {
    let n_runs = layout.k() / RUN;
    let x: [*const u8; NC] = std::array::from_fn(|c| x.wrapping_add(c * layout.col_bytes()));
    let mut sums = [_mm_setzero_ps(); NC];
    // Panels are cut there, which shows in the order of additions.
    let stretch = const { panel::stretch::<Quantised<F>>() / RUN };
    for first in (0..n_runs).step_by(stretch) {
        let end = n_runs.min(first + stretch);
        let mut acc = [_mm512_setzero_ps(); NC];
        let mut run = first;
        // SAFETY: a row is n_runs / BLOCK_RUNS whole blocks and a column n_runs runs with their
        // scales and sums, as the caller vouches. Steps before the last have 4 runs; in the last
        // one masks keep loads within `n` runs.
        unsafe {
            if F::BLOCK_RUNS == 1 {
                while run + RUNS <= end {
                    let blocks = at(rows, run * F::BYTES);
                    let head = F::head::<false>(blocks, 0);
                    step::<F, NC, false>(blocks, &head, x, layout, run, 0, RUNS, &mut next, &mut acc);
                    run += RUNS;
                }
                if run < end {
                    let n = end - run;
                    let blocks = at(rows, run * F::BYTES);
                    let head = F::head::<true>(blocks, n * F::BYTES);
                    step::<F, NC, true>(blocks, &head, x, layout, run, 0, n, &mut next, &mut acc);
                }
            } else {
                while run < end {
                    let blocks = at(rows, run / F::BLOCK_RUNS * F::BYTES);
                    let head = F::head::<false>(blocks, 0);
                    step::<F, NC, false>(blocks, &head, x, layout, run, 0, RUNS, &mut next, &mut acc);
                    step::<F, NC, false>(blocks, &head, x, layout, run + RUNS, 1, RUNS, &mut next, &mut acc);
                    run += 2 * RUNS;
                }
            }
        }
        for c in 0..NC {
            sums[c] = _mm_add_ps(sums[c], _mm512_castps512_ps128(acc[c]));
            sums[c] = _mm_add_ps(sums[c], _mm512_extractf32x4_ps::<1>(acc[c]));
            sums[c] = _mm_add_ps(sums[c], _mm512_extractf32x4_ps::<2>(acc[c]));
            sums[c] = _mm_add_ps(sums[c], _mm512_extractf32x4_ps::<3>(acc[c]));
        }
    }
    let mut out = [[0.0; ROWS]; NC];
    for c in 0..NC {
        // SAFETY: room for four f32.
        unsafe { _mm_storeu_ps(out[c].as_mut_ptr(), sums[c]) };
    }
    out
}

/// The rows' blocks `offset` bytes on.
#[inline(always)]
fn at(rows: Rows, offset: usize) -> Rows {
    rows.map(|p| p.wrapping_add(offset))
}

/// Adds runs `run..run + n` to the accumulators, run `run + j` in lane `j`; they are step `step` of
/// their block. Without `TAIL`, `n` is 4.
///
/// # Safety
/// As [`tile`]; each row and column has these runs.
#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "one caller; a struct would only name the same things again")]
unsafe fn step<F: Format, const NC: usize, const TAIL: bool>(
    blocks: Rows,
    head: &F::Head,
    x: [*const u8; NC],
    layout: ActLayout,
    run: usize,
    step: usize,
    n: usize,
    next: &mut *const u8,
    acc: &mut [__m512; NC],
) {
    // SAFETY: the caller vouches for the CPU and for the runs in rows and columns.
    unsafe {
        *next = ahead::request(*next, F::BYTES * ROWS * RUNS / F::BLOCK_RUNS);
        let scales = F::scales(head, step);
        let mut q = [[_mm512_setzero_si512(); 2]; ROWS];
        let mut mult = [_mm512_setzero_si512(); ROWS];
        for r in 0..ROWS {
            q[r] = F::quants::<TAIL>(blocks[r], step, n * F::BYTES);
            if F::SIGNED {
                let sign = _mm512_set1_epi8(-128);
                q[r] = [_mm512_xor_si512(q[r][0], sign), _mm512_xor_si512(q[r][1], sign)];
            }
            mult[r] = F::multipliers(head, r, step);
        }
        for c in 0..NC {
            let x_runs = activations::<F, TAIL>(x[c].add(run * RUN), n);
            let dots = _mm512_cvtepi32_ps(integer_sums::<F>(q, mult, x_runs));
            // As `rows::accumulate`, operation by operation: panels must give the same bits.
            let scale = _mm512_mul_ps(scales.scale, a_lane_each::<TAIL>(x[c].add(layout.scales_at() + run * 4), n));
            acc[c] = _mm512_fmadd_ps(scale, dots, acc[c]);
            if F::OFFSETS == 1 {
                let sums = a_lane_each::<TAIL>(x[c].add(layout.sums32_at() + run * 4), n);
                acc[c] = _mm512_fmadd_ps(scales.offset[0], sums, acc[c]);
            } else if F::OFFSETS == 2 {
                let sums = two_a_lane::<TAIL>(x[c].add(layout.sums16_at() + run * 8), n);
                acc[c] = _mm512_fmadd_ps(scales.offset[0], sums[0], acc[c]);
                acc[c] = _mm512_fmadd_ps(scales.offset[1], sums[1], acc[c]);
            }
        }
    }
}

/// Value `j` of `n` (4 without `TAIL`) everywhere in lane `j`; zero beyond them.
///
/// # Safety
/// AVX-512 F and VL; `n` f32 can be read.
#[inline(always)]
unsafe fn a_lane_each<const TAIL: bool>(p: *const u8, n: usize) -> __m512 {
    // SAFETY: the caller vouches for both; masked values are not touched.
    unsafe {
        let v = if TAIL { _mm_maskz_loadu_ps((1u8 << n) - 1, p.cast()) } else { _mm_loadu_ps(p.cast()) };
        let lanes = _mm512_setr_epi32(0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3);
        _mm512_permutexvar_ps(lanes, _mm512_castps128_ps512(v))
    }
}

/// Values `2 * j` of `2 * n` everywhere in lane `j` of the first register, values `2 * j + 1` in
/// the second; zero beyond them.
///
/// # Safety
/// AVX-512 F and VL; `2 * n` f32 can be read.
#[inline(always)]
unsafe fn two_a_lane<const TAIL: bool>(p: *const u8, n: usize) -> [__m512; 2] {
    // SAFETY: the caller vouches for both; masked values are not touched.
    unsafe {
        let v = if TAIL { _mm256_maskz_loadu_ps((1u8 << (2 * n)) - 1, p.cast()) } else { _mm256_loadu_ps(p.cast()) };
        let even = _mm512_setr_epi32(0, 0, 0, 0, 2, 2, 2, 2, 4, 4, 4, 4, 6, 6, 6, 6);
        let odd = _mm512_setr_epi32(1, 1, 1, 1, 3, 3, 3, 3, 5, 5, 5, 5, 7, 7, 7, 7);
        let v = _mm512_castps256_ps512(v);
        [_mm512_permutexvar_ps(even, v), _mm512_permutexvar_ps(odd, v)]
    }
}

/// Four runs of a column.
#[derive(Clone, Copy)]
struct Activations {
    /// Lane `j`: the first half of run `j`; the second half.
    halves: [__m512i; 2],
    /// What sums of products begin with: of the first halves (where 16 elements share a scale), or
    /// of both, and of the second halves.
    start: [__m512i; 2],
}

/// Reads `n` runs (4 without `TAIL`).
///
/// # Safety
/// The CPU has the features; `n` runs can be read at `x`.
#[inline(always)]
unsafe fn activations<F: Format, const TAIL: bool>(x: *const u8, n: usize) -> Activations {
    // SAFETY: the caller vouches for all of it.
    unsafe {
        let (low, high) = (load::<TAIL>(x, 0, n * RUN), load::<TAIL>(x, 64, n * RUN));
        let halves =
            [_mm512_shuffle_i64x2::<0b10_00_10_00>(low, high), _mm512_shuffle_i64x2::<0b11_01_11_01>(low, high)];
        let zero = _mm512_setzero_si512();
        if !F::SIGNED && F::CENTRE == 0 {
            return Activations { halves, start: [zero; 2] };
        }
        // What the weights have too much: signed ones come with 128 added.
        let excess = _mm512_set1_epi8(if F::SIGNED { -128 } else { F::CENTRE });
        let first = _mm512_dpbusd_epi32(zero, excess, halves[0]);
        let start = if F::SUB16 {
            let second = _mm512_dpbusd_epi32(zero, excess, halves[1]);
            [_mm512_sub_epi32(zero, first), _mm512_sub_epi32(zero, second)]
        } else {
            [_mm512_sub_epi32(zero, _mm512_dpbusd_epi32(first, excess, halves[1])), zero]
        };
        Activations { halves, start }
    }
}

/// The sums of four runs of four rows, lane `j` dword `i` that of run `j` of row `i`: of the
/// products or, where 16 elements share an integer scale, of the scaled products.
///
/// # Safety
/// The CPU has the features.
#[inline(always)]
unsafe fn integer_sums<F: Format>(q: [[__m512i; 2]; ROWS], mult: [__m512i; ROWS], x: Activations) -> __m512i {
    // SAFETY: the caller vouches for all of it.
    unsafe {
        let zero = _mm512_setzero_si512();
        let mut dots = [zero; ROWS];
        for r in 0..ROWS {
            let first = _mm512_dpbusd_epi32(x.start[0], q[r][0], x.halves[0]);
            dots[r] = if F::SUB16 {
                // Four products of 6-bit integers fit 16 bits.
                let second = _mm512_dpbusd_epi32(x.start[1], q[r][1], x.halves[1]);
                _mm512_dpwssd_epi32(zero, _mm512_packs_epi32(first, second), mult[r])
            } else {
                _mm512_dpbusd_epi32(first, q[r][1], x.halves[1])
            };
        }
        lane_sums(dots)
    }
}

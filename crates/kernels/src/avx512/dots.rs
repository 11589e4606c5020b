//! Row-dots of quantised weights with `Q8` activations.

use std::arch::x86_64::*;

use super::step::{Format, ROWS, RUN, RUNS, load};
use crate::ahead;
use crate::matrix::ActLayout;
use crate::table::DotArgs;

/// See [`crate::table::RowDots`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi,gfni,fma,f16c")]
pub(super) unsafe fn row_dots<F: Format>(args: &DotArgs<'_>, out: &mut [f32], stride: usize) {
    // Eight columns, or four, two, one: other numbers are their sums, because each costs compile time and code.
    let mut done = 0;
    while done < args.n_cols {
        let n_cols = match args.n_cols - done {
            8.. => 8,
            4.. => 4,
            2.. => 2,
            _ => 1,
        };
        let acts = &args.acts[done * args.layout.col_bytes()..];
        let part = DotArgs { acts, n_cols, ..*args };
        let out = &mut out[done * stride..];
        // SAFETY: the caller's duties are handed on, for columns done..done + n_cols.
        unsafe {
            match n_cols {
                8 => rows::<F, 8>(&part, out, stride),
                4 => rows::<F, 4>(&part, out, stride),
                2 => rows::<F, 2>(&part, out, stride),
                _ => rows::<F, 1>(&part, out, stride),
            }
        }
        done += n_cols;
    }
}

/// All rows, four at a time.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi,gfni,fma,f16c")]
unsafe fn rows<F: Format, const NC: usize>(args: &DotArgs<'_>, out: &mut [f32], stride: usize) {
    assert!(args.n_cols == NC && (args.n_rows == 0 || out.len() >= (NC - 1) * stride + args.n_rows));
    let distance = ahead::distance(ROWS * args.row_bytes);
    ahead::request(args.w.as_ptr(), distance.min(args.w.len()));
    for first in (0..args.n_rows).step_by(ROWS) {
        let next = args.w.as_ptr().wrapping_add(first * args.row_bytes + distance);
        // SAFETY: row `first` exists; the rest is the caller's duty.
        let sums = unsafe { tile::<F, NC>(args, first, next) };
        let n = ROWS.min(args.n_rows - first);
        for (c, sums) in sums.iter().enumerate() {
            let out = &mut out[c * stride + first..][..n];
            // SAFETY: n elements are there; masked ones are not touched.
            unsafe { _mm_mask_storeu_ps(out.as_mut_ptr(), (1 << n) - 1, *sums) };
        }
    }
}

/// The products of rows `first..first + 4` with all `NC` columns. Rows beyond the last repeat the last. Requests as many bytes as it
/// reads, from `next` on.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi,gfni,fma,f16c")]
unsafe fn tile<F: Format, const NC: usize>(args: &DotArgs<'_>, first: usize, mut next: *const u8) -> [__m128; NC] {
    let layout = args.layout;
    let last = args.n_rows - 1;
    let mut w: [*const u8; ROWS] =
        std::array::from_fn(|r| args.w[(first + r).min(last) * args.row_bytes..][..args.row_bytes].as_ptr());
    let x: [*const u8; NC] =
        std::array::from_fn(|c| args.acts[c * layout.col_bytes()..][..layout.col_bytes()].as_ptr());
    let n_runs = layout.k() / RUN;
    let mut acc = [_mm512_setzero_ps(); NC];
    // SAFETY: a row is n_runs / BLOCK_RUNS whole blocks and a column n_runs runs with their scales and sums, as the caller vouches.
    // Steps before the last have 4 runs; in the last one masks keep loads within `n` runs.
    unsafe {
        let mut run = 0;
        if F::BLOCK_RUNS == 1 {
            while run + RUNS <= n_runs {
                let head = F::head::<false>(w, 0);
                step::<F, NC, false>(w, &head, x, layout, run, 0, RUNS, &mut acc);
                next = ahead::request(next, ROWS * F::BYTES * RUNS);
                for w in &mut w {
                    *w = w.add(F::BYTES * RUNS);
                }
                run += RUNS;
            }
            if run < n_runs {
                let n = n_runs - run;
                let head = F::head::<true>(w, n * F::BYTES);
                step::<F, NC, true>(w, &head, x, layout, run, 0, n, &mut acc);
            }
        } else {
            while run < n_runs {
                let head = F::head::<false>(w, 0);
                step::<F, NC, false>(w, &head, x, layout, run, 0, RUNS, &mut acc);
                step::<F, NC, false>(w, &head, x, layout, run + RUNS, 1, RUNS, &mut acc);
                next = ahead::request(next, ROWS * F::BYTES);
                for w in &mut w {
                    *w = w.add(F::BYTES);
                }
                run += 2 * RUNS;
            }
        }
    }
    let mut sums = [_mm_setzero_ps(); NC];
    for c in 0..NC {
        let halves = _mm256_add_ps(_mm512_castps512_ps256(acc[c]), _mm512_extractf32x8_ps::<1>(acc[c]));
        sums[c] = _mm_add_ps(_mm256_castps256_ps128(halves), _mm256_extractf128_ps::<1>(halves));
    }
    sums
}

/// Four numbers, each in all elements of its lane.
static SPREAD: [i32; 16] = [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3, 3, 3, 3];
/// Of eight numbers the even ones, each in all elements of a lane.
static SPREAD_EVEN: [i32; 16] = [0, 0, 0, 0, 2, 2, 2, 2, 4, 4, 4, 4, 6, 6, 6, 6];
/// The odd ones.
static SPREAD_ODD: [i32; 16] = [1, 1, 1, 1, 3, 3, 3, 3, 5, 5, 5, 5, 7, 7, 7, 7];

/// Each element of `v` that `index` names.
///
/// # Safety
/// AVX-512 F.
#[inline(always)]
unsafe fn spread(v: __m512, index: &[i32; 16]) -> __m512 {
    // SAFETY: the caller vouches for it.
    unsafe { _mm512_permutexvar_ps(_mm512_loadu_si512(index.as_ptr().cast()), v) }
}

/// The four f32 at `at`, the first `n` of them with `TAIL` and zeros, each in its lane.
///
/// # Safety
/// AVX-512 F and VL; these can be read.
#[inline(always)]
unsafe fn four<const TAIL: bool>(p: *const u8, at: usize, n: usize) -> __m512 {
    // SAFETY: the caller vouches for both.
    unsafe {
        let p = p.add(at).cast::<f32>();
        let v = if TAIL { _mm_maskz_loadu_ps((1 << n) - 1, p) } else { _mm_loadu_ps(p) };
        spread(_mm512_castps128_ps512(v), &SPREAD)
    }
}

/// Adds runs `run..run + n` to the accumulators; they are step `step` of their block. Without `TAIL`, `n` is 4.
///
/// # Safety
/// As [`tile`]; each row and column has these runs.
#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "one caller; a struct would only name the same things again")]
unsafe fn step<F: Format, const NC: usize, const TAIL: bool>(
    w: [*const u8; ROWS],
    head: &F::Head,
    x: [*const u8; NC],
    layout: ActLayout,
    run: usize,
    step: usize,
    n: usize,
    acc: &mut [__m512; NC],
) {
    // SAFETY: the caller vouches for the CPU and for the runs in rows and columns.
    unsafe {
        let scales = F::scales(head, step);
        let mut q = [[_mm512_setzero_si512(); 2]; ROWS];
        let mut mult = [_mm512_setzero_si512(); ROWS];
        for r in 0..ROWS {
            q[r] = F::quants::<TAIL>(w[r], step, n * F::BYTES);
            mult[r] = F::multipliers(w[r], step);
        }
        for c in 0..NC {
            let runs = x[c].add(run * RUN);
            let (low, high) = (load::<TAIL>(runs, 0, n * RUN), load::<TAIL>(runs, 64, n * RUN));
            // Lane j: the first and the second half of run j.
            let x0 = _mm512_shuffle_i64x2::<0b10_00_10_00>(low, high);
            let x1 = _mm512_shuffle_i64x2::<0b11_01_11_01>(low, high);
            let zero = _mm512_setzero_si512();
            let (start0, start1) = if F::CENTRE == 0 {
                (zero, zero)
            } else {
                let centre = _mm512_set1_epi8(F::CENTRE as i8);
                let sum0 = _mm512_dpbusd_epi32(zero, centre, x0);
                if F::SUB16 {
                    (_mm512_sub_epi32(zero, sum0), _mm512_sub_epi32(zero, _mm512_dpbusd_epi32(zero, centre, x1)))
                } else {
                    (_mm512_sub_epi32(zero, _mm512_dpbusd_epi32(sum0, centre, x1)), zero)
                }
            };
            let mut dots = [zero; ROWS];
            for r in 0..ROWS {
                let first = _mm512_dpbusd_epi32(start0, q[r][0], x0);
                dots[r] = if F::SUB16 {
                    let second = _mm512_dpbusd_epi32(start1, q[r][1], x1);
                    _mm512_dpwssd_epi32(zero, _mm512_packs_epi32(first, second), mult[r])
                } else {
                    _mm512_dpbusd_epi32(first, q[r][1], x1)
                };
            }
            let dots = _mm512_cvtepi32_ps(lane_sums(dots));
            let scale = _mm512_mul_ps(scales.scale, four::<TAIL>(x[c], layout.scales_at() + run * 4, n));
            acc[c] = _mm512_fmadd_ps(dots, scale, acc[c]);
            if F::MINS == 1 {
                acc[c] = _mm512_fmadd_ps(scales.min[0], four::<TAIL>(x[c], layout.sums32_at() + run * 4, n), acc[c]);
            } else if F::MINS == 2 {
                let p = x[c].add(layout.sums16_at() + run * 8).cast::<f32>();
                let sums = _mm512_castps256_ps512(_mm256_loadu_ps(p));
                acc[c] = _mm512_fmadd_ps(scales.min[0], spread(sums, &SPREAD_EVEN), acc[c]);
                acc[c] = _mm512_fmadd_ps(scales.min[1], spread(sums, &SPREAD_ODD), acc[c]);
            }
        }
    }
}

/// In lane `j`, dword `i`: the sum of the four dwords in lane `j` of register `i`.
///
/// # Safety
/// AVX-512 F.
#[inline(always)]
unsafe fn lane_sums(v: [__m512i; 4]) -> __m512i {
    // SAFETY: the caller vouches for it.
    unsafe {
        let ab = _mm512_add_epi32(_mm512_unpacklo_epi32(v[0], v[1]), _mm512_unpackhi_epi32(v[0], v[1]));
        let cd = _mm512_add_epi32(_mm512_unpacklo_epi32(v[2], v[3]), _mm512_unpackhi_epi32(v[2], v[3]));
        _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd))
    }
}

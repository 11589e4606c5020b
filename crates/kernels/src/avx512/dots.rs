//! Row-dots of quantised weights with few columns of `Q8` activations: weights are unpacked in registers, sixteen rows and four runs at a
//! time.

use std::arch::x86_64::*;

use super::rows::{GROUPS, TILE_ROWS, accumulate, heads, lane_sums, turn};
use super::step::{Format, ROWS, RUN, RUNS, load};
use crate::ahead;
use crate::matrix::ActLayout;
use crate::table::DotArgs;

/// Sixteen rows.
type Rows = [*const u8; TILE_ROWS];

/// See [`crate::table::RowDots`].
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi,gfni,fma,f16c")]
pub(super) unsafe fn row_dots<F: Format>(args: &DotArgs<'_>, out: &mut [f32], stride: usize) {
    let (n_rows, col_bytes) = (args.n_rows, args.layout.col_bytes());
    let distance = ahead::distance(TILE_ROWS * args.row_bytes);
    ahead::request(args.w.as_ptr(), distance.min(args.w.len()));
    for first in (0..n_rows).step_by(TILE_ROWS) {
        let n = TILE_ROWS.min(n_rows - first);
        // A last tile of fewer rows takes the last row again and again.
        let rows: Rows = std::array::from_fn(|r| args.w[(first + r.min(n - 1)) * args.row_bytes..].as_ptr());
        let next = rows[0].wrapping_add(distance);
        let mut store = |c: usize, sums: __m512| {
            let out = &mut out[c * stride + first..][..n];
            // SAFETY: n elements are there; masked ones are not touched.
            unsafe { _mm512_mask_storeu_ps(out.as_mut_ptr(), ((1u32 << n) - 1) as u16, sums) };
        };
        let mut col = 0;
        while col < args.n_cols {
            let x = args.acts[col * col_bytes..].as_ptr();
            // SAFETY: rows and columns are those of `args`, whose lengths the caller vouches for.
            unsafe {
                match args.n_cols - col {
                    1 => {
                        let [sums] = tile::<F, 1>(rows, x, next, args.layout);
                        store(col, sums);
                        col += 1;
                    }
                    2..4 => {
                        let sums = tile::<F, 2>(rows, x, next, args.layout);
                        (0..2).for_each(|c| store(col + c, sums[c]));
                        col += 2;
                    }
                    _ => {
                        let sums = tile::<F, 4>(rows, x, next, args.layout);
                        (0..4).for_each(|c| store(col + c, sums[c]));
                        col += 4;
                    }
                }
            }
        }
    }
}

/// The products of sixteen rows with `NC` columns from `x` on. Requests as many bytes as it reads, from `next` on.
///
/// # Safety
/// The CPU has the features; rows and columns have the elements that `layout` says.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512vbmi,gfni,fma,f16c")]
unsafe fn tile<F: Format, const NC: usize>(
    rows: Rows,
    x: *const u8,
    mut next: *const u8,
    layout: ActLayout,
) -> [__m512; NC] {
    let n_runs = layout.k() / RUN;
    let x: [*const u8; NC] = std::array::from_fn(|c| x.wrapping_add(c * layout.col_bytes()));
    let mut acc = [_mm512_setzero_ps(); NC];
    // SAFETY: a row is n_runs / BLOCK_RUNS whole blocks and a column n_runs runs with their scales and sums, as the caller vouches.
    // Steps before the last have 4 runs; in the last one masks keep loads within `n` runs.
    unsafe {
        let mut run = 0;
        if F::BLOCK_RUNS == 1 {
            while run + RUNS <= n_runs {
                let blocks = at(rows, run * F::BYTES);
                let head = block_heads::<F, false>(blocks, 0);
                step::<F, NC, false>(blocks, &head, x, layout, run, 0, RUNS, &mut next, &mut acc);
                run += RUNS;
            }
            if run < n_runs {
                let n = n_runs - run;
                let blocks = at(rows, run * F::BYTES);
                let head = block_heads::<F, true>(blocks, n * F::BYTES);
                step::<F, NC, true>(blocks, &head, x, layout, run, 0, n, &mut next, &mut acc);
            }
        } else {
            while run < n_runs {
                let blocks = at(rows, run / F::BLOCK_RUNS * F::BYTES);
                let head = block_heads::<F, false>(blocks, 0);
                step::<F, NC, false>(blocks, &head, x, layout, run, 0, RUNS, &mut next, &mut acc);
                step::<F, NC, false>(blocks, &head, x, layout, run + RUNS, 1, RUNS, &mut next, &mut acc);
                run += 2 * RUNS;
            }
        }
    }
    acc
}

/// The rows' blocks `offset` bytes on.
#[inline(always)]
pub(super) fn at(rows: Rows, offset: usize) -> Rows {
    rows.map(|p| p.wrapping_add(offset))
}

/// The heads of the blocks of each group.
///
/// # Safety
/// As [`Format::head`].
#[inline(always)]
pub(super) unsafe fn block_heads<F: Format, const TAIL: bool>(blocks: Rows, n_bytes: usize) -> [F::Head; GROUPS] {
    // SAFETY: the caller's duties are handed on.
    unsafe {
        let group = |g: usize| F::head::<TAIL>(std::array::from_fn(|r| blocks[g * ROWS + r]), n_bytes);
        [group(0), group(1), group(2), group(3)]
    }
}

/// Adds runs `run..run + n` to the accumulators; they are step `step` of their block. Without `TAIL`, `n` is 4.
///
/// # Safety
/// As [`tile`]; each row and column has these runs.
#[inline(always)]
#[allow(clippy::too_many_arguments, reason = "one caller; a struct would only name the same things again")]
unsafe fn step<F: Format, const NC: usize, const TAIL: bool>(
    blocks: Rows,
    head: &[F::Head; GROUPS],
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
        let heads = heads::<F>(head, step);
        let mut dots = [[_mm512_setzero_si512(); GROUPS]; NC];
        for g in 0..GROUPS {
            *next = ahead::request(*next, F::BYTES * ROWS * RUNS / F::BLOCK_RUNS);
            let mut q = [[_mm512_setzero_si512(); 2]; ROWS];
            let mut mult = [_mm512_setzero_si512(); ROWS];
            for r in 0..ROWS {
                q[r] = F::quants::<TAIL>(blocks[g * ROWS + r], step, n * F::BYTES);
                if F::SIGNED {
                    let sign = _mm512_set1_epi8(-128);
                    q[r] = [_mm512_xor_si512(q[r][0], sign), _mm512_xor_si512(q[r][1], sign)];
                }
                mult[r] = F::multipliers(&head[g], r, step);
            }
            for c in 0..NC {
                dots[c][g] = integer_sums::<F, TAIL>(q, mult, x[c].add(run * RUN), n);
            }
        }
        for c in 0..NC {
            let dots = turn(dots[c]);
            for j in 0..RUNS {
                if !TAIL || j < n {
                    let dots = _mm512_cvtepi32_ps(dots[j]);
                    acc[c] = accumulate::<F>(acc[c], dots, |i| heads[j][i], x[c], run + j, layout);
                }
            }
        }
    }
}

/// The sums of four runs of four rows, lane `j` dword `i` that of run `j` of row `i`: of the products or, where 16 elements share an
/// integer scale, of the scaled products.
///
/// # Safety
/// The CPU has the features; `n` runs can be read at `x`.
#[inline(always)]
unsafe fn integer_sums<F: Format, const TAIL: bool>(
    q: [[__m512i; 2]; ROWS],
    mult: [__m512i; ROWS],
    x: *const u8,
    n: usize,
) -> __m512i {
    // SAFETY: the caller vouches for all of it.
    unsafe {
        let (low, high) = (load::<TAIL>(x, 0, n * RUN), load::<TAIL>(x, 64, n * RUN));
        // Lane j: the first and the second half of run j.
        let x0 = _mm512_shuffle_i64x2::<0b10_00_10_00>(low, high);
        let x1 = _mm512_shuffle_i64x2::<0b11_01_11_01>(low, high);
        let zero = _mm512_setzero_si512();
        // Signed weights came with 128 added.
        let start = if F::SIGNED {
            let excess = _mm512_set1_epi8(-128);
            _mm512_sub_epi32(zero, _mm512_dpbusd_epi32(_mm512_dpbusd_epi32(zero, excess, x0), excess, x1))
        } else {
            zero
        };
        let mut dots = [zero; ROWS];
        for r in 0..ROWS {
            let first = _mm512_dpbusd_epi32(start, q[r][0], x0);
            dots[r] = if F::SUB16 {
                // Four products of 6-bit integers fit 16 bits.
                let second = _mm512_dpbusd_epi32(zero, q[r][1], x1);
                _mm512_dpwssd_epi32(zero, _mm512_packs_epi32(first, second), mult[r])
            } else {
                _mm512_dpbusd_epi32(first, q[r][1], x1)
            };
        }
        lane_sums(dots)
    }
}

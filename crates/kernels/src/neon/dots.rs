//! Row-dots of quantised weights with `Q8` activations.

use std::arch::aarch64::*;

use super::dot::Dot;
use super::group::{Group, Head, RUN, RUNS};
use crate::matrix::ActLayout;
use crate::table::DotArgs;

/// See [`crate::table::RowDots`].
#[target_feature(enable = "neon")]
pub(super) unsafe fn row_dots<G: Group, D: Dot>(args: &DotArgs<'_>, out: &mut [f32], stride: usize) {
    // SAFETY: the caller's duties are handed on.
    unsafe {
        match args.n_cols {
            1 => rows::<G, D, 4, 1>(args, out, stride),
            2 => rows::<G, D, 2, 2>(args, out, stride),
            3 => rows::<G, D, 2, 3>(args, out, stride),
            4 => rows::<G, D, 2, 4>(args, out, stride),
            5 => rows::<G, D, 1, 5>(args, out, stride),
            6 => rows::<G, D, 1, 6>(args, out, stride),
            7 => rows::<G, D, 1, 7>(args, out, stride),
            _ => rows::<G, D, 1, 8>(args, out, stride),
        }
    }
}

/// All rows, `NR` at a time and the rest one by one.
#[target_feature(enable = "neon")]
unsafe fn rows<G: Group, D: Dot, const NR: usize, const NC: usize>(args: &DotArgs<'_>, out: &mut [f32], stride: usize) {
    assert!(args.n_cols == NC && out.len() >= (NC - 1) * stride + args.n_rows);
    let mut r = 0;
    while r + NR <= args.n_rows {
        // SAFETY: rows r..r + NR exist; the rest is the caller's duty.
        let sums = unsafe { tile::<G, D, NR, NC>(args, r) };
        for (i, sums) in sums.iter().enumerate() {
            for (c, &sum) in sums.iter().enumerate() {
                out[c * stride + r + i] = sum;
            }
        }
        r += NR;
    }
    while r < args.n_rows {
        // SAFETY: row r exists; the rest is the caller's duty.
        let [sums] = unsafe { tile::<G, D, 1, NC>(args, r) };
        for (c, &sum) in sums.iter().enumerate() {
            out[c * stride + r] = sum;
        }
        r += 1;
    }
}

/// The products of rows `first..first + NR` with all `NC` columns.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn tile<G: Group, D: Dot, const NR: usize, const NC: usize>(
    args: &DotArgs<'_>,
    first: usize,
) -> [[f32; NC]; NR] {
    let layout = args.layout;
    let w: [*const u8; NR] = std::array::from_fn(|r| args.w[(first + r) * args.row_bytes..].as_ptr());
    let x: [*const u8; NC] = std::array::from_fn(|c| args.acts[c * layout.col_bytes()..].as_ptr());
    let n_runs = layout.k() / RUN;
    let mut acc = [[vdupq_n_f32(0.0); NC]; NR];
    let mut run = 0;
    // SAFETY: a row is n_runs / BLOCK_RUNS whole blocks and a column n_runs runs with their scales and sums, as the caller
    // vouches. Groups before the last have 8 runs; in the last one loads keep within `n` runs.
    unsafe {
        while run + RUNS <= n_runs {
            group::<G, D, NR, NC, true>(w, x, layout, run, RUNS, &mut acc);
            run += RUNS;
        }
        if G::BLOCK_RUNS == 1 && run < n_runs {
            group::<G, D, NR, NC, false>(w, x, layout, run, n_runs - run, &mut acc);
        }
    }
    let mut sums = [[0.0; NC]; NR];
    for r in 0..NR {
        for c in 0..NC {
            sums[r][c] = lane_sum(acc[r][c]);
        }
    }
    sums
}

/// Adds runs `run..run + n` to the accumulators. `FULL` means that `n` is 8.
///
/// # Safety
/// As [`tile`]; each row and column has these runs.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn group<G: Group, D: Dot, const NR: usize, const NC: usize, const FULL: bool>(
    w: [*const u8; NR],
    x: [*const u8; NC],
    layout: ActLayout,
    run: usize,
    n: usize,
    acc: &mut [[float32x4_t; NC]; NR],
) {
    // SAFETY: the caller vouches for the runs in rows and columns; what lies beyond them is not loaded.
    unsafe {
        let mut heads = [Head::ZERO; NR];
        let mut at = w;
        for r in 0..NR {
            at[r] = w[r].add(run / G::BLOCK_RUNS * G::BYTES);
            heads[r] = G::head(at[r], n);
        }
        let w = at;
        if G::OFFSET {
            // Sums of 16: four vectors; of 32: two.
            let (sums_at, per_run) = if G::SUB16 { (layout.sums16_at(), 2) } else { (layout.sums32_at(), 1) };
            for c in 0..NC {
                for i in 0..2 * per_run {
                    let at = sums_at + (run * per_run + i * 4) * 4;
                    let sums = load4::<FULL>(x[c], at, (n * per_run).saturating_sub(i * 4));
                    for r in 0..NR {
                        acc[r][c] = vfmaq_f32(acc[r][c], heads[r].offset[i], sums);
                    }
                }
            }
        }
        let scales_at = layout.scales_at() + run * 4;
        quad::<G, D, NR, NC, FULL, 0>(w, &heads, x, run, scales_at, n, acc);
        if FULL || n > 4 {
            quad::<G, D, NR, NC, FULL, 1>(w, &heads, x, run, scales_at, n, acc);
        }
    }
}

/// Adds runs `4 * QUAD..4 * QUAD + 4` of a group, as far as they are among its `n`.
///
/// # Safety
/// As [`group`]; `scales_at` is where the group's activation scales are.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn quad<G: Group, D: Dot, const NR: usize, const NC: usize, const FULL: bool, const QUAD: usize>(
    w: [*const u8; NR],
    heads: &[Head; NR],
    x: [*const u8; NC],
    run: usize,
    scales_at: usize,
    n: usize,
    acc: &mut [[float32x4_t; NC]; NR],
) {
    let n = if FULL { 4 } else { (n - 4 * QUAD).min(4) };
    // SAFETY: the caller vouches for the runs; those beyond `n` are not loaded.
    unsafe {
        for r in 0..NR {
            let first = 4 * QUAD;
            let zero = [vdupq_n_s8(0); 2];
            // Written out, so that shifts by the run's number become constants.
            let q = [
                G::quants(w[r], first),
                if FULL || n > 1 { G::quants(w[r], first + 1) } else { zero },
                if FULL || n > 2 { G::quants(w[r], first + 2) } else { zero },
                if FULL || n > 3 { G::quants(w[r], first + 3) } else { zero },
            ];
            for c in 0..NC {
                let mut halves = [[vdupq_n_s32(0); 2]; 4];
                for i in 0..4 {
                    if FULL || i < n {
                        let x = x[c].add((run + first + i) * RUN).cast::<i8>();
                        halves[i][0] = D::add(halves[i][0], q[i][0], vld1q_s8(x));
                        let second = if G::SUB16 { 1 } else { 0 };
                        halves[i][second] = D::add(halves[i][second], q[i][1], vld1q_s8(x.add(16)));
                    }
                }
                let dots = if G::SUB16 {
                    // Sums of the halves of two runs, times their integer scales; then sums of runs.
                    let pair = |i: usize| {
                        let [a, b] = halves[i];
                        let [c, d] = halves[i + 1];
                        let sums = vpaddq_s32(vpaddq_s32(a, b), vpaddq_s32(c, d));
                        vmulq_s32(sums, heads[r].mult[2 * QUAD + i / 2])
                    };
                    vpaddq_s32(pair(0), pair(2))
                } else {
                    let [[a, _], [b, _], [c, _], [d, _]] = halves;
                    vpaddq_s32(vpaddq_s32(a, b), vpaddq_s32(c, d))
                };
                let scale = vmulq_f32(heads[r].scale[QUAD], load4::<FULL>(x[c], scales_at + QUAD * 16, n));
                acc[r][c] = vfmaq_f32(acc[r][c], vcvtq_f32_s32(dots), scale);
            }
        }
    }
}

/// Four f32, or the first `n` and zeros.
///
/// # Safety
/// 4, or `n` if that is less, f32 can be read `at` bytes behind `p`.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn load4<const FULL: bool>(p: *const u8, at: usize, n: usize) -> float32x4_t {
    // SAFETY: the caller vouches for the f32; the copy has four.
    unsafe {
        let p = p.wrapping_add(at).cast::<f32>();
        if FULL || n >= 4 {
            return vld1q_f32(p);
        }
        let mut copy = [0.0f32; 4];
        for (i, x) in copy.iter_mut().enumerate().take(n) {
            *x = p.add(i).read_unaligned();
        }
        vld1q_f32(copy.as_ptr())
    }
}

/// The sum of four lanes, in a fixed order.
#[target_feature(enable = "neon")]
#[inline]
fn lane_sum(v: float32x4_t) -> f32 {
    let two = vpaddq_f32(v, v);
    vgetq_lane_f32::<0>(vpaddq_f32(two, two))
}

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
    // vouches. Groups before the last have 8 runs; in the last one loads keep within those that there are.
    unsafe {
        while run + RUNS <= n_runs {
            group::<G, D, NR, NC>(w, x, layout, run, &mut acc);
            run += RUNS;
        }
        if G::BLOCK_RUNS == 1 && run < n_runs {
            for r in 0..NR {
                for c in 0..NC {
                    acc[r][c] = last_group::<G, D>(w[r], x[c], layout, run, n_runs - run, acc[r][c]);
                }
            }
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

/// Adds runs `run..run + 8` to the accumulators.
///
/// # Safety
/// As [`tile`]; each row and column has these runs.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn group<G: Group, D: Dot, const NR: usize, const NC: usize>(
    w: [*const u8; NR],
    x: [*const u8; NC],
    layout: ActLayout,
    run: usize,
    acc: &mut [[float32x4_t; NC]; NR],
) {
    // SAFETY: the caller vouches for the runs in rows and columns.
    unsafe {
        for r in 0..NR {
            let w = w[r].add(run / G::BLOCK_RUNS * G::BYTES);
            let head = G::head(w, RUNS);
            for c in 0..NC {
                acc[r][c] = add_offsets::<G, true>(&head, x[c], layout, run, RUNS, acc[r][c]);
            }
            // Written out, so that shifts by the run's number become constants.
            let q = [G::quants(w, 0), G::quants(w, 1), G::quants(w, 2), G::quants(w, 3)];
            for c in 0..NC {
                acc[r][c] = add_quad::<G, D, true, 0>(&head, &q, x[c], layout, run, 4, acc[r][c]);
            }
            let q = [G::quants(w, 4), G::quants(w, 5), G::quants(w, 6), G::quants(w, 7)];
            for c in 0..NC {
                acc[r][c] = add_quad::<G, D, true, 1>(&head, &q, x[c], layout, run, 4, acc[r][c]);
            }
        }
    }
}

/// `acc` plus the `n` runs, fewer than 8, with which a row of 32-element blocks may end. Once a row and column, so not worth code for
/// each number of them.
///
/// # Safety
/// As [`tile`]; row and column have these runs.
#[target_feature(enable = "neon")]
#[inline(never)]
unsafe fn last_group<G: Group, D: Dot>(
    w: *const u8,
    x: *const u8,
    layout: ActLayout,
    run: usize,
    n: usize,
    acc: float32x4_t,
) -> float32x4_t {
    // SAFETY: the caller vouches for the runs; those beyond `n` are not loaded.
    unsafe {
        let w = w.add(run * G::BYTES);
        let head = G::head(w, n);
        let mut acc = add_offsets::<G, false>(&head, x, layout, run, n, acc);
        let mut q = [[[vdupq_n_s8(0); 2]; 4]; 2];
        for g in 0..n {
            q[g / 4][g % 4] = G::quants(w, g);
        }
        acc = add_quad::<G, D, false, 0>(&head, &q[0], x, layout, run, n.min(4), acc);
        add_quad::<G, D, false, 1>(&head, &q[1], x, layout, run, n.saturating_sub(4), acc)
    }
}

/// `acc` plus the offsets of `n` runs times the sums of their activations. `FULL` means that `n` is 8.
///
/// # Safety
/// As [`tile`]; the column has these runs.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn add_offsets<G: Group, const FULL: bool>(
    head: &Head,
    x: *const u8,
    layout: ActLayout,
    run: usize,
    n: usize,
    mut acc: float32x4_t,
) -> float32x4_t {
    if G::OFFSET {
        // Sums of 16: four vectors; of 32: two.
        let (sums_at, per_run) = if G::SUB16 { (layout.sums16_at(), 2) } else { (layout.sums32_at(), 1) };
        for i in 0..2 * per_run {
            // SAFETY: the caller vouches for the sums of `n` runs.
            let sums =
                unsafe { load4::<FULL>(x, sums_at + (run * per_run + i * 4) * 4, (n * per_run).saturating_sub(i * 4)) };
            acc = vfmaq_f32(acc, head.offset[i], sums);
        }
    }
    acc
}

/// `acc` plus four runs of a group, from run `4 * QUAD` on, of which the first `n` exist: `FULL` means all.
///
/// # Safety
/// As [`tile`]; the column has these runs, and the group begins at `run`.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn add_quad<G: Group, D: Dot, const FULL: bool, const QUAD: usize>(
    head: &Head,
    q: &[[int8x16_t; 2]; 4],
    x: *const u8,
    layout: ActLayout,
    run: usize,
    n: usize,
    acc: float32x4_t,
) -> float32x4_t {
    let first = run + 4 * QUAD;
    // SAFETY: the caller vouches for the runs; those beyond `n` are not loaded.
    unsafe {
        let mut halves = [[vdupq_n_s32(0); 2]; 4];
        for i in 0..4 {
            if FULL || i < n {
                let x = x.add((first + i) * RUN).cast::<i8>();
                halves[i][0] = D::add(halves[i][0], q[i][0], vld1q_s8(x));
                let second = if G::SUB16 { 1 } else { 0 };
                halves[i][second] = D::add(halves[i][second], q[i][1], vld1q_s8(x.add(16)));
            }
        }
        let [[a, a2], [b, b2], [c, c2], [d, d2]] = halves;
        let dots = if G::SUB16 {
            // Sums of the halves of two runs, times their integer scales; then sums of runs.
            let low = vmulq_s32(vpaddq_s32(vpaddq_s32(a, a2), vpaddq_s32(b, b2)), head.mult[2 * QUAD]);
            let high = vmulq_s32(vpaddq_s32(vpaddq_s32(c, c2), vpaddq_s32(d, d2)), head.mult[2 * QUAD + 1]);
            vpaddq_s32(low, high)
        } else {
            vpaddq_s32(vpaddq_s32(a, b), vpaddq_s32(c, d))
        };
        let scale = vmulq_f32(head.scale[QUAD], load4::<FULL>(x, layout.scales_at() + first * 4, n));
        vfmaq_f32(acc, vcvtq_f32_s32(dots), scale)
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

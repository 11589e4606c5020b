//! Row-dots of quantised weights with few columns of `Q8` activations: weights are unpacked in
//! registers, four rows at a time.

use std::arch::aarch64::*;
use std::mem::MaybeUninit;

use super::dot::Dot;
use super::rows::{Blocks4, Format4, Head, MAX_HEADS, ROWS, RUN};
use crate::functions::DotArgs;
use crate::matrix::ActLayout;

/// Columns that are computed together: their sums of four rows, a register each at most, leave room
/// for weights.
pub(super) const COLS: usize = 4;

/// How the integers of a run are read and multiplied in registers.
///
/// # Safety
/// The CPU has the implementor's instructions; the blocks and run `run` of each column are
/// readable.
pub(super) unsafe trait RunSums {
    /// For each column the sums of four rows in lanes: over elements 0..16 and 16..32, or over all
    /// in the second place if the format has no integer scales.
    unsafe fn sums<F: Format4, const NC: usize>(
        blocks: Blocks4,
        g: usize,
        x: &[*const u8; COLS],
        run: usize,
    ) -> [[int32x4_t; 2]; NC];
}

/// See [`crate::functions::RowDots`]. `One` serves a single column, `Few` several.
#[target_feature(enable = "neon")]
pub(super) unsafe fn row_dots<F: Format4, One: RunSums, Few: RunSums>(
    args: &DotArgs<'_>,
    out: &mut [f32],
    stride: usize,
) {
    let (n_rows, col_bytes) = (args.n_rows, args.layout.col_bytes());
    for first in (0..n_rows).step_by(ROWS) {
        let n = ROWS.min(n_rows - first);
        // A last tile of fewer rows takes the last row again and again.
        let rows: Blocks4 = std::array::from_fn(|r| args.w[(first + r.min(n - 1)) * args.row_bytes..].as_ptr());
        for col in (0..args.n_cols).step_by(COLS) {
            let n_cols = COLS.min(args.n_cols - col);
            let x: [*const u8; COLS] =
                std::array::from_fn(|c| args.acts[(col + c.min(n_cols - 1)) * col_bytes..].as_ptr());
            let mut sums = [[0.0; ROWS]; COLS];
            // SAFETY: rows and columns are those of `args`, whose lengths the caller vouches for.
            unsafe {
                match n_cols {
                    1 => tile::<F, One, 1>(rows, &x, args.layout, &mut sums),
                    2 => tile::<F, Few, 2>(rows, &x, args.layout, &mut sums),
                    3 => tile::<F, Few, 3>(rows, &x, args.layout, &mut sums),
                    _ => tile::<F, Few, 4>(rows, &x, args.layout, &mut sums),
                }
            }
            for (c, sums) in sums.iter().enumerate().take(n_cols) {
                out[(col + c) * stride + first..][..n].copy_from_slice(&sums[..n]);
            }
        }
    }
}

/// The products of four rows with `NC` columns.
#[target_feature(enable = "neon")]
unsafe fn tile<F: Format4, S: RunSums, const NC: usize>(
    rows: Blocks4,
    x: &[*const u8; COLS],
    layout: ActLayout,
    sums: &mut [[f32; ROWS]; COLS],
) {
    let mut acc = [vdupq_n_f32(0.0); NC];
    let mut heads = [MaybeUninit::<float32x4_t>::uninit(); MAX_HEADS];
    let heads = heads.as_mut_ptr().cast::<float32x4_t>();
    for block in 0..layout.k() / (RUN * F::BLOCK_RUNS) {
        let mut at = rows;
        for p in &mut at {
            *p = p.wrapping_add(block * F::BYTES);
        }
        macro_rules! run {
            ($g:expr) => {
                // SAFETY: block `block` of each row and run `block * BLOCK_RUNS + g` of each column
                // exist, as the caller vouches; the head was written before.
                unsafe {
                    let head = heads.add($g * Head::<F>::LEN);
                    run::<F, S, NC>(at, $g, head, x, block * F::BLOCK_RUNS + $g, layout, &mut acc)
                };
            };
        }
        // SAFETY: the block exists in each row; there is room for the heads of eight runs.
        unsafe { F::heads(at, heads) };
        run!(0);
        if F::BLOCK_RUNS == 8 {
            // Written out, so that shifts by the run's number become constants.
            run!(1);
            run!(2);
            run!(3);
            run!(4);
            run!(5);
            run!(6);
            run!(7);
        }
    }
    for c in 0..NC {
        // SAFETY: room for four f32.
        unsafe { vst1q_f32(sums[c].as_mut_ptr(), acc[c]) };
    }
}

/// Adds run `g` of the blocks, which is run `run` of the columns.
///
/// # Safety
/// The CPU has what `S` needs; blocks, columns and the run's head are readable.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn run<F: Format4, S: RunSums, const NC: usize>(
    blocks: Blocks4,
    g: usize,
    head: *const float32x4_t,
    x: &[*const u8; COLS],
    run: usize,
    layout: ActLayout,
    acc: &mut [float32x4_t; NC],
) {
    // SAFETY: the caller vouches for all of it.
    unsafe {
        let sums = S::sums::<F, NC>(blocks, g, x, run);
        for c in 0..NC {
            let dots = if F::SUB_SCALED { scaled(head, sums[c]) } else { sums[c][1] };
            acc[c] = accumulate::<F>(acc[c], dots, head, ActRun::read::<F>(x[c], run, layout));
        }
    }
}

// SAFETY: needs what `Dot` needs.
unsafe impl<D: Dot> RunSums for D {
    #[target_feature(enable = "neon")]
    #[inline]
    unsafe fn sums<F: Format4, const NC: usize>(
        blocks: Blocks4,
        g: usize,
        x: &[*const u8; COLS],
        run: usize,
    ) -> [[int32x4_t; 2]; NC] {
        let zero = vdupq_n_s32(0);
        let mut sums = [[[zero; 2]; ROWS]; NC];
        // SAFETY: the caller vouches for all of it.
        unsafe {
            for r in 0..ROWS {
                let q = F::quants(blocks[r], g);
                for c in 0..NC {
                    let x = x[c].add(run * RUN).cast::<i8>();
                    let first = D::add(zero, q[0], vld1q_s8(x));
                    let second = if F::SUB_SCALED { zero } else { first };
                    let second = D::add(second, q[1], vld1q_s8(x.add(16)));
                    sums[c][r] = [first, second];
                }
            }
        }
        let mut by_column = [[zero; 2]; NC];
        for (total, [a, b, c, d]) in by_column.iter_mut().zip(sums) {
            for half in 0..2 {
                total[half] = vpaddq_s32(vpaddq_s32(a[half], b[half]), vpaddq_s32(c[half], d[half]));
            }
        }
        by_column
    }
}

/// The sums of the halves of a run, times their integer scales, together.
///
/// # Safety
/// `head` is a run's of a sub-scaled format.
#[target_feature(enable = "neon")]
#[inline]
pub(super) unsafe fn scaled(head: *const float32x4_t, [first, second]: [int32x4_t; 2]) -> int32x4_t {
    // SAFETY: the caller vouches for the head.
    let scales = unsafe { [vreinterpretq_s32_f32(head.add(1).read()), vreinterpretq_s32_f32(head.add(2).read())] };
    vmlaq_s32(vmulq_s32(first, scales[0]), second, scales[1])
}

/// What belongs to a run of a column beside its integers.
#[derive(Clone, Copy)]
pub(super) struct ActRun {
    pub scale: f32,
    /// Scaled sums: of elements 0..16 and 16..32 if the format is sub-scaled, else of all in the
    /// first place.
    pub sums: [f32; 2],
}

impl ActRun {
    /// # Safety
    /// `x` is a column that has the run.
    #[target_feature(enable = "neon")]
    #[inline]
    pub(super) unsafe fn read<F: Format4>(x: *const u8, run: usize, layout: ActLayout) -> ActRun {
        let sums_at = if F::SUB_SCALED { layout.sums16_at() } else { layout.sums32_at() };
        let mut sums = [0.0; 2];
        // SAFETY: the caller vouches for the column.
        unsafe {
            let float = |at: usize| x.add(at).cast::<f32>().read_unaligned();
            for i in 0..Head::<F>::N_OFFSETS {
                sums[i] = float(sums_at + (run * Head::<F>::N_OFFSETS + i) * 4);
            }
            ActRun { scale: float(layout.scales_at() + run * 4), sums }
        }
    }
}

/// The float part of a run, the same for row-dots and panels, so that both give the same bits: the
/// rows' integer sums become f32, times the weights' and the activations' scales, then offsets
/// times the activations' sums.
///
/// # Safety
/// `head` is the run's.
#[target_feature(enable = "neon")]
#[inline]
pub(super) unsafe fn accumulate<F: Format4>(
    acc: float32x4_t,
    dots: int32x4_t,
    head: *const float32x4_t,
    act: ActRun,
) -> float32x4_t {
    // SAFETY: the caller vouches for the head.
    unsafe {
        let scale = vmulq_n_f32(head.read(), act.scale);
        let mut acc = vfmaq_f32(acc, vcvtq_f32_s32(dots), scale);
        for i in 0..Head::<F>::N_OFFSETS {
            acc = vfmaq_n_f32(acc, head.add(Head::<F>::OFFSETS_AT + i).read(), act.sums[i]);
        }
        acc
    }
}

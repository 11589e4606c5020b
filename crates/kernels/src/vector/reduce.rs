//! Arg-max, log-sum-exp and softmax of long vectors (logits).

use super::exp::exp;
use super::lanes::{Lanes, for_lanes, store_n};

/// Elements whose exponentials are summed in f32 before they join the f64 total, and among which
/// the arg-max is looked for in a second step: 4 KiB, which stays in the first-level cache.
const BLOCK: usize = 1024;

/// The greatest element that is not NaN; minus infinity if there is none.
///
/// # Safety
/// As [`Lanes`].
#[inline(always)]
unsafe fn greatest<V: Lanes>(x: &[f32]) -> f32 {
    // SAFETY: offsets stay below x.len().
    unsafe {
        let none = V::splat(f32::NEG_INFINITY);
        let mut best = [none; 4];
        let strides = x.chunks_exact(4 * V::N);
        let tail = strides.remainder();
        for stride in strides {
            for (c, best) in best.iter_mut().enumerate() {
                // A NaN as first operand loses.
                *best = V::load(stride.as_ptr().add(c * V::N)).max(*best);
            }
        }
        let full = tail.len() / V::N * V::N;
        for i in (0..full).step_by(V::N) {
            best[0] = V::load(tail.as_ptr().add(i)).max(best[0]);
        }
        let lanes = best[0].max(best[1]).max(best[2].max(best[3])).greatest();
        tail[full..].iter().fold(lanes, |best, &x| if x > best { x } else { best })
    }
}

/// # Safety
/// As [`Lanes`].
#[inline(always)]
pub(super) unsafe fn argmax<V: Lanes>(x: &[f32]) -> usize {
    let mut best = f32::NEG_INFINITY;
    let mut best_block = 0;
    for (i, block) in x.chunks(BLOCK).enumerate() {
        // SAFETY: the caller's promise.
        let max = unsafe { greatest::<V>(block) };
        if max > best {
            (best, best_block) = (max, i);
        }
    }
    // If nothing exceeds minus infinity, the first minus infinity wins; if all are NaN, element 0.
    let start = best_block * BLOCK;
    x[start..].iter().position(|&x| x == best).map_or(0, |i| start + i)
}

/// The sum of exp(x - max), f32 within a block, f64 beyond.
///
/// # Safety
/// As [`Lanes`].
#[inline(always)]
unsafe fn sum_exp<V: Lanes>(x: &[f32], max: f32) -> f64 {
    let mut total = 0.0;
    for block in x.chunks(BLOCK) {
        // SAFETY: whole registers below `full`; the tail goes through a buffer of one register.
        unsafe {
            let max = V::splat(max);
            let mut sums = [V::splat(0.0); 2];
            let full = block.len() / V::N * V::N;
            for (i, at) in (0..full).step_by(V::N).enumerate() {
                sums[i % 2] = sums[i % 2].add(exp(V::load(block.as_ptr().add(at)).sub(max)));
            }
            total += f64::from(sums[0].add(sums[1]).sum());
            for &x in &block[full..] {
                total += f64::from(one_exp::<V>(x, max));
            }
        }
    }
    total
}

/// exp(x - max) of one number.
///
/// # Safety
/// As [`Lanes`].
#[inline(always)]
unsafe fn one_exp<V: Lanes>(x: f32, max: V) -> f32 {
    let mut out = 0.0;
    // SAFETY: one lane is written.
    unsafe { exp(V::splat(x).sub(max)).store_part(&mut out, 1) };
    out
}

/// # Safety
/// As [`Lanes`].
#[inline(always)]
pub(super) unsafe fn log_sum_exp<V: Lanes>(x: &[f32]) -> f32 {
    // SAFETY: the caller's promise.
    unsafe {
        let max = greatest::<V>(x);
        if max.is_infinite() { max } else { (f64::from(max) + sum_exp::<V>(x, max).ln()) as f32 }
    }
}

/// # Safety
/// As [`Lanes`].
#[inline(always)]
pub(super) unsafe fn softmax<V: Lanes>(x: &mut [f32]) {
    // SAFETY: offsets stay below x.len(); a run is read before it is written.
    unsafe {
        let max = greatest::<V>(x);
        if max == f32::NEG_INFINITY {
            x.fill(0.0);
            return;
        }
        let total = sum_exp::<V>(x, max);
        let (max, factor) = (V::splat(max), V::splat((1.0 / total) as f32));
        let (to, len) = (x.as_mut_ptr(), x.len());
        for_lanes!(V, to, len, |v, i, n| store_n(exp(v.sub(max)).mul(factor), to.add(i), n));
    }
}

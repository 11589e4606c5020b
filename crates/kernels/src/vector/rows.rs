//! Rows of numbers against one vector: what recurrences are made of.

use super::exp::exp as exp_of;
use super::lanes::{Lanes, for_lanes, load_n, store_n};

/// Registers of sums that a pass over the rows holds.
const SUMS: usize = 8;

/// acc += sum over `j` of `w[j] * rows[j * stride..][..acc.len()]`, one row after the other in each
/// element.
///
/// # Safety
/// As [`Lanes`]; `rows` holds `acc.len()` elements from `(w.len() - 1) * stride` on.
#[inline(always)]
pub(super) unsafe fn add_rows<V: Lanes>(acc: &mut [f32], w: &[f32], rows: &[f32], stride: usize) {
    // SAFETY: offsets stay below acc.len(), which every row has.
    unsafe {
        let len = acc.len();
        let mut i = 0;
        while i + SUMS * V::N <= len {
            let mut sums = [V::splat(0.0); SUMS];
            for (r, sum) in sums.iter_mut().enumerate() {
                *sum = V::load(acc.as_ptr().add(i + r * V::N));
            }
            for (j, &w) in w.iter().enumerate() {
                let (w, row) = (V::splat(w), rows.as_ptr().add(j * stride + i));
                for (r, sum) in sums.iter_mut().enumerate() {
                    *sum = V::load(row.add(r * V::N)).fma(w, *sum);
                }
            }
            for (r, sum) in sums.iter().enumerate() {
                sum.store(acc.as_mut_ptr().add(i + r * V::N));
            }
            i += SUMS * V::N;
        }
        while i < len {
            let n = V::N.min(len - i);
            let mut sum = load_n::<V>(acc.as_ptr().add(i), n);
            for (j, &w) in w.iter().enumerate() {
                sum = load_n::<V>(rows.as_ptr().add(j * stride + i), n).fma(V::splat(w), sum);
            }
            store_n(sum, acc.as_mut_ptr().add(i), n);
            i += n;
        }
    }
}

/// out[j] = the product of `x` and `rows[j * stride..][..x.len()]`.
///
/// # Safety
/// As [`Lanes`]; `rows` holds `x.len()` elements from `(out.len() - 1) * stride` on.
#[inline(always)]
pub(super) unsafe fn dot_rows<V: Lanes>(x: &[f32], rows: &[f32], stride: usize, out: &mut [f32]) {
    let last = out.len().saturating_sub(1);
    for (first, four) in out.chunks_mut(4).enumerate() {
        // SAFETY: no row behind the last one is read, and each has x.len() elements.
        unsafe {
            // Always four sums, so that a row's does not depend on how many there are.
            let mut sums = [V::splat(0.0); 4];
            let row = |j: usize| rows.as_ptr().add((first * 4 + j).min(last) * stride);
            let four_rows = [row(0), row(1), row(2), row(3)];
            for_lanes!(V, x.as_ptr(), x.len(), |v, i, n| {
                for (sum, row) in sums.iter_mut().zip(four_rows) {
                    *sum = load_n::<V>(row.add(i), n).fma(v, *sum);
                }
            });
            four.copy_from_slice(&V::sum4(sums)[..four.len()]);
        }
    }
}

/// acc += x * w, element by element.
///
/// # Safety
/// As [`Lanes`]; all are of one length.
#[inline(always)]
pub(super) unsafe fn mul_add<V: Lanes>(acc: &mut [f32], x: &[f32], w: &[f32]) {
    // SAFETY: offsets stay below the length of all three.
    unsafe {
        let to = acc.as_mut_ptr();
        for_lanes!(V, x.as_ptr(), x.len(), |v, i, n| {
            let sum = load_n::<V>(to.add(i), n);
            store_n(v.fma(load_n::<V>(w.as_ptr().add(i), n), sum), to.add(i), n);
        });
    }
}

/// x = e^x.
///
/// # Safety
/// As [`Lanes`].
#[inline(always)]
pub(super) unsafe fn exp<V: Lanes>(x: &mut [f32]) {
    // SAFETY: each run is read before it is written.
    unsafe {
        let to = x.as_mut_ptr();
        for_lanes!(V, to, x.len(), |v, i, n| store_n(exp_of(v), to.add(i), n));
    }
}

//! Dequantisation, and row-dots with f32 activations: weights become f32 on the fly.
//!
//! Sums are f32 over 256 elements in 32 lanes, then f64, which keeps the error near one f32 rounding of the terms.

use std::arch::aarch64::*;

use super::group::{Group, RUN, RUNS, f16_at, sub_scales};
use crate::table::DotArgs;
use crate::vector::f16x4_to_f32;

/// Elements that are turned into f32 at a time.
const CHUNK: usize = 256;

/// Weights that can be read as f32.
pub(super) trait ReadF32 {
    /// Bytes of `n` elements (whole blocks).
    fn bytes(n: usize) -> usize;
    /// Writes `n` elements, at most [`CHUNK`] and whole blocks.
    ///
    /// # Safety
    /// `bytes(n)` bytes can be read at `p` and `n` f32 written at `out`.
    unsafe fn read(p: *const u8, n: usize, out: *mut f32);
}

/// A quantised format.
pub(super) struct Blocks<G>(G);

impl<G: Group> ReadF32 for Blocks<G> {
    #[inline(always)]
    fn bytes(n: usize) -> usize {
        n / (RUN * G::BLOCK_RUNS) * G::BYTES
    }

    #[target_feature(enable = "neon")]
    #[inline]
    unsafe fn read(p: *const u8, n: usize, out: *mut f32) {
        let n_runs = n / RUN;
        // SAFETY: the caller vouches for n / 32 runs at `p` and for room at `out`.
        unsafe {
            let (scale, offset) = sub_scales::<G>(&G::head(p, n_runs.min(RUNS)));
            macro_rules! run {
                ($g:literal) => {
                    if $g < n_runs {
                        for (half, q) in G::quants(p, $g).into_iter().enumerate() {
                            let j = $g * 2 + half;
                            for (part, q) in super::group::widen(q).into_iter().enumerate() {
                                let product = vfmaq_n_f32(vdupq_n_f32(offset[j]), vcvtq_f32_s32(q), scale[j]);
                                vst1q_f32(out.add(j * 16 + part * 4), product);
                            }
                        }
                    }
                };
            }
            // Written out, so that shifts by the run's number become constants.
            run!(0);
            run!(1);
            run!(2);
            run!(3);
            run!(4);
            run!(5);
            run!(6);
            run!(7);
        }
    }
}

macro_rules! float_format {
    ($name:ident, $bytes:literal, |$p:ident| $read4:expr, |$q:ident| $read1:expr) => {
        /// A float format.
        pub(super) struct $name;
        impl ReadF32 for $name {
            #[inline(always)]
            fn bytes(n: usize) -> usize {
                n * $bytes
            }
            #[target_feature(enable = "neon")]
            #[inline]
            unsafe fn read(p: *const u8, n: usize, out: *mut f32) {
                let mut i = 0;
                // SAFETY: the caller vouches for `n` elements on both sides.
                unsafe {
                    while i + 4 <= n {
                        let $p = p.add(i * $bytes);
                        vst1q_f32(out.add(i), $read4);
                        i += 4;
                    }
                    while i < n {
                        let $q = p.add(i * $bytes);
                        *out.add(i) = $read1;
                        i += 1;
                    }
                }
            }
        }
    };
}
float_format!(F32, 4, |p| vreinterpretq_f32_u8(vld1q_u8(p)), |p| p.cast::<f32>().read_unaligned());
float_format!(F16, 2, |p| f16x4_to_f32(vreinterpret_u16_u8(vld1_u8(p))), |p| f16_at(p));
float_format!(Bf16, 2, |p| vreinterpretq_f32_u32(vshll_n_u16::<16>(vreinterpret_u16_u8(vld1_u8(p)))), |p| {
    f32::from_bits(u32::from(p.cast::<u16>().read_unaligned()) << 16)
});

/// See [`crate::table::Dequantize`].
#[target_feature(enable = "neon")]
pub(super) unsafe fn dequantize<R: ReadF32>(blocks: &[u8], out: &mut [f32]) {
    assert_eq!(blocks.len(), R::bytes(out.len()));
    let mut p = blocks.as_ptr();
    for out in out.chunks_mut(CHUNK) {
        // SAFETY: `blocks` holds all elements of `out`, as just checked, and `p` moves on with `out`.
        unsafe {
            R::read(p, out.len(), out.as_mut_ptr());
            p = p.add(R::bytes(out.len()));
        }
    }
}

/// See [`crate::table::RowDots`].
#[target_feature(enable = "neon")]
pub(super) unsafe fn row_dots<R: ReadF32>(args: &DotArgs<'_>, out: &mut [f32], stride: usize) {
    // SAFETY: the caller's duties are handed on.
    unsafe {
        match args.n_cols {
            1 => rows::<R, 1>(args, out, stride),
            2 => rows::<R, 2>(args, out, stride),
            3 => rows::<R, 3>(args, out, stride),
            4 => rows::<R, 4>(args, out, stride),
            5 => rows::<R, 5>(args, out, stride),
            6 => rows::<R, 6>(args, out, stride),
            7 => rows::<R, 7>(args, out, stride),
            _ => rows::<R, 8>(args, out, stride),
        }
    }
}

#[target_feature(enable = "neon")]
unsafe fn rows<R: ReadF32, const NC: usize>(args: &DotArgs<'_>, out: &mut [f32], stride: usize) {
    assert!(args.n_cols == NC && args.row_bytes == R::bytes(args.layout.k()));
    let k = args.layout.k();
    let mut w = [0.0f32; CHUNK];
    for (r, row) in args.w.chunks_exact(args.row_bytes).take(args.n_rows).enumerate() {
        let mut acc = [0.0f64; NC];
        let x: [*const u8; NC] = std::array::from_fn(|c| args.acts[c * args.layout.col_bytes()..].as_ptr());
        let mut at = 0;
        while at + CHUNK <= k {
            // SAFETY: elements at..at + CHUNK exist in the row and in each column.
            unsafe {
                R::read(row.as_ptr().add(R::bytes(at)), CHUNK, w.as_mut_ptr());
                for c in 0..NC {
                    acc[c] += dot_chunk(&w, x[c].add(at * 4));
                }
            }
            at += CHUNK;
        }
        if at < k {
            // Both sides of the rest, padded with zeros.
            w = [0.0; CHUNK];
            // SAFETY: elements at..k exist in the row and in each column, and are fewer than CHUNK.
            unsafe {
                R::read(row.as_ptr().add(R::bytes(at)), k - at, w.as_mut_ptr());
                for c in 0..NC {
                    let mut rest = [0.0f32; CHUNK];
                    std::ptr::copy_nonoverlapping(x[c].add(at * 4), rest.as_mut_ptr().cast(), (k - at) * 4);
                    acc[c] += dot_chunk(&w, rest.as_ptr().cast());
                }
            }
        }
        for (c, &acc) in acc.iter().enumerate() {
            out[c * stride + r] = acc as f32;
        }
    }
}

/// The products of 256 elements, summed in f32 to four lanes, then in f64.
///
/// # Safety
/// 256 f32 can be read at `x`, at any address.
#[target_feature(enable = "neon")]
#[inline]
unsafe fn dot_chunk(w: &[f32; CHUNK], x: *const u8) -> f64 {
    let mut acc = [vdupq_n_f32(0.0); 8];
    for i in (0..CHUNK).step_by(32) {
        for (lane, acc) in acc.iter_mut().enumerate() {
            let at = i + lane * 4;
            // SAFETY: the caller vouches for `x`; `w` has as many elements.
            let (w, x) = unsafe { (vld1q_f32(w.as_ptr().add(at)), vld1q_u8(x.add(at * 4))) };
            *acc = vfmaq_f32(*acc, w, vreinterpretq_f32_u8(x));
        }
    }
    let [a, b, c, d, e, f, g, h] = acc;
    let sum = vaddq_f32(vaddq_f32(vaddq_f32(a, b), vaddq_f32(c, d)), vaddq_f32(vaddq_f32(e, f), vaddq_f32(g, h)));
    vaddvq_f64(vaddq_f64(vcvt_f64_f32(vget_low_f32(sum)), vcvt_high_f64_f32(sum)))
}

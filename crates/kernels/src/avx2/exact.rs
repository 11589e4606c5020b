//! Dequantisation, and row-dots with f32 activations: weights become f32 on the fly.
//!
//! Sums are f32 over 256 elements in 32 lanes, then f64, which keeps the error near one f32 rounding of the terms.

use std::arch::x86_64::*;

use super::group::{Group, RUN, RUNS, sub_scales};
use crate::table::DotArgs;

/// Elements that are turned into f32 at a time.
const CHUNK: usize = 256;

/// Weights that can be read as f32.
pub(super) trait ReadF32 {
    /// Bytes of `n` elements (whole blocks).
    fn bytes(n: usize) -> usize;
    /// Writes `n` elements, at most [`CHUNK`] and whole blocks.
    ///
    /// # Safety
    /// AVX2, FMA and F16C; `bytes(n)` bytes can be read at `p` and `n` f32 written at `out`.
    unsafe fn read(p: *const u8, n: usize, out: *mut f32);
}

/// A quantised format.
pub(super) struct Blocks<G>(G);

impl<G: Group> ReadF32 for Blocks<G> {
    #[inline]
    fn bytes(n: usize) -> usize {
        n / (RUN * G::BLOCK_RUNS) * G::BYTES
    }

    #[target_feature(enable = "avx2,fma,f16c")]
    #[inline]
    unsafe fn read(p: *const u8, n: usize, out: *mut f32) {
        // SAFETY: the caller vouches for the instruction set, for n / 32 runs at `p` and for room at `out`.
        unsafe {
            let n_runs = n / RUN;
            let (scale, offset) =
                if n_runs == RUNS { sub_scales::<G>(&G::head(p, RUNS)) } else { sub_scales::<G>(&G::head(p, n_runs)) };
            for g in 0..n_runs {
                let q = G::quants(p, g);
                for (half, q) in [_mm256_castsi256_si128(q), _mm256_extracti128_si256::<1>(q)].into_iter().enumerate() {
                    let j = g * 2 + half;
                    for (part, q) in [q, _mm_unpackhi_epi64(q, q)].into_iter().enumerate() {
                        let wide = if G::SIGNED { _mm256_cvtepi8_epi32(q) } else { _mm256_cvtepu8_epi32(q) };
                        let product = _mm256_fmadd_ps(
                            _mm256_set1_ps(scale[j]),
                            _mm256_cvtepi32_ps(wide),
                            _mm256_set1_ps(offset[j]),
                        );
                        _mm256_storeu_ps(out.add(j * 16 + part * 8), product);
                    }
                }
            }
        }
    }
}

macro_rules! float_format {
    ($name:ident, $bytes:literal, |$p:ident| $read8:expr, |$q:ident| $read1:expr) => {
        /// A float format.
        pub(super) struct $name;
        impl ReadF32 for $name {
            #[inline]
            fn bytes(n: usize) -> usize {
                n * $bytes
            }
            #[target_feature(enable = "avx2,fma,f16c")]
            #[inline]
            unsafe fn read(p: *const u8, n: usize, out: *mut f32) {
                let mut i = 0;
                // SAFETY: the caller vouches for the instruction set and for `n` elements on both sides.
                unsafe {
                    while i + 8 <= n {
                        let $p = p.add(i * $bytes);
                        _mm256_storeu_ps(out.add(i), $read8);
                        i += 8;
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
float_format!(F32, 4, |p| _mm256_loadu_ps(p.cast()), |p| p.cast::<f32>().read_unaligned());
float_format!(F16, 2, |p| _mm256_cvtph_ps(_mm_loadu_si128(p.cast())), |p| super::group::f16_at(p));
float_format!(
    Bf16,
    2,
    |p| _mm256_castsi256_ps(_mm256_slli_epi32::<16>(_mm256_cvtepu16_epi32(_mm_loadu_si128(p.cast())))),
    |p| f32::from_bits(u32::from(p.cast::<u16>().read_unaligned()) << 16)
);

/// See [`crate::table::Dequantize`].
#[target_feature(enable = "avx2,fma,f16c")]
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
#[target_feature(enable = "avx2,fma,f16c")]
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

#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn rows<R: ReadF32, const NC: usize>(args: &DotArgs<'_>, out: &mut [f32], stride: usize) {
    assert!(args.n_cols == NC && args.row_bytes == R::bytes(args.layout.k()));
    let k = args.layout.k();
    let mut w = [0.0f32; CHUNK];
    for (r, row) in args.w.chunks_exact(args.row_bytes).take(args.n_rows).enumerate() {
        let mut acc = [_mm256_setzero_pd(); NC];
        let x: [*const f32; NC] = std::array::from_fn(|c| args.acts[c * args.layout.col_bytes()..].as_ptr().cast());
        let mut at = 0;
        while at + CHUNK <= k {
            // SAFETY: elements at..at + CHUNK exist in the row and in each column.
            unsafe {
                R::read(row.as_ptr().add(R::bytes(at)), CHUNK, w.as_mut_ptr());
                for c in 0..NC {
                    acc[c] = _mm256_add_pd(acc[c], dot_chunk(&w, x[c].add(at)));
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
                    std::ptr::copy_nonoverlapping(x[c].add(at).cast::<u8>(), rest.as_mut_ptr().cast(), (k - at) * 4);
                    acc[c] = _mm256_add_pd(acc[c], dot_chunk(&w, rest.as_ptr()));
                }
            }
        }
        for (c, &acc) in acc.iter().enumerate() {
            let two = _mm_add_pd(_mm256_castpd256_pd128(acc), _mm256_extractf128_pd::<1>(acc));
            out[c * stride + r] = _mm_cvtsd_f64(_mm_add_sd(two, _mm_unpackhi_pd(two, two))) as f32;
        }
    }
}

/// The products of 256 elements, summed in f32 to eight lanes, then to four f64.
///
/// # Safety
/// AVX2 and FMA; 256 f32 can be read at `x`, at any address.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
unsafe fn dot_chunk(w: &[f32; CHUNK], x: *const f32) -> __m256d {
    // SAFETY: the caller vouches for both.
    unsafe {
        let mut acc = [_mm256_setzero_ps(); 4];
        for i in (0..CHUNK).step_by(32) {
            for (lane, acc) in acc.iter_mut().enumerate() {
                let at = i + lane * 8;
                *acc = _mm256_fmadd_ps(_mm256_loadu_ps(w.as_ptr().add(at)), _mm256_loadu_ps(x.add(at)), *acc);
            }
        }
        let sum = _mm256_add_ps(_mm256_add_ps(acc[0], acc[1]), _mm256_add_ps(acc[2], acc[3]));
        _mm256_add_pd(_mm256_cvtps_pd(_mm256_castps256_ps128(sum)), _mm256_cvtps_pd(_mm256_extractf128_ps::<1>(sum)))
    }
}

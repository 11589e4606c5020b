//! Row-dots of quantised weights with few columns of `Q8` activations: weights are unpacked in
//! registers, eight rows at a time.

use std::arch::x86_64::*;
use std::mem::MaybeUninit;

use super::dot::Dot;
use super::panel::Quantised;
use super::rows::{Blocks8, Format8, Head, MAX_HEADS, ROWS, RUN, Width};
use crate::ahead;
use crate::functions::DotArgs;
use crate::matrix::{ActLayout, Strided};
use crate::panel;

/// Columns that are computed together; the last three are, too, though a few sums then go through
/// memory: that costs less than to unpack the rows once more.
const COLS: usize = 2;
const LAST_COLS: usize = 3;

/// See [`crate::functions::RowDots`].
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn row_dots<F: Format8, D: Dot>(args: &DotArgs<'_>, out: &mut [f32], stride: usize) {
    if args.n_cols >= F::PANEL_COLS {
        let mut out = Strided { data: out, stride, rows: args.n_rows };
        // SAFETY: the caller's duties are handed on.
        return unsafe { panel::mul::<Quantised<F, D>>(args, &mut out) };
    }
    let (n_rows, col_bytes) = (args.n_rows, args.layout.col_bytes());
    let distance = ahead::distance(ROWS * args.row_bytes);
    ahead::request(args.w.as_ptr(), distance.min(args.w.len()));
    for first in (0..n_rows).step_by(ROWS) {
        let n = ROWS.min(n_rows - first);
        // A last tile of fewer rows takes the last row again and again.
        let rows: Blocks8 = std::array::from_fn(|r| args.w[(first + r.min(n - 1)) * args.row_bytes..].as_ptr());
        let next = rows[0].wrapping_add(distance);
        let mut col = 0;
        while col < args.n_cols {
            let x: [*const u8; LAST_COLS] =
                std::array::from_fn(|c| args.acts[(col + c).min(args.n_cols - 1) * col_bytes..].as_ptr());
            let mut store = |c: usize, sums: [f32; ROWS]| {
                out[(col + c) * stride + first..][..n].copy_from_slice(&sums[..n]);
            };
            // SAFETY: rows and columns are those of `args`, whose lengths the caller vouches for.
            col += unsafe {
                match args.n_cols - col {
                    1 => {
                        let [sums] = tile::<F, D, 1>(rows, [x[0]], next, args.layout);
                        store(0, sums);
                        1
                    }
                    LAST_COLS => {
                        let sums = tile::<F, D, LAST_COLS>(rows, x, next, args.layout);
                        sums.into_iter().enumerate().for_each(|(c, sums)| store(c, sums));
                        LAST_COLS
                    }
                    _ => {
                        let sums = tile::<F, D, COLS>(rows, [x[0], x[1]], next, args.layout);
                        sums.into_iter().enumerate().for_each(|(c, sums)| store(c, sums));
                        COLS
                    }
                }
            };
        }
    }
}

/// The products of eight rows with `NC` columns. Requests as many bytes as it reads, from `next`
/// on.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn tile<F: Format8, D: Dot, const NC: usize>(
    rows: Blocks8,
    x: [*const u8; NC],
    mut next: *const u8,
    layout: ActLayout,
) -> [[f32; ROWS]; NC] {
    let n_runs = layout.k() / RUN;
    let mut acc = [_mm256_setzero_ps(); NC];
    let mut heads = [MaybeUninit::<__m256>::uninit(); MAX_HEADS];
    let heads = heads.as_mut_ptr().cast::<__m256>();
    for block in 0..n_runs / F::BLOCK_RUNS {
        let mut at = rows;
        for p in &mut at {
            *p = p.wrapping_add(block * F::BYTES);
        }
        macro_rules! run {
            ($g:expr) => {
                // SAFETY: block `block` of each row and run `block * BLOCK_RUNS + g` of each column
                // exist, as the caller vouches; the head was written before.
                unsafe { run::<F, D, NC>(at, $g, heads, x, block * F::BLOCK_RUNS + $g, layout, &mut acc) };
            };
        }
        // SAFETY: the block exists in each row; there is room for the heads of eight runs.
        unsafe { F::heads(at, heads) };
        if F::BLOCK_RUNS == 1 {
            next = ahead::request(next, ROWS * F::BYTES);
            run!(0);
        } else if F::RUNS_ALIKE {
            for g in 0..F::BLOCK_RUNS {
                next = ahead::request(next, F::BYTES);
                run!(g);
            }
        } else {
            // Written out, so that shifts by the run's number become constants.
            next = ahead::request(next, F::BYTES);
            run!(0);
            next = ahead::request(next, F::BYTES);
            run!(1);
            next = ahead::request(next, F::BYTES);
            run!(2);
            next = ahead::request(next, F::BYTES);
            run!(3);
            next = ahead::request(next, F::BYTES);
            run!(4);
            next = ahead::request(next, F::BYTES);
            run!(5);
            next = ahead::request(next, F::BYTES);
            run!(6);
            next = ahead::request(next, F::BYTES);
            run!(7);
        }
    }
    let mut sums = [[0.0; ROWS]; NC];
    for c in 0..NC {
        // SAFETY: room for eight f32.
        unsafe { _mm256_storeu_ps(sums[c].as_mut_ptr(), acc[c]) };
    }
    sums
}

/// Adds run `g` of the blocks, which is run `run` of the columns.
///
/// # Safety
/// AVX2, FMA and F16C; blocks and columns are readable, `heads` are those of the blocks.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
unsafe fn run<F: Format8, D: Dot, const NC: usize>(
    blocks: Blocks8,
    g: usize,
    heads: *const __m256,
    x: [*const u8; NC],
    run: usize,
    layout: ActLayout,
    acc: &mut [__m256; NC],
) {
    // SAFETY: the caller vouches for all of it.
    unsafe {
        let head = heads.add(g * Head::<F>::LEN);
        let mut sums = [[_mm256_setzero_si256(); 4]; NC];
        // Written out, so that sums stay in registers whatever a format takes to be unpacked.
        macro_rules! rows {
            ($($i:literal)*) => {
                $(let w = F::halves([blocks[$i], blocks[$i + 4]], g, Head::<F>::pair(heads, $i));
                for c in 0..NC {
                    let x = [half(x[c].add(run * RUN)), half(x[c].add(run * RUN + 16))];
                    sums[c][$i] = partial_sums::<F, D>(w, x, head, $i);
                })*
            };
        }
        rows!(0 1 2 3);
        for c in 0..NC {
            let dots = row_sums::<F, D>(sums[c]);
            acc[c] = accumulate::<F>(acc[c], dots, head, x[c], run, layout);
        }
    }
}

/// 16 activations, twice.
///
/// # Safety
/// AVX2; they can be read.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
unsafe fn half(x: *const u8) -> __m256i {
    // SAFETY: the caller vouches for both.
    unsafe { _mm256_broadcastsi128_si256(_mm_loadu_si128(x.cast())) }
}

/// Sums of products of rows `i` and `i + 4`: eight i16 a row or, where those could overflow, are
/// scaled or are not needed, four i32.
///
/// # Safety
/// AVX2 and `D`'s instruction; if sub-scaled, `head` is the run's.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
unsafe fn partial_sums<F: Format8, D: Dot>(w: [__m256i; 2], x: [__m256i; 2], head: *const __m256, i: usize) -> __m256i {
    let pairs = |half: usize| _mm256_maddubs_epi16(w[half], x[half]);
    let zero = _mm256_setzero_si256();
    match F::WIDTH {
        Width::Nibble | Width::FiveBits if !D::AT_ONCE => _mm256_add_epi16(pairs(0), pairs(1)),
        Width::SixBits if !D::AT_ONCE => _mm256_madd_epi16(_mm256_add_epi16(pairs(0), pairs(1)), _mm256_set1_epi16(1)),
        Width::Nibble | Width::FiveBits | Width::SixBits | Width::SevenBits => {
            // SAFETY: the caller vouches for the instruction; of 7-bit integers two products fit 16
            // bits.
            unsafe { D::add(D::add(zero, w[0], x[0]), w[1], x[1]) }
        }
        Width::SubScaled | Width::SubScaledSevenBits => {
            let scaled = |half: usize| {
                // SAFETY: the caller vouches for the head.
                let scales = unsafe { _mm256_castps_si256(head.add(1 + half).read()) };
                let scale = match i {
                    0 => _mm256_shuffle_epi32::<0b00_00_00_00>(scales),
                    1 => _mm256_shuffle_epi32::<0b01_01_01_01>(scales),
                    2 => _mm256_shuffle_epi32::<0b10_10_10_10>(scales),
                    _ => _mm256_shuffle_epi32::<0b11_11_11_11>(scales),
                };
                _mm256_madd_epi16(pairs(half), scale)
            };
            _mm256_add_epi32(scaled(0), scaled(1))
        }
        Width::Signed => {
            let magnitude = |half: usize| _mm256_abs_epi8(w[half]);
            let signed = |half: usize| _mm256_sign_epi8(x[half], w[half]);
            // SAFETY: the caller vouches for the instruction; two products are at most 2 *
            // 128 * 127.
            unsafe { D::add(D::add(zero, magnitude(0), signed(0)), magnitude(1), signed(1)) }
        }
    }
}

/// The eight rows' i32 sums from four vectors of [`partial_sums`].
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn row_sums<F: Format8, D: Dot>(v: [__m256i; 4]) -> __m256i {
    // Each half of a register is one row. Two rows' 64-bit parts side by side: (row i, row i + 1),
    // half of what is left to add.
    let parts = |a, b| (_mm256_unpacklo_epi64(a, b), _mm256_unpackhi_epi64(a, b));
    let add16 = |(a, b)| _mm256_add_epi16(a, b);
    let add32 = |(a, b)| _mm256_add_epi32(a, b);
    // Four rows' 32-bit parts.
    let quarters = |a, b| {
        let (a, b) = (_mm256_castsi256_ps(a), _mm256_castsi256_ps(b));
        let even = _mm256_shuffle_ps::<0b10_00_10_00>(a, b);
        let odd = _mm256_shuffle_ps::<0b11_01_11_01>(a, b);
        (_mm256_castps_si256(even), _mm256_castps_si256(odd))
    };
    let ones = _mm256_set1_epi16(1);
    match F::WIDTH {
        Width::Nibble if !D::AT_ONCE => {
            let eights = add16(quarters(add16(parts(v[0], v[1])), add16(parts(v[2], v[3]))));
            _mm256_madd_epi16(eights, ones)
        }
        Width::FiveBits if !D::AT_ONCE => {
            let fours = |a, b| _mm256_madd_epi16(add16(parts(a, b)), ones);
            add32(quarters(fours(v[0], v[1]), fours(v[2], v[3])))
        }
        _ => add32(quarters(add32(parts(v[0], v[1])), add32(parts(v[2], v[3])))),
    }
}

/// The float part of a run, the same for row-dots and panels, so that both give the same bits: the
/// rows' integer sums become f32, times the weights' and the activations' scales, then offsets
/// times the activations' sums.
///
/// # Safety
/// AVX2 and FMA; `head` is the run's, `x` a column that has it.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
pub(super) unsafe fn accumulate<F: Format8>(
    acc: __m256,
    dots: __m256i,
    head: *const __m256,
    x: *const u8,
    run: usize,
    layout: ActLayout,
) -> __m256 {
    // SAFETY: the caller vouches for all of it.
    unsafe {
        let float = |at: usize| _mm256_set1_ps(x.add(at).cast::<f32>().read_unaligned());
        let scale = _mm256_mul_ps(head.read(), float(layout.scales_at() + run * 4));
        let mut acc = _mm256_fmadd_ps(scale, _mm256_cvtepi32_ps(dots), acc);
        let sums_at = if Head::<F>::SUB_SCALED { layout.sums16_at() } else { layout.sums32_at() };
        for i in 0..Head::<F>::N_OFFSETS {
            let sum = float(sums_at + (run * Head::<F>::N_OFFSETS + i) * 4);
            acc = _mm256_fmadd_ps(head.add(Head::<F>::OFFSETS_AT + i).read(), sum, acc);
        }
        acc
    }
}

//! Which magnitudes stand in the entries of grids, and the integers that stand for them.
//!
//! In an entry, byte `2 * i + 1` is magnitude `i`. Where an element is negative, the mask of signs
//! takes one off: so both find their integer in a list of sixteen. An integer is unsigned:
//!
//! | format | magnitudes | integers | value |
//! |---|---|---|---|
//! | IQ3_S | 1, 3, ..., 15 | 0..=15 | 2q - 15 |
//! | IQ3_XXS | 4, 12, ..., 52, 62 | 0..=62 | 2q - 62 |
//! | IQ2_XXS, IQ2_XS, IQ2_S | 8, 25, 43 | 0..=86 | q - 43 |

use std::arch::x86_64::*;

use crate::format::grids;

/// The magnitudes of one format.
struct Magnitudes<const N: usize> {
    all: [i8; N],
    /// An integer `q` stands for `step * q - offset`.
    step: i8,
    offset: i8,
}

const OF_IQ2: Magnitudes<3> = Magnitudes { all: [8, 25, 43], step: 1, offset: 43 };
const OF_IQ3_XXS: Magnitudes<8> = Magnitudes { all: [4, 12, 20, 28, 36, 44, 52, 62], step: 2, offset: 62 };
const OF_IQ3_S: Magnitudes<8> = Magnitudes { all: [1, 3, 5, 7, 9, 11, 13, 15], step: 2, offset: 15 };

impl<const N: usize> Magnitudes<N> {
    /// The byte of an entry, odd.
    const fn place(&self, magnitude: i8) -> u64 {
        let mut i = 0;
        while self.all[i] != magnitude {
            i += 1;
        }
        2 * i as u64 + 1
    }

    const fn places8<const LEN: usize>(&self, grid: &[[i8; 8]; LEN]) -> [u64; LEN] {
        let mut out = [0; LEN];
        let mut i = 0;
        while i < 8 * LEN {
            out[i / 8] |= self.place(grid[i / 8][i % 8]) << (i % 8 * 8);
            i += 1;
        }
        out
    }

    const fn places4<const LEN: usize>(&self, grid: &[[i8; 4]; LEN]) -> [u32; LEN] {
        let mut out = [0; LEN];
        let mut i = 0;
        while i < 4 * LEN {
            out[i / 4] |= (self.place(grid[i / 4][i % 4]) as u32) << (i % 4 * 8);
            i += 1;
        }
        out
    }

    /// The integers of each place: negative ones at even bytes, positive ones at odd.
    const fn integers(&self) -> [i8; 16] {
        let mut out = [0; 16];
        let mut i = 0;
        while i < N {
            out[2 * i] = (self.offset - self.all[i]) / self.step;
            out[2 * i + 1] = ((self.offset as i16 + self.all[i] as i16) / self.step as i16) as i8;
            i += 1;
        }
        out
    }
}

pub(super) static IQ2_XXS_PLACES: [u64; 256] = OF_IQ2.places8(&grids::IQ2_XXS);
pub(super) static IQ2_XS_PLACES: [u64; 512] = OF_IQ2.places8(&grids::IQ2_XS);
pub(super) static IQ2_S_PLACES: [u64; 1024] = OF_IQ2.places8(&grids::IQ2_S);
pub(super) static IQ3_XXS_PLACES: [u32; 256] = OF_IQ3_XXS.places4(&grids::IQ3_XXS);
pub(super) static IQ3_S_PLACES: [u32; 512] = OF_IQ3_S.places4(&grids::IQ3_S);
pub(super) static IQ2_INTEGERS: [i8; 16] = OF_IQ2.integers();
pub(super) static IQ3_XXS_INTEGERS: [i8; 16] = OF_IQ3_XXS.integers();
pub(super) static IQ3_S_INTEGERS: [i8; 16] = OF_IQ3_S.integers();

/// Four entries of eight for each of two rows, in halves of 16 elements.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
pub(super) fn eights(a: [u64; 4], b: [u64; 4]) -> [__m256i; 2] {
    // As floats, since two of those are loaded into one register by two instructions.
    let two = |e: &[u64; 4], i: usize| _mm_set_pd(f64::from_bits(e[i + 1]), f64::from_bits(e[i]));
    let half = |i: usize| _mm256_castpd_si256(_mm256_set_m128d(two(&b, i), two(&a, i)));
    [half(0), half(2)]
}

/// Eight entries of four for each of two rows, in halves of 16 elements.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
pub(super) fn fours(a: [u32; 8], b: [u32; 8]) -> [__m256i; 2] {
    let [a, b] = [a, b].map(|e| e.map(|e| e as i32));
    let half = |i: usize| _mm256_setr_epi32(a[i], a[i + 1], a[i + 2], a[i + 3], b[i], b[i + 1], b[i + 2], b[i + 3]);
    [half(0), half(4)]
}

/// The integers of a run of two rows, whose signs are bytes 0 to 3 and 4 to 7 of `signs`.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
pub(super) fn signed(places: [__m256i; 2], signs: u64, integers: &[i8; 16]) -> [__m256i; 2] {
    // SAFETY: 16 bytes.
    let integers = unsafe { _mm256_broadcastsi128_si256(_mm_loadu_si128(integers.as_ptr().cast())) };
    let signs = _mm256_set1_epi64x(signs as i64);
    let bit = _mm256_set1_epi64x(0x8040_2010_0804_0201_u64 as i64);
    let half = |places: __m256i, i: i64| {
        let eight = |byte: i64| byte * 0x0101_0101_0101_0101;
        let byte = _mm256_setr_epi64x(eight(i), eight(i + 1), eight(i + 4), eight(i + 5));
        let negative = _mm256_cmpeq_epi8(_mm256_and_si256(_mm256_shuffle_epi8(signs, byte), bit), bit);
        _mm256_shuffle_epi8(integers, _mm256_add_epi8(places, negative))
    };
    [half(places[0], 0), half(places[1], 2)]
}

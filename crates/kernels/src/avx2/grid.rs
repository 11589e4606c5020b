//! The formats of grids: an index names an entry of eight or four magnitudes, and each magnitude
//! has a sign.
//!
//! 1. Before the runs of a block, the heads of eight rows are written and, behind them, what is
//!    best worked out for a whole block: a byte of signs for each eight elements, and indices that
//!    are more than a byte.
//! 2. An entry is loaded as one integer of bytes, which say which of the format's few magnitudes
//!    stand there.
//! 3. Signs become masks of bytes, and with them one `pshufb` looks unsigned integers up, as narrow
//!    as the format allows ([`places`]): then products are added up in 16 bits, and nothing needs
//!    the sign of a weight.

mod places;

use std::arch::x86_64::*;

use super::rows::{Blocks8, Format8, Head, ROWS, Width, f16x8, load2, transpose};
use places::{
    IQ2_INTEGERS, IQ2_S_PLACES, IQ2_XS_PLACES, IQ2_XXS_PLACES, IQ3_S_INTEGERS, IQ3_S_PLACES, IQ3_XXS_INTEGERS,
    IQ3_XXS_PLACES, eights, fours, signed,
};

/// Columns from which on a panel is faster: to unpack the rows takes longer than the products of
/// two or three columns, which row-dots take at a time. (Found with all five formats on a Zen 3
/// server.)
const PANEL_COLS: usize = 4;

/// Eight signs from the first seven, of which an even number is set.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn even_signs(sevens: __m256i) -> __m256i {
    // Whether four bits are an odd number of ones.
    let odd = _mm_setr_epi8(0, -128, -128, 0, -128, 0, 0, -128, -128, 0, 0, -128, 0, -128, -128, 0);
    let four = _mm256_xor_si256(sevens, _mm256_srli_epi16::<4>(sevens));
    let four = _mm256_and_si256(four, _mm256_set1_epi8(15));
    _mm256_or_si256(sevens, _mm256_shuffle_epi8(_mm256_broadcastsi128_si256(odd), four))
}

/// Four times seven signs in the lowest 28 bits of each word, as bytes of eight signs.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn packed_signs(words: __m256i) -> __m256i {
    // First twice 14 bits, at the start of 16 each.
    let halves = _mm256_blend_epi16::<0b1010_1010>(words, _mm256_slli_epi32::<2>(words));
    let even = _mm256_and_si256(halves, _mm256_set1_epi16(0x007f));
    let odd = _mm256_and_si256(_mm256_slli_epi16::<1>(halves), _mm256_set1_epi16(0x7f00));
    even_signs(_mm256_or_si256(even, odd))
}

/// Words of eight runs that stand in this order in two registers, in the order 0, 1, 4, 5, 2, 3, 6,
/// 7.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn swap_middle(words: __m256i) -> __m256i {
    _mm256_permute4x64_epi64::<0b11_01_10_00>(words)
}

/// Writes the signs of two rows, a word of each for each run. Runs stand in the order 0, 1, 4, 5,
/// 2, 3, 6, 7.
///
/// # Safety
/// AVX2; room for 64 bytes.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
unsafe fn write_signs(a: __m256i, b: __m256i, pair: *mut u8) {
    // SAFETY: the caller vouches for room.
    unsafe {
        _mm256_storeu_si256(pair.cast(), _mm256_unpacklo_epi32(a, b));
        _mm256_storeu_si256(pair.add(32).cast(), _mm256_unpackhi_epi32(a, b));
    }
}

/// 32 bytes.
///
/// # Safety
/// AVX2; they can be read.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
unsafe fn load(p: *const u8, at: usize) -> __m256i {
    // SAFETY: the caller vouches for them.
    unsafe { _mm256_loadu_si256(p.add(at).cast()) }
}

/// The signs of run `g`, as [`write_signs`] wrote them.
///
/// # Safety
/// They were.
#[inline]
unsafe fn signs(pair: *const u8, g: usize) -> u64 {
    // SAFETY: the caller's promise.
    unsafe { pair.add(g * 8).cast::<u64>().read_unaligned() }
}

/// Where the indices of two rows stand, behind their signs, if a byte is not enough for one.
const INDICES_AT: usize = 64;

/// Sixteen indices of `BITS` bits above the lowest eight bits, which stand at `low`: the upper ones
/// of index `i` are bits `i * BITS` and on of two (`BITS` is 1) or four bytes of `high`, from byte
/// `first` on.
///
/// # Safety
/// AVX2; 16 bytes can be read at `low` and 32 written at `to`.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
unsafe fn write_indices<const BITS: usize>(low: *const u8, high: u64, first: i64, to: *mut u8) {
    // A byte in the lower half of each 16 bits; multiplied, its bits stand above the lower byte.
    let four = |byte: i64| (0x0001_0001_0001_0001 * byte) | 0x8000_8000_8000_8000_u64 as i64;
    let (bytes, up) = match BITS {
        1 => {
            let (a, b) = (four(first), four(first + 1));
            (_mm256_setr_epi64x(a, a, b, b), _mm_setr_epi16(256, 128, 64, 32, 16, 8, 4, 2))
        }
        _ => {
            let byte = |i: i64| four(first + i);
            (_mm256_setr_epi64x(byte(0), byte(1), byte(2), byte(3)), _mm_setr_epi16(256, 64, 16, 4, 256, 64, 16, 4))
        }
    };
    let high = _mm256_shuffle_epi8(_mm256_set1_epi64x(high as i64), bytes);
    let high = _mm256_mullo_epi16(high, _mm256_broadcastsi128_si256(up));
    let high = _mm256_and_si256(high, _mm256_set1_epi16(((256 << BITS) - 256) as i16));
    // SAFETY: the caller vouches for the bytes.
    unsafe {
        let low = _mm256_cvtepu8_epi16(_mm_loadu_si128(low.cast()));
        _mm256_storeu_si256(to.cast(), _mm256_or_si256(low, high));
    }
}

/// Entry `i` of those that [`write_indices`] or the like wrote the indices of.
///
/// # Safety
/// They were written, and are below `LEN`.
#[inline]
unsafe fn entry<T: Copy, const LEN: usize>(entries: &[T; LEN], indices: *const u8, i: usize) -> T {
    // SAFETY: the caller's promise.
    unsafe { *entries.get_unchecked(usize::from(indices.add(i * 2).cast::<u16>().read_unaligned())) }
}

/// A word of eight rows.
///
/// # Safety
/// AVX2; four bytes can be read at each.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
unsafe fn word(blocks: Blocks8, at: usize) -> __m256i {
    let mut words = [0u32; ROWS];
    for (word, p) in words.iter_mut().zip(blocks) {
        // SAFETY: the caller vouches for four bytes.
        *word = unsafe { p.add(at).cast::<u32>().read_unaligned() };
    }
    // SAFETY: eight integers.
    unsafe { _mm256_loadu_si256(words.as_ptr().cast()) }
}

/// Four bits of each word, from bit `at` on: an odd number of five, `2 * bits + 1`.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn odd_scale(words: __m256i, at: i32) -> __m256i {
    let bits = _mm256_and_si256(_mm256_srl_epi32(words, _mm_cvtsi32_si128(at)), _mm256_set1_epi32(15));
    _mm256_or_si256(_mm256_slli_epi32::<1>(bits), _mm256_set1_epi32(1))
}

/// The heads of a format with a scale for each run: `odd` times `d`, and the offset that the
/// integers have.
///
/// # Safety
/// AVX2; room for eight heads.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
unsafe fn head<F: Format8>(d: __m256, odd: __m256i, offset: f32, heads: *mut __m256, g: usize) {
    const { assert!(Head::<F>::LEN == 2) };
    let scale = _mm256_mul_ps(d, _mm256_cvtepi32_ps(odd));
    // SAFETY: the caller vouches for room.
    unsafe {
        heads.add(g * 2).write(scale);
        heads.add(g * 2 + 1).write(_mm256_mul_ps(scale, _mm256_set1_ps(-offset)));
    }
}

/// The heads of a format with a scale for each 16 elements: four bits of the eight bytes that begin
/// at `at`, the first one's lowest first.
///
/// # Safety
/// AVX2; these bytes can be read; room for eight heads.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
unsafe fn sub_scaled<F: Format8>(d: __m256, blocks: Blocks8, at: usize, offset: f32, heads: *mut __m256) {
    const { assert!(Head::<F>::LEN == 5) };
    let factor = _mm256_mul_ps(d, _mm256_set1_ps(-offset));
    let rows = _mm256_broadcastsi128_si256(_mm_setr_epi32(0, 0x0004_0004, 0x0008_0008, 0x000c_000c));
    for half in 0..2 {
        // SAFETY: the caller vouches for the bytes.
        let words = unsafe { word(blocks, at + half * 4) };
        for nibble in 0..2 {
            let bits = _mm256_srl_epi32(words, _mm_cvtsi32_si128(nibble as i32 * 4));
            let bits = _mm256_and_si256(bits, _mm256_set1_epi8(15));
            let odd = _mm256_or_si256(_mm256_add_epi8(bits, bits), _mm256_set1_epi8(1));
            for byte in 0..4 {
                // Byte `byte` of each word at the start of both its halves, zeros behind it.
                let pick = _mm256_or_si256(
                    _mm256_add_epi8(rows, _mm256_set1_epi8(byte as i8)),
                    _mm256_set1_epi16(0x8000_u16 as i16),
                );
                let scale = _mm256_shuffle_epi8(odd, pick);
                let one = _mm256_cvtepi32_ps(_mm256_srli_epi32::<16>(scale));
                // SAFETY: the caller vouches for room.
                unsafe {
                    let head = heads.add((half * 4 + byte) * 5);
                    head.write(d);
                    head.add(1 + nibble).write(_mm256_castsi256_ps(scale));
                    head.add(3 + nibble).write(_mm256_mul_ps(factor, one));
                }
            }
        }
    }
}

#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
fn times(v: __m256, factor: f32) -> __m256 {
    _mm256_mul_ps(v, _mm256_set1_ps(factor))
}

macro_rules! grid {
    (
        $name:ident, $bytes:literal, $width:ident, indices: $indices:literal,
        |$p:ident, $heads:ident| $head:expr,
        |$row:ident, $to:ident| $signs:expr,
        |$b:ident, $g:ident, $pair:ident| $halves:expr
    ) => {
        #[allow(non_camel_case_types, reason = "the format's own name")]
        #[doc = concat!("See the format's definition, `format::", stringify!($name), "`.")]
        pub(crate) struct $name;
        // SAFETY: reads only within the `BYTES` bytes of the blocks that the caller vouches for.
        unsafe impl Format8 for $name {
            const BYTES: usize = $bytes;
            const BLOCK_RUNS: usize = 8;
            const WIDTH: Width = Width::$width;
            const RUNS_ALIKE: bool = true;
            const PANEL_COLS: usize = PANEL_COLS;
            const PAIR_BYTES: usize = INDICES_AT + 2 * 2 * $indices;
            #[target_feature(enable = "avx2,fma,f16c")]
            #[inline]
            unsafe fn heads($p: Blocks8, $heads: *mut __m256) {
                // SAFETY: the caller vouches for AVX2, F16C, the blocks and room for eight heads
                // and what belongs to the pairs.
                unsafe {
                    $head;
                    for i in 0..4 {
                        let pair = Head::<Self>::pair($heads, i).cast_mut();
                        let mut signs = [_mm256_setzero_si256(); 2];
                        for j in 0..2 {
                            let $row = $p[i + j * 4];
                            let $to = pair.add(INDICES_AT + j * 2 * $indices);
                            signs[j] = $signs;
                        }
                        write_signs(signs[0], signs[1], pair);
                    }
                }
            }
            #[target_feature(enable = "avx2,fma,f16c")]
            #[inline]
            unsafe fn halves($b: [*const u8; 2], $g: usize, $pair: *const u8) -> [__m256i; 2] {
                // SAFETY: the caller vouches for AVX2, the blocks and the pair; `g` is below 8.
                unsafe { $halves }
            }
        }
    };
}

grid!(
    IQ3_XXS,
    98,
    SixBits,
    indices: 0,
    |p, heads| {
        let d = times(f16x8(p, 0), 0.5);
        for half in 0..2 {
            let mut rows = [_mm256_setzero_si256(); 4];
            for (i, row) in rows.iter_mut().enumerate() {
                *row = load2([p[i], p[i + 4]], 66 + half * 16);
            }
            for (j, words) in transpose(rows).into_iter().enumerate() {
                head::<IQ3_XXS>(d, odd_scale(words, 28), 31.0, heads, half * 4 + j);
            }
        }
    },
    |row, _to| packed_signs(swap_middle(load(row, 66))),
    |b, g, pair| {
        let entry = |b: *const u8, i: usize| IQ3_XXS_PLACES[usize::from(b.add(2 + g * 8 + i).read())];
        let entries = fours(std::array::from_fn(|i| entry(b[0], i)), std::array::from_fn(|i| entry(b[1], i)));
        signed(entries, signs(pair, g), &IQ3_XXS_INTEGERS)
    }
);

grid!(
    IQ3_S,
    110,
    Nibble,
    indices: 64,
    |p, heads| {
        let d = times(f16x8(p, 0), 2.0);
        let words = word(p, 106);
        for g in 0..8 {
            head::<IQ3_S>(d, odd_scale(words, g as i32 * 4), 7.5, heads, g);
        }
    },
    |row, to| {
        let high = row.add(66).cast::<u64>().read_unaligned();
        for i in 0..4 {
            write_indices::<1>(row.add(2 + i * 16), high, i as i64 * 2, to.add(i * 32));
        }
        swap_middle(load(row, 74))
    },
    |_b, g, pair| {
        let row = |row: usize| {
            let indices = pair.add(INDICES_AT + row * 128 + g * 16);
            std::array::from_fn(|i| entry(&IQ3_S_PLACES, indices, i))
        };
        signed(fours(row(0), row(1)), signs(pair, g), &IQ3_S_INTEGERS)
    }
);

grid!(
    IQ2_XXS,
    66,
    SevenBits,
    indices: 0,
    |p, heads| {
        let d = times(f16x8(p, 0), 0.125);
        for pair in 0..4 {
            let mut rows = [_mm256_setzero_si256(); 4];
            for (i, row) in rows.iter_mut().enumerate() {
                *row = load2([p[i], p[i + 4]], 2 + pair * 16);
            }
            let [_, first, _, second] = transpose(rows);
            head::<IQ2_XXS>(d, odd_scale(first, 28), 43.0, heads, pair * 2);
            head::<IQ2_XXS>(d, odd_scale(second, 28), 43.0, heads, pair * 2 + 1);
        }
    },
    |row, _to| {
        let [a, b] = [2, 34].map(|at| _mm256_castsi256_ps(load(row, at)));
        packed_signs(_mm256_castps_si256(_mm256_shuffle_ps::<0b11_01_11_01>(a, b)))
    },
    |b, g, pair| {
        let entry = |b: *const u8, i: usize| IQ2_XXS_PLACES[usize::from(b.add(2 + g * 8 + i).read())];
        let entries = eights(std::array::from_fn(|i| entry(b[0], i)), std::array::from_fn(|i| entry(b[1], i)));
        signed(entries, signs(pair, g), &IQ2_INTEGERS)
    }
);

grid!(
    IQ2_XS,
    74,
    SubScaledSevenBits,
    indices: 32,
    |p, heads| sub_scaled::<IQ2_XS>(times(f16x8(p, 0), 0.125), p, 66, 43.0, heads),
    |row, to| {
        let words = [load(row, 2), load(row, 34)];
        for i in 0..2 {
            _mm256_storeu_si256(to.add(i * 32).cast(), _mm256_and_si256(words[i], _mm256_set1_epi16(511)));
        }
        even_signs(_mm256_packus_epi16(_mm256_srli_epi16::<9>(words[0]), _mm256_srli_epi16::<9>(words[1])))
    },
    |_b, g, pair| {
        let row = |row: usize| {
            let indices = pair.add(INDICES_AT + row * 64 + g * 8);
            std::array::from_fn(|i| entry(&IQ2_XS_PLACES, indices, i))
        };
        signed(eights(row(0), row(1)), signs(pair, g), &IQ2_INTEGERS)
    }
);

grid!(
    IQ2_S,
    82,
    SubScaledSevenBits,
    indices: 32,
    |p, heads| sub_scaled::<IQ2_S>(times(f16x8(p, 0), 0.125), p, 74, 43.0, heads),
    |row, to| {
        let high = row.add(66).cast::<u64>().read_unaligned();
        for i in 0..2 {
            write_indices::<2>(row.add(2 + i * 16), high, i as i64 * 4, to.add(i * 32));
        }
        swap_middle(load(row, 34))
    },
    |_b, g, pair| {
        let row = |row: usize| {
            let indices = pair.add(INDICES_AT + row * 64 + g * 8);
            std::array::from_fn(|i| entry(&IQ2_S_PLACES, indices, i))
        };
        signed(eights(row(0), row(1)), signs(pair, g), &IQ2_INTEGERS)
    }
);

//! The formats of 256-element blocks: a step is half a block of each row.

use std::arch::x86_64::*;

use super::step::{
    Bytes, Format, ROWS, Scales, Words, bits, byte_floats, in_all_lanes, lanes, load, pick, row_in_lane, widen,
};

/// The index of [`byte_floats`] for bytes `at`, `at + by`, ... of each row's lane: one for each run of a step.
const fn run_bytes(at: usize, by: usize) -> Bytes {
    let mut out = [0; 64];
    let mut l = 0;
    while l < 16 {
        out[l * 4] = (16 * (l % 4) + at + l / 4 * by) as u8;
        l += 1;
    }
    Bytes(out)
}

/// The index that gives every lane the f16 at words `at` and `at + 1` of each row's lane: the first in the lower half.
const fn row_words(at: usize) -> Words {
    let mut out = [0; 32];
    let mut l = 0;
    while l < 32 {
        out[l] = (8 * (l % 4) + at + l / 16) as u16;
        l += 1;
    }
    Words(out)
}

/// The index that spreads the integer scales of a step's 8 sub-blocks as [`Format::multipliers`] says.
const fn multiplier_words(step: usize) -> Words {
    let mut out = [0; 32];
    let mut i = 0;
    while i < 32 {
        out[i] = (8 * step + i / 4) as u16;
        i += 1;
    }
    Words(out)
}

/// 16 scales (i16) as [`Format::multipliers`] says.
///
/// # Safety
/// AVX-512 BW.
#[inline(always)]
unsafe fn spread_multipliers(scales: __m256i, step: usize) -> __m512i {
    static INDEX: [Words; 2] = [multiplier_words(0), multiplier_words(1)];
    // SAFETY: the caller vouches for it.
    unsafe { _mm512_permutexvar_epi16(INDEX[step].get(), _mm512_castsi256_si512(scales)) }
}

/// The f16 at `at` of each row, in every lane.
///
/// # Safety
/// AVX-512 and F16C; two bytes can be read there.
#[inline(always)]
unsafe fn row_scales(rows: [*const u8; ROWS], at: usize) -> __m512 {
    // SAFETY: the caller vouches for both.
    unsafe {
        let word = |i: usize| i32::from(rows[i].add(at).cast::<u16>().read_unaligned());
        let v = _mm_cvtsi32_si128(word(0));
        let v = _mm_insert_epi16::<1>(v, word(1));
        let v = _mm_insert_epi16::<2>(v, word(2));
        let v = _mm_insert_epi16::<3>(v, word(3));
        _mm512_broadcast_f32x4(_mm_cvtph_ps(v))
    }
}

/// Scales and minimums of Q4_K and Q5_K: `bytes` holds, in row `i`'s lane, 8 scales and 8 minimums.
#[derive(Clone, Copy)]
pub(super) struct Pairs {
    d: __m512,
    minus_dmin: __m512,
    bytes: __m512i,
}

/// A byte index that is the same in every lane.
const fn per_lane(lane: [u8; 16]) -> Bytes {
    let mut out = [0; 64];
    let mut i = 0;
    while i < 64 {
        out[i] = lane[i % 16];
        i += 1;
    }
    Bytes(out)
}

/// Decodes f16 d, f16 dmin and 12 bytes of 6-bit scales and minimums of four rows.
///
/// # Safety
/// AVX-512 with VBMI, GFNI; 16 bytes can be read.
#[inline(always)]
unsafe fn pairs(rows: [*const u8; ROWS]) -> Pairs {
    const NONE: u8 = 0x80;
    // With s the 12 bytes: s0-3, s8-11, s4-7, s8-11 hold the low bits of scales 0-3, 4-7, minimums 0-3, 4-7.
    static LOW_BITS: Bytes = per_lane([4, 5, 6, 7, 12, 13, 14, 15, 8, 9, 10, 11, 12, 13, 14, 15]);
    // In bits 0.. of the byte, but the last four in bits 4.. (a shift within each qword).
    static SHIFTS: Bytes = per_lane([0, 8, 16, 24, 32, 40, 48, 56, 0, 8, 16, 24, 36, 44, 52, 60]);
    static MASKS: Bytes = per_lane([63, 63, 63, 63, 15, 15, 15, 15, 63, 63, 63, 63, 15, 15, 15, 15]);
    // The upper two bits of s0-3 and s4-7 are bits 4-5 of scales and minimums 4-7.
    static TOP_BITS: Bytes = per_lane([NONE, NONE, NONE, NONE, 4, 5, 6, 7, NONE, NONE, NONE, NONE, 8, 9, 10, 11]);
    static TOP: Bytes = lanes([pick(2, 6, 4); 4]);
    static FACTORS: Words = row_words(0);
    // SAFETY: the caller vouches for both.
    unsafe {
        let headers = row_in_lane(rows);
        let [d, dmin] = widen(_mm512_permutexvar_epi16(FACTORS.get(), headers));
        let low = _mm512_multishift_epi64_epi8(SHIFTS.get(), _mm512_shuffle_epi8(headers, LOW_BITS.get()));
        let top = bits(_mm512_shuffle_epi8(headers, TOP_BITS.get()), &TOP);
        // (low & masks) | top
        let bytes = _mm512_ternarylogic_epi32::<0xea>(low, MASKS.get(), top);
        Pairs { d, minus_dmin: _mm512_sub_ps(_mm512_setzero_ps(), dmin), bytes }
    }
}

impl Pairs {
    /// # Safety
    /// AVX-512 with VBMI.
    #[inline(always)]
    unsafe fn scales(&self, step: usize) -> Scales {
        static SCALES: [Bytes; 2] = [run_bytes(0, 1), run_bytes(4, 1)];
        static MINS: [Bytes; 2] = [run_bytes(8, 1), run_bytes(12, 1)];
        // SAFETY: the caller vouches for it.
        unsafe {
            let min = _mm512_mul_ps(self.minus_dmin, byte_floats(self.bytes, &MINS[step]));
            Scales { scale: _mm512_mul_ps(self.d, byte_floats(self.bytes, &SCALES[step])), min: [min; 2] }
        }
    }
}

/// 64 bytes of which each 32 hold a run low and the next run high.
///
/// # Safety
/// AVX-512, GFNI; 64 bytes can be read.
#[inline(always)]
unsafe fn nibbles_of_pairs(p: *const u8) -> [__m512i; 2] {
    static NIBBLES: Bytes = lanes([pick(4, 0, 0), pick(4, 4, 0), pick(4, 0, 0), pick(4, 4, 0)]);
    // SAFETY: the caller vouches for both.
    unsafe {
        let v = load::<false>(p, 0, 0);
        let first = _mm512_shuffle_i64x2::<0b10_10_00_00>(v, v);
        let second = _mm512_shuffle_i64x2::<0b11_11_01_01>(v, v);
        [bits(first, &NIBBLES), bits(second, &NIBBLES)]
    }
}

/// Both halves of 32 bytes, in every lane, through the matrices.
///
/// # Safety
/// AVX-512, GFNI; 32 bytes can be read.
#[inline(always)]
unsafe fn bits_of_32(p: *const u8, matrices: &Bytes) -> [__m512i; 2] {
    // SAFETY: the caller vouches for both.
    unsafe { [bits(in_all_lanes(p), matrices), bits(in_all_lanes(p.add(16)), matrices)] }
}

/// # Safety
/// AVX-512.
#[inline(always)]
unsafe fn or(a: [__m512i; 2], b: [__m512i; 2]) -> [__m512i; 2] {
    // SAFETY: the caller vouches for it.
    unsafe { [_mm512_or_si512(a[0], b[0]), _mm512_or_si512(a[1], b[1])] }
}

/// Bit `first + j` in lane `j`, moved to `to`.
const fn one_bit(first: usize, to: usize) -> Bytes {
    lanes([pick(1, first, to), pick(1, first + 1, to), pick(1, first + 2, to), pick(1, first + 3, to)])
}

/// Bits `2j` and `2j + 1` in lane `j`, moved to `to`.
const fn two_bits(to: usize) -> Bytes {
    lanes([pick(2, 0, to), pick(2, 2, to), pick(2, 4, to), pick(2, 6, to)])
}

/// See the format's definition, `format::Q4_K`.
#[allow(non_camel_case_types, reason = "the format's own name")]
pub(super) struct Q4_K;
// SAFETY: loads are within the block's 144 bytes.
unsafe impl Format for Q4_K {
    const BYTES: usize = 144;
    const BLOCK_RUNS: usize = 8;
    const MINS: usize = 1;
    type Head = Pairs;

    #[inline(always)]
    unsafe fn head<const TAIL: bool>(rows: [*const u8; ROWS], _n_bytes: usize) -> Pairs {
        // SAFETY: the caller vouches for the CPU and the block.
        unsafe { pairs(rows) }
    }

    #[inline(always)]
    unsafe fn scales(head: &Pairs, step: usize) -> Scales {
        // SAFETY: the caller vouches for the CPU.
        unsafe { head.scales(step) }
    }

    #[inline(always)]
    unsafe fn quants<const TAIL: bool>(row: *const u8, step: usize, _n_bytes: usize) -> [__m512i; 2] {
        // SAFETY: the caller vouches for the CPU and the block.
        unsafe { nibbles_of_pairs(row.add(16 + 64 * step)) }
    }
}

/// See the format's definition, `format::Q5_K`.
#[allow(non_camel_case_types, reason = "the format's own name")]
pub(super) struct Q5_K;
// SAFETY: loads are within the block's 176 bytes.
unsafe impl Format for Q5_K {
    const BYTES: usize = 176;
    const BLOCK_RUNS: usize = 8;
    const MINS: usize = 1;
    type Head = Pairs;

    #[inline(always)]
    unsafe fn head<const TAIL: bool>(rows: [*const u8; ROWS], _n_bytes: usize) -> Pairs {
        // SAFETY: the caller vouches for the CPU and the block.
        unsafe { pairs(rows) }
    }

    #[inline(always)]
    unsafe fn scales(head: &Pairs, step: usize) -> Scales {
        // SAFETY: the caller vouches for the CPU.
        unsafe { head.scales(step) }
    }

    #[inline(always)]
    unsafe fn quants<const TAIL: bool>(row: *const u8, step: usize, _n_bytes: usize) -> [__m512i; 2] {
        static FIFTH: [Bytes; 2] = [one_bit(0, 4), one_bit(4, 4)];
        // SAFETY: the caller vouches for the CPU and the block.
        unsafe { or(nibbles_of_pairs(row.add(48 + 64 * step)), bits_of_32(row.add(16), &FIFTH[step])) }
    }
}

/// See the format's definition, `format::Q6_K`.
#[allow(non_camel_case_types, reason = "the format's own name")]
pub(super) struct Q6_K;
// SAFETY: loads are within the block's 210 bytes.
unsafe impl Format for Q6_K {
    const BYTES: usize = 210;
    const BLOCK_RUNS: usize = 8;
    const CENTRE: u8 = 32;
    const SUB16: bool = true;
    type Head = Scales;

    #[inline(always)]
    unsafe fn head<const TAIL: bool>(rows: [*const u8; ROWS], _n_bytes: usize) -> Scales {
        // SAFETY: the caller vouches for the CPU and the block.
        unsafe { Scales { scale: row_scales(rows, 208), min: [_mm512_setzero_ps(); 2] } }
    }

    #[inline(always)]
    unsafe fn scales(head: &Scales, _step: usize) -> Scales {
        *head
    }

    #[inline(always)]
    unsafe fn quants<const TAIL: bool>(row: *const u8, step: usize, _n_bytes: usize) -> [__m512i; 2] {
        // Runs 0 and 1 are the low nibbles of 64 bytes, runs 2 and 3 the high ones.
        static NIBBLES: Bytes = lanes([pick(4, 0, 0), pick(4, 0, 0), pick(4, 4, 0), pick(4, 4, 0)]);
        static TOP: Bytes = two_bits(4);
        // SAFETY: the caller vouches for the CPU and the block.
        unsafe {
            let v = load::<false>(row, 64 * step, 0);
            let first = _mm512_shuffle_i64x2::<0b10_00_10_00>(v, v);
            let second = _mm512_shuffle_i64x2::<0b11_01_11_01>(v, v);
            or([bits(first, &NIBBLES), bits(second, &NIBBLES)], bits_of_32(row.add(128 + 32 * step), &TOP))
        }
    }

    #[inline(always)]
    unsafe fn multipliers(row: *const u8, step: usize) -> __m512i {
        // SAFETY: the caller vouches for the CPU and the block.
        unsafe { spread_multipliers(_mm256_cvtepi8_epi16(_mm_loadu_si128(row.add(192).cast())), step) }
    }
}

/// See the format's definition, `format::Q3_K`.
#[allow(non_camel_case_types, reason = "the format's own name")]
pub(super) struct Q3_K;
// SAFETY: loads are within the block's 110 bytes.
unsafe impl Format for Q3_K {
    const BYTES: usize = 110;
    const BLOCK_RUNS: usize = 8;
    const CENTRE: u8 = 4;
    const SUB16: bool = true;
    type Head = Scales;

    #[inline(always)]
    unsafe fn head<const TAIL: bool>(rows: [*const u8; ROWS], _n_bytes: usize) -> Scales {
        // SAFETY: the caller vouches for the CPU and the block.
        unsafe { Scales { scale: row_scales(rows, 108), min: [_mm512_setzero_ps(); 2] } }
    }

    #[inline(always)]
    unsafe fn scales(head: &Scales, _step: usize) -> Scales {
        *head
    }

    #[inline(always)]
    unsafe fn quants<const TAIL: bool>(row: *const u8, step: usize, _n_bytes: usize) -> [__m512i; 2] {
        static LOW: Bytes = two_bits(0);
        static THIRD: [Bytes; 2] = [one_bit(0, 2), one_bit(4, 2)];
        // SAFETY: the caller vouches for the CPU and the block.
        unsafe { or(bits_of_32(row.add(32 + 32 * step), &LOW), bits_of_32(row, &THIRD[step])) }
    }

    #[inline(always)]
    unsafe fn multipliers(row: *const u8, step: usize) -> __m512i {
        // SAFETY: the caller vouches for the CPU and the block.
        unsafe {
            let word = |i: usize| row.add(96 + i * 4).cast::<u32>().read_unaligned();
            let (a, b, c) = (word(0), word(1), word(2));
            let low = |v: u32| v & 0x0f0f_0f0f;
            let high = |v: u32| (v & 0x0303_0303) << 4;
            // Scales 8 * step.. to 8 * step + 7.
            let (first, second) = if step == 0 {
                (low(a) | high(c), low(b) | high(c >> 2))
            } else {
                (low(a >> 4) | high(c >> 4), low(b >> 4) | high(c >> 6))
            };
            let eight = _mm_cvtsi64_si128((u64::from(first) | u64::from(second) << 32) as i64);
            let scales = _mm256_cvtepi8_epi16(_mm_sub_epi8(eight, _mm_set1_epi8(32)));
            spread_multipliers(scales, 0)
        }
    }
}

/// Q2_K's common factors, and in row `i`'s lane the minimums of its 16 sub-blocks.
#[derive(Clone, Copy)]
pub(super) struct Mins16 {
    d: __m512,
    minus_dmin: __m512,
    mins: __m512i,
}

/// See the format's definition, `format::Q2_K`.
#[allow(non_camel_case_types, reason = "the format's own name")]
pub(super) struct Q2_K;
// SAFETY: loads are within the block's 84 bytes.
unsafe impl Format for Q2_K {
    const BYTES: usize = 84;
    const BLOCK_RUNS: usize = 8;
    const SUB16: bool = true;
    const MINS: usize = 2;
    type Head = Mins16;

    #[inline(always)]
    unsafe fn head<const TAIL: bool>(rows: [*const u8; ROWS], _n_bytes: usize) -> Mins16 {
        static HIGH: Bytes = lanes([pick(4, 4, 0); 4]);
        // SAFETY: the caller vouches for the CPU and the block.
        unsafe {
            Mins16 {
                d: row_scales(rows, 80),
                minus_dmin: _mm512_sub_ps(_mm512_setzero_ps(), row_scales(rows, 82)),
                mins: bits(row_in_lane(rows), &HIGH),
            }
        }
    }

    #[inline(always)]
    unsafe fn scales(head: &Mins16, step: usize) -> Scales {
        static MINS: [[Bytes; 2]; 2] = [[run_bytes(0, 2), run_bytes(1, 2)], [run_bytes(8, 2), run_bytes(9, 2)]];
        // SAFETY: the caller vouches for the CPU.
        unsafe {
            let first = _mm512_mul_ps(head.minus_dmin, byte_floats(head.mins, &MINS[step][0]));
            let second = _mm512_mul_ps(head.minus_dmin, byte_floats(head.mins, &MINS[step][1]));
            Scales { scale: head.d, min: [first, second] }
        }
    }

    #[inline(always)]
    unsafe fn quants<const TAIL: bool>(row: *const u8, step: usize, _n_bytes: usize) -> [__m512i; 2] {
        static LOW: Bytes = two_bits(0);
        // SAFETY: the caller vouches for the CPU and the block.
        unsafe { bits_of_32(row.add(16 + 32 * step), &LOW) }
    }

    #[inline(always)]
    unsafe fn multipliers(row: *const u8, step: usize) -> __m512i {
        // SAFETY: the caller vouches for the CPU and the block.
        unsafe {
            let scales = _mm_and_si128(_mm_loadu_si128(row.cast()), _mm_set1_epi8(15));
            spread_multipliers(_mm256_cvtepu8_epi16(scales), step)
        }
    }
}

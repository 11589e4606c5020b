//! The formats of 256-element blocks: a step is half a block of each row.

use std::arch::x86_64::*;

use super::step::{
    Bytes, Format, ROWS, Scales, Words, bits, byte_floats, in_all_lanes, lanes, load, pick, row_in_lane, signed_floats,
    widen,
};

/// The index of [`byte_floats`] for bytes `at`, `at + by`, ... of each row's lane: one for each run
/// of a step.
const fn run_bytes(at: usize, by: usize) -> Bytes {
    let mut out = [0; 64];
    let mut l = 0;
    while l < 16 {
        out[l * 4] = (16 * (l % 4) + at + l / 4 * by) as u8;
        l += 1;
    }
    Bytes(out)
}

/// The index that gives every lane the f16 at words `at` and `at + 1` of each row's lane: the first
/// in the lower half.
const fn row_words(at: usize) -> Words {
    let mut out = [0; 32];
    let mut l = 0;
    while l < 32 {
        out[l] = (8 * (l % 4) + at + l / 16) as u16;
        l += 1;
    }
    Words(out)
}

/// The index of [`signed_floats`] for bytes `at`, `at + 2`, ... of each row's lane: one for each
/// run of a step.
const fn half_run_bytes(at: usize) -> Bytes {
    let mut out = [0; 64];
    let mut l = 0;
    while l < 16 {
        out[l * 4 + 3] = (16 * (l % 4) + at + l / 4 * 2) as u8;
        l += 1;
    }
    Bytes(out)
}

/// The index that spreads the bytes of row `r`'s 8 sub-blocks of a step as [`Format::multipliers`]
/// says, each to the upper half of a word.
const fn multiplier_bytes(r: usize, step: usize) -> Bytes {
    let mut out = [0; 64];
    let mut i = 0;
    while i < 32 {
        out[i * 2 + 1] = (16 * r + 8 * step + i / 4) as u8;
        i += 1;
    }
    Bytes(out)
}

/// The f16 at `at` of each row, in every lane.
///
/// # Safety
/// AVX-512 and F16C; two bytes can be read there.
#[inline(always)]
pub(super) unsafe fn row_scales(rows: [*const u8; ROWS], at: usize) -> __m512 {
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
pub(super) const fn per_lane(lane: [u8; 16]) -> Bytes {
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
    // With s the 12 bytes: s0-3, s8-11, s4-7, s8-11 hold the low bits of scales 0-3, 4-7, minimums
    // 0-3, 4-7.
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
            let scale = _mm512_mul_ps(self.d, byte_floats(self.bytes, &SCALES[step]));
            Scales { scale, sub: [_mm512_setzero_ps(); 2], offset: [min; 2] }
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
    const OFFSETS: usize = 1;
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
    const OFFSETS: usize = 1;
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

/// What belongs to the 16 sub-blocks of four rows. Row `i`'s lane holds a byte for each of them.
#[derive(Clone, Copy)]
pub(super) struct Sixteenths {
    d: __m512,
    /// Signed integer scales.
    scales: __m512i,
    /// What multiplies the minimums, and these: zeros where integers have a centre instead.
    factor: __m512,
    mins: __m512i,
}

impl Sixteenths {
    /// The head of a format without minimums.
    ///
    /// # Safety
    /// AVX-512 F.
    #[inline(always)]
    unsafe fn centred(d: __m512, scales: __m512i) -> Sixteenths {
        // SAFETY: the caller vouches for it.
        unsafe { Sixteenths { d, scales, factor: _mm512_setzero_ps(), mins: _mm512_setzero_si512() } }
    }

    /// See [`Format::scales`].
    ///
    /// # Safety
    /// AVX-512 with VBMI.
    #[inline(always)]
    unsafe fn scales(&self, step: usize) -> Scales {
        static INDEX: [[Bytes; 2]; 2] =
            [[half_run_bytes(0), half_run_bytes(1)], [half_run_bytes(8), half_run_bytes(9)]];
        // SAFETY: the caller vouches for it.
        unsafe {
            let [first, second] = &INDEX[step];
            Scales {
                scale: self.d,
                sub: [signed_floats(self.scales, first), signed_floats(self.scales, second)],
                offset: [
                    _mm512_mul_ps(self.factor, signed_floats(self.mins, first)),
                    _mm512_mul_ps(self.factor, signed_floats(self.mins, second)),
                ],
            }
        }
    }

    /// See [`Format::multipliers`].
    ///
    /// # Safety
    /// AVX-512 with VBMI.
    #[inline(always)]
    unsafe fn multipliers(&self, r: usize, step: usize) -> __m512i {
        static INDEX: [[Bytes; ROWS]; 2] = [
            [multiplier_bytes(0, 0), multiplier_bytes(1, 0), multiplier_bytes(2, 0), multiplier_bytes(3, 0)],
            [multiplier_bytes(0, 1), multiplier_bytes(1, 1), multiplier_bytes(2, 1), multiplier_bytes(3, 1)],
        ];
        // SAFETY: the caller vouches for it.
        unsafe {
            let high = _mm512_maskz_permutexvar_epi8(0xaaaa_aaaa_aaaa_aaaa, INDEX[step][r].get(), self.scales);
            _mm512_srai_epi16::<8>(high)
        }
    }
}

macro_rules! sub16 {
    ($name:ident, $bytes:literal, centre: $centre:literal, offsets: $offsets:literal,
     |$rows:ident| $head:expr, |$row:ident, $step:ident| $quants:expr) => {
        #[doc = concat!("See the format's definition, `format::", stringify!($name), "`.")]
        #[allow(non_camel_case_types, reason = "the format's own name")]
        pub(super) struct $name;
        // SAFETY: loads are within the block.
        unsafe impl Format for $name {
            const BYTES: usize = $bytes;
            const BLOCK_RUNS: usize = 8;
            const SUB16: bool = true;
            const CENTRE: i8 = $centre;
            const OFFSETS: usize = $offsets;
            type Head = Sixteenths;

            #[inline(always)]
            unsafe fn head<const TAIL: bool>($rows: [*const u8; ROWS], _n_bytes: usize) -> Sixteenths {
                // SAFETY: the caller vouches for the CPU and the block.
                unsafe { $head }
            }

            #[inline(always)]
            unsafe fn scales(head: &Sixteenths, step: usize) -> Scales {
                // SAFETY: the caller vouches for the CPU.
                unsafe { head.scales(step) }
            }

            #[inline(always)]
            unsafe fn quants<const TAIL: bool>($row: *const u8, $step: usize, _n_bytes: usize) -> [__m512i; 2] {
                // SAFETY: the caller vouches for the CPU and the block.
                unsafe { $quants }
            }

            #[inline(always)]
            unsafe fn multipliers(head: &Sixteenths, r: usize, step: usize) -> __m512i {
                // SAFETY: the caller vouches for the CPU.
                unsafe { head.multipliers(r, step) }
            }
        }
    };
}

sub16!(
    Q6_K,
    210,
    centre: 32,
    offsets: 0,
    |rows| Sixteenths::centred(row_scales(rows, 208), row_in_lane(rows.map(|p| p.add(192)))),
    |row, step| {
        // Runs 0 and 1 are the low nibbles of 64 bytes, runs 2 and 3 the high ones.
        static NIBBLES: Bytes = lanes([pick(4, 0, 0), pick(4, 0, 0), pick(4, 4, 0), pick(4, 4, 0)]);
        static TOP: Bytes = two_bits(4);
        let v = load::<false>(row, 64 * step, 0);
        let first = _mm512_shuffle_i64x2::<0b10_00_10_00>(v, v);
        let second = _mm512_shuffle_i64x2::<0b11_01_11_01>(v, v);
        or([bits(first, &NIBBLES), bits(second, &NIBBLES)], bits_of_32(row.add(128 + 32 * step), &TOP))
    }
);

sub16!(
    Q3_K,
    110,
    centre: 4,
    offsets: 0,
    |rows| {
        // The twelve bytes of scales are the third to fourteenth of these sixteen, which end with
        // the block: words a, b, c. Scales 0.. and 4.. are the low nibbles of a and b, 8.. and 12..
        // the high ones; c holds the upper two bits of all.
        static LOW: Bytes = per_lane([2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5, 6, 7, 8, 9]);
        static HIGH: Bytes = per_lane([10, 11, 12, 13, 10, 11, 12, 13, 10, 11, 12, 13, 10, 11, 12, 13]);
        let v = row_in_lane(rows.map(|p| p.add(94)));
        let low = _mm512_shuffle_epi8(v, LOW.get());
        let low = _mm512_srlv_epi64(low, _mm512_broadcast_i32x4(_mm_set_epi64x(4, 0)));
        let high = _mm512_shuffle_epi8(v, HIGH.get());
        let high = _mm512_srlv_epi32(high, _mm512_broadcast_i32x4(_mm_setr_epi32(0, 2, 4, 6)));
        let high = _mm512_slli_epi16::<4>(_mm512_and_si512(high, _mm512_set1_epi8(3)));
        let scales = _mm512_or_si512(_mm512_and_si512(low, _mm512_set1_epi8(15)), high);
        Sixteenths::centred(row_scales(rows, 108), _mm512_sub_epi8(scales, _mm512_set1_epi8(32)))
    },
    |row, step| {
        static LOW: Bytes = two_bits(0);
        static THIRD: [Bytes; 2] = [one_bit(0, 2), one_bit(4, 2)];
        or(bits_of_32(row.add(32 + 32 * step), &LOW), bits_of_32(row, &THIRD[step]))
    }
);

sub16!(
    Q2_K,
    84,
    centre: 0,
    offsets: 2,
    |rows| {
        static LOW: Bytes = lanes([pick(4, 0, 0); 4]);
        static HIGH: Bytes = lanes([pick(4, 4, 0); 4]);
        let both = row_in_lane(rows);
        Sixteenths {
            d: row_scales(rows, 80),
            factor: _mm512_mul_ps(row_scales(rows, 82), _mm512_set1_ps(-1.0)),
            scales: bits(both, &LOW),
            mins: bits(both, &HIGH),
        }
    },
    |row, step| {
        static LOW: Bytes = two_bits(0);
        bits_of_32(row.add(16 + 32 * step), &LOW)
    }
);

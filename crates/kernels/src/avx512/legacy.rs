//! The formats of 32-element blocks: a step is four blocks of each row, at most 136 bytes, which
//! two overlapping 64-byte loads cover (for Q8_0 two pairs of them).

use std::arch::x86_64::*;

use super::step::{Bytes, Format, ROWS, Scales, Words, bits, lanes, load, pick, widen};

/// Low nibbles as they are.
pub(super) static LOW: Bytes = lanes([pick(4, 0, 0); 4]);
/// High nibbles moved down.
pub(super) static HIGH: Bytes = lanes([pick(4, 4, 0); 4]);

/// Where byte `at` of a step is in two loads, the second of which starts at `second`: an index for
/// a two-source permutation of elements of `width` bytes.
const fn source(at: usize, second: usize, width: usize) -> usize {
    if at < 64 { at / width } else { (64 + at - second) / width }
}

/// The index that gathers 16 bytes from offset `at` of each block into its lane.
pub(super) const fn sixteen(bytes: usize, at: usize, second: usize) -> Bytes {
    let mut out = [0; 64];
    let mut i = 0;
    while i < 64 {
        out[i] = source(i / 16 * bytes + at + i % 16, second, 1) as u8;
        i += 1;
    }
    Bytes(out)
}

/// The index that puts byte `at + h` of each block into byte 3 of qword `h` of its lane and byte
/// `at + 2 + h` into byte 7: as a GFNI matrix, that moves bits of the first to bit 4 and of the
/// second to bit 0.
const fn fifth(bytes: usize, at: usize, second: usize) -> Bytes {
    let mut out = [0; 64];
    let mut q = 0;
    while q < 8 {
        let byte = q / 2 * bytes + at + q % 2;
        out[q * 8 + 3] = source(byte, second, 1) as u8;
        out[q * 8 + 7] = source(byte + 2, second, 1) as u8;
        q += 1;
    }
    Bytes(out)
}

/// The index that gathers the f16 at offset 0 of block `l / 4` into word `l`, that at offset 2 into
/// word `16 + l`. Each word is looked for in one load only: `source` modulo 32, the mask says in
/// which.
pub(super) const fn header(bytes: usize, second: usize) -> Words {
    let mut out = [0; 32];
    let mut l = 0;
    while l < 16 {
        out[l] = (source(l / 4 * bytes, second, 2) % 32) as u16;
        out[16 + l] = (source(l / 4 * bytes + 2, second, 2) % 32) as u16;
        l += 1;
    }
    Words(out)
}

/// The f16 fields of four blocks of four rows: those at offset 0 and those at offset 2, in the
/// order of [`Scales`].
///
/// # Safety
/// As [`Format::head`].
#[inline(always)]
pub(super) unsafe fn fields<const TAIL: bool>(
    rows: [*const u8; ROWS],
    bytes: usize,
    second: usize,
    index: &Words,
    n_bytes: usize,
) -> __m512i {
    // How many blocks have their header in the first load.
    let first_blocks = 4.min(60 / bytes + 1);
    let first_words = ((1u32 << (4 * first_blocks)) - 1) * 0x1_0001;
    // SAFETY: the caller vouches for the CPU and the bytes.
    unsafe {
        let index = index.get();
        let mut words = _mm512_setzero_si512();
        for (i, row) in rows.into_iter().enumerate() {
            let own = 0x1111_1111u32 << i;
            let first = load::<TAIL>(row, 0, n_bytes);
            words = _mm512_mask_permutexvar_epi16(words, own & first_words, index, first);
            if first_blocks < 4 {
                let rest = load::<TAIL>(row, second, n_bytes);
                words = _mm512_mask_permutexvar_epi16(words, own & !first_words, index, rest);
            }
        }
        words
    }
}

/// Two sets of bytes that `index` names, of a step's two loads.
///
/// # Safety
/// As [`Format::quants`].
#[inline(always)]
pub(super) unsafe fn gather<const TAIL: bool>(row: *const u8, second: usize, index: &Bytes, n_bytes: usize) -> __m512i {
    // SAFETY: the caller vouches for the CPU and the bytes.
    unsafe {
        let (a, b) = (load::<TAIL>(row, 0, n_bytes), load::<TAIL>(row, second, n_bytes));
        _mm512_permutex2var_epi8(a, index.get(), b)
    }
}

/// Bits 0..8 in turn.
static EACH_BIT: Bytes = {
    let mut out = [0; 64];
    let mut i = 0;
    while i < 64 {
        out[i] = 1 << (i % 8);
        i += 1;
    }
    Bytes(out)
};

/// Integers of five bits: `nibble_index` (from [`sixteen`]) says where the lower four are,
/// `fifth_index` (from [`fifth`]) where the others.
///
/// # Safety
/// As [`Format::quants`].
#[inline(always)]
unsafe fn five_bits<const TAIL: bool>(
    row: *const u8,
    second: usize,
    nibble_index: &Bytes,
    fifth_index: &Bytes,
    n_bytes: usize,
) -> [__m512i; 2] {
    /// High nibbles moved down, bit 0 to bit 4.
    static ROTATED: Bytes = lanes([pick(4, 4, 0) | pick(1, 0, 4); 4]);
    // SAFETY: the caller vouches for the CPU and the bytes.
    unsafe {
        let (a, b) = (load::<TAIL>(row, 0, n_bytes), load::<TAIL>(row, second, n_bytes));
        let nibbles = _mm512_permutex2var_epi8(a, nibble_index.get(), b);
        let matrices = _mm512_maskz_permutex2var_epi8(0x8888_8888_8888_8888, a, fifth_index.get(), b);
        // Output byte n has bit 4 set if the matrix's byte 3 has bit n, and bit 0 if its byte 7
        // has.
        let fifths = _mm512_gf2p8affine_epi64_epi8::<0>(EACH_BIT.get(), matrices);
        let low = _mm512_set1_epi8(0x0f);
        // low ? nibbles : fifths, and the other way round
        let first_half = _mm512_ternarylogic_epi32::<0xca>(low, nibbles, fifths);
        let second_half = _mm512_ternarylogic_epi32::<0xac>(low, nibbles, fifths);
        [first_half, bits(second_half, &ROTATED)]
    }
}

/// Scales without offsets, from what [`fields`] gives.
///
/// # Safety
/// AVX-512 F.
#[inline(always)]
pub(super) unsafe fn plain(words: __m512i) -> Scales {
    // SAFETY: the caller vouches for it.
    unsafe {
        let zero = _mm512_setzero_ps();
        Scales { scale: _mm512_cvtph_ps(_mm512_castsi512_si256(words)), sub: [zero; 2], offset: [zero; 2] }
    }
}

/// Scales, and the minimums beside them.
///
/// # Safety
/// AVX-512 F.
#[inline(always)]
unsafe fn with_minimum(words: __m512i) -> Scales {
    // SAFETY: the caller vouches for it.
    unsafe {
        let [scale, min] = widen(words);
        Scales { scale, sub: [_mm512_setzero_ps(); 2], offset: [min; 2] }
    }
}

macro_rules! block32 {
    ($name:ident, $bytes:literal, second: $second:literal, signed: $signed:literal, centre: $centre:literal, offsets: $offsets:literal,
     |$words:ident| $scales:expr, |$row:ident, $n:ident| $quants:expr) => {
        #[doc = concat!("See the format's definition, `format::", stringify!($name), "`.")]
        pub(super) struct $name;
        // SAFETY: loads are within four blocks, masked to `n_bytes` in the tail.
        unsafe impl Format for $name {
            const BYTES: usize = $bytes;
            const BLOCK_RUNS: usize = 1;
            const SIGNED: bool = $signed;
            const CENTRE: i8 = $centre;
            const OFFSETS: usize = $offsets;
            type Head = Scales;

            #[inline(always)]
            unsafe fn head<const TAIL: bool>(rows: [*const u8; ROWS], n_bytes: usize) -> Scales {
                static INDEX: Words = header($bytes, $second);
                // SAFETY: the caller vouches for the CPU and the bytes.
                unsafe {
                    let $words = fields::<TAIL>(rows, $bytes, $second, &INDEX, n_bytes);
                    $scales
                }
            }

            #[inline(always)]
            unsafe fn scales(head: &Scales, _step: usize) -> Scales {
                *head
            }

            #[inline(always)]
            unsafe fn quants<const TAIL: bool>($row: *const u8, _step: usize, $n: usize) -> [__m512i; 2] {
                // SAFETY: the caller vouches for the CPU and the bytes.
                unsafe { $quants }
            }
        }
    };
}

block32!(Q4_0, 18, second: 8, signed: false, centre: 8, offsets: 0, |words| plain(words), |row, n| {
    static INDEX: Bytes = sixteen(18, 2, 8);
    let q = gather::<TAIL>(row, 8, &INDEX, n);
    [bits(q, &LOW), bits(q, &HIGH)]
});

block32!(Q4_1, 20, second: 16, signed: false, centre: 0, offsets: 1, |words| with_minimum(words), |row, n| {
    static INDEX: Bytes = sixteen(20, 4, 16);
    let q = gather::<TAIL>(row, 16, &INDEX, n);
    [bits(q, &LOW), bits(q, &HIGH)]
});

block32!(Q5_0, 22, second: 24, signed: false, centre: 16, offsets: 0, |words| plain(words), |row, n| {
    static INDEX: Bytes = sixteen(22, 6, 24);
    static FIFTH: Bytes = fifth(22, 2, 24);
    five_bits::<TAIL>(row, 24, &INDEX, &FIFTH, n)
});

block32!(Q5_1, 24, second: 32, signed: false, centre: 0, offsets: 1, |words| with_minimum(words), |row, n| {
    static INDEX: Bytes = sixteen(24, 8, 32);
    static FIFTH: Bytes = fifth(24, 4, 32);
    five_bits::<TAIL>(row, 32, &INDEX, &FIFTH, n)
});

/// The index into two loads 68 bytes apart of 16 bytes at offset `at` of each block.
const fn sixteen_of_pairs(at: usize) -> Bytes {
    let mut out = [0; 64];
    let mut i = 0;
    while i < 64 {
        out[i] = (i / 32 * 64 + i / 16 % 2 * 34 + at + i % 16) as u8;
        i += 1;
    }
    Bytes(out)
}

block32!(Q8_0, 34, second: 68, signed: true, centre: 0, offsets: 0, |words| plain(words), |row, n| {
    // First halves lie within bytes 0..64 of a pair of blocks, second halves within 4..68.
    static FIRST: Bytes = sixteen_of_pairs(2);
    static SECOND: Bytes = sixteen_of_pairs(14);
    let (a, b) = (load::<TAIL>(row, 0, n), load::<TAIL>(row, 68, n));
    let (c, d) = (load::<TAIL>(row, 4, n), load::<TAIL>(row, 72, n));
    [_mm512_permutex2var_epi8(a, FIRST.get(), b), _mm512_permutex2var_epi8(c, SECOND.get(), d)]
});

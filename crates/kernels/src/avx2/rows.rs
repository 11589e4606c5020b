//! Eight rows at a time: the unit in which the AVX2 kernels read every quantised format.
//!
//! Rows 0 to 3 stand in the low 128 bits of a register and rows 4 to 7 in the high: what belongs to
//! row `i` and to row `i + 4` is loaded into one register, and no later step crosses its middle.
//! Eight sums or eight scales are one register of f32 or i32, in the order of the rows.

use std::arch::x86_64::*;

/// Rows that are read together.
pub(super) const ROWS: usize = 8;
/// Elements in a run.
pub(super) const RUN: usize = 32;

/// The first bytes of the blocks of eight rows.
pub(super) type Blocks8 = [*const u8; ROWS];

/// How many products of a format's integers a 16-bit sum can hold.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Width {
    /// Unsigned integers of 4 bits at most: sixteen products (15 * 127 * 16 < 2^15).
    Nibble,
    /// Unsigned integers of 5 bits: eight.
    FiveBits,
    /// Unsigned integers of 6 bits: four (63 * 127 * 4 < 2^15).
    SixBits,
    /// Unsigned integers of 7 bits: two.
    SevenBits,
    /// Unsigned integers of 6 bits at most, whose sums meet an integer scale every 16 elements:
    /// four.
    SubScaled,
    /// The same with 7 bits: two.
    SubScaledSevenBits,
    /// Signed bytes: two, if the weight's sign is given to the activation.
    Signed,
}

/// How to read a format, eight rows at a time.
///
/// # Safety
/// For both functions: the CPU has AVX2, FMA and F16C, and all bytes of the blocks at the pointers
/// may be read. Nothing beyond them is read. There is room for what `heads` writes, and `halves` is
/// given what it wrote for the same blocks.
pub(super) unsafe trait Format8 {
    /// Bytes of one block.
    const BYTES: usize;
    /// Runs of 32 elements in one block: 1 or 8.
    const BLOCK_RUNS: usize;
    const WIDTH: Width;
    /// The sums of activations are multiplied with something: a minimum or an offset of the
    /// integers.
    const OFFSET: bool = true;
    /// What the integers are above those of the format's definition, where that is the same for all
    /// and not an offset of the definition's: it is taken off before values become f32, since a
    /// scale may be as large as f32 are.
    const CENTRE: i32 = 0;
    /// All runs of a block are read in the same way, without shifts by their number: nothing is
    /// gained by code for each of them.
    const RUNS_ALIKE: bool = false;
    /// Columns from which on a panel is faster than row-dots, if that is fewer than for others.
    const PANEL_COLS: usize = usize::MAX;

    /// Bytes that are worked out for rows `i` and `i + 4` before their integers are.
    const PAIR_BYTES: usize = 0;

    /// Writes a [`Head`] for each run of the block: vectors of one value a row. Behind them come
    /// [`PAIR_BYTES`](Self::PAIR_BYTES) for each two rows.
    unsafe fn heads(blocks: Blocks8, heads: *mut __m256);

    /// The integers of run `g` of two rows, the first row in the low halves: elements 0..16 and
    /// elements 16..32. `pair` is what [`heads`](Self::heads) worked out for them.
    unsafe fn halves(blocks: [*const u8; 2], g: usize, pair: *const u8) -> [__m256i; 2];
}

/// Where the values of one run stand among those of [`Format8::heads`].
///
/// | vector | content, one a row |
/// |---|---|
/// | 0 | f32 scale |
/// | then, if sub-scaled | two vectors of the integer scale of 16 elements, as two equal i16 |
/// | then, if `OFFSET` | f32 factor of the sum of the activations: one vector, or one for each 16 elements if sub-scaled |
pub(super) struct Head<F>(F);

impl<F: Format8> Head<F> {
    pub const SUB_SCALED: bool = matches!(F::WIDTH, Width::SubScaled | Width::SubScaledSevenBits);
    /// Vectors of a run.
    pub const LEN: usize = Self::OFFSETS_AT + Self::N_OFFSETS;
    pub const OFFSETS_AT: usize = if Self::SUB_SCALED { 3 } else { 1 };
    pub const N_OFFSETS: usize = match (F::OFFSET, Self::SUB_SCALED) {
        (false, _) => 0,
        (true, false) => 1,
        (true, true) => 2,
    };

    /// What belongs to rows `i` and `i + 4`, behind the heads of a block.
    #[inline]
    pub fn pair(heads: *const __m256, i: usize) -> *const u8 {
        const { assert!(F::BLOCK_RUNS * Self::LEN + 4 * F::PAIR_BYTES / 32 <= MAX_HEADS) };
        heads.wrapping_add(F::BLOCK_RUNS * Self::LEN).cast::<u8>().wrapping_add(i * F::PAIR_BYTES)
    }
}

/// Most vectors that [`Format8::heads`] writes.
pub(super) const MAX_HEADS: usize = 8 * 5 + 24;

/// 16 bytes of one row, then 16 bytes of another.
///
/// # Safety
/// AVX2; both can be read.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
pub(super) unsafe fn load2(p: [*const u8; 2], at: usize) -> __m256i {
    // SAFETY: the caller vouches for both.
    unsafe {
        let low = _mm256_castsi128_si256(_mm_loadu_si128(p[0].add(at).cast()));
        _mm256_inserti128_si256::<1>(low, _mm_loadu_si128(p[1].add(at).cast()))
    }
}

/// Four vectors of `(row i, row i + 4)`, each row four 32-bit values: value `j` of all eight rows,
/// in vector `j`.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
pub(super) fn transpose(v: [__m256i; 4]) -> [__m256i; 4] {
    let (a, b) = (_mm256_unpacklo_epi32(v[0], v[1]), _mm256_unpackhi_epi32(v[0], v[1]));
    let (c, d) = (_mm256_unpacklo_epi32(v[2], v[3]), _mm256_unpackhi_epi32(v[2], v[3]));
    [_mm256_unpacklo_epi64(a, c), _mm256_unpackhi_epi64(a, c), _mm256_unpacklo_epi64(b, d), _mm256_unpackhi_epi64(b, d)]
}

/// The same for sixteen bytes a row: bytes `4 * j..4 * j + 4` in vector `j`, of which each has 32
/// bits: its eight rows' bytes as `(byte, row)`, rows 0 to 3 low, rows 4 to 7 high.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
pub(super) fn transpose_bytes(v: [__m256i; 4]) -> [__m256i; 4] {
    let (a, b) = (_mm256_unpacklo_epi8(v[0], v[1]), _mm256_unpackhi_epi8(v[0], v[1]));
    let (c, d) = (_mm256_unpacklo_epi8(v[2], v[3]), _mm256_unpackhi_epi8(v[2], v[3]));
    [_mm256_unpacklo_epi16(a, c), _mm256_unpackhi_epi16(a, c), _mm256_unpacklo_epi16(b, d), _mm256_unpackhi_epi16(b, d)]
}

/// The f16 at the start of eight blocks, 32 bits of each of which are read.
///
/// # Safety
/// AVX2 and F16C; four bytes can be read at each.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
pub(super) unsafe fn f16x8(p: Blocks8, at: usize) -> __m256 {
    // SAFETY: the caller's promise.
    unsafe { _mm256_cvtph_ps(f16_pairs(p, at).0) }
}

/// The two f16 at the start of eight blocks: the first ones, the second ones.
///
/// # Safety
/// AVX2 and F16C; four bytes can be read at each.
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
pub(super) unsafe fn f16x8_pairs(p: Blocks8, at: usize) -> [__m256; 2] {
    // SAFETY: the caller's promise.
    unsafe {
        let (first, second) = f16_pairs(p, at);
        [_mm256_cvtph_ps(first), _mm256_cvtph_ps(second)]
    }
}

/// # Safety
/// As [`f16x8_pairs`].
#[target_feature(enable = "avx2,fma,f16c")]
#[inline]
unsafe fn f16_pairs(p: Blocks8, at: usize) -> (__m128i, __m128i) {
    let mut words = [_mm_setzero_si128(); ROWS];
    for (word, p) in words.iter_mut().zip(p) {
        // SAFETY: the caller vouches for four bytes.
        *word = unsafe { _mm_cvtsi32_si128(p.add(at).cast::<i32>().read_unaligned()) };
    }
    let two = |i: usize| _mm_unpacklo_epi16(words[i], words[i + 1]);
    let low = _mm_unpacklo_epi32(two(0), two(2));
    let high = _mm_unpacklo_epi32(two(4), two(6));
    (_mm_unpacklo_epi64(low, high), _mm_unpackhi_epi64(low, high))
}

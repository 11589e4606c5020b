//! Four rows by four runs of 32 weights: the unit in which the AVX-512 kernels read every quantised
//! format.

use std::arch::x86_64::*;

/// Rows in a step.
pub(super) const ROWS: usize = 4;
/// Runs in a step.
pub(super) const RUNS: usize = 4;
/// Elements in a run.
pub(super) const RUN: usize = 32;

/// The f32 values of a step. Lane `j`, element `i` belongs to run `j` of row `i`.
#[derive(Clone, Copy)]
pub(super) struct Scales {
    pub scale: __m512,
    /// `SUB16` formats: the integer scales of the first and second 16 elements of each run.
    pub sub: [__m512; 2],
    /// What multiplies the sums of activations: of each run (the first), or of the first and second
    /// 16 elements of each run.
    pub offset: [__m512; 2],
}

/// How to read a format step by step.
///
/// # Safety
/// For all functions: the CPU has the features that `avx512/mod.rs` names. `rows` point at the
/// block that begins at a step (formats of 32-element blocks) or at the block that the step is a
/// half of (formats of 256-element blocks). With `TAIL` only `n_bytes` bytes from there may be
/// read, else all that a step needs.
pub(super) unsafe trait Format {
    /// Bytes of one block.
    const BYTES: usize;
    /// Runs in one block: 1 or 8.
    const BLOCK_RUNS: usize;
    /// Integers are signed bytes, else unsigned ones of at most 6 bits.
    const SIGNED: bool = false;
    /// What unsigned integers stand for is so much less. The products are brought down as integers,
    /// which needs no offset.
    const CENTRE: i8 = 0;
    /// Sub-blocks have 16 elements and an integer scale each.
    const SUB16: bool = false;
    /// Used elements of [`Scales::offset`]: as many as there are sub-blocks in a run, or none.
    const OFFSETS: usize;
    /// What is decoded once for the steps of a block.
    type Head: Copy;

    unsafe fn head<const TAIL: bool>(rows: [*const u8; ROWS], n_bytes: usize) -> Self::Head;

    /// The scales of step `step` (0 or 1) of the block.
    unsafe fn scales(head: &Self::Head, step: usize) -> Scales;

    /// 128 weights of a row: lane `j` of the first register holds elements 0..16 of run `j`, of the
    /// second 16..32.
    unsafe fn quants<const TAIL: bool>(row: *const u8, step: usize, n_bytes: usize) -> [__m512i; 2];

    /// `SUB16` formats: the integer scales of row `r` as i16; in lane `j` four times that of the
    /// first half of run `j`, four times that of the second.
    ///
    /// # Safety
    /// As above.
    unsafe fn multipliers(_head: &Self::Head, _r: usize, _step: usize) -> __m512i {
        // SAFETY: the caller vouches for AVX-512.
        unsafe { _mm512_setzero_si512() }
    }
}

/// 64 bytes of constants.
#[repr(align(64))]
pub(super) struct Bytes(pub [u8; 64]);

impl Bytes {
    /// # Safety
    /// AVX-512 F.
    #[inline(always)]
    pub(super) unsafe fn get(&self) -> __m512i {
        // SAFETY: 64 aligned bytes.
        unsafe { _mm512_load_si512(self.0.as_ptr().cast()) }
    }
}

/// The same, as 32 words.
#[repr(align(64))]
pub(super) struct Words(pub [u16; 32]);

impl Words {
    /// # Safety
    /// AVX-512 F.
    #[inline(always)]
    pub(super) unsafe fn get(&self) -> __m512i {
        // SAFETY: 64 aligned bytes.
        unsafe { _mm512_load_si512(self.0.as_ptr().cast()) }
    }
}

/// The GFNI matrix that moves `width` bits of each byte from bit `from` to bit `to` and clears the
/// rest. (Output bit `i` is the parity of the byte and matrix byte `7 - i`.)
pub(super) const fn pick(width: usize, from: usize, to: usize) -> u64 {
    let mut matrix = 0;
    let mut b = 0;
    while b < width {
        matrix |= 1u64 << (from + b) << (8 * (7 - to - b));
        b += 1;
    }
    matrix
}

/// A matrix for each 128-bit lane.
pub(super) const fn lanes(matrices: [u64; 4]) -> Bytes {
    let mut out = [0; 64];
    let mut i = 0;
    while i < 64 {
        out[i] = (matrices[i / 16] >> (i % 8 * 8)) as u8;
        i += 1;
    }
    Bytes(out)
}

/// Each byte of `v` through the matrix of its lane.
///
/// # Safety
/// AVX-512 F and GFNI.
#[inline(always)]
pub(super) unsafe fn bits(v: __m512i, matrices: &Bytes) -> __m512i {
    // SAFETY: the caller vouches for both.
    unsafe { _mm512_gf2p8affine_epi64_epi8::<0>(v, matrices.get()) }
}

/// 64 bytes at `p + at`; with `TAIL` those that lie within `n_bytes` of `p`, zero for the others.
///
/// # Safety
/// AVX-512 BW; those bytes can be read.
#[inline(always)]
pub(super) unsafe fn load<const TAIL: bool>(p: *const u8, at: usize, n_bytes: usize) -> __m512i {
    // SAFETY: the caller vouches for the bytes; masked bytes are not touched.
    unsafe {
        if TAIL {
            let n = n_bytes.saturating_sub(at);
            let mask = if n >= 64 { !0 } else { (1u64 << n) - 1 };
            _mm512_maskz_loadu_epi8(mask, p.wrapping_add(at).cast())
        } else {
            _mm512_loadu_si512(p.add(at).cast())
        }
    }
}

/// 16 bytes in every lane.
///
/// # Safety
/// AVX-512 F; 16 bytes can be read.
#[inline(always)]
pub(super) unsafe fn in_all_lanes(p: *const u8) -> __m512i {
    // SAFETY: the caller vouches for both.
    unsafe { _mm512_broadcast_i32x4(_mm_loadu_si128(p.cast())) }
}

/// 16 bytes of each of four rows, row `i` in lane `i`.
///
/// # Safety
/// AVX-512 F; 16 bytes can be read at each.
#[inline(always)]
pub(super) unsafe fn row_in_lane(rows: [*const u8; ROWS]) -> __m512i {
    // SAFETY: the caller vouches for both.
    unsafe {
        let v = _mm512_castsi128_si512(_mm_loadu_si128(rows[0].cast()));
        let v = _mm512_inserti32x4::<1>(v, _mm_loadu_si128(rows[1].cast()));
        let v = _mm512_inserti32x4::<2>(v, _mm_loadu_si128(rows[2].cast()));
        _mm512_inserti32x4::<3>(v, _mm_loadu_si128(rows[3].cast()))
    }
}

/// The 16 low and 16 high halves of a register, widened.
///
/// # Safety
/// AVX-512 F.
#[inline(always)]
pub(super) unsafe fn widen(v: __m512i) -> [__m512; 2] {
    // SAFETY: the caller vouches for AVX-512.
    unsafe { [_mm512_cvtph_ps(_mm512_castsi512_si256(v)), _mm512_cvtph_ps(_mm512_extracti64x4_epi64::<1>(v))] }
}

/// The bytes that `index` names, each in the lowest byte of a dword, as f32.
///
/// # Safety
/// AVX-512 F and VBMI.
#[inline(always)]
pub(super) unsafe fn byte_floats(v: __m512i, index: &Bytes) -> __m512 {
    // SAFETY: the caller vouches for both.
    unsafe { _mm512_cvtepi32_ps(_mm512_maskz_permutexvar_epi8(0x1111_1111_1111_1111, index.get(), v)) }
}

/// As [`byte_floats`] for signed bytes, each in the highest byte of a dword.
///
/// # Safety
/// AVX-512 F and VBMI.
#[inline(always)]
pub(super) unsafe fn signed_floats(v: __m512i, index: &Bytes) -> __m512 {
    // SAFETY: the caller vouches for both.
    unsafe {
        let high = _mm512_maskz_permutexvar_epi8(0x8888_8888_8888_8888, index.get(), v);
        _mm512_cvtepi32_ps(_mm512_srai_epi32::<24>(high))
    }
}

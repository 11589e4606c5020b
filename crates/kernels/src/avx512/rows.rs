//! Sixteen rows by four runs: how panels are packed, and the float part of their products.
//!
//! Four steps of four rows each give registers whose lane `j` belongs to run `j`. Turned over, they
//! become a register for each run, of sixteen rows: from there on all is vertical. The float part
//! of a run is that of the AVX2 kernels, but for the offsets of centres, and so are the integer
//! sums, which are exact.

use std::arch::x86_64::*;

use super::step::{Format, ROWS, RUNS};
use crate::matrix::ActLayout;

/// Rows that are read together.
pub(super) const TILE_ROWS: usize = 16;
/// Steps side by side.
pub(super) const GROUPS: usize = TILE_ROWS / ROWS;

/// The first bytes of the blocks of sixteen rows.
pub(super) type Blocks16 = [*const u8; TILE_ROWS];

/// The rows' blocks `offset` bytes on.
#[inline(always)]
pub(super) fn at(rows: Blocks16, offset: usize) -> Blocks16 {
    rows.map(|p| p.wrapping_add(offset))
}

/// The heads of the blocks of each group.
///
/// # Safety
/// As [`Format::head`].
#[inline(always)]
pub(super) unsafe fn block_heads<F: Format, const TAIL: bool>(blocks: Blocks16, n_bytes: usize) -> [F::Head; GROUPS] {
    // SAFETY: the caller's duties are handed on.
    unsafe {
        let group = |g: usize| F::head::<TAIL>(std::array::from_fn(|r| blocks[g * ROWS + r]), n_bytes);
        [group(0), group(1), group(2), group(3)]
    }
}

/// Where the values of one run stand among those of [`heads`].
///
/// | vector | content, one a row |
/// |---|---|
/// | 0 | f32 scale |
/// | then, if `SUB16` | two vectors of the integer scale of 16 elements, as f32 |
/// | then `OFFSETS` | f32 factor of the sum of the activations, of the run or of each 16 elements |
pub(super) struct Head<F>(F);

impl<F: Format> Head<F> {
    pub const OFFSETS_AT: usize = if F::SUB16 { 3 } else { 1 };
    /// Vectors of a run.
    pub const LEN: usize = Self::OFFSETS_AT + F::OFFSETS;
}

/// Most vectors of a run.
const MAX_HEAD: usize = 5;

/// Lane `j` of register `i` becomes lane `i` of register `j`.
///
/// # Safety
/// AVX-512 F.
#[inline(always)]
pub(super) unsafe fn transpose_lanes(v: [__m512i; 4]) -> [__m512i; 4] {
    // SAFETY: the caller vouches for it.
    unsafe {
        let (a, b) =
            (_mm512_shuffle_i32x4::<0b01_00_01_00>(v[0], v[1]), _mm512_shuffle_i32x4::<0b11_10_11_10>(v[0], v[1]));
        let (c, d) =
            (_mm512_shuffle_i32x4::<0b01_00_01_00>(v[2], v[3]), _mm512_shuffle_i32x4::<0b11_10_11_10>(v[2], v[3]));
        [
            _mm512_shuffle_i32x4::<0b10_00_10_00>(a, c),
            _mm512_shuffle_i32x4::<0b11_01_11_01>(a, c),
            _mm512_shuffle_i32x4::<0b10_00_10_00>(b, d),
            _mm512_shuffle_i32x4::<0b11_01_11_01>(b, d),
        ]
    }
}

/// The [`Head`]s of the four runs of a step, from the groups' block heads.
///
/// # Safety
/// The CPU has the features that `avx512/mod.rs` names.
#[inline(always)]
pub(super) unsafe fn heads<F: Format>(blocks: &[F::Head; GROUPS], step: usize) -> [[__m512; MAX_HEAD]; RUNS] {
    // SAFETY: the caller vouches for it.
    unsafe {
        let mut by_group = [[_mm512_setzero_si512(); GROUPS]; MAX_HEAD];
        for g in 0..GROUPS {
            let scales = F::scales(&blocks[g], step);
            by_group[0][g] = _mm512_castps_si512(scales.scale);
            if F::SUB16 {
                by_group[1][g] = _mm512_castps_si512(scales.sub[0]);
                by_group[2][g] = _mm512_castps_si512(scales.sub[1]);
            }
            for i in 0..F::OFFSETS {
                by_group[Head::<F>::OFFSETS_AT + i][g] = _mm512_castps_si512(scales.offset[i]);
            }
        }
        let mut heads = [[_mm512_setzero_ps(); MAX_HEAD]; RUNS];
        for i in 0..Head::<F>::LEN {
            let by_run = transpose_lanes(by_group[i]);
            for j in 0..RUNS {
                heads[j][i] = _mm512_castsi512_ps(by_run[j]);
            }
        }
        heads
    }
}

/// In lane `j`, dword `i`: the sum of the four dwords in lane `j` of register `i`.
///
/// # Safety
/// AVX-512 F.
#[inline(always)]
pub(super) unsafe fn lane_sums(v: [__m512i; 4]) -> __m512i {
    // SAFETY: the caller vouches for it.
    unsafe {
        let ab = _mm512_add_epi32(_mm512_unpacklo_epi32(v[0], v[1]), _mm512_unpackhi_epi32(v[0], v[1]));
        let cd = _mm512_add_epi32(_mm512_unpacklo_epi32(v[2], v[3]), _mm512_unpackhi_epi32(v[2], v[3]));
        _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd))
    }
}

/// The float part of run `run` for sixteen rows: their sums of integer products times the weights'
/// and the activations' scales, then offsets times the activations' sums. `head` gives the vectors
/// of the run's [`Head`].
///
/// # Safety
/// AVX-512 F; `x` is a column that has the run.
#[inline(always)]
pub(super) unsafe fn accumulate<F: Format>(
    acc: __m512,
    dots: __m512,
    head: impl Fn(usize) -> __m512,
    x: *const u8,
    run: usize,
    layout: ActLayout,
) -> __m512 {
    // SAFETY: the caller vouches for both.
    unsafe {
        let float = |at: usize| _mm512_set1_ps(x.add(at).cast::<f32>().read_unaligned());
        let scale = _mm512_mul_ps(head(0), float(layout.scales_at() + run * 4));
        let mut acc = _mm512_fmadd_ps(scale, dots, acc);
        let sums_at = if F::SUB16 { layout.sums16_at() } else { layout.sums32_at() };
        for i in 0..F::OFFSETS {
            acc = _mm512_fmadd_ps(head(Head::<F>::OFFSETS_AT + i), float(sums_at + (run * F::OFFSETS + i) * 4), acc);
        }
        acc
    }
}

//! Sixteen f32 lanes in AVX-512 (F, BW, DQ, VL, VNNI) registers.

use std::arch::x86_64::*;

use super::lanes::{IntLanes, Lanes};

const N: usize = 16;

/// A zmm register.
#[derive(Clone, Copy)]
pub(crate) struct Zmm(__m512);

/// A mask of the first `n < 16` lanes.
#[inline(always)]
fn first_lanes(n: usize) -> u16 {
    (1u16 << n) - 1
}

/// Round to nearest even, no exception.
const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;

// SAFETY (all unsafe blocks below): the caller vouches for AVX-512 F, BW, DQ and VL and for the
// pointers, see `Lanes`.
impl Lanes for Zmm {
    const N: usize = N;
    const QUERIES: usize = 4;
    const MANY_QUERIES: usize = 4;
    const COLUMN_QUERIES: usize = 4;
    const SUMS: usize = 16;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        // SAFETY: see above.
        Zmm(unsafe { _mm512_set1_ps(x) })
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: see above.
        Zmm(unsafe { _mm512_loadu_ps(from) })
    }

    #[inline(always)]
    unsafe fn load_part(from: *const f32, n: usize) -> Self {
        // SAFETY: a masked load touches only the lanes it loads.
        Zmm(unsafe { _mm512_maskz_loadu_ps(first_lanes(n), from) })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: see above.
        unsafe { _mm512_storeu_ps(to, self.0) }
    }

    #[inline(always)]
    unsafe fn store_part(self, to: *mut f32, n: usize) {
        // SAFETY: a masked store touches only the lanes it stores.
        unsafe { _mm512_mask_storeu_ps(to, first_lanes(n), self.0) }
    }

    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> Self {
        // SAFETY: see above.
        Zmm(unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) })
    }

    #[inline(always)]
    unsafe fn load_f16_part(from: *const u16, n: usize) -> Self {
        // SAFETY: a masked load touches only the lanes it loads.
        Zmm(unsafe { _mm512_cvtph_ps(_mm256_maskz_loadu_epi16(first_lanes(n), from.cast())) })
    }

    #[inline(always)]
    unsafe fn store_f16(self, to: *mut u16) {
        // SAFETY: see above.
        unsafe { _mm256_storeu_si256(to.cast(), _mm512_cvtps_ph::<NEAREST>(self.0)) }
    }

    #[inline(always)]
    unsafe fn store_f16_part(self, to: *mut u16, n: usize) {
        // SAFETY: a masked store touches only the lanes it stores.
        unsafe { _mm256_mask_storeu_epi16(to.cast(), first_lanes(n), _mm512_cvtps_ph::<NEAREST>(self.0)) }
    }

    #[inline(always)]
    unsafe fn load_i8(from: *const i8) -> Self {
        // SAFETY: valid for 16 bytes.
        Zmm(unsafe { _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(from.cast()))) })
    }

    #[inline(always)]
    unsafe fn splat_f16(from: *const u16) -> Self {
        // SAFETY: see above.
        Zmm(unsafe { _mm512_cvtph_ps(_mm256_set1_epi16(from.read_unaligned() as i16)) })
    }

    #[inline(always)]
    unsafe fn load_twice(from: *const f32) -> Self {
        // SAFETY: valid for 8 elements.
        unsafe {
            let eight = _mm512_castps256_ps512(_mm256_loadu_ps(from));
            let twice = _mm512_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5, 6, 6, 7, 7);
            Zmm(_mm512_permutexvar_ps(twice, eight))
        }
    }

    #[inline(always)]
    unsafe fn request(from: *const u8, len: usize) {
        crate::ahead::request(from, len);
    }

    #[inline(always)]
    unsafe fn add(self, b: Self) -> Self {
        // SAFETY: see above.
        Zmm(unsafe { _mm512_add_ps(self.0, b.0) })
    }

    #[inline(always)]
    unsafe fn sub(self, b: Self) -> Self {
        // SAFETY: see above.
        Zmm(unsafe { _mm512_sub_ps(self.0, b.0) })
    }

    #[inline(always)]
    unsafe fn mul(self, b: Self) -> Self {
        // SAFETY: see above.
        Zmm(unsafe { _mm512_mul_ps(self.0, b.0) })
    }

    #[inline(always)]
    unsafe fn div(self, b: Self) -> Self {
        // SAFETY: see above.
        Zmm(unsafe { _mm512_div_ps(self.0, b.0) })
    }

    #[inline(always)]
    unsafe fn fma(self, b: Self, c: Self) -> Self {
        // SAFETY: see above.
        Zmm(unsafe { _mm512_fmadd_ps(self.0, b.0, c.0) })
    }

    #[inline(always)]
    unsafe fn fma_sub_add(self, b: Self, c: Self) -> Self {
        // SAFETY: see above.
        Zmm(unsafe { _mm512_fmaddsub_ps(self.0, b.0, c.0) })
    }

    #[inline(always)]
    unsafe fn max(self, b: Self) -> Self {
        // SAFETY: see above.
        Zmm(unsafe { _mm512_max_ps(self.0, b.0) })
    }

    #[inline(always)]
    unsafe fn min(self, b: Self) -> Self {
        // SAFETY: see above.
        Zmm(unsafe { _mm512_min_ps(self.0, b.0) })
    }

    #[inline(always)]
    unsafe fn abs(self) -> Self {
        // SAFETY: see above.
        Zmm(unsafe { _mm512_abs_ps(self.0) })
    }

    #[inline(always)]
    unsafe fn with_sign_of(self, sign: Self) -> Self {
        // SAFETY: see above.
        Zmm(unsafe { _mm512_or_ps(self.abs().0, _mm512_and_ps(_mm512_set1_ps(-0.0), sign.0)) })
    }

    #[inline(always)]
    unsafe fn select_less(self, limit: Self, below: Self, other: Self) -> Self {
        // SAFETY: see above.
        Zmm(unsafe { _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(self.0, limit.0), other.0, below.0) })
    }

    #[inline(always)]
    unsafe fn round(self) -> Self {
        // SAFETY: see above.
        Zmm(unsafe { _mm512_roundscale_ps::<NEAREST>(self.0) })
    }

    #[inline(always)]
    unsafe fn times_power_of_two(self, n: Self) -> Self {
        // SAFETY: see above.
        Zmm(unsafe { _mm512_scalef_ps(self.0, n.0) })
    }

    #[inline(always)]
    unsafe fn swap_pairs(self) -> Self {
        // SAFETY: see above.
        Zmm(unsafe { _mm512_permute_ps::<0b10_11_00_01>(self.0) })
    }

    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        // SAFETY: see above.
        unsafe { _mm512_reduce_add_ps(self.0) }
    }

    #[inline(always)]
    unsafe fn greatest(self) -> f32 {
        // SAFETY: see above.
        unsafe { _mm512_reduce_max_ps(self.0) }
    }

    #[inline(always)]
    unsafe fn store_columns(four: [Self; 4], to: *mut f32, stride: usize) {
        // SAFETY: see above.
        unsafe {
            let [a, b, c, d] = four;
            let (ab, ab_high) = (_mm512_unpacklo_ps(a.0, b.0), _mm512_unpackhi_ps(a.0, b.0));
            let (cd, cd_high) = (_mm512_unpacklo_ps(c.0, d.0), _mm512_unpackhi_ps(c.0, d.0));
            // Elements i, i + 4, i + 8 and i + 12.
            let columns = [
                _mm512_shuffle_ps::<0b01_00_01_00>(ab, cd),
                _mm512_shuffle_ps::<0b11_10_11_10>(ab, cd),
                _mm512_shuffle_ps::<0b01_00_01_00>(ab_high, cd_high),
                _mm512_shuffle_ps::<0b11_10_11_10>(ab_high, cd_high),
            ];
            for (i, column) in columns.into_iter().enumerate() {
                _mm_storeu_ps(to.add(i * stride), _mm512_castps512_ps128(column));
                _mm_storeu_ps(to.add((i + 4) * stride), _mm512_extractf32x4_ps::<1>(column));
                _mm_storeu_ps(to.add((i + 8) * stride), _mm512_extractf32x4_ps::<2>(column));
                _mm_storeu_ps(to.add((i + 12) * stride), _mm512_extractf32x4_ps::<3>(column));
            }
        }
    }

    #[inline(always)]
    unsafe fn sum4(tile: [Self; 4]) -> [f32; 4] {
        // SAFETY: see above.
        unsafe {
            // In each 128-bit quarter: sums of lanes 0+2 and 1+3 of two registers, then of all four
            // lanes of four.
            let [a, b, c, d] = tile;
            let ab = _mm512_add_ps(_mm512_unpacklo_ps(a.0, b.0), _mm512_unpackhi_ps(a.0, b.0));
            let cd = _mm512_add_ps(_mm512_unpacklo_ps(c.0, d.0), _mm512_unpackhi_ps(c.0, d.0));
            let lo = _mm512_shuffle_ps::<0b01_00_01_00>(ab, cd);
            let hi = _mm512_shuffle_ps::<0b11_10_11_10>(ab, cd);
            let quarters = _mm512_add_ps(lo, hi);
            let halves = _mm256_add_ps(_mm512_castps512_ps256(quarters), _mm512_extractf32x8_ps::<1>(quarters));
            let sums = _mm_add_ps(_mm256_castps256_ps128(halves), _mm256_extractf128_ps::<1>(halves));
            std::mem::transmute(sums)
        }
    }
}

/// A mask of the first `n < 32` integers.
#[inline(always)]
fn first_integers(n: usize) -> u32 {
    (1u32 << n) - 1
}

/// The integers of two registers in turn.
///
/// # Safety
/// AVX-512 BW.
#[inline(always)]
unsafe fn alternate(first: __m256i, second: __m256i) -> __m512i {
    static IN_TURN: [i16; 32] = {
        let mut index = [0; 32];
        let mut i = 0;
        while i < 32 {
            index[i] = (i / 2 + i % 2 * 32) as i16;
            i += 1;
        }
        index
    };
    // SAFETY: the caller's promise; the index is 64 bytes.
    unsafe {
        let index = _mm512_loadu_epi16(IN_TURN.as_ptr());
        _mm512_permutex2var_epi16(_mm512_castsi256_si512(first), index, _mm512_castsi256_si512(second))
    }
}

// SAFETY (all unsafe blocks below): as above, and AVX-512 VNNI.
impl IntLanes for Zmm {
    type Int = __m512i;
    const VALUE_SUMS: usize = 16;

    #[inline(always)]
    unsafe fn zero() -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_setzero_si512() }
    }

    #[inline(always)]
    unsafe fn load_words(from: *const i16) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_loadu_epi16(from) }
    }

    #[inline(always)]
    unsafe fn load_words_part(from: *const i16, n: usize) -> __m512i {
        // SAFETY: a masked load touches only the integers it loads.
        unsafe { _mm512_maskz_loadu_epi16(first_integers(n), from) }
    }

    #[inline(always)]
    unsafe fn store_words(words: __m512i, to: *mut i16) {
        // SAFETY: see above.
        unsafe { _mm512_storeu_epi16(to, words) }
    }

    #[inline(always)]
    unsafe fn splat_word(from: *const i16) -> __m512i {
        // SAFETY: valid for two integers.
        unsafe { _mm512_set1_epi32(from.cast::<i32>().read_unaligned()) }
    }

    #[inline(always)]
    unsafe fn pair(first: *const i16, second: *const i16) -> __m512i {
        // SAFETY: valid for 16 integers each.
        unsafe { alternate(_mm256_loadu_epi16(first), _mm256_loadu_epi16(second)) }
    }

    #[inline(always)]
    unsafe fn pair_part(first: *const i16, second: *const i16, n: usize) -> __m512i {
        // SAFETY: a masked load touches only the integers it loads.
        unsafe {
            let load = first_lanes(n);
            alternate(_mm256_maskz_loadu_epi16(load, first), _mm256_maskz_loadu_epi16(load, second))
        }
    }

    #[inline(always)]
    unsafe fn dot(sums: __m512i, a: __m512i, b: __m512i) -> __m512i {
        // SAFETY: see above.
        unsafe { _mm512_dpwssd_epi32(sums, a, b) }
    }

    #[inline(always)]
    unsafe fn widen(sums: __m512i) -> Self {
        // SAFETY: see above.
        Zmm(unsafe { _mm512_cvtepi32_ps(sums) })
    }

    #[inline(always)]
    unsafe fn store_i16(self, to: *mut i16) {
        // SAFETY: see above.
        unsafe { _mm256_storeu_epi16(to, _mm512_cvtepi32_epi16(_mm512_cvtps_epi32(self.0))) }
    }

    #[inline(always)]
    unsafe fn sum4_words(tile: [__m512i; 4]) -> [f32; 4] {
        // SAFETY: see above.
        unsafe {
            let [a, b, c, d] = tile;
            let ab = _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
            let cd = _mm512_add_epi32(_mm512_unpacklo_epi32(c, d), _mm512_unpackhi_epi32(c, d));
            let quarters = _mm512_add_epi32(_mm512_unpacklo_epi64(ab, cd), _mm512_unpackhi_epi64(ab, cd));
            let halves = _mm256_add_epi32(_mm512_castsi512_si256(quarters), _mm512_extracti64x4_epi64::<1>(quarters));
            let sums = _mm_add_epi32(_mm256_castsi256_si128(halves), _mm256_extracti128_si256::<1>(halves));
            std::mem::transmute(_mm_cvtepi32_ps(sums))
        }
    }

    #[inline(always)]
    unsafe fn as_lanes(words: __m512i) -> Self {
        // SAFETY: see above.
        Zmm(unsafe { _mm512_castsi512_ps(words) })
    }
}

super::fns::functions!(Zmm, #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,fma,f16c")]);

//! Eight f32 lanes in AVX2 + FMA + F16C registers.

use std::arch::x86_64::*;

use super::lanes::{IntLanes, Lanes};

const N: usize = 8;

/// A ymm register.
#[derive(Clone, Copy)]
pub(crate) struct Ymm(__m256);

/// Sliding over this gives a mask of the first `n` lanes at `8 - n`.
static LANE_MASKS: [i32; 16] = [-1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0];

/// # Safety
/// The CPU has AVX2; `n < 8`.
#[inline(always)]
unsafe fn first_lanes(n: usize) -> __m256i {
    debug_assert!(n < N);
    // SAFETY: 8 integers from index 8 - n are inside the table.
    unsafe { _mm256_loadu_si256(LANE_MASKS.as_ptr().add(N - n).cast()) }
}

/// Round to nearest even, no exception.
const NEAREST: i32 = _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC;

// SAFETY (all unsafe blocks below): the caller vouches for AVX2, FMA and F16C and for the pointers,
// see `Lanes`.
impl Lanes for Ymm {
    const N: usize = N;
    const QUERIES: usize = 3;
    const MANY_QUERIES: usize = 3;
    const COLUMN_QUERIES: usize = 2;
    const SUMS: usize = 8;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        // SAFETY: see above.
        Ymm(unsafe { _mm256_set1_ps(x) })
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: see above.
        Ymm(unsafe { _mm256_loadu_ps(from) })
    }

    #[inline(always)]
    unsafe fn load_part(from: *const f32, n: usize) -> Self {
        // SAFETY: a masked load touches only the lanes it loads.
        Ymm(unsafe { _mm256_maskload_ps(from, first_lanes(n)) })
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: see above.
        unsafe { _mm256_storeu_ps(to, self.0) }
    }

    #[inline(always)]
    unsafe fn store_part(self, to: *mut f32, n: usize) {
        // SAFETY: a masked store touches only the lanes it stores.
        unsafe { _mm256_maskstore_ps(to, first_lanes(n), self.0) }
    }

    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> Self {
        // SAFETY: see above.
        Ymm(unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) })
    }

    #[inline(always)]
    unsafe fn load_f16_part(from: *const u16, n: usize) -> Self {
        let mut copy = [0u16; N];
        // SAFETY: n elements can be read, and n < 8 fit into the copy.
        unsafe {
            std::ptr::copy_nonoverlapping(from, copy.as_mut_ptr(), n);
            Self::load_f16(copy.as_ptr())
        }
    }

    #[inline(always)]
    unsafe fn store_f16(self, to: *mut u16) {
        // SAFETY: see above.
        unsafe { _mm_storeu_si128(to.cast(), _mm256_cvtps_ph::<_MM_FROUND_TO_NEAREST_INT>(self.0)) }
    }

    #[inline(always)]
    unsafe fn store_f16_part(self, to: *mut u16, n: usize) {
        let mut copy = [0u16; N];
        // SAFETY: n elements can be written, and the copy has 8.
        unsafe {
            self.store_f16(copy.as_mut_ptr());
            std::ptr::copy_nonoverlapping(copy.as_ptr(), to, n);
        }
    }

    #[inline(always)]
    unsafe fn load_i8(from: *const i8) -> Self {
        // SAFETY: valid for 8 bytes.
        Ymm(unsafe { _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64(from.cast()))) })
    }

    #[inline(always)]
    unsafe fn splat_f16(from: *const u16) -> Self {
        // SAFETY: see above.
        Ymm(unsafe { _mm256_cvtph_ps(_mm_set1_epi16(from.read_unaligned() as i16)) })
    }

    #[inline(always)]
    unsafe fn load_twice(from: *const f32) -> Self {
        // SAFETY: valid for 4 elements.
        unsafe {
            let four = _mm256_castps128_ps256(_mm_loadu_ps(from));
            Ymm(_mm256_permutevar8x32_ps(four, _mm256_setr_epi32(0, 0, 1, 1, 2, 2, 3, 3)))
        }
    }

    #[inline(always)]
    unsafe fn request(from: *const u8, len: usize) {
        crate::ahead::request(from, len);
    }

    #[inline(always)]
    unsafe fn add(self, b: Self) -> Self {
        // SAFETY: see above.
        Ymm(unsafe { _mm256_add_ps(self.0, b.0) })
    }

    #[inline(always)]
    unsafe fn sub(self, b: Self) -> Self {
        // SAFETY: see above.
        Ymm(unsafe { _mm256_sub_ps(self.0, b.0) })
    }

    #[inline(always)]
    unsafe fn mul(self, b: Self) -> Self {
        // SAFETY: see above.
        Ymm(unsafe { _mm256_mul_ps(self.0, b.0) })
    }

    #[inline(always)]
    unsafe fn div(self, b: Self) -> Self {
        // SAFETY: see above.
        Ymm(unsafe { _mm256_div_ps(self.0, b.0) })
    }

    #[inline(always)]
    unsafe fn fma(self, b: Self, c: Self) -> Self {
        // SAFETY: see above.
        Ymm(unsafe { _mm256_fmadd_ps(self.0, b.0, c.0) })
    }

    #[inline(always)]
    unsafe fn fma_sub_add(self, b: Self, c: Self) -> Self {
        // SAFETY: see above.
        Ymm(unsafe { _mm256_fmaddsub_ps(self.0, b.0, c.0) })
    }

    #[inline(always)]
    unsafe fn max(self, b: Self) -> Self {
        // SAFETY: see above.
        Ymm(unsafe { _mm256_max_ps(self.0, b.0) })
    }

    #[inline(always)]
    unsafe fn min(self, b: Self) -> Self {
        // SAFETY: see above.
        Ymm(unsafe { _mm256_min_ps(self.0, b.0) })
    }

    #[inline(always)]
    unsafe fn abs(self) -> Self {
        // SAFETY: see above.
        Ymm(unsafe { _mm256_andnot_ps(_mm256_set1_ps(-0.0), self.0) })
    }

    #[inline(always)]
    unsafe fn with_sign_of(self, sign: Self) -> Self {
        // SAFETY: see above.
        Ymm(unsafe { _mm256_or_ps(self.abs().0, _mm256_and_ps(_mm256_set1_ps(-0.0), sign.0)) })
    }

    #[inline(always)]
    unsafe fn select_less(self, limit: Self, below: Self, other: Self) -> Self {
        // SAFETY: see above.
        Ymm(unsafe { _mm256_blendv_ps(other.0, below.0, _mm256_cmp_ps::<_CMP_LT_OQ>(self.0, limit.0)) })
    }

    #[inline(always)]
    unsafe fn round(self) -> Self {
        // SAFETY: see above.
        Ymm(unsafe { _mm256_round_ps::<NEAREST>(self.0) })
    }

    #[inline(always)]
    unsafe fn times_power_of_two(self, n: Self) -> Self {
        // SAFETY: see above.
        unsafe {
            let n = _mm256_cvtps_epi32(n.0);
            let first = _mm256_srai_epi32::<1>(n);
            let second = _mm256_sub_epi32(n, first);
            let bias = _mm256_set1_epi32(127);
            let first = _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(first, bias)));
            let second = _mm256_castsi256_ps(_mm256_slli_epi32::<23>(_mm256_add_epi32(second, bias)));
            Ymm(_mm256_mul_ps(_mm256_mul_ps(self.0, first), second))
        }
    }

    #[inline(always)]
    unsafe fn swap_pairs(self) -> Self {
        // SAFETY: see above.
        Ymm(unsafe { _mm256_permute_ps::<0b10_11_00_01>(self.0) })
    }

    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        // SAFETY: see above.
        unsafe {
            let four = _mm_add_ps(_mm256_castps256_ps128(self.0), _mm256_extractf128_ps::<1>(self.0));
            let two = _mm_add_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_add_ss(two, _mm_movehdup_ps(two)))
        }
    }

    #[inline(always)]
    unsafe fn greatest(self) -> f32 {
        // SAFETY: see above.
        unsafe {
            let four = _mm_max_ps(_mm256_castps256_ps128(self.0), _mm256_extractf128_ps::<1>(self.0));
            let two = _mm_max_ps(four, _mm_movehl_ps(four, four));
            _mm_cvtss_f32(_mm_max_ss(two, _mm_movehdup_ps(two)))
        }
    }

    #[inline(always)]
    unsafe fn store_columns(four: [Self; 4], to: *mut f32, stride: usize) {
        // SAFETY: see above.
        unsafe {
            let [a, b, c, d] = four;
            let (ab, ab_high) = (_mm256_unpacklo_ps(a.0, b.0), _mm256_unpackhi_ps(a.0, b.0));
            let (cd, cd_high) = (_mm256_unpacklo_ps(c.0, d.0), _mm256_unpackhi_ps(c.0, d.0));
            // Elements i and i + 4.
            let columns = [
                _mm256_shuffle_ps::<0b01_00_01_00>(ab, cd),
                _mm256_shuffle_ps::<0b11_10_11_10>(ab, cd),
                _mm256_shuffle_ps::<0b01_00_01_00>(ab_high, cd_high),
                _mm256_shuffle_ps::<0b11_10_11_10>(ab_high, cd_high),
            ];
            for (i, column) in columns.into_iter().enumerate() {
                _mm_storeu_ps(to.add(i * stride), _mm256_castps256_ps128(column));
                _mm_storeu_ps(to.add((i + 4) * stride), _mm256_extractf128_ps::<1>(column));
            }
        }
    }

    #[inline(always)]
    unsafe fn sum4(tile: [Self; 4]) -> [f32; 4] {
        // SAFETY: see above.
        unsafe {
            // In each 128-bit half: sums of lanes 0+2 and 1+3 of two registers, then of all four
            // lanes of four.
            let [a, b, c, d] = tile;
            let ab = _mm256_add_ps(_mm256_unpacklo_ps(a.0, b.0), _mm256_unpackhi_ps(a.0, b.0));
            let cd = _mm256_add_ps(_mm256_unpacklo_ps(c.0, d.0), _mm256_unpackhi_ps(c.0, d.0));
            let lo = _mm256_shuffle_ps::<0b01_00_01_00>(ab, cd);
            let hi = _mm256_shuffle_ps::<0b11_10_11_10>(ab, cd);
            let half_sums = _mm256_add_ps(lo, hi);
            let sums = _mm_add_ps(_mm256_castps256_ps128(half_sums), _mm256_extractf128_ps::<1>(half_sums));
            std::mem::transmute(sums)
        }
    }
}

impl IntLanes for Ymm {
    type Int = __m256i;
    const VALUE_SUMS: usize = 8;

    #[inline(always)]
    unsafe fn zero() -> __m256i {
        // SAFETY: see above.
        unsafe { _mm256_setzero_si256() }
    }

    #[inline(always)]
    unsafe fn load_words(from: *const i16) -> __m256i {
        // SAFETY: see above.
        unsafe { _mm256_loadu_si256(from.cast()) }
    }

    #[inline(always)]
    unsafe fn store_words(words: __m256i, to: *mut i16) {
        // SAFETY: see above.
        unsafe { _mm256_storeu_si256(to.cast(), words) }
    }

    #[inline(always)]
    unsafe fn splat_word(from: *const i16) -> __m256i {
        // SAFETY: valid for two integers.
        unsafe { _mm256_set1_epi32(from.cast::<i32>().read_unaligned()) }
    }

    #[inline(always)]
    unsafe fn pair(first: *const i16, second: *const i16) -> __m256i {
        // SAFETY: valid for 8 integers each.
        unsafe {
            let first = _mm256_cvtepi16_epi32(_mm_loadu_si128(first.cast()));
            let second = _mm256_cvtepi16_epi32(_mm_loadu_si128(second.cast()));
            _mm256_blend_epi16::<0xaa>(first, _mm256_slli_epi32::<16>(second))
        }
    }

    #[inline(always)]
    unsafe fn dot(sums: __m256i, a: __m256i, b: __m256i) -> __m256i {
        // SAFETY: see above.
        unsafe { _mm256_add_epi32(sums, _mm256_madd_epi16(a, b)) }
    }

    #[inline(always)]
    unsafe fn widen(sums: __m256i) -> Self {
        // SAFETY: see above.
        Ymm(unsafe { _mm256_cvtepi32_ps(sums) })
    }

    #[inline(always)]
    unsafe fn store_i16(self, to: *mut i16) {
        // SAFETY: see above.
        unsafe {
            let words = _mm256_cvtps_epi32(self.0);
            let integers = _mm_packs_epi32(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
            _mm_storeu_si128(to.cast(), integers);
        }
    }

    #[inline(always)]
    unsafe fn sum4_words(tile: [__m256i; 4]) -> [f32; 4] {
        // SAFETY: see above.
        unsafe {
            let [a, b, c, d] = tile;
            let half_sums = _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d));
            let sums = _mm_add_epi32(_mm256_castsi256_si128(half_sums), _mm256_extracti128_si256::<1>(half_sums));
            std::mem::transmute(_mm_cvtepi32_ps(sums))
        }
    }

    #[inline(always)]
    unsafe fn as_lanes(words: __m256i) -> Self {
        // SAFETY: see above.
        Ymm(unsafe { _mm256_castsi256_ps(words) })
    }
}

super::fns::functions!(Ymm, #[target_feature(enable = "avx2,fma,f16c")]);

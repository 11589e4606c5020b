//! Four f32 lanes in a NEON register.
//!
//! Every 64-bit Arm CPU has these instructions, and code for it is compiled with them: no feature
//! has to be asked for.

use std::arch::aarch64::*;

use super::lanes::{IntLanes, Lanes};

const N: usize = 4;

/// A 128-bit register.
#[derive(Clone, Copy)]
pub(crate) struct Quad(float32x4_t);

/// Widens half precision. (The intrinsics are younger than the Rust version that this project
/// promises.)
#[inline(always)]
pub(crate) fn f16x4_to_f32(halves: uint16x4_t) -> float32x4_t {
    let wide: float32x4_t;
    // SAFETY: an instruction of plain NEON that changes nothing but its output register and flags.
    unsafe {
        std::arch::asm!(
            "fcvtl {wide:v}.4s, {halves:v}.4h",
            wide = lateout(vreg) wide,
            halves = in(vreg) halves,
            options(pure, nomem, nostack),
        );
    }
    wide
}

/// Rounds to half precision, to nearest even (which is how every thread starts and Rust code leaves
/// it).
#[inline(always)]
fn f32x4_to_f16(wide: float32x4_t) -> uint16x4_t {
    let halves: uint16x4_t;
    // SAFETY: as above.
    unsafe {
        std::arch::asm!(
            "fcvtn {halves:v}.4h, {wide:v}.4s",
            halves = lateout(vreg) halves,
            wide = in(vreg) wide,
            options(pure, nomem, nostack),
        );
    }
    halves
}

// SAFETY (all unsafe blocks below): the caller vouches for the pointers, see `Lanes`; every CPU
// that runs this has NEON.
impl Lanes for Quad {
    const N: usize = N;
    // 16 accumulators, four keys and a query in 32 registers.
    const QUERIES: usize = 4;
    const MANY_QUERIES: usize = 4;
    const COLUMN_QUERIES: usize = 4;
    const FOUR: [usize; 4] = [0, 1, 2, 3];
    const SUMS: usize = 16;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        // SAFETY: see above.
        unsafe { Quad(vdupq_n_f32(x)) }
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: valid for N elements; a load of bytes needs no alignment.
        unsafe { Quad(vreinterpretq_f32_u8(vld1q_u8(from.cast()))) }
    }

    #[inline(always)]
    unsafe fn load_part(from: *const f32, n: usize) -> Self {
        let mut copy = [0.0f32; N];
        // SAFETY: n elements can be read, and n < 4 fit into the copy.
        unsafe {
            std::ptr::copy_nonoverlapping(from.cast::<u8>(), copy.as_mut_ptr().cast(), n * 4);
            Self::load(copy.as_ptr())
        }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: valid for N elements.
        unsafe { vst1q_u8(to.cast(), vreinterpretq_u8_f32(self.0)) }
    }

    #[inline(always)]
    unsafe fn store_part(self, to: *mut f32, n: usize) {
        let mut copy = [0.0f32; N];
        // SAFETY: n elements can be written, and the copy has four.
        unsafe {
            self.store(copy.as_mut_ptr());
            std::ptr::copy_nonoverlapping(copy.as_ptr().cast::<u8>(), to.cast(), n * 4);
        }
    }

    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> Self {
        // SAFETY: valid for N elements.
        unsafe { Quad(f16x4_to_f32(vreinterpret_u16_u8(vld1_u8(from.cast())))) }
    }

    #[inline(always)]
    unsafe fn load_f16_part(from: *const u16, n: usize) -> Self {
        let mut copy = [0u16; N];
        // SAFETY: n elements can be read, and n < 4 fit into the copy.
        unsafe {
            std::ptr::copy_nonoverlapping(from.cast::<u8>(), copy.as_mut_ptr().cast(), n * 2);
            Self::load_f16(copy.as_ptr())
        }
    }

    #[inline(always)]
    unsafe fn store_f16(self, to: *mut u16) {
        // SAFETY: valid for N elements.
        unsafe { vst1_u8(to.cast(), vreinterpret_u8_u16(f32x4_to_f16(self.0))) }
    }

    #[inline(always)]
    unsafe fn store_f16_part(self, to: *mut u16, n: usize) {
        let mut copy = [0u16; N];
        // SAFETY: n elements can be written, and the copy has four.
        unsafe {
            self.store_f16(copy.as_mut_ptr());
            std::ptr::copy_nonoverlapping(copy.as_ptr().cast::<u8>(), to.cast(), n * 2);
        }
    }

    #[inline(always)]
    unsafe fn load_i8(from: *const i8) -> Self {
        // SAFETY: valid for four bytes.
        unsafe {
            let bytes = vreinterpret_s8_u32(vdup_n_u32(from.cast::<u32>().read_unaligned()));
            Quad(vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(bytes)))))
        }
    }

    #[inline(always)]
    unsafe fn splat_f16(from: *const u16) -> Self {
        // SAFETY: valid for one element.
        unsafe { Quad(f16x4_to_f32(vdup_n_u16(from.read_unaligned()))) }
    }

    #[inline(always)]
    unsafe fn load_twice(from: *const f32) -> Self {
        // SAFETY: valid for 2 elements.
        unsafe {
            let two = vreinterpret_f32_u8(vld1_u8(from.cast()));
            Quad(vcombine_f32(vzip1_f32(two, two), vzip2_f32(two, two)))
        }
    }

    #[inline(always)]
    unsafe fn add(self, b: Self) -> Self {
        // SAFETY: see above.
        unsafe { Quad(vaddq_f32(self.0, b.0)) }
    }

    #[inline(always)]
    unsafe fn sub(self, b: Self) -> Self {
        // SAFETY: see above.
        unsafe { Quad(vsubq_f32(self.0, b.0)) }
    }

    #[inline(always)]
    unsafe fn mul(self, b: Self) -> Self {
        // SAFETY: see above.
        unsafe { Quad(vmulq_f32(self.0, b.0)) }
    }

    #[inline(always)]
    unsafe fn div(self, b: Self) -> Self {
        // SAFETY: see above.
        unsafe { Quad(vdivq_f32(self.0, b.0)) }
    }

    #[inline(always)]
    unsafe fn fma(self, b: Self, c: Self) -> Self {
        // SAFETY: see above.
        unsafe { Quad(vfmaq_f32(c.0, self.0, b.0)) }
    }

    #[inline(always)]
    unsafe fn fma_sub_add(self, b: Self, c: Self) -> Self {
        // SAFETY: see above.
        unsafe {
            let even_signs = vreinterpretq_u32_u64(vdupq_n_u64(0x8000_0000));
            let c = vreinterpretq_f32_u32(veorq_u32(vreinterpretq_u32_f32(c.0), even_signs));
            Quad(vfmaq_f32(c, self.0, b.0))
        }
    }

    #[inline(always)]
    unsafe fn max(self, b: Self) -> Self {
        // SAFETY: see above.
        unsafe { Quad(vbslq_f32(vcgtq_f32(self.0, b.0), self.0, b.0)) }
    }

    #[inline(always)]
    unsafe fn min(self, b: Self) -> Self {
        // SAFETY: see above.
        unsafe { Quad(vbslq_f32(vcltq_f32(self.0, b.0), self.0, b.0)) }
    }

    #[inline(always)]
    unsafe fn abs(self) -> Self {
        // SAFETY: see above.
        unsafe { Quad(vabsq_f32(self.0)) }
    }

    #[inline(always)]
    unsafe fn with_sign_of(self, sign: Self) -> Self {
        // SAFETY: see above.
        unsafe { Quad(vbslq_f32(vdupq_n_u32(0x8000_0000), sign.0, self.0)) }
    }

    #[inline(always)]
    unsafe fn select_less(self, limit: Self, below: Self, other: Self) -> Self {
        // SAFETY: see above.
        unsafe { Quad(vbslq_f32(vcltq_f32(self.0, limit.0), below.0, other.0)) }
    }

    #[inline(always)]
    unsafe fn round(self) -> Self {
        // SAFETY: see above.
        unsafe { Quad(vrndnq_f32(self.0)) }
    }

    #[inline(always)]
    unsafe fn times_power_of_two(self, n: Self) -> Self {
        // SAFETY: see above.
        unsafe {
            let n = vcvtnq_s32_f32(n.0); // NaN becomes 0, and self is NaN then
            let first = vshrq_n_s32::<1>(n);
            let bias = vdupq_n_s32(127);
            let power = |n| vreinterpretq_f32_s32(vshlq_n_s32::<23>(vaddq_s32(n, bias)));
            Quad(vmulq_f32(vmulq_f32(self.0, power(first)), power(vsubq_s32(n, first))))
        }
    }

    #[inline(always)]
    unsafe fn swap_pairs(self) -> Self {
        // SAFETY: see above.
        unsafe { Quad(vrev64q_f32(self.0)) }
    }

    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        // SAFETY: see above.
        unsafe {
            let two = vpaddq_f32(self.0, self.0);
            vgetq_lane_f32::<0>(vpaddq_f32(two, two))
        }
    }

    #[inline(always)]
    unsafe fn greatest(self) -> f32 {
        // SAFETY: see above.
        unsafe { vmaxvq_f32(self.0) }
    }

    #[inline(always)]
    unsafe fn store_columns([a, b, c, d]: [Self; 4], to: *mut f32, stride: usize) {
        // SAFETY: see above.
        unsafe {
            let (ab, cd) = (vtrnq_f32(a.0, b.0), vtrnq_f32(c.0, d.0));
            let low = |x, y| vcombine_f32(vget_low_f32(x), vget_low_f32(y));
            let high = |x, y| vcombine_f32(vget_high_f32(x), vget_high_f32(y));
            vst1q_f32(to, low(ab.0, cd.0));
            vst1q_f32(to.add(stride), low(ab.1, cd.1));
            vst1q_f32(to.add(2 * stride), high(ab.0, cd.0));
            vst1q_f32(to.add(3 * stride), high(ab.1, cd.1));
        }
    }

    #[inline(always)]
    unsafe fn sum4([a, b, c, d]: [Self; 4]) -> [f32; 4] {
        // SAFETY: the array has four elements.
        unsafe {
            let sums = vpaddq_f32(vpaddq_f32(a.0, b.0), vpaddq_f32(c.0, d.0));
            let mut out = [0.0; 4];
            vst1q_f32(out.as_mut_ptr(), sums);
            out
        }
    }
}

impl IntLanes for Quad {
    type Int = int16x8_t;
    const VALUE_SUMS: usize = 16;

    #[inline(always)]
    unsafe fn zero() -> int16x8_t {
        // SAFETY: see above.
        unsafe { vdupq_n_s16(0) }
    }

    #[inline(always)]
    unsafe fn load_words(from: *const i16) -> int16x8_t {
        // SAFETY: see above.
        unsafe { vld1q_s16(from) }
    }

    #[inline(always)]
    unsafe fn store_words(words: int16x8_t, to: *mut i16) {
        // SAFETY: see above.
        unsafe { vst1q_s16(to, words) }
    }

    #[inline(always)]
    unsafe fn splat_word(from: *const i16) -> int16x8_t {
        // SAFETY: valid for two integers.
        unsafe { vreinterpretq_s16_s32(vdupq_n_s32(from.cast::<i32>().read_unaligned())) }
    }

    #[inline(always)]
    unsafe fn pair(first: *const i16, second: *const i16) -> int16x8_t {
        // SAFETY: valid for 4 integers each.
        unsafe {
            let (first, second) = (vld1_s16(first), vld1_s16(second));
            vcombine_s16(vzip1_s16(first, second), vzip2_s16(first, second))
        }
    }

    #[inline(always)]
    unsafe fn dot(sums: int16x8_t, a: int16x8_t, b: int16x8_t) -> int16x8_t {
        // SAFETY: see above.
        unsafe {
            let low = vmull_s16(vget_low_s16(a), vget_low_s16(b));
            let products = vpaddq_s32(low, vmull_high_s16(a, b));
            vreinterpretq_s16_s32(vaddq_s32(vreinterpretq_s32_s16(sums), products))
        }
    }

    #[inline(always)]
    unsafe fn widen(sums: int16x8_t) -> Self {
        // SAFETY: see above.
        Quad(unsafe { vcvtq_f32_s32(vreinterpretq_s32_s16(sums)) })
    }

    #[inline(always)]
    unsafe fn store_i16(self, to: *mut i16) {
        // SAFETY: see above.
        unsafe { vst1_s16(to, vmovn_s32(vcvtnq_s32_f32(self.0))) }
    }

    #[inline(always)]
    unsafe fn sum4_words(tile: [int16x8_t; 4]) -> [f32; 4] {
        // SAFETY: see above.
        unsafe {
            let [a, b, c, d] = tile.map(|words| vreinterpretq_s32_s16(words));
            let sums = vpaddq_s32(vpaddq_s32(a, b), vpaddq_s32(c, d));
            std::mem::transmute(vcvtq_f32_s32(sums))
        }
    }

    #[inline(always)]
    unsafe fn as_lanes(words: int16x8_t) -> Self {
        // SAFETY: see above.
        Quad(unsafe { vreinterpretq_f32_s16(words) })
    }
}

super::fns::functions!(Quad, #[target_feature(enable = "neon")]);

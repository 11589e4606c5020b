//! Eight f32 lanes in plain Rust: the definition, and the fallback of every CPU without a table of
//! its own.
//!
//! Loops over arrays of fixed length, which the compiler turns into the baseline's vector
//! instructions (SSE2, NEON).

use super::half;
use super::lanes::{IntLanes, Lanes};

const N: usize = 8;

/// Eight lanes without intrinsics. `fma` is a product and a sum, two roundings.
#[derive(Clone, Copy)]
pub(crate) struct Portable([f32; N]);

impl Portable {
    #[inline(always)]
    fn map2(self, b: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        Portable(std::array::from_fn(|i| f(self.0[i], b.0[i])))
    }

    #[inline(always)]
    fn map(self, f: impl Fn(f32) -> f32) -> Self {
        Portable(self.0.map(f))
    }
}

/// 1.5 * 2^23: adding and subtracting it rounds |x| < 2^22 to the nearest integer, ties to even.
const ROUNDER: f32 = 12_582_912.0;

/// 2^n for n in -126..=127.
#[inline(always)]
fn power_of_two(n: i32) -> f32 {
    f32::from_bits(((n + 127) as u32) << 23)
}

// SAFETY (all unsafe blocks below): the caller vouches for the pointers, see `Lanes`; no CPU
// feature is needed.
impl Lanes for Portable {
    const N: usize = N;
    const QUERIES: usize = 2;
    const MANY_QUERIES: usize = 2;
    const COLUMN_QUERIES: usize = 0;
    const SUMS: usize = 16;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        Portable([x; N])
    }

    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: valid for N elements.
        Portable(unsafe { from.cast::<[f32; N]>().read_unaligned() })
    }

    #[inline(always)]
    unsafe fn load_part(from: *const f32, n: usize) -> Self {
        // SAFETY: valid for n elements.
        Portable(std::array::from_fn(|i| if i < n { unsafe { from.add(i).read_unaligned() } } else { 0.0 }))
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: valid for N elements.
        unsafe { to.cast::<[f32; N]>().write_unaligned(self.0) }
    }

    #[inline(always)]
    unsafe fn store_part(self, to: *mut f32, n: usize) {
        for (i, x) in self.0.into_iter().enumerate().take(n) {
            // SAFETY: valid for n elements.
            unsafe { to.add(i).write_unaligned(x) }
        }
    }

    #[inline(always)]
    unsafe fn load_f16(from: *const u16) -> Self {
        // SAFETY: valid for N elements.
        Portable(unsafe { from.cast::<[u16; N]>().read_unaligned() }.map(half::to_f32))
    }

    #[inline(always)]
    unsafe fn load_f16_part(from: *const u16, n: usize) -> Self {
        // SAFETY: called for i < n only.
        let read = |i: usize| unsafe { from.add(i).read_unaligned() };
        Portable(std::array::from_fn(|i| if i < n { half::to_f32(read(i)) } else { 0.0 }))
    }

    #[inline(always)]
    unsafe fn store_f16(self, to: *mut u16) {
        // SAFETY: valid for N elements.
        unsafe { to.cast::<[u16; N]>().write_unaligned(self.0.map(half::from_f32)) }
    }

    #[inline(always)]
    unsafe fn store_f16_part(self, to: *mut u16, n: usize) {
        for (i, x) in self.0.into_iter().enumerate().take(n) {
            // SAFETY: valid for n elements.
            unsafe { to.add(i).write_unaligned(half::from_f32(x)) }
        }
    }

    #[inline(always)]
    unsafe fn load_i8(from: *const i8) -> Self {
        // SAFETY: valid for N bytes.
        Portable(unsafe { from.cast::<[i8; N]>().read_unaligned() }.map(f32::from))
    }

    #[inline(always)]
    unsafe fn splat_f16(from: *const u16) -> Self {
        // SAFETY: valid for one element.
        Portable([half::to_f32(unsafe { from.read_unaligned() }); N])
    }

    #[inline(always)]
    unsafe fn load_twice(from: *const f32) -> Self {
        // SAFETY: valid for N / 2 elements.
        Portable(std::array::from_fn(|i| unsafe { from.add(i / 2).read_unaligned() }))
    }

    #[inline(always)]
    unsafe fn add(self, b: Self) -> Self {
        self.map2(b, |a, b| a + b)
    }

    #[inline(always)]
    unsafe fn sub(self, b: Self) -> Self {
        self.map2(b, |a, b| a - b)
    }

    #[inline(always)]
    unsafe fn mul(self, b: Self) -> Self {
        self.map2(b, |a, b| a * b)
    }

    #[inline(always)]
    unsafe fn div(self, b: Self) -> Self {
        self.map2(b, |a, b| a / b)
    }

    #[inline(always)]
    unsafe fn fma(self, b: Self, c: Self) -> Self {
        Portable(std::array::from_fn(|i| self.0[i] * b.0[i] + c.0[i]))
    }

    #[inline(always)]
    unsafe fn fma_sub_add(self, b: Self, c: Self) -> Self {
        Portable(std::array::from_fn(|i| {
            let c = if i % 2 == 0 { -c.0[i] } else { c.0[i] };
            self.0[i] * b.0[i] + c
        }))
    }

    #[inline(always)]
    unsafe fn max(self, b: Self) -> Self {
        self.map2(b, |a, b| if a > b { a } else { b })
    }

    #[inline(always)]
    unsafe fn min(self, b: Self) -> Self {
        self.map2(b, |a, b| if a < b { a } else { b })
    }

    #[inline(always)]
    unsafe fn abs(self) -> Self {
        self.map(f32::abs)
    }

    #[inline(always)]
    unsafe fn with_sign_of(self, sign: Self) -> Self {
        self.map2(sign, f32::copysign)
    }

    #[inline(always)]
    unsafe fn select_less(self, limit: Self, below: Self, other: Self) -> Self {
        Portable(std::array::from_fn(|i| if self.0[i] < limit.0[i] { below.0[i] } else { other.0[i] }))
    }

    #[inline(always)]
    unsafe fn round(self) -> Self {
        self.map(|x| (x + ROUNDER) - ROUNDER)
    }

    #[inline(always)]
    unsafe fn times_power_of_two(self, n: Self) -> Self {
        self.map2(n, |x, n| {
            let n = n as i32; // NaN becomes 0, and x is NaN then
            let first = n >> 1;
            x * power_of_two(first) * power_of_two(n - first)
        })
    }

    #[inline(always)]
    unsafe fn swap_pairs(self) -> Self {
        Portable(std::array::from_fn(|i| self.0[i ^ 1]))
    }

    #[inline(always)]
    unsafe fn sum(self) -> f32 {
        let a = self.0;
        ((a[0] + a[4]) + (a[2] + a[6])) + ((a[1] + a[5]) + (a[3] + a[7]))
    }

    #[inline(always)]
    unsafe fn greatest(self) -> f32 {
        self.0.into_iter().fold(f32::NEG_INFINITY, |a, b| if b > a { b } else { a })
    }

    #[inline(always)]
    unsafe fn store_columns(four: [Self; 4], to: *mut f32, stride: usize) {
        for (p, v) in four.iter().enumerate() {
            for (i, x) in v.0.iter().enumerate() {
                // SAFETY: the caller's promise.
                unsafe { to.add(i * stride + p).write(*x) };
            }
        }
    }

    #[inline(always)]
    unsafe fn sum4(tile: [Self; 4]) -> [f32; 4] {
        // SAFETY: no duties but the CPU's features, of which none is needed.
        tile.map(|v| unsafe { v.sum() })
    }
}

impl IntLanes for Portable {
    type Int = [i32; N];
    const VALUE_SUMS: usize = 8;

    #[inline(always)]
    unsafe fn zero() -> [i32; N] {
        [0; N]
    }

    #[inline(always)]
    unsafe fn load_words(from: *const i16) -> [i32; N] {
        // SAFETY: valid for 2 N integers.
        unsafe { from.cast::<[i32; N]>().read_unaligned() }
    }

    #[inline(always)]
    unsafe fn store_words(words: [i32; N], to: *mut i16) {
        // SAFETY: valid for 2 N integers.
        unsafe { to.cast::<[i32; N]>().write_unaligned(words) }
    }

    #[inline(always)]
    unsafe fn splat_word(from: *const i16) -> [i32; N] {
        // SAFETY: valid for two integers.
        [unsafe { from.cast::<i32>().read_unaligned() }; N]
    }

    #[inline(always)]
    unsafe fn pair(first: *const i16, second: *const i16) -> [i32; N] {
        // SAFETY: valid for N integers each.
        let [first, second] = unsafe { [first, second].map(|p| p.cast::<[i16; N]>().read_unaligned()) };
        std::array::from_fn(|i| word(first[i], second[i]))
    }

    #[inline(always)]
    unsafe fn dot(sums: [i32; N], a: [i32; N], b: [i32; N]) -> [i32; N] {
        let [first, second] = [|w: i32| i32::from(w as i16), |w: i32| w >> 16];
        std::array::from_fn(|i| {
            // No product of two 16-bit integers overflows.
            let products = (first(a[i]) * first(b[i])).wrapping_add(second(a[i]) * second(b[i]));
            sums[i].wrapping_add(products)
        })
    }

    #[inline(always)]
    unsafe fn widen(sums: [i32; N]) -> Self {
        Portable(sums.map(|x| x as f32))
    }

    #[inline(always)]
    unsafe fn store_i16(self, to: *mut i16) {
        // SAFETY: valid for N integers. The low bits of the sum are the integer in two's
        // complement.
        unsafe { to.cast::<[i16; N]>().write_unaligned(self.0.map(|x| (x + ROUNDER).to_bits() as i16)) }
    }

    #[inline(always)]
    unsafe fn sum4_words(tile: [[i32; N]; 4]) -> [f32; 4] {
        tile.map(|words| words.into_iter().fold(0i32, i32::wrapping_add) as f32)
    }

    #[inline(always)]
    unsafe fn as_lanes(words: [i32; N]) -> Self {
        Portable(words.map(|word| f32::from_bits(word as u32)))
    }
}

/// Two 16-bit integers, the first in the low half, as they lie in memory.
#[inline(always)]
fn word(first: i16, second: i16) -> i32 {
    i32::from(second) << 16 | i32::from(first as u16)
}

super::fns::functions!(Portable, #[inline(never)]);

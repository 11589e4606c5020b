//! What the vector maths needs of an instruction set: one register of f32 lanes.
//!
//! The algorithms of this folder are written once over [`Lanes`]; `scalar`, `avx2`, `avx512` and
//! `neon` implement it and compile every algorithm inside a function that has the features switched
//! on.

/// One register of `N` f32 lanes.
///
/// # Safety
/// Every method is `unsafe` for two reasons, and callers have these duties:
/// - the CPU has the features that the implementing module names (holding its function table proves
///   it);
/// - pointers are valid for the `N` elements (or the `n` of a `_part` method) that are read or
///   written; no alignment is needed.
pub(crate) trait Lanes: Copy {
    /// Lanes in a register.
    const N: usize;
    /// Queries that the attention kernels hold in registers at once (their tile is `QUERIES` x 4
    /// accumulators).
    const QUERIES: usize;
    /// The same where rows are f32 already and need no register to be widened in.
    const MANY_QUERIES: usize;
    /// Queries whose scores with two registers of positions are computed at once, where keys can be
    /// transposed, else 0: twice as many accumulators stand in registers.
    const COLUMN_QUERIES: usize;
    /// How [`Lanes::sum4`] adds up each four neighbouring lanes: the first two of these, the last
    /// two, and both sums. Then come, of the sums of four fours, the first and the third, the
    /// second and the fourth, and both sums; or just the sums of two fours.
    const FOUR: [usize; 4] = [0, 2, 1, 3];
    /// Sums that fit into registers beside what they are made of, where rows are widened.
    const SUMS: usize;

    unsafe fn splat(x: f32) -> Self;
    unsafe fn load(from: *const f32) -> Self;
    /// The first `n < N` lanes from memory, zero in the others.
    unsafe fn load_part(from: *const f32, n: usize) -> Self;
    unsafe fn store(self, to: *mut f32);
    /// Writes the first `n < N` lanes only.
    unsafe fn store_part(self, to: *mut f32, n: usize);
    /// `N` half-precision numbers, widened.
    unsafe fn load_f16(from: *const u16) -> Self;
    unsafe fn load_f16_part(from: *const u16, n: usize) -> Self;
    /// Rounds to half precision, to nearest even.
    unsafe fn store_f16(self, to: *mut u16);
    unsafe fn store_f16_part(self, to: *mut u16, n: usize);
    /// `N` 8-bit integers.
    unsafe fn load_i8(from: *const i8) -> Self;
    /// One half-precision number, widened, in all lanes.
    unsafe fn splat_f16(from: *const u16) -> Self;
    /// `N / 2` numbers from memory, each in two neighbouring lanes.
    unsafe fn load_twice(from: *const f32) -> Self;

    /// Requests some bytes, which may lie anywhere; does nothing where that was not tried.
    #[inline(always)]
    unsafe fn request(_from: *const u8, _len: usize) {}

    unsafe fn add(self, b: Self) -> Self;
    unsafe fn sub(self, b: Self) -> Self;
    unsafe fn mul(self, b: Self) -> Self;
    unsafe fn div(self, b: Self) -> Self;
    /// `self * b + c`; one rounding where the hardware has FMA.
    unsafe fn fma(self, b: Self, c: Self) -> Self;
    /// `self * b` minus `c` in even lanes, plus `c` in odd lanes.
    unsafe fn fma_sub_add(self, b: Self, c: Self) -> Self;
    /// The greater; `b` where either is NaN.
    unsafe fn max(self, b: Self) -> Self;
    /// The smaller; `b` where either is NaN.
    unsafe fn min(self, b: Self) -> Self;
    unsafe fn abs(self) -> Self;
    /// The magnitude of `self` with the sign of `sign`.
    unsafe fn with_sign_of(self, sign: Self) -> Self;
    /// `below` in the lanes where `self < limit`, else `other`.
    unsafe fn select_less(self, limit: Self, below: Self, other: Self) -> Self;
    unsafe fn round(self) -> Self;
    /// `self * 2^n` for integral `n` in -252..=254, with gradual underflow.
    unsafe fn times_power_of_two(self, n: Self) -> Self;
    /// Neighbouring lanes exchanged.
    unsafe fn swap_pairs(self) -> Self;

    /// Element `i` of the four registers to `to[i * stride..][..4]`.
    unsafe fn store_columns(four: [Self; 4], to: *mut f32, stride: usize);

    unsafe fn sum(self) -> f32;
    /// The greatest lane; lanes are assumed not to be NaN.
    unsafe fn greatest(self) -> f32;
    /// The sums of four registers, each in the same order of additions.
    unsafe fn sum4(tile: [Self; 4]) -> [f32; 4];
}

/// What attention over 16-bit integers needs besides: one register of `2 * N` of them, or of `N`
/// sums of products.
///
/// # Safety
/// As [`Lanes`].
pub(crate) trait IntLanes: Lanes {
    /// `N` words of 32 bits: pairs of 16-bit integers, or sums.
    type Int: Copy;
    /// Registers of sums of weighted values that stand beside four of values.
    const VALUE_SUMS: usize;

    unsafe fn zero() -> Self::Int;
    /// `2 * N` integers.
    unsafe fn load_words(from: *const i16) -> Self::Int;
    /// The first `n < 2 * N` integers, zero behind them.
    #[inline(always)]
    unsafe fn load_words_part(from: *const i16, n: usize) -> Self::Int {
        let mut copy = [0; MAX_INTEGERS];
        // SAFETY: n integers can be read, and fit into the copy, which has a register of them.
        unsafe {
            std::ptr::copy_nonoverlapping(from, copy.as_mut_ptr(), n);
            Self::load_words(copy.as_ptr())
        }
    }
    unsafe fn store_words(words: Self::Int, to: *mut i16);
    /// Two neighbouring integers, in all words.
    unsafe fn splat_word(from: *const i16) -> Self::Int;
    /// `N` integers of two rows: element `i` of both is word `i`.
    unsafe fn pair(first: *const i16, second: *const i16) -> Self::Int;
    /// The first `n < N` of them, zero in the other words.
    #[inline(always)]
    unsafe fn pair_part(first: *const i16, second: *const i16, n: usize) -> Self::Int {
        let mut copies = [[0; MAX_INTEGERS / 2]; 2];
        // SAFETY: n integers of each can be read, and fit into a copy, which has N of them.
        unsafe {
            std::ptr::copy_nonoverlapping(first, copies[0].as_mut_ptr(), n);
            std::ptr::copy_nonoverlapping(second, copies[1].as_mut_ptr(), n);
            Self::pair(copies[0].as_ptr(), copies[1].as_ptr())
        }
    }
    /// Adds to each sum the two products of its word of `a` and `b`; wraps around on overflow.
    unsafe fn dot(sums: Self::Int, a: Self::Int, b: Self::Int) -> Self::Int;
    /// Sums as f32.
    unsafe fn widen(sums: Self::Int) -> Self;
    /// Rounds to integers, ties to even, for |x| < 2^15.
    unsafe fn store_i16(self, to: *mut i16);
    /// The sums of the words of four registers, as f32.
    unsafe fn sum4_words(tile: [Self::Int; 4]) -> [f32; 4];
    /// IntLanes as lanes of the same bits.
    unsafe fn as_lanes(words: Self::Int) -> Self;
    /// Word `i` of the four registers to words `i * stride..` of `to`.
    #[inline(always)]
    unsafe fn store_word_columns(four: [Self::Int; 4], to: *mut i16, stride: usize) {
        // SAFETY: the caller's promise.
        unsafe {
            let [a, b, c, d] = four;
            let four = [Self::as_lanes(a), Self::as_lanes(b), Self::as_lanes(c), Self::as_lanes(d)];
            Self::store_columns(four, to.cast(), stride);
        }
    }
}

/// Integers of the widest register.
const MAX_INTEGERS: usize = 32;

/// Runs `body` for every run of lanes of `0..len` of the f32 at `from`, with the register, its
/// offset and its number of lanes; the last run may be partial.
///
/// A macro, because a closure (like any function without the instruction set's features) is inlined
/// only if the optimiser likes it, and one that is not calls every intrinsic as a function: a
/// hundred times slower. For the same reason the algorithms here and in `avx512` have no closures,
/// `map` or `from_fn` around intrinsics.
///
/// To be used in an `unsafe` block: the duties are those of [`Lanes`], `from` must be valid for
/// `len` elements.
macro_rules! for_lanes {
    ($V:ty, $from:expr, $len:expr, |$v:ident, $i:ident, $n:ident| $body:expr) => {{
        let (from, len): (*const f32, usize) = ($from, $len);
        let mut $i = 0;
        while $i + <$V>::N <= len {
            let $v = <$V>::load(from.add($i));
            let $n = <$V>::N;
            $body;
            $i += <$V>::N;
        }
        if $i < len {
            let $n = len - $i;
            let $v = <$V>::load_part(from.add($i), $n);
            $body;
        }
    }};
}
pub(crate) use for_lanes;

/// Stores the first `n <= N` lanes.
///
/// # Safety
/// As [`Lanes`]; `to` is valid for `n` elements.
#[inline(always)]
pub(crate) unsafe fn store_n<V: Lanes>(v: V, to: *mut f32, n: usize) {
    // SAFETY: the caller's promise.
    unsafe { if n == V::N { v.store(to) } else { v.store_part(to, n) } }
}

/// Loads `n <= N` lanes.
///
/// # Safety
/// As [`Lanes`]; `from` is valid for `n` elements.
#[inline(always)]
pub(crate) unsafe fn load_n<V: Lanes>(from: *const f32, n: usize) -> V {
    // SAFETY: the caller's promise.
    unsafe { if n == V::N { V::load(from) } else { V::load_part(from, n) } }
}

//! Requests for weights, keys and values that are read next.
//!
//! Memory is requested in the order in which it lies, whatever the order in which a few rows are
//! read side by side: so each request finds the DRAM page of the one before it open, and follows a
//! stream that hardware prefetchers know.
//!
//! Lines are asked for in the second-level cache: the first is too small for what lies between a
//! request and its use, and what was requested too early would be thrown out again. What both are
//! worth: docs/benchmarks.md.

/// How far ahead of the first row's first unread byte to request, for rows that are `tile_bytes`
/// long together.
///
/// The last of these rows is read from the beginning, so this is all of them and some more; but not
/// less than what memory delivers while it makes its first answer, and not more than half of a
/// small second-level cache.
#[cfg(target_arch = "x86_64")]
pub(crate) fn distance(tile_bytes: usize) -> usize {
    (tile_bytes + 2048).clamp(8 << 10, 128 << 10)
}

/// Requests some bytes, on x86, and returns their end. Any address is harmless.
#[inline(always)]
#[allow(unused_unsafe, reason = "the intrinsic was unsafe in earlier versions of the standard library")]
pub(crate) fn request(p: *const u8, len: usize) -> *const u8 {
    #[cfg(target_arch = "x86_64")]
    for line in 0..len.div_ceil(64) {
        use std::arch::x86_64::{_MM_HINT_T1, _mm_prefetch};
        // SAFETY: a prefetch never faults.
        unsafe { _mm_prefetch::<_MM_HINT_T1>(p.wrapping_add(line * 64).cast()) };
    }
    p.wrapping_add(len)
}

/// Some bytes that are requested bit by bit while others are unpacked.
#[derive(Clone, Copy)]
pub(crate) struct Ahead {
    pub first: *const u8,
    pub len: usize,
}

impl Ahead {
    /// Part `part` of `of` parts.
    #[inline(always)]
    #[cfg_attr(not(target_arch = "x86_64"), allow(dead_code, reason = "nothing is requested there"))]
    pub fn part(self, part: usize, of: usize) -> Ahead {
        let len = self.len / of / 64 * 64;
        Ahead { first: self.first.wrapping_add(part * len), len }
    }
}

//! What the rows of a KV cache may be made of: the attention kernels are written once over it.

use modelembed_terms::{CacheType, Q8_BLOCK_BYTES, Q8_BLOCK_LEN};

use super::half;
use super::input::AttnInput;
use super::lanes::{Lanes, load_n};

/// An element as the attention kernels read it.
pub(crate) trait Element: Copy {
    /// Whether rows are f32, which needs no register to be widened in.
    const IS_WIDE: bool = false;

    /// How many of these make up a row of `head_dim` elements; `None` if none do.
    fn row_len(head_dim: usize) -> Option<usize>;

    /// Elements `at..at + n` of a row, `n <= N` and `at` a multiple of `N`, widened; zero in the
    /// other lanes.
    ///
    /// # Safety
    /// As [`Lanes`]; `row` is valid for a row that has these elements.
    unsafe fn load<V: Lanes>(row: *const Self, at: usize, n: usize) -> V;
}

impl Element for u16 {
    #[inline(always)]
    fn row_len(head_dim: usize) -> Option<usize> {
        Some(head_dim)
    }

    #[inline(always)]
    unsafe fn load<V: Lanes>(row: *const u16, at: usize, n: usize) -> V {
        // SAFETY: the caller's promise.
        unsafe { if n == V::N { V::load_f16(row.add(at)) } else { V::load_f16_part(row.add(at), n) } }
    }
}

impl Element for u8 {
    #[inline(always)]
    fn row_len(head_dim: usize) -> Option<usize> {
        CacheType::Q8.row_bytes(head_dim)
    }

    #[inline(always)]
    unsafe fn load<V: Lanes>(row: *const u8, at: usize, _n: usize) -> V {
        // SAFETY: registers divide a block, and blocks a row: all N elements lie in the block of
        // the first.
        unsafe {
            let block = row.add(at / Q8_BLOCK_LEN * Q8_BLOCK_BYTES);
            V::load_i8(block.add(2 + at % Q8_BLOCK_LEN).cast()).mul(V::splat_f16(block.cast()))
        }
    }
}

impl Element for f32 {
    const IS_WIDE: bool = true;

    #[inline(always)]
    fn row_len(head_dim: usize) -> Option<usize> {
        Some(head_dim)
    }

    #[inline(always)]
    unsafe fn load<V: Lanes>(row: *const f32, at: usize, n: usize) -> V {
        // SAFETY: the caller's promise.
        unsafe { load_n(row.add(at), n) }
    }
}

#[allow(private_bounds, reason = "nothing here is public")]
impl<T: Element> AttnInput<'_, T> {
    /// Elements of `k` a position.
    #[inline(always)]
    pub(super) fn key_len(&self) -> usize {
        T::row_len(self.head_dim).unwrap_or(0)
    }

    /// Elements of `v` a position.
    #[inline(always)]
    pub(super) fn value_len(&self) -> usize {
        T::row_len(self.value_dim).unwrap_or(0)
    }

    #[inline(always)]
    pub(super) fn n_pos(&self) -> usize {
        self.k.len() / self.key_len()
    }
}

/// Turns whole runs of 32 into Q8_0 blocks. The scale is rounded to half precision first, so that
/// the integers fit what is stored.
///
/// Plain operations that every instruction set rounds alike: all give the same bytes.
///
/// # Safety
/// As [`Lanes`]; `out` has the bytes of the blocks.
#[inline(always)]
pub(super) unsafe fn to_q8_0<V: Lanes>(x: &[f32], out: &mut [u8]) {
    // 1.5 * 2^23: adding it rounds to an integer, ties to even.
    const ROUNDER: f32 = 12_582_912.0;
    for (x, block) in x.as_chunks::<Q8_BLOCK_LEN>().0.iter().zip(out.as_chunks_mut::<Q8_BLOCK_BYTES>().0) {
        // The bits of magnitudes are ordered as the magnitudes are, with infinity and then NaN on
        // top.
        let amax = f32::from_bits(x.iter().fold(0, |max, x| max.max(x.to_bits() & 0x7fff_ffff)));
        let scale = half::from_f32(amax / 127.0);
        let wide = half::to_f32(scale);
        block[..2].copy_from_slice(&scale.to_ne_bytes());
        let inverse = if wide > 0.0 && wide.is_finite() { 1.0 / wide } else { 0.0 };
        for (q, x) in block[2..].iter_mut().zip(x) {
            let scaled = x * inverse;
            let clamped = if scaled > 127.0 { 127.0 } else { scaled };
            let clamped = if clamped < -127.0 { -127.0 } else { clamped };
            // The low bits of the sum are the integer in two's complement.
            *q = (clamped + ROUNDER).to_bits() as u8;
        }
    }
}

/// The reverse.
///
/// # Safety
/// As [`Lanes`]; `x` has the bytes of the blocks.
#[inline(always)]
pub(super) unsafe fn from_q8_0<V: Lanes>(x: &[u8], out: &mut [f32]) {
    for (block, out) in x.as_chunks::<Q8_BLOCK_BYTES>().0.iter().zip(out.as_chunks_mut::<Q8_BLOCK_LEN>().0) {
        let scale = half::to_f32(u16::from_ne_bytes([block[0], block[1]]));
        for (out, q) in out.iter_mut().zip(&block[2..]) {
            *out = scale * f32::from(*q as i8);
        }
    }
}

//! What the rows of a KV cache may be made of: the attention kernels are written once over it.

use super::lanes::{Lanes, load_n};
use super::{AttnInput, AttnState, VectorFns};

/// The attention function of a table for one kind of element.
pub(crate) type AttendFn<T> = unsafe fn(&AttnInput<'_, T>, &mut AttnState<'_>);

/// An element of cached keys and values: `u16` holding the bits of half precision, or `f32` where nothing may be rounded.
#[allow(private_bounds, reason = "sealed: the kernels know these two")]
pub trait KvElement: Element {}

impl KvElement for u16 {}
impl KvElement for f32 {}

pub(crate) trait Element: Copy {
    /// The first `n <= N` elements, widened; zero in the other lanes.
    ///
    /// # Safety
    /// As [`Lanes`]; `from` is valid for `n` elements.
    unsafe fn load<V: Lanes>(from: *const Self, n: usize) -> V;

    /// The function of a table that takes this element.
    fn attend(table: &VectorFns) -> AttendFn<Self>;
}

impl Element for u16 {
    #[inline(always)]
    unsafe fn load<V: Lanes>(from: *const u16, n: usize) -> V {
        // SAFETY: the caller's promise.
        unsafe { if n == V::N { V::load_f16(from) } else { V::load_f16_part(from, n) } }
    }

    fn attend(table: &VectorFns) -> AttendFn<u16> {
        table.attend_f16
    }
}

impl Element for f32 {
    #[inline(always)]
    unsafe fn load<V: Lanes>(from: *const f32, n: usize) -> V {
        // SAFETY: the caller's promise.
        unsafe { load_n(from, n) }
    }

    fn attend(table: &VectorFns) -> AttendFn<f32> {
        table.attend_f32
    }
}

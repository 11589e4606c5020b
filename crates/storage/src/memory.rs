//! A mapping that readers write to while others look at what is there already.

use std::ops::{Deref, DerefMut};

/// A mapping by its address: who may read and write where, its owner says.
pub(crate) struct Memory<M> {
    map: M,
    start: *mut u8,
}

// SAFETY: the pointer is to memory that `map` owns, and gives access to nothing by itself.
unsafe impl<M: Send> Send for Memory<M> {}
// SAFETY: as above.
unsafe impl<M: Sync> Sync for Memory<M> {}

impl<M: Deref<Target = [u8]> + DerefMut> Memory<M> {
    pub(crate) fn new(mut map: M) -> Memory<M> {
        let start = map.as_mut_ptr();
        Memory { map, start }
    }

    /// Bytes of it.
    pub(crate) fn len(&self) -> usize {
        self.map.len()
    }

    /// Where a part begins.
    pub(crate) fn place(&self, at: usize, len: usize) -> *mut u8 {
        assert!(at <= self.len() && len <= self.len() - at, "a part lies within the memory");
        self.start.wrapping_add(at)
    }

    /// A part.
    ///
    /// # Safety
    /// Nobody writes to these bytes while the slice lives.
    pub(crate) unsafe fn bytes(&self, at: usize, len: usize) -> &[u8] {
        // SAFETY: they lie within the mapping, any bytes are a value, and the caller promises the
        // rest.
        unsafe { std::slice::from_raw_parts(self.place(at, len), len) }
    }
}

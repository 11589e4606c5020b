//! Anonymous memory: for buffers that are filled at once, and for memory that is used bit by bit.

use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use memmap2::{MmapMut, MmapOptions};

use crate::alloc;
use crate::error::StorageError;

mod sealed {
    pub trait Sealed {}
    impl Sealed for u8 {}
    impl Sealed for i8 {}
    impl Sealed for u16 {}
    impl Sealed for f32 {}
}

/// Plain numbers: any bytes are a value, and zero bytes are zero.
pub trait Plain: Copy + Send + Sync + sealed::Sealed + 'static {}
impl<T: Copy + Send + Sync + sealed::Sealed + 'static> Plain for T {}

/// A slice of zeros whose pages cost memory only once they are written. Begins on a page boundary.
pub struct Reserved<T> {
    map: Option<MmapMut>, // `None` for no elements: an empty mapping is refused
    len: usize,
    element: PhantomData<T>,
}

impl<T: Plain> Reserved<T> {
    /// Reserves `len` zeros.
    ///
    /// # Errors
    /// A length that overflows, or the operating system's refusal.
    pub fn zeroed(len: usize) -> Result<Self, StorageError> {
        let refuse = |source| StorageError::Reserve { wanted_bytes: len.saturating_mul(size_of::<T>()) as u64, source };
        if len == 0 {
            return Ok(Self::empty());
        }
        let bytes = len
            .checked_mul(size_of::<T>())
            .filter(|b| *b <= isize::MAX as usize)
            .ok_or_else(|| refuse(std::io::Error::from(std::io::ErrorKind::OutOfMemory)))?;
        let map = MmapOptions::new().len(bytes).no_reserve_swap().map_anon().map_err(refuse)?;
        Ok(Reserved { map: Some(map), len, element: PhantomData })
    }

    /// No elements.
    pub fn empty() -> Self {
        Reserved { map: None, len: 0, element: PhantomData }
    }
}

impl<T> Deref for Reserved<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match &self.map {
            // SAFETY: the mapping holds `len` elements at a page boundary, for which any bytes are a value (`Plain`);
            // it lives and is borrowed as long as `self`.
            Some(map) => unsafe { std::slice::from_raw_parts(map.as_ptr().cast(), self.len) },
            None => &[],
        }
    }
}

impl<T> DerefMut for Reserved<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        match &mut self.map {
            // SAFETY: as in `deref`, and `self` is borrowed mutably.
            Some(map) => unsafe { std::slice::from_raw_parts_mut(map.as_mut_ptr().cast(), self.len) },
            None => &mut [],
        }
    }
}

impl<T> std::fmt::Debug for Reserved<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Reserved").field("len", &self.len).finish_non_exhaustive()
    }
}

/// Bytes of private memory that count as allocated.
#[derive(Debug)]
pub(crate) struct Buffer(Reserved<u8>);

impl Buffer {
    pub(crate) fn new(len: usize) -> Result<Buffer, StorageError> {
        let memory = Reserved::zeroed(len)?;
        crate::os::advise_huge_pages(&memory);
        alloc::add(len);
        Ok(Buffer(memory))
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        alloc::remove(self.0.len());
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_memory_is_zero_and_writable() {
        let mut memory = Reserved::<f32>::zeroed(100_000).unwrap();
        assert!(memory.iter().all(|x| *x == 0.0));
        memory[99_999] = 1.5;
        assert_eq!(memory[99_999], 1.5);
        assert!(Reserved::<u16>::zeroed(0).unwrap().is_empty());
    }

    #[test]
    fn impossible_sizes_are_errors() {
        for len in [usize::MAX, usize::MAX / 2, isize::MAX as usize / 2] {
            assert!(matches!(Reserved::<f32>::zeroed(len), Err(StorageError::Reserve { .. })), "{len}");
        }
    }

    #[test]
    fn more_than_the_machine_has_can_be_reserved() {
        // 64 GB of address space: fine as long as nothing is written.
        if cfg!(all(target_os = "linux", target_pointer_width = "64")) {
            assert_eq!(Reserved::<f32>::zeroed(16 << 30).unwrap()[12345], 0.0);
        }
    }
}

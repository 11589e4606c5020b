//! Anonymous memory: for buffers that are filled at once, and for memory that is used bit by bit.

use std::io;
use std::marker::PhantomData;
use std::ops::{Deref, DerefMut};

use crate::alloc;
use crate::error::StorageError;
use crate::os;

mod sealed {
    pub trait Sealed {}
    impl Sealed for u8 {}
    impl Sealed for i8 {}
    impl Sealed for i16 {}
    impl Sealed for u16 {}
    impl Sealed for i32 {}
    impl Sealed for u32 {}
    impl Sealed for f32 {}
}

/// Plain numbers: any bytes are a value, and zero bytes are zero.
pub trait Plain: Copy + Send + Sync + sealed::Sealed + 'static {}
impl<T: Copy + Send + Sync + sealed::Sealed + 'static> Plain for T {}

/// A slice of zeros whose pages cost memory only once they are written. Begins on a page boundary.
pub struct Reserved<T> {
    map: Option<os::Anonymous>, // `None` for no elements: an empty mapping is refused
    len: usize,
    element: PhantomData<T>,
}

impl<T: Plain> Reserved<T> {
    /// Reserves `len` zeros.
    ///
    /// # Errors
    /// A length that overflows, or the operating system's refusal.
    pub fn zeroed(len: usize) -> Result<Self, StorageError> {
        Self::map(len)
            .map_err(|source| StorageError::Reserve { wanted_bytes: len.saturating_mul(size_of::<T>()) as u64, source })
    }

    fn map(len: usize) -> io::Result<Self> {
        if len == 0 {
            return Ok(Self::empty());
        }
        let bytes = len.checked_mul(size_of::<T>()).filter(|b| *b <= isize::MAX as usize);
        let bytes = bytes.ok_or(io::ErrorKind::OutOfMemory)?;
        let map = os::anonymous(bytes)?;
        Ok(Reserved { map: Some(map), len, element: PhantomData })
    }

    /// No elements.
    pub fn empty() -> Self {
        Reserved { map: None, len: 0, element: PhantomData }
    }

    /// Asks for large pages, where the system has them: less address translation for memory that is
    /// used as a whole. Before the first write, since pages that are there stay as they are.
    pub fn advise_huge_pages(&self) {
        if let Some(map) = &self.map {
            os::advise_huge_pages(map);
        }
    }

    /// Bytes of the pages that cost memory by now, since they were touched. `None` where the system
    /// does not tell.
    pub fn committed_bytes(&self) -> Option<u64> {
        self.map.as_deref().map_or(Some(0), os::resident_bytes)
    }
}

impl<T> Deref for Reserved<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match &self.map {
            // SAFETY: the mapping holds `len` elements at a page boundary, for which any bytes are
            // a value (`Plain`); it lives and is borrowed as long as `self`.
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
    pub(crate) fn new(len: usize) -> io::Result<Buffer> {
        let memory = Reserved::map(len)?;
        os::advise_huge_pages(&memory);
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

    #[cfg(target_os = "linux")]
    #[test]
    fn only_touched_pages_are_committed() {
        let mut memory = Reserved::<u8>::zeroed(64 << 20).unwrap();
        assert_eq!(memory.committed_bytes(), Some(0));
        memory[40 << 20] = 1;
        // One page: a small one, or a huge one where the system always gives those.
        let committed = memory.committed_bytes().unwrap();
        assert!((4096..=4 << 20).contains(&committed), "{committed}");
        assert_eq!(Reserved::<u8>::empty().committed_bytes(), Some(0));
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

//! Systems without io_uring.

use std::fs::File;
use std::io;

/// There is none.
pub(crate) enum Ring {}

impl Ring {
    pub(crate) fn new(_depth: usize) -> io::Result<Ring> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(crate) fn is_full(&self) -> bool {
        match *self {}
    }

    pub(crate) fn is_idle(&self) -> bool {
        match *self {}
    }

    /// # Safety
    /// Nobody can call this.
    pub(crate) unsafe fn push(&mut self, _file: &File, _out: *mut u8, _len: usize, _offset: u64, _tag: u64) {
        match *self {}
    }

    pub(crate) fn wait(&mut self, _over: impl FnMut(u64, io::Result<usize>)) -> io::Result<()> {
        match *self {}
    }
}

//! A cursor over the header that never reads past the bytes it has, and says whose fault that is.

use crate::error::{Error, Result};
use crate::printable::printable;

/// Reads little-endian fields off a prefix of a file.
#[derive(Clone)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    file_bytes: u64,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8], file_bytes: u64) -> Self {
        Reader { bytes, at: 0, file_bytes: file_bytes.max(bytes.len() as u64) }
    }

    pub(crate) fn offset(&self) -> usize {
        self.at
    }

    pub(crate) fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// All bytes that were given, those already read too.
    pub(crate) fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// Bytes of the file that are still to come.
    pub(crate) fn remaining(&self) -> u64 {
        self.file_bytes - self.at as u64
    }

    /// Bytes of those that are still to come, that were given.
    pub(crate) fn at_hand(&self) -> usize {
        self.bytes.len() - self.at
    }

    /// The next `n` bytes. `what` names them in an error.
    pub(crate) fn take(&mut self, n: u64, what: &str) -> Result<&'a [u8]> {
        if n > self.remaining() {
            return Err(Error::Truncated {
                what: printable(what),
                offset: self.at as u64,
                wanted: n,
                file_bytes: self.file_bytes,
            });
        }
        let end = self.at as u64 + n;
        if end > self.bytes.len() as u64 {
            return Err(Error::HeaderTruncated { have_bytes: self.bytes.len() as u64, needed_bytes: end });
        }
        let taken = &self.bytes[self.at..end as usize];
        self.at = end as usize;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self, what: &str) -> Result<[u8; N]> {
        let mut out = [0; N];
        out.copy_from_slice(self.take(N as u64, what)?);
        Ok(out)
    }

    pub(crate) fn u8(&mut self, what: &str) -> Result<u8> {
        self.array::<1>(what).map(|b| b[0])
    }

    pub(crate) fn u16(&mut self, what: &str) -> Result<u16> {
        self.array(what).map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self, what: &str) -> Result<u32> {
        self.array(what).map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self, what: &str) -> Result<u64> {
        self.array(what).map(u64::from_le_bytes)
    }

    /// A count of things that take at least `min_bytes` each.
    pub(crate) fn count(&mut self, what: &str, min_bytes: u64) -> Result<u64> {
        let offset = self.at as u64;
        let seen = self.u64(what)?;
        let most = self.remaining() / min_bytes;
        if seen > most {
            return Err(Error::Count { what: printable(what), seen, most, offset });
        }
        Ok(seen)
    }

    /// A string's bytes: u64 length, then that many.
    pub(crate) fn string(&mut self, what: &str) -> Result<&'a [u8]> {
        let n = self.u64(what)?;
        self.take(n, what)
    }

    /// A string's bytes, unless its length is above `most_bytes`: then that length, and nothing is
    /// read or asked for.
    pub(crate) fn string_up_to(&mut self, most_bytes: u64, what: &str) -> Result<Result<&'a [u8], u64>> {
        let n = self.u64(what)?;
        if n > most_bytes && n <= self.remaining() { Ok(Err(n)) } else { self.take(n, what).map(Ok) }
    }
}

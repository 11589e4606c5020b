//! The first block of a saved context: what it is of, and how long its parts are.
//!
//! | bytes | what |
//! |---|---|
//! | 0..8 | `MEMBSESS` |
//! | 8..12 | version of the format |
//! | 12..16 | length of the fields |
//! | 16.. | the fields, in the order of [`Header`]; numbers are little-endian, texts have a length before them |
//! | behind them | SHA-256 of everything before |
//!
//! The next block has the tokens (4 bytes each), the note, and the SHA-256 of each page; then come
//! the pages, group by group. Of a model with recurrences their record comes last, as a group of one
//! page whose number is the chunk's. Each part begins at a multiple of [`ALIGN`].

use sha2::{Digest, Sha256};

use super::error::SavedError;

/// Every part begins at a multiple of so many bytes, which is one of the page size on every system.
pub(crate) const ALIGN: u64 = 64 << 10;
pub(crate) const VERSION: u32 = 1;
const MAGIC: &[u8; 8] = b"MEMBSESS";
const START: usize = 16;
/// Longest note: the text of a conversation.
pub(crate) const MAX_NOTE_BYTES: u64 = 64 << 20;
const MAX_GROUPS: usize = 1024;
const MAX_ROPES: usize = 1024;
const MAX_TEXT: usize = 64;

pub(crate) type Hash = [u8; 32];

/// What a saved context is of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    /// Of the model: its header and some of its weights.
    pub(crate) fingerprint: Hash,
    pub(crate) cache_type: String,
    pub(crate) isa: String,
    /// What [`modelembed_kernels::BITS_VERSION`] was.
    pub(crate) bits_version: u32,
    /// Whether activations were f32.
    pub(crate) exact: bool,
    /// Of each rotary embedding, whether its angles are those of long contexts.
    pub(crate) long_ropes: Vec<bool>,
    pub(crate) n_tokens: u64,
    /// Tokens whose keys and values are those that evaluating them gives.
    pub(crate) n_pure: u64,
    /// A token that was chosen but not evaluated.
    pub(crate) pending: Option<u32>,
    pub(crate) n_note_bytes: u64,
    /// Of the tokens, the note and the pages' hashes.
    pub(crate) list_hash: Hash,
    pub(crate) groups: Vec<Group>,
}

/// Pages of layers that look at the same positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Group {
    pub(crate) page_bytes: u64,
    /// The first position that is there.
    pub(crate) valid: u64,
    /// The number of the first page.
    pub(crate) first_page: u64,
    pub(crate) n_pages: u64,
}

impl Header {
    /// Bytes of the list behind the header; `None` if that overflows.
    pub(crate) fn list_bytes(&self) -> Option<u64> {
        let n_pages = self.groups.iter().try_fold(0u64, |sum, group| sum.checked_add(group.n_pages))?;
        let tokens = self.n_tokens.checked_mul(4)?;
        tokens.checked_add(self.n_note_bytes)?.checked_add(n_pages.checked_mul(32)?)
    }

    /// The block, of [`ALIGN`] bytes.
    pub(crate) fn to_bytes(&self) -> Vec<u8> {
        let mut fields = Vec::new();
        fields.extend(self.fingerprint);
        for text in [&self.cache_type, &self.isa] {
            fields.push(text.len() as u8);
            fields.extend(text.as_bytes());
        }
        fields.extend(self.bits_version.to_le_bytes());
        fields.push(u8::from(self.exact));
        fields.extend((self.long_ropes.len() as u32).to_le_bytes());
        fields.extend(self.long_ropes.iter().map(|&long| u8::from(long)));
        fields.extend(self.n_tokens.to_le_bytes());
        fields.extend(self.n_pure.to_le_bytes());
        fields.push(u8::from(self.pending.is_some()));
        fields.extend(self.pending.unwrap_or(0).to_le_bytes());
        fields.extend(self.n_note_bytes.to_le_bytes());
        fields.extend(self.list_hash);
        fields.extend((self.groups.len() as u32).to_le_bytes());
        for group in &self.groups {
            for n in [group.page_bytes, group.valid, group.first_page, group.n_pages] {
                fields.extend(n.to_le_bytes());
            }
        }
        let mut block = MAGIC.to_vec();
        block.extend(VERSION.to_le_bytes());
        block.extend((fields.len() as u32).to_le_bytes());
        block.extend(fields);
        let hash: Hash = Sha256::digest(&block).into();
        block.extend(hash);
        block.resize(ALIGN as usize, 0);
        block
    }

    /// Reads the block.
    ///
    /// # Errors
    /// Another kind of file, another version, or bytes that were changed.
    pub(crate) fn parse(block: &[u8]) -> Result<Header, SavedError> {
        let damaged = || SavedError::Damaged("its header was changed");
        if block.get(..MAGIC.len()) != Some(MAGIC) {
            return Err(SavedError::NotASession);
        }
        let number = |at: usize| {
            let bytes = block.get(at..at + 4).and_then(|b| b.try_into().ok());
            bytes.map(u32::from_le_bytes).ok_or(SavedError::Damaged("it ends within its header"))
        };
        let version = number(8)?;
        if version != VERSION {
            return Err(SavedError::Version { seen: version, wanted: VERSION });
        }
        let end = START + number(12)? as usize;
        let (before, hash) = (block.get(..end), block.get(end..end + size_of::<Hash>()));
        let (Some(before), Some(hash)) = (before, hash) else { return Err(damaged()) };
        if hash != &Sha256::digest(before)[..] {
            return Err(damaged());
        }
        // From here on the bytes are those that were written; what does not fit is no file of ours.
        Fields(&before[START..]).header().ok_or_else(damaged)
    }
}

/// Fields that are left to be read.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn take(&mut self, n: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(n)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn flag(&mut self) -> Option<bool> {
        match self.array()? {
            [0] => Some(false),
            [1] => Some(true),
            _ => None,
        }
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.array().map(u64::from_le_bytes)
    }

    fn text(&mut self) -> Option<String> {
        let [len] = self.array()?;
        let bytes = self.take(usize::from(len)).filter(|bytes| bytes.len() <= MAX_TEXT)?;
        String::from_utf8(bytes.to_vec()).ok()
    }

    /// The number of items of a list.
    fn count(&mut self, most: usize) -> Option<usize> {
        self.u32().map(|n| n as usize).filter(|&n| n <= most)
    }

    fn header(mut self) -> Option<Header> {
        let fingerprint = self.array()?;
        let (cache_type, isa) = (self.text()?, self.text()?);
        let (bits_version, exact) = (self.u32()?, self.flag()?);
        let n_ropes = self.count(MAX_ROPES)?;
        let long_ropes = (0..n_ropes).map(|_| self.flag()).collect::<Option<_>>()?;
        let n_tokens = self.u64()?;
        let n_pure = self.u64()?;
        let (has_pending, pending) = (self.flag()?, self.u32()?);
        let n_note_bytes = self.u64().filter(|&n| n <= MAX_NOTE_BYTES)?;
        let list_hash = self.array()?;
        let n_groups = self.count(MAX_GROUPS)?;
        let mut group = || {
            let [page_bytes, valid, first_page, n_pages] = [self.u64()?, self.u64()?, self.u64()?, self.u64()?];
            Some(Group { page_bytes, valid, first_page, n_pages })
        };
        let groups = (0..n_groups).map(|_| group()).collect::<Option<_>>()?;
        let pending = has_pending.then_some(pending);
        let header = Header {
            fingerprint,
            cache_type,
            isa,
            bits_version,
            exact,
            long_ropes,
            n_tokens,
            n_pure,
            pending,
            n_note_bytes,
            list_hash,
            groups,
        };
        self.0.is_empty().then_some(header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            fingerprint: [7; 32],
            cache_type: "i16".into(),
            isa: "avx2".into(),
            bits_version: 3,
            exact: false,
            long_ropes: vec![false, true],
            n_tokens: 600,
            n_pure: 550,
            pending: Some(9),
            n_note_bytes: 11,
            list_hash: [1; 32],
            groups: vec![
                Group { page_bytes: 4096, valid: 0, first_page: 0, n_pages: 3 },
                Group { page_bytes: 70_000, valid: 300, first_page: 1, n_pages: 2 },
            ],
        }
    }

    #[test]
    fn what_is_written_is_read() {
        for pending in [Some(0), None] {
            let header = Header { pending, ..header() };
            let block = header.to_bytes();
            assert_eq!(block.len() as u64, ALIGN);
            assert_eq!(Header::parse(&block).expect("our own"), header);
        }
        assert_eq!(header().list_bytes(), Some(4 * 600 + 11 + 5 * 32));
        let endless = Group { n_pages: u64::MAX, ..header().groups[0] };
        assert_eq!(Header { groups: vec![endless; 2], ..header() }.list_bytes(), None);
    }

    #[test]
    fn no_changed_byte_goes_unseen() {
        let block = header().to_bytes();
        let end = block.iter().rposition(|&b| b != 0).expect("a hash") + 1;
        for i in 0..end {
            let mut block = block.clone();
            block[i] ^= 0x20;
            assert!(Header::parse(&block).is_err(), "byte {i}");
        }
        for len in [0, 7, 8, 11, 15, 16, 100, end - 1] {
            assert!(Header::parse(&block[..len]).is_err(), "{len} bytes");
        }
        assert!(matches!(Header::parse(b"GGUF"), Err(SavedError::NotASession)));
        let mut other = block;
        other[8] = 9;
        assert!(matches!(Header::parse(&other), Err(SavedError::Version { seen: 9, wanted: VERSION })));
    }
}

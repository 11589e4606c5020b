//! The two marks of 64 bytes that show where a model begins and ends.
//!
//! `sha256 [32] | number u64 | version u32 | kind u32 | magic [16]`, little-endian. The hash is
//! over what the mark describes (for the end mark the manifest, for the front mark nothing),
//! followed by the mark's own other fields.

use sha2::{Digest, Sha256};

use crate::error::PackedError;

pub(crate) const MARK_BYTES: usize = 64;
const VERSION: u32 = 1;
/// Turned over, so that no program holds the magic number that it looks for.
const MAGIC_REVERSED: [u8; 16] = *b"DEKCAPdebmeledom";

/// What a mark says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mark {
    /// The first part begins at this byte, right behind the mark.
    Front(u64),
    /// The manifest before the mark has this many bytes.
    End(u64),
}

impl Mark {
    fn fields(self) -> [u8; MARK_BYTES - 32] {
        let (number, kind) = match self {
            Mark::Front(number) => (number, 0u32),
            Mark::End(number) => (number, 1),
        };
        let mut fields = [0; MARK_BYTES - 32];
        fields[..8].copy_from_slice(&number.to_le_bytes());
        fields[8..12].copy_from_slice(&VERSION.to_le_bytes());
        fields[12..16].copy_from_slice(&kind.to_le_bytes());
        fields[16..].copy_from_slice(&MAGIC_REVERSED);
        fields[16..].reverse();
        fields
    }

    /// The mark's bytes. `described` is the manifest, or nothing for the front mark.
    pub(crate) fn to_bytes(self, described: &[u8]) -> [u8; MARK_BYTES] {
        let fields = self.fields();
        let mut out = [0; MARK_BYTES];
        out[..32].copy_from_slice(&hash(described, &fields));
        out[32..].copy_from_slice(&fields);
        out
    }

    /// Reads a mark without checking its hash; `None` where there is none.
    ///
    /// # Errors
    /// A version that is not known.
    pub(crate) fn read(bytes: &[u8; MARK_BYTES]) -> Result<Option<Mark>, PackedError> {
        if !bytes[48..].iter().rev().eq(&MAGIC_REVERSED) {
            return Ok(None);
        }
        let u32_at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let number = u64::from(u32_at(32)) | u64::from(u32_at(36)) << 32;
        let mark = match u32_at(44) {
            0 => Mark::Front(number),
            1 => Mark::End(number),
            _ => return Ok(None),
        };
        match u32_at(40) {
            VERSION => Ok(Some(mark)),
            seen => Err(PackedError::Version { seen, wanted: VERSION }),
        }
    }
}

fn hash(described: &[u8], fields: &[u8]) -> [u8; 32] {
    Sha256::new().chain_update(described).chain_update(fields).finalize().into()
}

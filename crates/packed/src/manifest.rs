//! What lies where: written as JSON, so that people and other programs can read it.

use std::fmt::Write;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::mark::MARK_BYTES;

/// Parts begin at multiples of this: no system's page or granularity of mappings is larger.
pub(crate) const ALIGNMENT: u64 = 64 << 10;
/// Longest manifest: 9,999 parts, the most that a split model has, with long names.
pub(crate) const MAX_MANIFEST_BYTES: u64 = 8 << 20;
const MAX_PARTS: usize = 9_999;
/// Longest file name that file systems have.
const MAX_NAME_BYTES: usize = 255;

/// The description of a packed file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Manifest {
    /// The executable in front.
    pub program: Program,
    /// The files of the model, in their order.
    pub parts: Vec<Part>,
    /// Words that are put before those on the command line.
    pub flags: Vec<String>,
}

/// The executable in front: it begins at byte 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Program {
    /// Length.
    pub bytes: u64,
    /// Of all its bytes, in hexadecimal digits.
    pub sha256: String,
}

/// One file of the model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Part {
    /// The file's name, without folders.
    pub name: String,
    /// Where it begins.
    pub offset: u64,
    /// Length.
    pub bytes: u64,
    /// Of all its bytes, in hexadecimal digits.
    pub sha256: String,
    /// Length of its GGUF header: metadata and directory.
    pub header_bytes: u64,
    /// Of the header, which is checked each time before the part is used.
    pub header_sha256: String,
}

/// Where the first part begins behind a program: there is room for the front mark before it.
pub(crate) fn first_offset(program_bytes: u64) -> Option<u64> {
    program_bytes.checked_add(MARK_BYTES as u64)?.checked_next_multiple_of(ALIGNMENT)
}

impl Manifest {
    /// Reads a manifest that begins at byte `at` of the file.
    ///
    /// # Errors
    /// A sentence that says which rule it breaks.
    pub(crate) fn parse(json: &[u8], at: u64) -> Result<Manifest, String> {
        let manifest: Manifest =
            serde_json::from_slice(json).map_err(|e| format!("its description is no JSON of ours: {e}"))?;
        manifest.check(at)?;
        Ok(manifest)
    }

    /// Checks each number against the layout, which leaves none of them free. `at`: where the
    /// manifest begins.
    pub(crate) fn check(&self, at: u64) -> Result<(), String> {
        if self.program.bytes == 0 || self.parts.is_empty() || self.parts.len() > MAX_PARTS {
            return Err(format!("a program of {} bytes and {} parts", self.program.bytes, self.parts.len()));
        }
        digest(&self.program.sha256)?;
        let mut next = first_offset(self.program.bytes);
        let mut end = 0;
        for part in &self.parts {
            let Part { name, offset, bytes, header_bytes, .. } = part;
            check_name(name)?;
            digest(&part.sha256)?;
            digest(&part.header_sha256)?;
            let place = next.filter(|next| next == offset).and_then(|start| start.checked_add(*bytes));
            match place {
                Some(part_end) if *bytes > 0 && header_bytes <= bytes && part_end <= at => end = part_end,
                _ => return Err(format!("part {name:?}: {bytes} bytes at byte {offset}, a header of {header_bytes}")),
            }
            next = end.checked_next_multiple_of(ALIGNMENT);
        }
        if end != at {
            return Err(format!("the parts end at byte {end}, but the description begins at byte {at}"));
        }
        match self.flags.iter().find(|flag| flag.contains('\0')) {
            Some(flag) => Err(format!("the flag {flag:?}")),
            None => Ok(()),
        }
    }
}

/// Names become those of files: they must not leave the folder that is meant.
pub(crate) fn check_name(name: &str) -> Result<(), String> {
    let strange = |c: char| c.is_control() || matches!(c, '/' | '\\' | ':');
    if name.is_empty() || name.len() > MAX_NAME_BYTES || matches!(name, "." | "..") || name.contains(strange) {
        return Err(format!("a part has the name {name:?}"));
    }
    Ok(())
}

fn digest(hex: &str) -> Result<(), String> {
    let is_digit = |b: u8| matches!(b, b'0'..=b'9' | b'a'..=b'f');
    if hex.len() == 64 && hex.bytes().all(is_digit) { Ok(()) } else { Err(format!("the SHA-256 {hex:?}")) }
}

pub(crate) fn hex(hash: Sha256) -> String {
    hash.finalize().iter().fold(String::with_capacity(64), |mut out, byte| {
        let _ = write!(out, "{byte:02x}");
        out
    })
}

/// SHA-256 of some bytes, in hexadecimal digits.
pub fn sha256_hex(bytes: &[u8]) -> String {
    hex(Sha256::new_with_prefix(bytes))
}

//! Whether a mapped file is still what it was when it was opened.

use std::fs::Metadata;
use std::path::Path;
use std::time::SystemTime;

use crate::os;

/// What became of a mapped file since it was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Change {
    /// It is shorter: bytes that are gone end the process when they are read (see
    /// [`crate::report_lost_pages`]).
    CutShort,
    /// It was written to: the mapping shows new bytes, or old and new ones mixed.
    Rewritten,
    /// Another file has its name now. The mapping shows the old one, which is whole.
    Replaced,
    /// No file has its name any more. The mapping shows the old one, which is whole.
    Removed,
}

/// What identifies a file and its content, as far as the system tells without reading it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    len_bytes: u64,
    /// When it was written to last.
    written: Option<SystemTime>,
    /// Device and file number; none where the system has no such thing.
    id: Option<(u64, u64)>,
}

impl Stamp {
    pub(crate) fn of(metadata: &Metadata) -> Stamp {
        Stamp { len_bytes: metadata.len(), written: metadata.modified().ok(), id: os::file_id(metadata) }
    }

    /// What changed since: `opened` is the file that was opened, as it is now, and `path` its name.
    pub(crate) fn change(&self, opened: &Metadata, path: &Path) -> Option<Change> {
        let now = Stamp::of(opened);
        if now.len_bytes < self.len_bytes {
            return Some(Change::CutShort);
        }
        if (now.len_bytes, now.written) != (self.len_bytes, self.written) {
            return Some(Change::Rewritten);
        }
        match std::fs::metadata(path) {
            Ok(named) if now.is_another(Stamp::of(&named)) => Some(Change::Replaced),
            Err(e) if e.kind() == std::io::ErrorKind::NotFound => Some(Change::Removed),
            // A folder that may not be searched any more says nothing about the file.
            Ok(_) | Err(_) => None,
        }
    }

    /// Without numbers of files, one of the same length that was written to at the same time passes
    /// for the same.
    fn is_another(self, other: Stamp) -> bool {
        if self.id.is_some() { self.id != other.id } else { self != other }
    }
}

//! Which processes map a file, and what its pages cost each of them.

use std::path::Path;

use crate::change::Change;

/// A process that maps a file, and its share of that mapping.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapper {
    /// The process's number.
    pub pid: u32,
    /// Its program's name, as the system cuts it.
    pub name: String,
    /// Bytes of the file that stand in its page tables.
    pub resident_bytes: u64,
    /// The same, each page divided by the number of processes that have it.
    pub proportional_bytes: u64,
    /// Bytes of the file's pages that no other process has at the moment. They belong to the page
    /// cache all the same.
    pub unshared_bytes: u64,
    /// Bytes of the process's own memory, which no file stands behind: heap, stacks, KV cache.
    /// `None` where it may not be read.
    pub private_bytes: Option<u64>,
    /// What became of the file under its mapping, as far as the mapping's length and name show it:
    /// never [`Change::Rewritten`]. Where the file is replaced or removed, the figures above are
    /// those of the file that was there before.
    pub change: Option<Change>,
}

/// What could be found out about the processes that map a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mappers {
    /// By number.
    pub processes: Vec<Mapper>,
    /// Processes, mostly of other users, whose mappings may not be read.
    pub n_unreadable: usize,
}

/// The processes that map the file at `path`, or one that had this name before and has none now.
/// The file need not be there any more, its folder must. `None` where the system does not tell (it
/// does on Linux).
pub fn mappers(path: &Path) -> Option<Mappers> {
    #[cfg(target_os = "linux")]
    return linux::mappers(path);
    #[cfg(not(target_os = "linux"))]
    {
        let _ = path;
        None
    }
}

#[cfg(target_os = "linux")]
mod linux {
    use std::ffi::OsStr;
    use std::io::ErrorKind;
    use std::os::unix::fs::MetadataExt;
    use std::path::{Path, PathBuf};

    use super::{Mapper, Mappers};
    use crate::change::Change;
    use crate::os::{kib_line, page_bytes};

    /// A file as /proc names it.
    struct Identity {
        path: PathBuf,
        /// What has the name now, if anything has.
        now: Option<Now>,
    }

    struct Now {
        device: String,
        inode: u64,
        len_bytes: u64,
    }

    impl Identity {
        fn of(path: &Path) -> std::io::Result<Identity> {
            match path.canonicalize() {
                Ok(path) => {
                    let metadata = path.metadata()?;
                    let device = format!("{:02x}:{:02x}", libc::major(metadata.dev()), libc::minor(metadata.dev()));
                    let now = Now { device, inode: metadata.ino(), len_bytes: metadata.len() };
                    Ok(Identity { path, now: Some(now) })
                }
                Err(e) if e.kind() == ErrorKind::NotFound => {
                    let folder =
                        path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
                    let name = path.file_name().ok_or(e)?;
                    Ok(Identity { path: folder.canonicalize()?.join(name), now: None })
                }
                Err(e) => Err(e),
            }
        }

        /// Whether a mapping's first line is of this file, and what became of it under the mapping.
        /// Some file systems give `stat` another device number than /proc shows: there the path
        /// decides.
        fn seen_in(&self, line: &str) -> Option<Option<Change>> {
            let mut fields = line.split_ascii_whitespace();
            let (range, _, offset, device, inode) =
                (fields.next()?, fields.next()?, fields.next()?, fields.next()?, fields.next()?);
            let path = line.find('/').map(|at| &line[at..]);
            let inode: u64 = inode.parse().ok()?;
            match &self.now {
                Some(now)
                    if now.inode == inode
                        && (now.device == device || path.map(OsStr::new) == Some(self.path.as_os_str())) =>
                {
                    let hex = |text| u64::from_str_radix(text, 16).ok();
                    let (start, end) = range.split_once('-')?;
                    let mapped_to = hex(offset)?.saturating_add(hex(end)?.checked_sub(hex(start)?)?);
                    let is_short = mapped_to > now.len_bytes.next_multiple_of(page_bytes() as u64);
                    Some(is_short.then_some(Change::CutShort))
                }
                // A file without a name is shown with its last one.
                now if path?.strip_suffix(" (deleted)").map(OsStr::new) == Some(self.path.as_os_str()) => {
                    Some(Some(if now.is_some() { Change::Replaced } else { Change::Removed }))
                }
                _ => None,
            }
        }

        /// Of several mappings of a process: one that the file is too short for is the worst.
        /// `None` if there are none.
        fn worst(seen: impl Iterator<Item = Option<Change>>) -> Option<Option<Change>> {
            seen.reduce(|a, b| match (a, b) {
                (Some(Change::CutShort), _) | (_, Some(Change::CutShort)) => Some(Change::CutShort),
                (a, b) => a.or(b),
            })
        }
    }

    pub(super) fn mappers(path: &Path) -> Option<Mappers> {
        let file = Identity::of(path).ok()?;
        let mut found = Mappers::default();
        for entry in std::fs::read_dir("/proc").ok()?.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else { continue };
            // Names of mapped files need not be UTF-8.
            let maps = match std::fs::read(entry.path().join("maps")) {
                Ok(maps) => maps,
                Err(e) => {
                    // Any other error: it has ended since.
                    found.n_unreadable += usize::from(e.kind() == ErrorKind::PermissionDenied);
                    continue;
                }
            };
            let maps = String::from_utf8_lossy(&maps);
            let Some(change) = Identity::worst(maps.lines().filter_map(|line| file.seen_in(line))) else { continue };
            if matches!(change, Some(Change::Replaced | Change::Removed)) && !sees_our_files(&entry.path()) {
                continue;
            }
            match std::fs::read(entry.path().join("smaps")) {
                Ok(smaps) => {
                    let smaps = String::from_utf8_lossy(&smaps);
                    found.processes.push(Mapper { change, ..mapper(pid, &entry.path(), &file, &smaps) });
                }
                Err(_) => found.n_unreadable += 1,
            }
        }
        found.processes.sort_by_key(|p| p.pid);
        Some(found)
    }

    /// Whether paths mean the same to a process as to this one. In a container, another file may
    /// have had the same one.
    fn sees_our_files(folder: &Path) -> bool {
        let namespace = |folder: &Path| std::fs::read_link(folder.join("ns/mnt")).ok();
        namespace(folder) == namespace(Path::new("/proc/self"))
    }

    fn mapper(pid: u32, folder: &Path, file: &Identity, smaps: &str) -> Mapper {
        let text = |name: &str| std::fs::read_to_string(folder.join(name)).unwrap_or_default();
        let [resident_bytes, proportional_bytes, clean, dirty] =
            sums(smaps, file, ["Rss", "Pss", "Private_Clean", "Private_Dirty"]);
        Mapper {
            pid,
            name: text("comm").trim_end().to_owned(),
            resident_bytes,
            proportional_bytes,
            unshared_bytes: clean + dirty,
            private_bytes: kib_line(&text("smaps_rollup"), "Anonymous"),
            change: None,
        }
    }

    /// The sums of some values of an `smaps` text over the mappings of a file, in bytes.
    fn sums<const N: usize>(smaps: &str, file: &Identity, keys: [&str; N]) -> [u64; N] {
        let mut totals = [0; N];
        let mut inside = false;
        for line in smaps.lines() {
            let first = line.split_ascii_whitespace().next().unwrap_or_default();
            if !first.ends_with(':') {
                inside = file.seen_in(line).is_some();
            } else if inside && let Some(i) = keys.iter().position(|key| first.strip_suffix(':') == Some(key)) {
                totals[i] += kib_line(line, keys[i]).unwrap_or(0);
            }
        }
        totals
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn values_of_one_file_are_summed() {
            let smaps = "1000-3000 r--s 00000000 fe:00 7                          /m/a b.gguf\nRss:    8 kB\nPss:   4 kB\n\
                         VmFlags: rd\n3000-4000 r--s 00002000 fe:00 7     /m/a b.gguf\nRss: 2 kB\nPss: 1 kB\n\
                         5000-6000 rw-p 00000000 00:00 0 \nRss: 100 kB\n6000-7000 r--p 0 fe:00 8 /m/other\nRss: 50 kB\n";
            let file = |path: &str, device: &str| Identity {
                path: path.into(),
                now: Some(Now { device: device.into(), inode: 7, len_bytes: 0x3000 }),
            };
            assert_eq!(sums(smaps, &file("/m/a b.gguf", "fe:00"), ["Rss", "Pss"]), [10 << 10, 5 << 10]);
            // Another device number, but the same path and inode.
            assert_eq!(sums(smaps, &file("/m/a b.gguf", "00:2a"), ["Pss", "Rss"]), [5 << 10, 10 << 10]);
            assert_eq!(sums(smaps, &file("/x", "00:2a"), ["Rss"]), [0]);
        }

        #[test]
        fn a_mapping_shows_what_became_of_its_file() {
            let page = page_bytes() as u64;
            let file = |len_bytes: Option<u64>| Identity {
                path: "/m/a b".into(),
                now: len_bytes.map(|len_bytes| Now { device: "fe:00".into(), inode: 7, len_bytes }),
            };
            // Two pages from the file's second one on.
            let line =
                |inode: u64, path: &str| format!("{page:x}-{:x} r--s {page:x} fe:00 {inode}    {path}", 3 * page);
            let rows = [
                ("whole", Some(3 * page), line(7, "/m/a b"), Some(None)),
                ("whole, with a part of its last page", Some(2 * page + 1), line(7, "/m/a b"), Some(None)),
                ("a page short", Some(2 * page), line(7, "/m/a b"), Some(Some(Change::CutShort))),
                ("nothing left", Some(0), line(7, "/m/a b"), Some(Some(Change::CutShort))),
                ("renamed since", Some(3 * page), line(7, "/m/c"), Some(None)),
                ("another file has the name", Some(0), line(8, "/m/a b (deleted)"), Some(Some(Change::Replaced))),
                ("no file has the name", None, line(7, "/m/a b (deleted)"), Some(Some(Change::Removed))),
                ("another file that was removed", Some(0), line(8, "/m/b (deleted)"), None),
                ("another file", Some(0), line(8, "/m/b"), None),
                ("no file", Some(0), "1000-3000 rw-p 00000000 00:00 0 ".into(), None),
            ];
            for (name, len_bytes, line, wanted) in rows {
                assert_eq!(file(len_bytes).seen_in(&line), wanted, "{name}: {line}");
            }
            let worst = |seen: &[Option<Change>]| Identity::worst(seen.iter().copied());
            assert_eq!(worst(&[]), None);
            assert_eq!(worst(&[None, Some(Change::Replaced)]), Some(Some(Change::Replaced)));
            assert_eq!(worst(&[Some(Change::Replaced), None, Some(Change::CutShort)]), Some(Some(Change::CutShort)));
        }

        #[test]
        fn a_process_that_maps_a_removed_or_replaced_file_is_found() {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().join("model");
            std::fs::write(&path, vec![1u8; 20_000]).unwrap();
            // SAFETY: nobody reads its bytes.
            let _map = unsafe { memmap2::Mmap::map(&std::fs::File::open(&path).unwrap()) }.unwrap();
            let changes = || mappers(&path).unwrap().processes.iter().map(|p| p.change).collect::<Vec<_>>();
            assert_eq!(changes(), [None]);
            std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(10).unwrap();
            assert_eq!(changes(), [Some(Change::CutShort)]);
            std::fs::remove_file(&path).unwrap();
            assert_eq!(changes(), [Some(Change::Removed)]);
            std::fs::write(&path, b"another").unwrap();
            assert_eq!(changes(), [Some(Change::Replaced)]);
        }

        #[test]
        fn this_process_is_found() {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            std::io::Write::write_all(&mut file, &vec![1u8; 1 << 20]).unwrap();
            assert_eq!(mappers(file.path()).unwrap().processes, []);
            // SAFETY: the file is this test's own and does not change.
            let map = unsafe { memmap2::Mmap::map(file.as_file()) }.unwrap();
            let sum: u64 = map.iter().map(|&b| u64::from(b)).sum();
            assert_eq!(sum, 1 << 20);
            let found = mappers(file.path()).unwrap().processes;
            assert_eq!(found.len(), 1, "{found:?}");
            assert_eq!(found[0].pid, std::process::id());
            assert_eq!(found[0].resident_bytes, 1 << 20);
            assert!(found[0].private_bytes.is_some());
        }
    }
}

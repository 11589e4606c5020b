//! Which processes map a file, and what its pages cost each of them.

use std::path::Path;

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
    /// Bytes of the file's pages that no other process has at the moment. They belong to the page cache all the same.
    pub unshared_bytes: u64,
    /// Bytes of the process's own memory, which no file stands behind: heap, stacks, KV cache. `None` where it may not be read.
    pub private_bytes: Option<u64>,
}

/// What could be found out about the processes that map a file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mappers {
    /// By number.
    pub processes: Vec<Mapper>,
    /// Processes, mostly of other users, whose mappings may not be read.
    pub n_unreadable: usize,
}

/// The processes that map the file at `path`. `None` where the system does not tell (it does on Linux).
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
    use std::io::ErrorKind;
    use std::os::unix::fs::MetadataExt;
    use std::path::{Path, PathBuf};

    use super::{Mapper, Mappers};
    use crate::os::kib_line;

    /// A file as /proc names it.
    struct Identity {
        device: String,
        inode: u64,
        path: PathBuf,
    }

    impl Identity {
        /// Whether a mapping's first line is of this file. Some file systems give `stat` another device number than /proc
        /// shows: there the path decides.
        fn is_of(&self, line: &str) -> bool {
            let mut fields = line.split_ascii_whitespace().skip(3);
            let (Some(device), Some(inode)) = (fields.next(), fields.next()) else { return false };
            let is_path = || line.find('/').is_some_and(|at| Path::new(&line[at..]) == self.path);
            inode.parse() == Ok(self.inode) && (device == self.device || is_path())
        }
    }

    pub(super) fn mappers(path: &Path) -> Option<Mappers> {
        let path = path.canonicalize().ok()?;
        let metadata = path.metadata().ok()?;
        let device = format!("{:02x}:{:02x}", libc::major(metadata.dev()), libc::minor(metadata.dev()));
        let file = Identity { device, inode: metadata.ino(), path };
        let mut found = Mappers::default();
        for entry in std::fs::read_dir("/proc").ok()?.flatten() {
            let Some(pid) = entry.file_name().to_str().and_then(|n| n.parse().ok()) else { continue };
            // Names of mapped files need not be UTF-8.
            match std::fs::read(entry.path().join("maps")) {
                Ok(maps) if String::from_utf8_lossy(&maps).lines().any(|line| file.is_of(line)) => {
                    match std::fs::read(entry.path().join("smaps")) {
                        Ok(smaps) => {
                            found.processes.push(mapper(pid, &entry.path(), &file, &String::from_utf8_lossy(&smaps)))
                        }
                        Err(_) => found.n_unreadable += 1,
                    }
                }
                Ok(_) => {}
                Err(e) if e.kind() == ErrorKind::PermissionDenied => found.n_unreadable += 1,
                Err(_) => {} // It has ended since.
            }
        }
        found.processes.sort_by_key(|p| p.pid);
        Some(found)
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
        }
    }

    /// The sums of some values of an `smaps` text over the mappings of a file, in bytes.
    fn sums<const N: usize>(smaps: &str, file: &Identity, keys: [&str; N]) -> [u64; N] {
        let mut totals = [0; N];
        let mut inside = false;
        for line in smaps.lines() {
            let first = line.split_ascii_whitespace().next().unwrap_or_default();
            if !first.ends_with(':') {
                inside = file.is_of(line);
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
            let file = |device: &str| Identity { device: device.into(), inode: 7, path: "/m/a b.gguf".into() };
            assert_eq!(sums(smaps, &file("fe:00"), ["Rss", "Pss"]), [10 << 10, 5 << 10]);
            // Another device number, but the same path and inode.
            assert_eq!(sums(smaps, &file("00:2a"), ["Pss", "Rss"]), [5 << 10, 10 << 10]);
            let other = Identity { device: "00:2a".into(), inode: 7, path: "/x".into() };
            assert_eq!(sums(smaps, &other, ["Rss"]), [0]);
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

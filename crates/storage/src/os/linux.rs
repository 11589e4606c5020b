//! Linux: /proc, control groups, madvise.

use std::fs::{File, Metadata, read_to_string};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

pub(crate) use super::unix::{
    Anonymous, alias, anonymous, file_id, handle_lost_pages, ignores_signal, irregular_kind, keep_terminal_modes,
    page_bytes, read_at, resident_bytes, stdin_is_pipe_or_file,
};
use super::unix::{advise_pages, faults, lock as lock_present, memlock_limit, pages_of};
use crate::advice::Advice;
use crate::snapshot::Snapshot;

/// A line `Key:   123 kB` of a /proc file, in bytes.
pub(crate) fn kib_line(text: &str, key: &str) -> Option<u64> {
    let rest = text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(':'))?;
    rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

pub(crate) fn snapshot() -> Snapshot {
    let (minor_faults, major_faults) = faults();
    let read = |path| read_to_string(path).unwrap_or_default();
    let (smaps, status, io) = (read("/proc/self/smaps_rollup"), read("/proc/self/status"), read("/proc/self/io"));
    let resident_bytes = kib_line(&smaps, "Rss").or_else(|| kib_line(&status, "VmRSS"));
    // Not Private_Dirty: that has the pages of a mapped file, too, as long as they wait to be
    // written to the disk.
    let private_bytes = kib_line(&smaps, "Anonymous").or_else(|| kib_line(&status, "RssAnon"));
    Snapshot {
        minor_faults,
        major_faults,
        resident_bytes,
        private_bytes,
        shared_bytes: resident_bytes.zip(private_bytes).map(|(all, own)| all.saturating_sub(own)),
        read_bytes: io.lines().find_map(|l| l.strip_prefix("read_bytes: ")?.parse().ok()),
    }
}

pub(crate) fn mapped_resident_bytes(bytes: &[u8]) -> Option<u64> {
    // The names of mapped files need not be UTF-8.
    let smaps = std::fs::read("/proc/self/smaps").ok()?;
    rss_within(&String::from_utf8_lossy(&smaps), bytes.as_ptr() as usize, bytes.len())
}

/// The sum of `Rss` over the mappings of an `smaps` text that meet a range of addresses.
fn rss_within(smaps: &str, start: usize, len: usize) -> Option<u64> {
    let mut inside = false;
    let mut total = 0;
    for line in smaps.lines() {
        let range = line.split_once(' ').and_then(|(range, _)| range.split_once('-'));
        let address = |text: &str| usize::from_str_radix(text, 16).ok();
        if let Some((Some(first), Some(end))) = range.map(|(a, b)| (address(a), address(b))) {
            inside = first < start + len && end > start;
        } else if inside && line.starts_with("Rss:") {
            total += kib_line(line, "Rss")?;
        }
    }
    Some(total)
}

/// Since Linux 5.2 mincore calls every page of a file resident for those who neither own it nor may
/// write to it.
pub(crate) fn tells_residency(file: &File, metadata: &Metadata) -> bool {
    let Ok(opened) = std::ffi::CString::new(format!("/proc/self/fd/{}", file.as_raw_fd())) else { return false };
    // SAFETY: the calls take nothing but a string that ends with a zero and lives until they
    // return.
    unsafe {
        let user = libc::geteuid();
        user == 0
            || user == metadata.uid()
            || libc::faccessat(libc::AT_FDCWD, opened.as_ptr(), libc::W_OK, libc::AT_EACCESS) == 0
    }
}

pub(crate) fn prefetch(bytes: &[u8]) {
    // Linux 5.14 and later read and map the pages; before, only reading ahead can be asked for.
    // Asking for both, the second first, was measured to be slower than the first alone (a virtual
    // disk, 253 MB: 205 ms against 123 ms).
    if !advise_pages(bytes, libc::MADV_POPULATE_READ) {
        advise_pages(bytes, libc::MADV_WILLNEED);
    }
}

/// A fault reads what lies around it (as much as the disk is set to read ahead, up to megabytes),
/// or one page where the mapping is to be read at random. MADV_WILLNEED reads just what it names,
/// but at one time no more than the disk is set to read ahead: usually 128 KB.
pub(crate) fn prefetch_only(bytes: &[u8]) {
    ask(bytes);
    advise_pages(bytes, libc::MADV_POPULATE_READ);
}

/// See [`prefetch_only`].
pub(crate) fn ask(bytes: &[u8]) {
    const ASKED_BYTES: usize = 128 << 10;
    for part in bytes.chunks(ASKED_BYTES) {
        advise_pages(part, libc::MADV_WILLNEED);
    }
}

pub(crate) fn advise(bytes: &[u8], advice: Advice) -> bool {
    let advice = match advice {
        Advice::Normal => libc::MADV_NORMAL,
        Advice::Sequential => libc::MADV_SEQUENTIAL,
        Advice::Random => libc::MADV_RANDOM,
        Advice::Cold => libc::MADV_COLD,
        Advice::Release => libc::MADV_DONTNEED,
    };
    advise_pages(bytes, advice)
}

pub(crate) fn evict(file: &File, _bytes: &[u8], range: std::ops::Range<u64>) -> std::io::Result<bool> {
    // Pages that wait to be written are kept.
    file.sync_data()?;
    let offset = |n: u64| libc::off_t::try_from(n).unwrap_or(libc::off_t::MAX);
    let (start, len) = (offset(range.start), offset(range.end - range.start));
    // SAFETY: the call takes numbers only.
    let refusal = unsafe { libc::posix_fadvise(file.as_raw_fd(), start, len, libc::POSIX_FADV_DONTNEED) };
    if refusal == 0 { Ok(true) } else { Err(std::io::Error::from_raw_os_error(refusal)) }
}

/// Fewer faults while a buffer is filled (253 MB from the page cache: 110 ms instead of 290 ms on a
/// 2-core virtual machine), fewer misses of the address cache while memory is used.
pub(crate) fn advise_huge_pages(bytes: &[u8]) {
    const HUGE_PAGE_BYTES: usize = 2 << 20;
    if bytes.len() >= HUGE_PAGE_BYTES {
        advise_pages(bytes, libc::MADV_HUGEPAGE);
    }
}

/// Pages that are not there are locked as they come, so that nothing waits for a disk; kernels
/// before 4.4 wait.
pub(crate) fn lock(bytes: &[u8]) -> io::Result<()> {
    let (start, len) = pages_of(bytes);
    // SAFETY: the pages are mapped, since `bytes` is borrowed; locking changes nothing that can be
    // read there.
    let refused = unsafe { libc::mlock2(start as *const libc::c_void, len, libc::MLOCK_ONFAULT as libc::c_uint) != 0 };
    if !refused {
        return Ok(());
    }
    match io::Error::last_os_error() {
        e if matches!(e.raw_os_error(), Some(libc::ENOSYS | libc::EINVAL)) => lock_present(bytes),
        e => Err(e),
    }
}

/// What the limit leaves beyond what is locked already. Who has the capability CAP_IPC_LOCK has no
/// limit.
pub(crate) fn lockable_bytes() -> Option<u64> {
    const CAP_IPC_LOCK: u32 = 14;
    let status = read_to_string("/proc/self/status").unwrap_or_default();
    let line = |key: &str| status.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(':'));
    let capabilities = line("CapEff").and_then(|hex| u64::from_str_radix(hex.trim(), 16).ok()).unwrap_or(0);
    if capabilities >> CAP_IPC_LOCK & 1 != 0 {
        return None;
    }
    Some(memlock_limit()?.saturating_sub(kib_line(&status, "VmLck").unwrap_or(0)))
}

pub(crate) fn open_direct(path: &Path) -> Option<File> {
    use std::os::unix::fs::OpenOptionsExt;
    std::fs::OpenOptions::new().read(true).custom_flags(libc::O_DIRECT).open(path).ok()
}

/// Takes the wish for large pages back.
pub(crate) fn refuse_huge_pages(bytes: &[u8]) {
    advise_pages(bytes, libc::MADV_NOHUGEPAGE);
}

/// Memory that can be mapped at several addresses.
pub(crate) fn shared_memory(len: usize) -> io::Result<File> {
    // SAFETY: the name is a string that ends with a zero; the descriptor is new and belongs to
    // nobody else.
    let file = unsafe {
        let fd = libc::memfd_create(c"modelembed-window".as_ptr(), libc::MFD_CLOEXEC);
        if fd < 0 {
            return Err(io::Error::last_os_error());
        }
        File::from_raw_fd(fd)
    };
    file.set_len(len as u64)?;
    Ok(file)
}

/// Sets or takes back direct reads, past the page cache. False where the file system refuses.
pub(crate) fn set_direct(file: &File, direct: bool) -> bool {
    // SAFETY: the calls change flags of an open file only.
    unsafe {
        let flags = libc::fcntl(file.as_raw_fd(), libc::F_GETFL);
        let wanted = if direct { flags | libc::O_DIRECT } else { flags & !libc::O_DIRECT };
        flags >= 0 && libc::fcntl(file.as_raw_fd(), libc::F_SETFL, wanted) == 0
    }
}

/// Keeps reads of a file through the page cache to what they ask for. Reading ahead makes pages of
/// up to 2 MB, which `drop_cached` leaves where they lie in its range in part only.
pub(crate) fn read_no_further(file: &File) {
    // SAFETY: advice about an open file.
    unsafe { libc::posix_fadvise(file.as_raw_fd(), 0, 0, libc::POSIX_FADV_RANDOM) };
}

/// Lets the page cache forget a range of a file; pages that are mapped stay.
pub(crate) fn drop_cached(file: &File, offset: u64, len: u64) {
    // SAFETY: advice about an open file.
    unsafe { libc::posix_fadvise(file.as_raw_fd(), offset as i64, len as i64, libc::POSIX_FADV_DONTNEED) };
}

pub(crate) fn machine_memory_bytes() -> Option<u64> {
    kib_line(&read_to_string("/proc/meminfo").ok()?, "MemAvailable")
}

pub(crate) fn groups_memory_bytes() -> Option<u64> {
    let groups = read_to_string("/proc/self/cgroup").unwrap_or_default();
    groups.lines().filter_map(|line| group_available(Path::new("/sys/fs/cgroup"), line)).min()
}

/// What one line of /proc/self/cgroup leaves: `0::/path` is version 2, `9:memory:/path` version 1.
/// The groups' files lie in `mounted`; those of version 2 in its folder `unified` where both
/// versions are in use.
fn group_available(mounted: &Path, line: &str) -> Option<u64> {
    let mut fields = line.splitn(3, ':');
    let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
    let (root, limits, usage, cache) = match controllers {
        "" => {
            let unified = mounted.join("unified");
            let root = if unified.join("cgroup.controllers").exists() { unified } else { mounted.to_owned() };
            // Above the second one processes are slowed down until they have given memory up.
            let limits: &[&str] = &["memory.max", "memory.high"];
            (root, limits, "memory.current", ["inactive_file", "active_file"])
        }
        c if c.split(',').any(|c| c == "memory") => {
            let cache = ["total_inactive_file", "total_active_file"];
            let limits: &[&str] = &["memory.limit_in_bytes"];
            (mounted.join("memory"), limits, "memory.usage_in_bytes", cache)
        }
        _ => return None,
    };
    // Every ancestor limits too. Inside a container the path may not exist: then its root is the
    // container's own group.
    let mut least: Option<u64> = None;
    let mut folder: PathBuf = root.join(path.trim_start_matches('/'));
    while folder.starts_with(&root) {
        let number = |name: &str| read_to_string(folder.join(name)).ok()?.trim().parse::<u64>().ok();
        // No limit reads "max" in version 2 and a huge number in version 1.
        if let (Some(limit), Some(usage)) = (limits.iter().filter_map(|name| number(name)).min(), number(usage)) {
            // The page cache counts as used, but the group gives it up when memory is wanted.
            let stat = read_to_string(folder.join("memory.stat")).unwrap_or_default();
            let line =
                |key: &str| stat.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(' ')?.parse::<u64>().ok());
            let cached: u64 = cache.iter().filter_map(|key| line(key)).sum();
            let left = limit.saturating_sub(usage.saturating_sub(cached));
            least = Some(least.map_or(left, |l| l.min(left)));
        }
        if !folder.pop() {
            break;
        }
    }
    least
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn proc_lines() {
        let text = "Rss:                 1234 kB\nPss:   5 kB\nName: x\n";
        assert_eq!(kib_line(text, "Rss"), Some(1234 * 1024));
        assert_eq!(kib_line(text, "Pss"), Some(5 * 1024));
        assert_eq!(kib_line(text, "Name"), None);
    }

    #[test]
    fn resident_parts_of_mappings() {
        let smaps = "1000-3000 r--s 00000000 fe:00 7 /a-b c\nSize: 8 kB\nRss: 4 kB\nVmFlags: rd mr\n\
                     3000-4000 r--s 00002000 fe:00 7 /a-b c\nRss: 2 kB\n5000-6000 rw-p 00000000 00:00 0 \nRss: 1 kB\n";
        let rows = [(0x1000, 0x3000, 6), (0x1000, 0x2000, 4), (0x2fff, 2, 6), (0x4000, 0x1000, 0), (0x4fff, 2, 1)];
        for (start, len, kib) in rows {
            assert_eq!(rss_within(smaps, start, len), Some(kib << 10), "{start:#x} {len:#x}");
        }
    }

    #[test]
    fn control_groups_limit() {
        let dir = tempfile::tempdir().unwrap();
        let group = |path: &str, files: &[(&str, &str)]| {
            let folder = dir.path().join(path);
            std::fs::create_dir_all(&folder).unwrap();
            files.iter().for_each(|(name, text)| std::fs::write(folder.join(name), text).unwrap());
        };
        let stat = "anon 5\ninactive_file 100\nactive_file 20\ninactive_file_other 7\n";
        group("a", &[("memory.max", "5000\n"), ("memory.current", "4900\n"), ("memory.stat", stat)]);
        group("a/b", &[("memory.max", "max\n"), ("memory.current", "10\n")]);
        group("a/c", &[("memory.max", "50\n"), ("memory.current", "60\n")]);
        group("h", &[("memory.max", "max\n"), ("memory.high", "4000\n"), ("memory.current", "1000\n")]);
        group("h/low", &[("memory.max", "3000\n"), ("memory.high", "3500\n"), ("memory.current", "1000\n")]);
        let unlimited = [("memory.limit_in_bytes", "9223372036854771712\n"), ("memory.usage_in_bytes", "1\n")];
        group("memory", &unlimited);
        let stat = "inactive_file 1\ntotal_inactive_file 200\ntotal_active_file 0\n";
        let files = [("memory.limit_in_bytes", "1000"), ("memory.usage_in_bytes", "900"), ("memory.stat", stat)];
        group("memory/x", &files);
        let rows = [
            ("0::/a", Some(220)),
            ("0::/a/b", Some(220)), // the parent's limit
            ("0::/a/c", Some(0)),   // over its limit
            ("0::/h", Some(3000)),  // where it would be slowed down
            ("0::/h/low", Some(2000)),
            ("0::/", None),
            ("0::/../../outside", None),
            ("4:memory:/x", Some(300)),
            ("4:cpu,memory:/x/not-here:1", Some(300)),
            ("4:memory:/", Some(9223372036854771711)),
            ("3:cpu:/x", None),
            ("nonsense", None),
        ];
        for (line, wanted) in rows {
            assert_eq!(group_available(dir.path(), line), wanted, "{line}");
        }
        // With both versions in use, each may have the memory; version 2 lies a folder lower.
        group("unified", &[("cgroup.controllers", "memory\n")]);
        group(
            "unified/a",
            &[("memory.max", "700\n"), ("memory.current", "500\n"), ("memory.stat", "inactive_file 60\n")],
        );
        let rows = [("0::/a", Some(260)), ("0::/a/b", Some(260)), ("0::/", None), ("4:memory:/x", Some(300))];
        for (line, wanted) in rows {
            assert_eq!(group_available(dir.path(), line), wanted, "both versions: {line}");
        }
    }

    #[test]
    fn the_system_tells() {
        let s = snapshot();
        assert!(s.minor_faults.unwrap() > 0);
        assert!(s.resident_bytes.unwrap() > 100_000, "{s:?}");
        assert!(s.private_bytes.unwrap() < s.resident_bytes.unwrap(), "{s:?}");
        assert!(machine_memory_bytes().unwrap() > 1_000_000);
    }
}

//! Linux: /proc, control groups, madvise.

use std::fs::read_to_string;

use super::unix::{faults, pages_of};
pub(crate) use super::unix::{irregular_kind, read_at, resident_bytes};
use crate::process::Snapshot;

/// A line `Key:   123 kB` of a /proc file, in bytes.
fn kib_line(text: &str, key: &str) -> Option<u64> {
    let rest = text.lines().find_map(|l| l.strip_prefix(key)?.strip_prefix(':'))?;
    rest.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

pub(crate) fn snapshot() -> Snapshot {
    let (minor_faults, major_faults) = faults();
    let smaps = read_to_string("/proc/self/smaps_rollup").ok();
    let field = |key| smaps.as_deref().and_then(|s| kib_line(s, key));
    let sum = |a: Option<u64>, b: Option<u64>| Some(a? + b?);
    let status = read_to_string("/proc/self/status").unwrap_or_default();
    let io = read_to_string("/proc/self/io").unwrap_or_default();
    Snapshot {
        minor_faults,
        major_faults,
        resident_bytes: field("Rss").or_else(|| kib_line(&status, "VmRSS")),
        // Anonymous pages, written copies of file pages among them. Not `Private_Dirty`: that counts the pages of a shared
        // mapping too while a file that was just written waits for its way to the disk.
        private_bytes: field("Anonymous").or_else(|| kib_line(&status, "RssAnon")),
        shared_bytes: sum(field("Shared_Clean"), field("Shared_Dirty")),
        read_bytes: io.lines().find_map(|l| l.strip_prefix("read_bytes: ")?.parse().ok()),
    }
}

pub(crate) fn mapped_resident_bytes(start: usize, len: usize) -> Option<u64> {
    let smaps = read_to_string("/proc/self/smaps").ok()?;
    let mut inside = false;
    let mut total = 0;
    for line in smaps.lines() {
        let range = line.split_once(' ').and_then(|(range, _)| range.split_once('-'));
        let address = |text: &str| usize::from_str_radix(text, 16).ok();
        if let Some((Some(a), Some(b))) = range.map(|(a, b)| (address(a), address(b))) {
            inside = a < start + len && b > start;
        } else if inside && line.starts_with("Rss:") {
            total += kib_line(line, "Rss")?;
        }
    }
    Some(total)
}

pub(crate) fn prefetch(bytes: &[u8]) {
    let (start, len) = pages_of(bytes);
    // SAFETY: the pages are mapped, since `bytes` is borrowed, and neither advice changes what they hold.
    unsafe {
        // Linux 5.14 and later read and map the pages; before, only reading ahead can be asked for.
        if libc::madvise(start as *mut libc::c_void, len, libc::MADV_POPULATE_READ) != 0 {
            libc::madvise(start as *mut libc::c_void, len, libc::MADV_WILLNEED);
        }
    }
}

pub(crate) fn advise_huge_pages(bytes: &[u8]) {
    let page = super::unix::page_bytes();
    let start = (bytes.as_ptr() as usize).next_multiple_of(page);
    let end = (bytes.as_ptr() as usize + bytes.len()) / page * page;
    if start < end {
        // SAFETY: the pages are mapped, since `bytes` is borrowed, and the advice does not change what they hold.
        unsafe {
            libc::madvise(start as *mut libc::c_void, end - start, libc::MADV_HUGEPAGE);
        }
    }
}

pub(crate) fn available_memory_bytes() -> Option<u64> {
    let machine = read_to_string("/proc/meminfo").ok().and_then(|m| kib_line(&m, "MemAvailable"));
    let groups = read_to_string("/proc/self/cgroup").unwrap_or_default();
    groups.lines().filter_map(group_available).chain(machine).min()
}

/// What one line of /proc/self/cgroup leaves: `0::/path` is version 2, `9:memory:/path` version 1.
fn group_available(line: &str) -> Option<u64> {
    let mut fields = line.splitn(3, ':');
    let (_, controllers, path) = (fields.next()?, fields.next()?, fields.next()?);
    let (root, limit, usage, cache) = match controllers {
        "" => ("/sys/fs/cgroup", "memory.max", "memory.current", "inactive_file"),
        c if c.split(',').any(|c| c == "memory") => {
            ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        }
        _ => return None,
    };
    // Every ancestor limits too. Inside a container the path may not exist: then its root is the container's own group.
    let mut least: Option<u64> = None;
    let mut folder = std::path::PathBuf::from(format!("{root}/{}", path.trim_start_matches('/')));
    while folder.starts_with(root) {
        let number = |name: &str| read_to_string(folder.join(name)).ok()?.trim().parse::<u64>().ok();
        if let (Some(limit), Some(usage)) = (number(limit), number(usage)) {
            // The page cache that the group would give up first counts as used, but can be had.
            let stat = read_to_string(folder.join("memory.stat")).unwrap_or_default();
            let cached = stat.lines().find_map(|l| l.strip_prefix(cache)?.trim().parse::<u64>().ok()).unwrap_or(0);
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
    fn the_system_tells() {
        let s = snapshot();
        assert!(s.minor_faults.unwrap() > 0);
        assert!(s.resident_bytes.unwrap() > 100_000, "{s:?}");
        assert!(available_memory_bytes().unwrap() > 1_000_000);
    }
}

//! How many workers this process should use.

use std::{num::NonZero, thread};

/// The number of physical cores that this process may use, at least 1.
///
/// Counted are the CPUs that the calling thread may run on, with the hardware threads of one core
/// as one (they share the vector units that the kernels keep busy), limited by the CPU quota of the
/// process's cgroup, v1 or v2.
pub fn available_threads() -> usize {
    // The standard library reads the affinity mask and both kinds of cgroup quota; it counts
    // hardware threads.
    let cpus = logical_cpus();
    physical_cores().map_or(cpus, |cores| cores.min(cpus)).max(1)
}

/// CPUs that threads of this process can run on at the same time, hardware threads included.
pub(crate) fn logical_cpus() -> usize {
    thread::available_parallelism().map_or(1, NonZero::get)
}

#[cfg(target_os = "linux")]
fn physical_cores() -> Option<usize> {
    use std::fs::read_to_string;

    // The calling thread's mask, as `sched_getaffinity` would give it.
    let status = read_to_string("/proc/thread-self/status").or_else(|_| read_to_string("/proc/self/status")).ok()?;
    let list = status.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:"))?;
    let allowed = parse_cpu_list(list)?;
    let siblings = |cpu: usize| {
        let topology = format!("/sys/devices/system/cpu/cpu{cpu}/topology");
        // The first is the name since Linux 5.2, the second the one before.
        let file = read_to_string(format!("{topology}/core_cpus_list"))
            .or_else(|_| read_to_string(format!("{topology}/thread_siblings_list")));
        file.ok().and_then(|list| parse_cpu_list(&list))
    };
    Some(count_cores(&allowed, siblings))
}

#[cfg(not(target_os = "linux"))]
fn physical_cores() -> Option<usize> {
    Some(num_cpus::get_physical())
}

/// Counts allowed CPUs, those of one core once. A CPU whose siblings are unknown counts as a core.
#[cfg(any(target_os = "linux", test))]
fn count_cores(allowed: &[usize], siblings: impl Fn(usize) -> Option<Vec<usize>>) -> usize {
    let mut cores: Vec<usize> = allowed
        .iter()
        .map(|&cpu| siblings(cpu).and_then(|list| list.into_iter().min()).map_or(cpu, |first| first.min(cpu)))
        .collect();
    cores.sort_unstable();
    cores.dedup();
    cores.len()
}

/// Reads the kernel's list format, such as `0-3,8,10-11`. None if it is malformed or empty.
#[cfg(any(target_os = "linux", test))]
fn parse_cpu_list(list: &str) -> Option<Vec<usize>> {
    // More CPUs than any machine has; keeps a strange file from costing memory.
    const MAX_CPU: usize = 1 << 16;
    let mut cpus = Vec::new();
    for range in list.trim().split(',') {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (usize, usize) = (first.trim().parse().ok()?, last.trim().parse().ok()?);
        if first > last || last >= MAX_CPU {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_lists() {
        let rows: &[(&str, Option<&[usize]>)] = &[
            ("0", Some(&[0])),
            ("\t0-3\n", Some(&[0, 1, 2, 3])),
            ("0-1,4,6-7", Some(&[0, 1, 4, 6, 7])),
            ("", None),
            ("3-1", None),
            ("a-b", None),
            ("0-99999999999", None),
            ("1,", None),
        ];
        let wrong: Vec<_> = rows
            .iter()
            .map(|&(text, want)| (text, parse_cpu_list(text), want))
            .filter(|(_, seen, want)| seen.as_deref() != *want)
            .collect();
        assert!(wrong.is_empty(), "text, seen, wanted: {wrong:?}");
    }

    #[test]
    fn siblings_count_once() {
        // Four cores with two threads each, numbered as most x86 servers do: n and n + 4.
        let siblings = |cpu: usize| Some(vec![cpu % 4, cpu % 4 + 4]);
        assert_eq!(count_cores(&[0, 1, 2, 3, 4, 5, 6, 7], siblings), 4);
        assert_eq!(count_cores(&[5, 1], siblings), 1, "both threads of one core");
        assert_eq!(count_cores(&[4, 5, 6], siblings), 3, "first siblings not allowed");
        assert_eq!(count_cores(&[0, 1, 2], |_| None), 3, "unknown topology");
    }

    #[test]
    fn within_the_machine() {
        let n = available_threads();
        assert!(n >= 1 && n <= logical_cpus(), "{n}");
    }
}

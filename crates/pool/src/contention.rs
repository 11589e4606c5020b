//! Workers whose CPU somebody else wants are left out of short loops for a while.
//!
//! A loop ends with its last chunk. If a worker is taken off its CPU in the middle of one, all wait until it is given one again, and that
//! is milliseconds where a loop is microseconds: two threads are then slower than the one that has a CPU to itself. So the caller watches
//! its waits. Where the kernel says that a worker spent them in a queue for a CPU, and not computing or reading a file, the worker takes
//! part in none of the next loops; after that it is tried again, and left out for longer if nothing has changed.
//!
//! Long loops are not judged: in them others have taken over what a worker could not do, and a wait is little beside the work.
//! Only Linux keeps such an account of a thread (`schedstat`); elsewhere nobody is left out, nor where there are more threads than CPUs:
//! those wait for each other.

use std::{
    fs::File,
    sync::{
        OnceLock,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use crate::share::CachePadded;

/// Loops that are watched after one whose caller had to sleep, and after a worker's return. Time slices are a few milliseconds, in which one
/// CPU gets through a hundred loops.
const WATCHED: u32 = 1024;
/// Loops that a worker is left out of, at first and at most: with 20 to 150 us a loop, 10 to 80 ms and 0.2 to 1.2 s.
const LEFT_OUT: (u32, u32) = (512, 8192);
/// Loops whose caller worked for longer are not judged.
const LONG: Duration = Duration::from_millis(1);

/// Loops are numbered by the pool's epochs, which wrap around.
pub(crate) struct Contention {
    is_on: bool,
    /// Loops still to be watched.
    watched: AtomicU32,
    /// One a worker, the caller's first, who is never left out.
    workers: Box<[CachePadded<Record>]>,
}

#[derive(Default)]
struct Record {
    account: OnceLock<File>,
    /// Time in queues when the caller went to sleep.
    queued_ns: AtomicU64,
    /// The first loop that it takes part in again.
    back_at: AtomicU32,
    /// How many loops it was left out of the last time.
    left_out: AtomicU32,
}

/// A loop that is watched.
#[derive(Clone, Copy)]
pub(crate) struct Watch {
    start: Instant,
}

/// A caller's sleep at the end of a loop that is judged.
pub(crate) struct Asleep {
    since: Instant,
}

impl Contention {
    /// Nobody is left out without `is_on`.
    pub fn new(threads: usize, is_on: bool) -> Contention {
        let workers = (0..threads).map(|_| CachePadded(Record::default())).collect();
        Contention { is_on, watched: AtomicU32::new(0), workers }
    }

    /// Called by each worker thread when it starts.
    pub fn register(&self, worker: usize) {
        if !self.is_on {
            return;
        }
        if let Ok(account) = File::open("/proc/thread-self/schedstat") {
            let _ = self.workers[worker].0.account.set(account);
        }
    }

    /// Whether a worker has no part in a loop.
    pub fn is_out(&self, worker: usize, epoch: u32) -> bool {
        let record = &self.workers[worker].0;
        // Further ahead is a number of long ago, from the other side of zero.
        (1..=record.left_out.load(Relaxed)).contains(&record.back_at.load(Relaxed).wrapping_sub(epoch))
    }

    /// Called by the caller at the start of a loop.
    pub fn watch(&self) -> Option<Watch> {
        let left = self.watched.load(Relaxed);
        if left == 0 {
            return None;
        }
        self.watched.store(left - 1, Relaxed);
        Some(Watch { start: Instant::now() })
    }

    /// Called by a caller who goes to sleep at the end of a loop; when it is awake again, [`judge`](Self::judge) gets what this returns.
    pub fn sleep(&self, watch: Option<Watch>) -> Option<Asleep> {
        self.watched.fetch_max(if self.is_on { WATCHED } else { 0 }, Relaxed);
        let since = Instant::now();
        if watch?.start.elapsed() > LONG {
            return None;
        }
        for record in self.workers.iter().skip(1) {
            if let Some(now) = record.0.account.get().and_then(queued_ns) {
                record.0.queued_ns.store(now, Relaxed);
            }
        }
        Some(Asleep { since })
    }

    /// Leaves out whom a sleep at the end of loop `epoch` was spent on while it was in a queue.
    pub fn judge(&self, asleep: Asleep, epoch: u32) {
        let slept = asleep.since.elapsed();
        for record in self.workers.iter().skip(1) {
            let Some(now) = record.0.account.get().and_then(queued_ns) else { continue };
            let queued = now.saturating_sub(record.0.queued_ns.load(Relaxed));
            if u128::from(queued) * 2 > slept.as_nanos() {
                let n = record.0.leave_out(epoch);
                self.watched.fetch_max(n + WATCHED, Relaxed);
            }
        }
    }
}

impl Record {
    /// Leaves the worker out of the loops behind `epoch`, and returns of how many.
    fn leave_out(&self, epoch: u32) -> u32 {
        let (least, most) = LEFT_OUT;
        let (last, back_at) = (self.left_out.load(Relaxed), self.back_at.load(Relaxed));
        // It had not been back for as long as it was out.
        let again = last > 0 && epoch.wrapping_sub(back_at) < last;
        let n = if again { (2 * last).min(most) } else { least };
        self.left_out.store(n, Relaxed);
        self.back_at.store(epoch.wrapping_add(1 + n), Relaxed);
        n
    }
}

/// How long a thread has been in queues for a CPU: the second number of its `schedstat` (Linux, Documentation/scheduler/sched-stats).
fn queued_ns(account: &File) -> Option<u64> {
    let mut text = [0; 64];
    let n = read_at_start(account, &mut text)?;
    std::str::from_utf8(&text[..n]).ok()?.split_ascii_whitespace().nth(1)?.parse().ok()
}

#[cfg(unix)]
fn read_at_start(file: &File, into: &mut [u8]) -> Option<usize> {
    std::os::unix::fs::FileExt::read_at(file, into, 0).ok()
}

#[cfg(not(unix))]
fn read_at_start(_: &File, _: &mut [u8]) -> Option<usize> {
    None
}

#[cfg(test)]
impl Contention {
    /// Leaves a worker out of loops `epoch + 1..=epoch + n`.
    pub fn leave_out(&self, worker: usize, epoch: u32, n: u32) {
        self.workers[worker].0.left_out.store(n, Relaxed);
        self.workers[worker].0.back_at.store(epoch.wrapping_add(1 + n), Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_return_in_vain_is_later() {
        for start in [0, 1 << 31, u32::MAX - 1000] {
            let contention = Contention::new(3, true);
            let (mut epoch, mut lengths) = (start, Vec::new());
            for _ in 0..7 {
                assert!(!contention.is_out(1, epoch));
                contention.workers[1].0.leave_out(epoch);
                let out = (1..20_000).take_while(|i| contention.is_out(1, epoch.wrapping_add(*i))).count();
                assert!(!contention.is_out(2, epoch.wrapping_add(1)) && !contention.is_out(0, epoch.wrapping_add(1)));
                lengths.push(out);
                epoch = epoch.wrapping_add(out as u32 + 1);
            }
            assert_eq!(lengths, [512, 1024, 2048, 4096, 8192, 8192, 8192]);
            // Back for as long as it was out: the next time begins anew.
            epoch = epoch.wrapping_add(8192);
            contention.workers[1].0.leave_out(epoch);
            assert!(contention.is_out(1, epoch.wrapping_add(512)) && !contention.is_out(1, epoch.wrapping_add(513)));
        }
    }

    #[test]
    fn loops_are_watched_after_one_that_slept() {
        let contention = Contention::new(2, true);
        assert!(contention.watch().is_none());
        assert!(contention.sleep(None).is_none());
        let watched = (0..2000).take_while(|_| contention.watch().is_some()).count();
        assert_eq!(watched, WATCHED as usize);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn the_kernel_keeps_an_account() {
        let contention = Contention::new(2, true);
        contention.register(1);
        // Some containers hide it; then nobody is left out.
        let Some(account) = contention.workers[1].0.account.get() else {
            return eprintln!("skipped: no schedstat here");
        };
        assert!(queued_ns(account).is_some());
    }
}

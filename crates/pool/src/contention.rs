//! Workers whose CPU somebody else wants are left out of short loops for a while.
//!
//! A loop ends with its last chunk. If a worker is taken off its CPU in the middle of one, all wait
//! until it is given one again, and that is milliseconds where a loop is microseconds: two threads
//! are then slower than the one that has a CPU to itself. So the caller watches its sleeps. Where
//! the kernel says that a worker spent one in a queue for a CPU, and not computing or reading a
//! file, the worker takes part in none of the next loops; after that it is tried again, and left
//! out for longer if nothing has changed.
//!
//! Long loops are not judged, and two of them end what was judged before: in them others take over
//! what a worker cannot do, and a wait is little beside the work.
//!
//! Only Linux keeps such an account of a thread (`schedstat`; one open file a worker). Elsewhere
//! nobody is left out, nor where there are more threads than CPUs: those wait for each other.

use std::{
    fs::File,
    sync::{
        OnceLock,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use crate::share::CachePadded;

/// Sleeps that are shorter are not looked at: the schedulers' time slices are 3 ms and more, and
/// what is shorter happens on any machine.
pub(crate) const SHORT_SLEEP: Duration = Duration::from_micros(500);
/// Loops whose caller works for longer are long: a stolen time slice is then no multiple of the
/// loop.
const LONG_LOOP: Duration = Duration::from_millis(1);
/// Loops that are watched after a sleep that was looked at. A CPU gets through 150 loops of the
/// smallest models in a time slice of 4 ms, and is taken away once in two of these at least.
const WATCHED: u32 = 1024;
/// Loops that a worker is left out of, at first and at most. The smallest models' take 27 us on one
/// thread of a Zen 4: these are 55 and 220 ms. A trial costs one time slice, 2 % of the latter.
const LEFT_OUT: (u32, u32) = (2048, 8192);
/// A worker is not left out for longer, however long its loops are.
const LEFT_OUT_AT_MOST: Duration = Duration::from_secs(1);

/// Loops are numbered by the pool's epochs, which wrap around. (A worker that was once left out is
/// so again when its number comes round after 2^32 loops: a day at least.)
pub(crate) struct Contention {
    is_on: bool,
    start: Instant,
    /// Loops still to be watched.
    watched: AtomicU32,
    /// Long loops one after the other.
    long_loops: AtomicU32,
    /// When all take part again, in us from `start`.
    recall_at_us: AtomicU64,
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
    epoch: u32,
    start: Instant,
}

/// A caller's sleep at the end of a loop that is judged.
pub(crate) struct Asleep {
    epoch: u32,
    since: Instant,
}

impl Contention {
    /// Nobody is left out without `is_on`.
    pub fn new(threads: usize, is_on: bool) -> Contention {
        let workers = (0..threads).map(|_| CachePadded(Record::default())).collect();
        let (watched, long_loops, recall_at_us) = (AtomicU32::new(0), AtomicU32::new(0), AtomicU64::new(0));
        Contention { is_on, start: Instant::now(), watched, long_loops, recall_at_us, workers }
    }

    /// Called by each worker thread when it starts.
    pub fn register(&self, worker: usize) {
        if self.is_on
            && let Ok(account) = File::open("/proc/thread-self/schedstat")
        {
            let _ = self.workers[worker].0.account.set(account);
        }
    }

    /// Whether a worker has no part in a loop.
    pub fn is_out(&self, worker: usize, epoch: u32) -> bool {
        self.workers[worker].0.is_out(epoch)
    }

    /// Called by the caller before it deals loop `epoch`.
    pub fn watch(&self, epoch: u32) -> Option<Watch> {
        let left = self.watched.load(Relaxed);
        if left == 0 {
            return None;
        }
        self.watched.store(left - 1, Relaxed);
        let start = Instant::now();
        if self.us(start) >= self.recall_at_us.load(Relaxed) {
            self.recall(epoch);
        }
        Some(Watch { epoch, start })
    }

    /// Called by the caller when its part of a loop is done. Everybody is watched for as long as
    /// somebody is out.
    pub fn worked(&self, watch: Option<Watch>) {
        let Some(watch) = watch else { return };
        if watch.start.elapsed() <= LONG_LOOP {
            return self.long_loops.store(0, Relaxed);
        }
        // One alone can be a time slice that the caller itself has lost.
        if self.long_loops.fetch_add(1, Relaxed) > 0 {
            self.recall(watch.epoch.wrapping_add(1));
        }
    }

    /// Called by a caller who has slept for [`SHORT_SLEEP`] at the end of a loop and is to go on;
    /// when it is awake again, [`judge`](Self::judge) gets what this returns. The kernel books the
    /// time in a queue when it ends: what has passed of it is not lost.
    pub fn sleep(&self, watch: Option<Watch>) -> Option<Asleep> {
        if !self.is_on {
            return None;
        }
        self.watched.fetch_max(WATCHED, Relaxed);
        let (Watch { epoch, start }, since) = (watch?, Instant::now());
        if since - start > LONG_LOOP + SHORT_SLEEP {
            return None;
        }
        for record in self.workers.iter().skip(1) {
            if let Some(now) = record.0.account.get().and_then(queued_ns) {
                record.0.queued_ns.store(now, Relaxed);
            }
        }
        Some(Asleep { epoch, since })
    }

    /// Leaves out whom a sleep was spent on while it was in a queue.
    pub fn judge(&self, Asleep { epoch, since }: Asleep) {
        let slept = since.elapsed();
        for record in self.workers.iter().skip(1).filter(|record| !record.0.is_out(epoch)) {
            let Some(now) = record.0.account.get().and_then(queued_ns) else { continue };
            if is_to_blame(now.saturating_sub(record.0.queued_ns.load(Relaxed)), slept) {
                let n = record.0.leave_out(epoch);
                self.watched.fetch_max(n + WATCHED, Relaxed);
                self.recall_at_us.store(self.us(Instant::now() + LEFT_OUT_AT_MOST), Relaxed);
            }
        }
    }

    /// All take part again, from loop `epoch` on.
    fn recall(&self, epoch: u32) {
        for record in self.workers.iter().filter(|record| record.0.is_out(epoch)) {
            record.0.back_at.store(epoch, Relaxed);
        }
    }

    fn us(&self, at: Instant) -> u64 {
        (at - self.start).as_micros() as u64
    }
}

/// Whether a worker that was in queues for so long is what the caller slept for: for most of the
/// time, as far as both were looked at.
fn is_to_blame(queued_ns: u64, slept: Duration) -> bool {
    queued_ns > 0 && u128::from(queued_ns) * 2 > slept.as_nanos()
}

impl Record {
    fn is_out(&self, epoch: u32) -> bool {
        // Further ahead is a number of long ago, from the other side of zero.
        (1..=self.left_out.load(Relaxed)).contains(&self.back_at.load(Relaxed).wrapping_sub(epoch))
    }

    /// Leaves the worker out of the loops behind `epoch`, and returns of how many.
    fn leave_out(&self, epoch: u32) -> u32 {
        let (least, most) = LEFT_OUT;
        let (last, back_at) = (self.left_out.load(Relaxed), self.back_at.load(Relaxed));
        // It had not been back for as long as it was out.
        let again = last > 0 && epoch.wrapping_sub(back_at) < last;
        self.leave_out_for(epoch, if again { (2 * last).min(most) } else { least })
    }

    fn leave_out_for(&self, epoch: u32, n: u32) -> u32 {
        self.left_out.store(n, Relaxed);
        self.back_at.store(epoch.wrapping_add(1 + n), Relaxed);
        n
    }
}

/// How long a thread has been in queues for a CPU: the second number of its `schedstat` (Linux,
/// Documentation/scheduler/sched-stats).
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
        self.workers[worker].0.leave_out_for(epoch, n);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Loops from `epoch + 1` on that worker 1 is out of.
    fn out(contention: &Contention, epoch: u32) -> usize {
        (1..20_000).take_while(|i| contention.is_out(1, epoch.wrapping_add(*i))).count()
    }

    #[test]
    fn each_return_in_vain_is_later() {
        for start in [0, 1 << 31, u32::MAX - 1000] {
            let contention = Contention::new(3, true);
            let (mut epoch, mut lengths) = (start, Vec::new());
            for _ in 0..7 {
                assert!(!contention.is_out(1, epoch));
                contention.workers[1].0.leave_out(epoch);
                let n = out(&contention, epoch);
                assert!(!contention.is_out(2, epoch.wrapping_add(1)) && !contention.is_out(0, epoch.wrapping_add(1)));
                lengths.push(n);
                epoch = epoch.wrapping_add(n as u32 + 1);
            }
            assert_eq!(lengths, [2048, 4096, 8192, 8192, 8192, 8192, 8192]);
            // Back for as long as it was out: the next time begins anew.
            epoch = epoch.wrapping_add(8192);
            contention.workers[1].0.leave_out(epoch);
            assert_eq!(out(&contention, epoch), 2048);
        }
    }

    #[test]
    fn loops_are_watched_after_one_that_slept() {
        let contention = Contention::new(2, true);
        assert!(contention.watch(1).is_none());
        assert!(contention.sleep(None).is_none());
        let watched = (0..2000).take_while(|epoch| contention.watch(*epoch).is_some()).count();
        assert_eq!(watched, WATCHED as usize);
        let off = Contention::new(2, false);
        assert!(off.sleep(None).is_none() && off.watch(1).is_none());
    }

    #[test]
    fn two_long_loops_or_a_second_end_it() {
        let contention = Contention::new(2, true);
        contention.leave_out(1, 7, 100);
        contention.worked(None);
        let short = |epoch| Some(Watch { epoch, start: Instant::now() + Duration::from_secs(60) });
        let long = |epoch| Some(Watch { epoch, start: contention.start - 2 * LONG_LOOP });
        for watch in [short(8), long(8), short(8), long(8)] {
            contention.worked(watch);
            assert_eq!(out(&contention, 7), 100, "one long loop alone");
        }
        contention.worked(long(9));
        assert_eq!((contention.is_out(1, 9), contention.is_out(1, 10)), (true, false), "two long loops");

        contention.leave_out(1, 20, 100);
        assert!(contention.sleep(None).is_none());
        contention.recall_at_us.store(u64::MAX, Relaxed);
        assert!(contention.watch(21).is_some() && contention.is_out(1, 21), "not yet");
        contention.recall_at_us.store(0, Relaxed);
        assert!(contention.watch(22).is_some() && !contention.is_out(1, 22), "time is up");
    }

    #[test]
    fn long_loops_are_not_judged() {
        let contention = Contention::new(2, true);
        let ago = |ms| Some(Watch { epoch: 1, start: Instant::now() - Duration::from_millis(ms) });
        assert!(contention.sleep(ago(0)).is_some());
        assert!(contention.sleep(ago(10)).is_none());
    }

    #[test]
    fn who_is_to_blame() {
        let rows =
            [(0, 0, false), (0, 4, false), (1, 4, false), (2, 4, false), (3, 4, true), (4, 4, true), (9, 4, true)];
        let wrong: Vec<_> = rows
            .iter()
            .filter(|(queued, slept, want)| is_to_blame(queued * 1_000_000, Duration::from_millis(*slept)) != *want)
            .collect();
        assert!(wrong.is_empty(), "(ms queued, ms slept, to blame): {wrong:?}");
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

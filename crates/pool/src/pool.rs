//! The pool: how a loop is published, worked on, joined and slept between.
//!
//! One loop at a time. The caller writes the job, deals chunk numbers to the workers' [`Share`]s
//! and raises the epoch. A worker that sees a new epoch takes chunks until there are none, adds how
//! many it did to `done`, and waits for the next epoch. The caller works too, and returns when
//! `done` and its own count make up all chunks.
//!
//! A worker that others keep off its CPU is left out of some loops ([`Contention`]): it is dealt
//! nothing, and sleeps.
//!
//! Why no thread can touch a closure that is gone: the job is read only while holding a chunk that
//! is not yet counted in `done`; the caller does not return, nor write the next job, before all
//! chunks are counted.

use std::{
    any::Any,
    cell::{Cell, UnsafeCell},
    hint,
    ops::Range,
    panic::{self, AssertUnwindSafe},
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::*},
    },
    thread::{self, JoinHandle, Thread},
    time::{Duration, Instant},
};

use crate::{
    contention::{Contention, SHORT_SLEEP, Watch},
    share::{CachePadded, Share},
    split::Split,
    topology::logical_cpus,
    worker::Worker,
};

/// How long to spin before parking. Gaps between the loops of one token are a few µs and waking a
/// parked thread costs 5 to 50 µs, so this is the break-even; longer pause loops also make
/// hypervisors intervene.
const SPIN: Duration = Duration::from_micros(40);
/// With more threads than CPUs, spinning takes the CPU from the thread that is waited for.
const SPIN_OVERSUBSCRIBED: Duration = Duration::from_micros(2);
/// Pauses between two looks at the clock: 1 to 3 µs, depending on the CPU.
const SPINS_A_LOOK: u32 = 64;
/// Parked workers that one thread wakes; the woken ones wake the next. A wake costs the waker 1 to
/// 5 µs.
const WAKES: usize = 2;

/// Persistent worker threads that run one parallel loop at a time.
pub struct Pool {
    shared: Arc<Shared>,
    handles: Vec<JoinHandle<()>>,
    /// Held during a loop: worker 0 is whoever holds it.
    running: Mutex<()>,
}

struct Shared {
    id: u64,
    spin: Duration,
    /// Written by the caller at the start of a loop, watched by idle workers.
    front: CachePadded<Front>,
    /// Written by workers at the end of their part, watched by the caller.
    back: CachePadded<Back>,
    /// Workers that parked and that nobody has claimed to wake.
    sleepers: CachePadded<AtomicU32>,
    /// One a worker, the caller's first.
    shares: Box<[CachePadded<Share>]>,
    /// One a worker thread: worker `i` is at `i - 1`.
    sleep: Box<[CachePadded<Sleep>]>,
    panic: Mutex<Option<Box<dyn Any + Send>>>,
    waiting: Waiting,
    contention: Contention,
}

/// What the ends of loops cost their callers, for those who ask.
struct Waiting {
    is_measured: AtomicBool,
    total_ns: AtomicU64,
}

struct Front {
    epoch: AtomicU32,
    stop: AtomicBool,
    job: UnsafeCell<Job>,
}

struct Back {
    /// Chunks finished by workers other than the caller.
    done: AtomicU32,
    /// A chunk panicked: the rest is taken and counted, but not run.
    panicked: AtomicBool,
    /// The caller parks until `done` is complete.
    joiner_waits: AtomicBool,
    joiner: Mutex<Option<Thread>>,
}

struct Sleep {
    parked: AtomicBool,
    thread: Mutex<Option<Thread>>,
}

/// A loop with its types erased.
#[derive(Clone, Copy)]
struct Job {
    /// Runs one chunk of `task` as a worker.
    ///
    /// # Safety
    /// `task` is alive and is what the function was made for; the chunk is of this job and was
    /// taken from a share.
    call: unsafe fn(task: *const (), chunk: u32, worker: usize),
    task: *const (),
}

// SAFETY: `front.job` is the only member that is not `Sync` by itself. It is written by the thread
// that holds `Pool::running` while no chunk is out, and read by holders of an uncounted chunk (see
// the module's text); taking a chunk acquires what `Share::deal` released after the write.
unsafe impl Sync for Shared {}
// SAFETY: as above; the pointers in the job are used only during `Pool::run`.
unsafe impl Send for Shared {}

thread_local! {
    /// Whether this thread is inside of a loop, as a caller or as a worker of any pool.
    static IN_LOOP: Cell<bool> = const { Cell::new(false) };
}

impl Pool {
    /// Starts `threads - 1` worker threads (at least none): the thread that calls [`Pool::run`] is
    /// the remaining one. If the system refuses to start as many, the pool has fewer; see
    /// [`Pool::threads`].
    pub fn new(threads: usize) -> Pool {
        Pool::start(threads, cfg!(target_os = "linux"))
    }

    /// Workers are left out where their CPU is taken if that is wanted, and there is one for each.
    fn start(threads: usize, leaves_out: bool) -> Pool {
        static NEXT_ID: AtomicU64 = AtomicU64::new(1);
        // More than any machine has CPUs: a mistyped number must not fill the process table.
        let threads = threads.clamp(1, 1024);
        let is_oversubscribed = threads > logical_cpus();
        let spin = if is_oversubscribed { SPIN_OVERSUBSCRIBED } else { SPIN };
        let leaves_out = leaves_out && !is_oversubscribed;
        let mut shared = Shared::new(NEXT_ID.fetch_add(1, Relaxed), threads, spin, leaves_out);
        let mut started = Shared::start(&shared);
        if started.len() + 1 < threads {
            // Shares without a thread would be worked off by stealing; a pool of the right size is
            // simpler to reason about.
            shared.stop(started);
            shared = Shared::new(NEXT_ID.fetch_add(1, Relaxed), 1, spin, leaves_out);
            started = Vec::new();
        }
        Pool { shared, handles: started, running: Mutex::new(()) }
    }

    /// Workers, the calling thread included.
    pub fn threads(&self) -> usize {
        self.handles.len() + 1
    }

    /// Whether [`Pool::waited`] counts from now on. Off at first: counting reads a clock twice a
    /// loop.
    pub fn measure_waiting(&self, is_measured: bool) {
        self.shared.waiting.is_measured.store(is_measured, Relaxed);
    }

    /// How long callers have waited at the ends of their loops for other workers' last chunks.
    pub fn waited(&self) -> Duration {
        Duration::from_nanos(self.shared.waiting.total_ns.load(Relaxed))
    }

    pub(crate) fn id(&self) -> u64 {
        self.shared.id
    }

    /// Runs `body` once for each chunk of the items `0..n_items` and returns when all are done.
    ///
    /// Chunks are `grain` items long (the last may be shorter) and start at multiples of `grain`; a
    /// `grain` of 0 counts as 1. Which worker runs which chunk differs from run to run, so a result
    /// may depend on the chunk but not on the worker; a loop may run on fewer workers than the pool
    /// has, so no chunk may wait for another. `body` gets the chunk's items, its part of `out` and
    /// the token of the worker that it runs on. Loops of several threads on one pool wait for each
    /// other.
    ///
    /// # Panics
    /// If `out` does not hold `n_items` items, or when called from inside of a body. A panic in
    /// `body` is passed on to the caller after the chunks that were already running have ended; the
    /// pool stays usable.
    pub fn run<S: Split>(
        &self,
        n_items: usize,
        grain: usize,
        out: S,
        body: impl Fn(Range<usize>, S::Part<'_>, &mut Worker<'_>) + Sync,
    ) {
        let nested = IN_LOOP.replace(true);
        assert!(!nested, "a parallel loop was started from inside of a parallel loop");
        let _in_loop = InLoop;
        let out = out.into_raw(n_items);
        let _running = lock(&self.running);
        let (grain, n_chunks) = chunks(n_items, grain);
        let task = Task::<S, _> { body, out, n_items, grain, pool_id: self.shared.id };
        if self.handles.is_empty() || n_chunks <= 1 {
            for chunk in 0..n_chunks {
                // SAFETY: each chunk is run once, on this thread, which is worker 0 as long as it
                // holds `running`.
                unsafe { task.run_chunk(chunk, 0) };
            }
            return;
        }
        self.shared.run(task.erase(), n_chunks);
        if self.shared.back.0.panicked.swap(false, Relaxed)
            && let Some(payload) = lock(&self.shared.panic).take()
        {
            panic::resume_unwind(payload);
        }
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.shared.stop(std::mem::take(&mut self.handles));
    }
}

impl std::fmt::Debug for Pool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool").field("threads", &self.threads()).finish_non_exhaustive()
    }
}

/// Resets `IN_LOOP`, also when a body's panic passes through.
struct InLoop;

impl Drop for InLoop {
    fn drop(&mut self) {
        IN_LOOP.set(false);
    }
}

/// The chunk length to use and the number of chunks, which must fit 32 bits.
fn chunks(n_items: usize, grain: usize) -> (usize, u32) {
    let grain = grain.max(1);
    let n_chunks = n_items.div_ceil(grain);
    match u32::try_from(n_chunks) {
        Ok(n) => (grain, n),
        Err(_) => {
            let grain = grain.saturating_mul(n_chunks.div_ceil(u32::MAX as usize));
            (grain, n_items.div_ceil(grain) as u32)
        }
    }
}

/// A loop on its caller's stack.
struct Task<S: Split, F> {
    body: F,
    out: S::Raw,
    n_items: usize,
    grain: usize,
    pool_id: u64,
}

impl<S: Split, F: Fn(Range<usize>, S::Part<'_>, &mut Worker<'_>) + Sync> Task<S, F> {
    /// # Safety
    /// The chunk is below the number of chunks and is run once; this thread is the worker of that
    /// number.
    unsafe fn run_chunk(&self, chunk: u32, worker: usize) {
        let start = chunk as usize * self.grain;
        let items = start..start + self.grain.min(self.n_items - start);
        // SAFETY: chunks are disjoint ranges of 0..n_items, each is run once, and the part cannot
        // outlive this call because `body` accepts it for any lifetime. The output stays borrowed
        // by the caller of `Pool::run`.
        let part = unsafe { S::part(&self.out, items.clone()) };
        (self.body)(items, part, &mut Worker::new(self.pool_id, worker));
    }

    fn erase(&self) -> Job {
        unsafe fn call<S: Split, F: Fn(Range<usize>, S::Part<'_>, &mut Worker<'_>) + Sync>(
            task: *const (),
            chunk: u32,
            worker: usize,
        ) {
            // SAFETY: `erase` made the pointer from a `Task<S, F>`, and whoever calls knows that it
            // is alive.
            let task = unsafe { &*task.cast::<Task<S, F>>() };
            // SAFETY: the caller's promise: the chunk was taken from a share, which gives each of
            // them out once.
            unsafe { task.run_chunk(chunk, worker) }
        }
        Job { call: call::<S, F>, task: (&raw const *self).cast() }
    }
}

impl Shared {
    fn new(id: u64, threads: usize, spin: Duration, leaves_out: bool) -> Arc<Shared> {
        unsafe fn nothing(_: *const (), _: u32, _: usize) {}
        let sleep = || Sleep { parked: AtomicBool::new(false), thread: Mutex::new(None) };
        Arc::new(Shared {
            id,
            spin,
            front: CachePadded(Front {
                epoch: AtomicU32::new(0),
                stop: AtomicBool::new(false),
                job: UnsafeCell::new(Job { call: nothing, task: std::ptr::null() }),
            }),
            back: CachePadded(Back {
                done: AtomicU32::new(0),
                panicked: AtomicBool::new(false),
                joiner_waits: AtomicBool::new(false),
                joiner: Mutex::new(None),
            }),
            sleepers: CachePadded(AtomicU32::new(0)),
            shares: (0..threads).map(|_| CachePadded(Share::empty())).collect(),
            sleep: (1..threads).map(|_| CachePadded(sleep())).collect(),
            panic: Mutex::new(None),
            waiting: Waiting { is_measured: AtomicBool::new(false), total_ns: AtomicU64::new(0) },
            contention: Contention::new(threads, leaves_out),
        })
    }

    /// Starts the threads of all workers but the caller; stops at the first that the system
    /// refuses.
    fn start(self: &Arc<Shared>) -> Vec<JoinHandle<()>> {
        let mut handles = Vec::with_capacity(self.sleep.len());
        for (i, sleep) in self.sleep.iter().enumerate() {
            let shared = Arc::clone(self);
            let builder = thread::Builder::new().name(format!("modelembed-{}", i + 1));
            let Ok(handle) = builder.spawn(move || shared.work(i + 1)) else { break };
            *lock(&sleep.0.thread) = Some(handle.thread().clone());
            handles.push(handle);
        }
        handles
    }

    fn stop(&self, handles: Vec<JoinHandle<()>>) {
        self.front.0.stop.store(true, Relaxed);
        self.front.0.epoch.fetch_add(1, SeqCst);
        for handle in handles {
            handle.thread().unpark();
            // A worker catches the panics of bodies and has none of its own.
            let _ = handle.join();
        }
    }

    /// The caller's side of a loop; needs `Pool::running`.
    fn run(&self, job: Job, n_chunks: u32) {
        // SAFETY: no chunk is out: the loop before this one was joined.
        unsafe { *self.front.0.job.get() = job };
        self.back.0.done.store(0, Relaxed);
        let epoch = self.front.0.epoch.load(Relaxed).wrapping_add(1);
        let watch = self.contention.watch(epoch);
        deal(n_chunks, &self.shares, |worker| !self.contention.is_out(worker, epoch));
        self.front.0.epoch.fetch_add(1, SeqCst);
        self.wake(WAKES.min(n_chunks as usize - 1));
        let mine = self.take_chunks(0);
        self.contention.worked(watch);
        self.join(n_chunks - mine, watch);
    }

    /// A worker thread's life.
    fn work(&self, worker: usize) {
        IN_LOOP.set(true);
        self.contention.register(worker);
        let mut seen = 0;
        loop {
            seen = self.next_epoch(worker, seen);
            if self.front.0.stop.load(Relaxed) {
                return;
            }
            if self.contention.is_out(worker, seen) {
                continue;
            }
            let n = self.take_chunks(worker);
            if n > 0 {
                self.back.0.done.fetch_add(n, SeqCst);
                if self.back.0.joiner_waits.load(SeqCst)
                    && let Some(joiner) = &*lock(&self.back.0.joiner)
                {
                    joiner.unpark();
                }
            }
        }
    }

    /// Runs chunks until none is left: this worker's from the front, then others' from the back.
    /// Returns how many were taken; the worker must add them to `done`, and until then the job is
    /// alive.
    fn take_chunks(&self, worker: usize) -> u32 {
        let n = self.shares.len();
        let mut taken = 0;
        while let Some(chunk) = self.shares[worker].0.take_front() {
            self.run_chunk(chunk, worker);
            taken += 1;
        }
        for i in 1..n {
            let victim = &self.shares[(worker + i) % n].0;
            while let Some(chunk) = victim.take_back() {
                self.run_chunk(chunk, worker);
                taken += 1;
            }
        }
        taken
    }

    /// Runs a chunk that this thread has just taken.
    fn run_chunk(&self, chunk: u32, worker: usize) {
        if self.back.0.panicked.load(Relaxed) {
            return;
        }
        // SAFETY: this thread holds a chunk that is not counted in `done`, so the job is not being
        // written.
        let job = unsafe { *self.front.0.job.get() };
        // SAFETY: for the same reason the task is alive; the chunk was taken from a share, so
        // nobody else has it.
        let result = panic::catch_unwind(AssertUnwindSafe(|| unsafe { (job.call)(job.task, chunk, worker) }));
        if let Err(payload) = result {
            let mut first = lock(&self.panic);
            match &*first {
                None => *first = Some(payload),
                // Dropping it could run code that panics again and end this thread.
                Some(_) => std::mem::forget(payload),
            }
            self.back.0.panicked.store(true, Relaxed);
        }
    }

    /// Waits until workers have finished `n` chunks: spins, then parks. Parking early matters when
    /// the CPU of a worker was taken away: it lets the system move that worker to this CPU.
    fn join(&self, n: u32, watch: Option<Watch>) {
        if self.back.0.done.load(Acquire) == n {
            return;
        }
        if !self.waiting.is_measured.load(Relaxed) {
            return self.wait_for(n, watch);
        }
        let start = Instant::now();
        self.wait_for(n, watch);
        self.waiting.total_ns.fetch_add(start.elapsed().as_nanos() as u64, Relaxed);
    }

    fn wait_for(&self, n: u32, watch: Option<Watch>) {
        let back = &self.back.0;
        if spin_until(self.spin, || back.done.load(Acquire) == n) {
            return;
        }
        *lock(&back.joiner) = Some(thread::current());
        // Not a store: qemu 7.2 on x86-64 lets a load of Arm code overtake it, even both as SeqCst
        // (43 of 300,000 times), and then both sides sleep. An x86-64 CPU runs the same instruction
        // for either.
        back.joiner_waits.swap(true, SeqCst);
        let start = Instant::now();
        let mut asleep = None;
        while back.done.load(SeqCst) != n {
            match SHORT_SLEEP.checked_sub(start.elapsed()) {
                Some(rest) => thread::park_timeout(rest),
                None => {
                    asleep = asleep.or_else(|| self.contention.sleep(watch));
                    thread::park();
                }
            }
        }
        back.joiner_waits.store(false, Relaxed);
        if let Some(asleep) = asleep {
            self.contention.judge(asleep);
        }
    }

    /// Waits for an epoch other than `seen` and returns it.
    fn next_epoch(&self, worker: usize, seen: u32) -> u32 {
        let epoch = &self.front.0.epoch;
        // Whoever has no part in the next loop leaves its CPU to others.
        let spins = !self.contention.is_out(worker, seen.wrapping_add(1));
        if spins && spin_until(self.spin, || epoch.load(Acquire) != seen) {
            return epoch.load(Acquire);
        }
        let parked = &self.sleep[worker - 1].0.parked;
        loop {
            parked.store(true, SeqCst);
            self.sleepers.0.fetch_add(1, SeqCst);
            // Either this sees the new epoch, or `wake`, which runs after the epoch was raised,
            // sees the sleeper.
            if epoch.load(SeqCst) == seen {
                thread::park();
            }
            if parked.swap(false, SeqCst) {
                self.sleepers.0.fetch_sub(1, SeqCst);
            }
            let now = epoch.load(Acquire);
            if now != seen {
                if self.shares.iter().any(|share| share.0.has_chunks()) {
                    self.wake(WAKES);
                }
                return now;
            }
        }
    }

    /// Wakes up to `n` parked workers.
    fn wake(&self, mut n: usize) {
        if self.sleepers.0.load(SeqCst) == 0 {
            return;
        }
        let epoch = self.front.0.epoch.load(Relaxed);
        for (worker, sleep) in (1..).zip(&self.sleep) {
            if n == 0 {
                return;
            }
            if self.contention.is_out(worker, epoch) {
                continue;
            }
            if sleep.0.parked.load(Relaxed) && sleep.0.parked.swap(false, SeqCst) {
                self.sleepers.0.fetch_sub(1, SeqCst);
                if let Some(thread) = &*lock(&sleep.0.thread) {
                    thread.unpark();
                }
                n -= 1;
            }
        }
    }
}

/// Gives neighbouring chunks to each worker that has a part, and none to the others. The caller,
/// worker 0, has one.
fn deal(n_chunks: u32, shares: &[CachePadded<Share>], has_part: impl Fn(usize) -> bool) {
    let parts = (0..shares.len()).filter(|&worker| has_part(worker)).count() as u64;
    let (mut front, mut part) = (0, 0);
    for (worker, share) in shares.iter().enumerate() {
        part += u64::from(has_part(worker));
        // Rounded up, so that the caller, who starts first, has the larger shares. Fits: at most
        // n_chunks.
        let back = (part * u64::from(n_chunks)).div_ceil(parts) as u32;
        share.0.deal(front, back);
        front = back;
    }
}

/// Spins for about `limit`; true as soon as `ready` is.
fn spin_until(limit: Duration, ready: impl Fn() -> bool) -> bool {
    let mut start = None;
    loop {
        for _ in 0..SPINS_A_LOOK {
            if ready() {
                return true;
            }
            hint::spin_loop();
        }
        if start.get_or_insert_with(Instant::now).elapsed() >= limit {
            return ready();
        }
    }
}

/// Locks; a panic of another holder leaves nothing half-done in the data that this crate guards.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(|poison| poison.into_inner())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunk_counts() {
        let rows = [
            ((0, 16), (16, 0)),
            ((1, 16), (16, 1)),
            ((16, 16), (16, 1)),
            ((17, 16), (16, 2)),
            ((5, 0), (1, 5)),
            ((5, usize::MAX), (usize::MAX, 1)),
        ];
        let wrong: Vec<_> = rows
            .iter()
            .map(|&((n, grain), want)| ((n, grain), chunks(n, grain), want))
            .filter(|(_, seen, want)| seen != want)
            .collect();
        assert!(wrong.is_empty(), "(items, grain), seen, wanted: {wrong:?}");
    }

    #[test]
    fn all_workers_take_part() {
        // Each chunk waits for the others: passes only if every worker, parked or not, is woken.
        // None may be left out.
        for threads in [2, 5, 16] {
            let pool = Pool::start(threads, false);
            let barrier = std::sync::Barrier::new(threads);
            for _ in 0..3 {
                thread::sleep(Duration::from_millis(1));
                pool.run(threads, 1, (), |_, (), _| _ = barrier.wait());
            }
        }
    }

    #[test]
    fn who_has_no_part_is_dealt_nothing() {
        let shares: Vec<_> = (0..4).map(|_| CachePadded(Share::empty())).collect();
        for (out, n_chunks, wanted) in [
            (vec![], 10, [3, 2, 3, 2]),
            (vec![1], 10, [4, 0, 3, 3]),
            (vec![3], 10, [4, 3, 3, 0]),
            (vec![1, 2, 3], 10, [10, 0, 0, 0]),
            (vec![2], 1, [1, 0, 0, 0]),
        ] {
            deal(n_chunks, &shares, |worker| !out.contains(&worker));
            let mut next = 0;
            let mut dealt = [0; 4];
            for (share, dealt) in shares.iter().zip(&mut dealt) {
                while let Some(chunk) = share.0.take_front() {
                    assert_eq!(chunk, next, "without {out:?}");
                    (next, *dealt) = (next + 1, *dealt + 1);
                }
            }
            assert_eq!(dealt, wanted, "without {out:?}");
        }
    }

    #[test]
    fn loops_are_done_without_the_workers_that_are_left_out() {
        let pool = Pool::new(3);
        for round in 0..50 {
            let epoch = pool.shared.front.0.epoch.load(Relaxed);
            pool.shared.contention.leave_out(1, epoch, round % 4);
            pool.shared.contention.leave_out(2, epoch, round % 7);
            for i in 1..10 {
                let mut seen = [0; 40];
                pool.run(40, 1, &mut seen[..], |_, seen, _| seen[0] += 1);
                assert_eq!(seen, [1; 40], "loop {i} of round {round}");
            }
        }
    }

    #[test]
    #[cfg(target_pointer_width = "64")]
    fn more_chunks_than_numbers() {
        let n = (u32::MAX as usize + 1) * 3;
        let (grain, n_chunks) = chunks(n, 2);
        assert_eq!(grain % 2, 0);
        assert!(grain * n_chunks as usize >= n && grain * (n_chunks as usize - 1) < n);
    }
}

//! Those who read files ahead: one thread that keeps several reads under way by a ring, or one
//! thread for each read.

use std::io;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::direct::DirectFile;
use crate::error::StorageError;
use crate::os;
use crate::stream::StreamReader;

/// Bytes of one request at most: enough for a disk's full speed, few enough to have several of what
/// is wanted together under way.
pub(crate) const PIECE_BYTES: u64 = 1 << 20;
/// Requests that are under way at once: threads, or places in a ring. More gained nothing on a
/// virtual disk.
pub(crate) const DEPTH: usize = 8;

/// One read: bytes of a file, and where they go.
pub(crate) struct Request<'a> {
    pub(crate) file: &'a DirectFile,
    pub(crate) offset: u64,
    /// Bytes to ask for.
    pub(crate) len: usize,
    /// As many must come; fewer than `len` where the last page of the file is not whole.
    pub(crate) least: usize,
    pub(crate) out: *mut u8,
}

/// What readers take their work from.
///
/// # Safety
/// From `take` to `finish` of a ticket, `len` bytes from its request's `out` on may be written, and
/// nobody else reads or writes them. Files and memory live as long as the feed.
pub(crate) unsafe trait Feed: Send + Sync + 'static {
    /// A read that somebody has taken.
    type Ticket: Copy + Send;

    /// The next read. `None` where there is none: at once, or, if it `waits`, when there will never
    /// be one again.
    fn take(&self, waits: bool) -> Option<Self::Ticket>;

    /// What is to be read.
    fn request(&self, ticket: Self::Ticket) -> Request<'_>;

    /// Tells that the bytes are there, or why not.
    fn finish(&self, ticket: Self::Ticket, result: Result<(), StorageError>);
}

/// The time in which at least one read is under way.
#[derive(Default)]
pub(crate) struct BusyTime {
    in_flight: usize,
    /// When the first of them began.
    since: Option<Instant>,
    /// Up to when the last one ended.
    before: Duration,
}

impl BusyTime {
    /// A read begins.
    pub(crate) fn begin(&mut self) {
        if self.in_flight == 0 {
            self.since = Some(Instant::now());
        }
        self.in_flight += 1;
    }

    /// A read is over.
    pub(crate) fn end(&mut self) {
        self.in_flight -= 1;
        if self.in_flight == 0 {
            self.before += self.since.take().map_or(Duration::ZERO, |since| since.elapsed());
        }
    }

    /// Up to now.
    pub(crate) fn time(&self) -> Duration {
        self.before + self.since.map_or(Duration::ZERO, |since| since.elapsed())
    }
}

/// The threads. They end when their feed says that there is nothing more to read.
pub(crate) struct Readers {
    threads: Vec<JoinHandle<()>>,
    /// Who they are.
    pub(crate) kind: StreamReader,
    /// Why there is no ring, where one was wanted but not asked for by name.
    pub(crate) ring_refusal: Option<io::Error>,
}

impl Readers {
    /// Starts to read.
    ///
    /// # Errors
    /// A ring that was asked for and is refused, or no thread at all.
    pub(crate) fn start<F: Feed>(feed: &Arc<F>, wanted: StreamReader) -> io::Result<Readers> {
        let (mut ring, ring_refusal) = match wanted {
            StreamReader::Threads => (None, None),
            wanted => match os::Ring::new(DEPTH) {
                Ok(ring) => (Some(ring), None),
                Err(e) if wanted == StreamReader::Ring => return Err(e),
                Err(e) => (None, Some(e)),
            },
        };
        let kind = if ring.is_some() { StreamReader::Ring } else { StreamReader::Threads };
        let mut threads = Vec::new();
        for _ in 0..if ring.is_some() { 1 } else { DEPTH } {
            let (feed, ring) = (Arc::clone(feed), ring.take());
            let read = move || match ring {
                Some(ring) => read_by_ring(&feed, ring),
                None => read_all(&*feed),
            };
            match std::thread::Builder::new().name("stream".into()).spawn(read) {
                Ok(thread) => threads.push(thread),
                Err(e) if threads.is_empty() => return Err(e),
                Err(_) => break, // The readers that there are do the work.
            }
        }
        Ok(Readers { threads, kind, ring_refusal })
    }

    /// Waits for their end, after the feed was told to give out no more.
    pub(crate) fn join(&mut self) {
        for thread in self.threads.drain(..) {
            // A reader that panicked has nothing more to say.
            let _ = thread.join();
        }
    }
}

/// A reader's life.
fn read_all<F: Feed>(feed: &F) {
    while let Some(ticket) = feed.take(true) {
        let Request { file, offset, len, least, out } = feed.request(ticket);
        // SAFETY: the ticket's request may be written to by who took it (`Feed`), and any bytes are
        // a value.
        let out = unsafe { std::slice::from_raw_parts_mut(out, len) };
        let result = file.fill(out, least, offset);
        file.forget(offset, len);
        feed.finish(ticket, result);
    }
}

/// A ticket whose read a ring has under way.
struct UnderWay<T> {
    ticket: T,
    /// Bytes that are there.
    done: usize,
    /// Whether the request under way was to go past the page cache.
    is_direct: bool,
}

/// The life of the one thread that reads by a ring.
fn read_by_ring<F: Feed>(feed: &Arc<F>, mut ring: os::Ring) {
    // What is under way, at the place that is its tag.
    let mut under_way: Vec<Option<UnderWay<F::Ticket>>> = (0..DEPTH).map(|_| None).collect();
    let mut again: Vec<usize> = Vec::with_capacity(DEPTH);
    loop {
        while !ring.is_full() {
            let Some(tag) = under_way.iter().position(Option::is_none) else { break };
            let Some(ticket) = feed.take(ring.is_idle()) else { break };
            let read = under_way[tag].insert(UnderWay { ticket, done: 0, is_direct: false });
            // SAFETY: as for `again` below.
            unsafe { push(&**feed, &mut ring, read, tag) };
        }
        if ring.is_idle() {
            return; // Who waited and got nothing never will.
        }
        let waited = ring.wait(|tag, result| {
            let place = &mut under_way[tag as usize];
            let Some(read) = place else { return };
            match advance(&**feed, read, result) {
                None => again.push(tag as usize),
                Some(result) => {
                    let ticket = read.ticket;
                    *place = None;
                    feed.finish(ticket, result);
                }
            }
        });
        for tag in again.drain(..) {
            // SAFETY: a taken ticket's bytes are this thread's to write until `finish` (`Feed`),
            // and files and memory live as long as the feed, which outlives the reads: the loop
            // ends when nothing is under way, and where nobody tells when that is, the feed is kept
            // for good (below).
            under_way[tag].iter_mut().for_each(|read| unsafe { push(&**feed, &mut ring, read, tag) });
        }
        if let Err(failure) = waited {
            std::mem::forget(Arc::clone(feed));
            return fail_for_good(&**feed, under_way.into_iter().flatten(), &failure);
        }
    }
}

/// Queues what is left of a read.
///
/// # Safety
/// As of [`os::Ring::push`], for the rest of the request.
unsafe fn push<F: Feed>(feed: &F, ring: &mut os::Ring, read: &mut UnderWay<F::Ticket>, tag: usize) {
    let Request { file, offset, len, out, .. } = feed.request(read.ticket);
    read.is_direct = file.is_direct();
    let out = out.wrapping_add(read.done);
    // SAFETY: the caller's promise.
    unsafe { ring.push(&file.file, out, len - read.done, offset + read.done as u64, tag as u64) };
}

/// Takes what one request read. `None` if the rest is to be asked for.
fn advance<F: Feed>(
    feed: &F,
    read: &mut UnderWay<F::Ticket>,
    result: io::Result<usize>,
) -> Option<Result<(), StorageError>> {
    let Request { file, offset, len, least, .. } = feed.request(read.ticket);
    match file.take(result, offset + read.done as u64, read.is_direct) {
        Err(failure) => return Some(Err(failure)),
        Ok(n) => read.done += n,
    }
    if read.done < least {
        return None;
    }
    file.forget(offset, len);
    Some(Ok(()))
}

/// Answers every read, from now on, with a failure: the system tells no more what becomes of them.
fn fail_for_good<F: Feed>(feed: &F, under_way: impl Iterator<Item = UnderWay<F::Ticket>>, failure: &io::Error) {
    let fail = |ticket| {
        let Request { file, offset, .. } = feed.request(ticket);
        let source = io::Error::new(failure.kind(), format!("io_uring: {failure}"));
        feed.finish(ticket, Err(StorageError::StreamRead { path: file.path.clone(), offset, source }));
    };
    under_way.for_each(|read| fail(read.ticket));
    while let Some(ticket) = feed.take(true) {
        fail(ticket);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One read of memory that a test owns.
    struct One {
        file: DirectFile,
        out: *mut u8,
    }

    const LEN: usize = 4096;

    // SAFETY: nobody but the test touches the memory, and the test does not move it.
    unsafe impl Send for One {}
    // SAFETY: as above.
    unsafe impl Sync for One {}
    // SAFETY: as above.
    unsafe impl Feed for One {
        type Ticket = ();

        fn take(&self, _waits: bool) -> Option<()> {
            None
        }

        fn request(&self, (): ()) -> Request<'_> {
            Request { file: &self.file, offset: 8192, len: LEN, least: LEN - 10, out: self.out }
        }

        fn finish(&self, (): (), _result: Result<(), StorageError>) {}
    }

    /// Reads may end before their request does: the rest is asked for, from where it ended, up to
    /// what must come.
    #[test]
    fn short_reads_go_on_where_they_ended() {
        let mut memory = vec![0u8; LEN];
        let one = One { file: DirectFile::of_test(false), out: memory.as_mut_ptr() };
        let mut read = UnderWay { ticket: (), done: 0, is_direct: false };
        assert!(advance(&one, &mut read, Ok(100)).is_none() && read.done == 100);
        assert!(advance(&one, &mut read, Err(io::ErrorKind::Interrupted.into())).is_none() && read.done == 100);
        assert!(advance(&one, &mut read, Ok(LEN - 111)).is_none() && read.done == LEN - 11);
        let end = advance(&one, &mut read, Ok(0)).unwrap().unwrap_err().to_string();
        assert!(end.contains(&format!("at byte {}", 8192 + LEN - 11)), "{end}");
        assert!(matches!(advance(&one, &mut read, Ok(1)), Some(Ok(()))));
    }
}

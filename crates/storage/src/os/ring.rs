//! io_uring: one thread keeps many reads of files under way.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::time::Duration;

use io_uring::{IoUring, Probe, opcode, types};

/// How long the system gets to have room for requests again.
const RETRY: Duration = Duration::from_millis(1);

/// Reads under way, of which the system tells when they end.
pub(crate) struct Ring {
    ring: IoUring,
    depth: usize,
    in_flight: usize,
}

impl Ring {
    /// Room for `depth` reads.
    ///
    /// # Errors
    /// Systems without io_uring or without its plain reads (Linux before 5.6), and where it is
    /// forbidden: containers filter the call, and there is a switch for the whole machine
    /// (`kernel.io_uring_disabled`).
    pub(crate) fn new(depth: usize) -> io::Result<Ring> {
        let ring = IoUring::new(depth as u32)?;
        let mut probe = Probe::new();
        ring.submitter().register_probe(&mut probe)?;
        if !probe.is_supported(opcode::Read::CODE) {
            return Err(io::ErrorKind::Unsupported.into());
        }
        Ok(Ring { ring, depth, in_flight: 0 })
    }

    /// Whether there is room for no more reads.
    pub(crate) fn is_full(&self) -> bool {
        self.in_flight == self.depth
    }

    /// Whether nothing is under way.
    pub(crate) fn is_idle(&self) -> bool {
        self.in_flight == 0
    }

    /// Queues a read; [`wait`](Self::wait) begins it and names its end by `tag`.
    ///
    /// # Safety
    /// `len` bytes from `out` on may be written, and nobody else reads or writes them, until `wait`
    /// has told that the read is over. Where that never happens (a `wait` that fails), until the
    /// process ends. `file` stays open as long.
    pub(crate) unsafe fn push(&mut self, file: &File, out: *mut u8, len: usize, offset: u64, tag: u64) {
        assert!(!self.is_full(), "there is room for another read");
        let len = u32::try_from(len).unwrap_or(u32::MAX); // A shorter read is no error.
        let read = opcode::Read::new(types::Fd(file.as_raw_fd()), out, len).offset(offset).build().user_data(tag);
        // SAFETY: the caller promises that descriptor and memory are valid until the read is over.
        let pushed = unsafe { self.ring.submission().push(&read) };
        assert!(pushed.is_ok(), "the queue has as many places as reads may be under way");
        self.in_flight += 1;
    }

    /// Begins what was queued, waits until at least one read is over, and hands out all that are:
    /// the tag, and the bytes that were read.
    ///
    /// # Errors
    /// The system's, after which nobody will tell how the reads under way end.
    pub(crate) fn wait(&mut self, mut over: impl FnMut(u64, io::Result<usize>)) -> io::Result<()> {
        if self.is_idle() {
            return Ok(());
        }
        loop {
            let is_short = match self.ring.submit_and_wait(1) {
                Ok(_) => false,
                Err(e) => match e.raw_os_error() {
                    Some(libc::EINTR) => false,
                    // No memory for requests just now, or completions that are to be fetched first:
                    // those that there are come next.
                    Some(libc::EAGAIN | libc::EBUSY) => true,
                    _ => return Err(e),
                },
            };
            let before = self.in_flight;
            for completion in self.ring.completion() {
                self.in_flight -= 1;
                let result = completion.result();
                let result = usize::try_from(result).map_err(|_| io::Error::from_raw_os_error(-result));
                over(completion.user_data(), result);
            }
            if self.in_flight < before {
                return Ok(());
            }
            if is_short {
                std::thread::sleep(RETRY); // It did not wait, and asking at once again would keep a core busy.
            }
        }
    }
}

//! What Linux, macOS and their relatives share.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt};

pub(crate) use memmap2::MmapMut as Anonymous;

pub(crate) fn anonymous(len: usize) -> io::Result<Anonymous> {
    memmap2::MmapOptions::new().len(len).no_reserve_swap().map_anon()
}

pub(crate) fn read_at(file: &File, out: &mut [u8], offset: u64) -> io::Result<usize> {
    file.read_at(out, offset)
}

pub(crate) fn irregular_kind(metadata: &Metadata) -> &'static str {
    let kind = metadata.file_type();
    match () {
        () if kind.is_fifo() => "a pipe (FIFO)",
        () if kind.is_socket() => "a socket",
        () if kind.is_char_device() => "a character device",
        () if kind.is_block_device() => "a block device",
        () => "something else",
    }
}

pub(crate) fn file_id(metadata: &Metadata) -> Option<(u64, u64)> {
    Some((metadata.dev(), metadata.ino()))
}

pub(crate) fn stdin_is_pipe_or_file() -> bool {
    let Ok(kind) = std::fs::metadata("/dev/stdin").map(|metadata| metadata.file_type()) else { return false };
    kind.is_fifo() || kind.is_file()
}

pub(crate) fn ignores_signal(signal: i32) -> bool {
    let mut action = std::mem::MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: without a new action the call changes nothing and fills the structure that it is
    // given; zeros are a valid one.
    let (ok, action) =
        unsafe { (libc::sigaction(signal, std::ptr::null(), action.as_mut_ptr()) == 0, action.assume_init()) };
    ok && action.sa_sigaction == libc::SIG_IGN
}

pub(crate) fn page_bytes() -> usize {
    // SAFETY: sysconf reads a constant of the system.
    let n = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(n).unwrap_or(4096)
}

/// Gives the pages that `bytes` lies in an advice that changes nothing that can be read there.
/// False where it was refused.
pub(crate) fn advise_pages(bytes: &[u8], advice: libc::c_int) -> bool {
    let (start, len) = pages_of(bytes);
    // SAFETY: the pages are mapped, since `bytes` is borrowed, and hold a file's bytes (which come
    // back when they are touched) or memory about which callers give advice only that keeps what it
    // holds.
    unsafe { libc::madvise(start as *mut libc::c_void, len, advice) == 0 }
}

/// The whole pages that `bytes` lies in: (address, length).
pub(crate) fn pages_of(bytes: &[u8]) -> (usize, usize) {
    let page = page_bytes();
    let start = bytes.as_ptr() as usize / page * page;
    let end = (bytes.as_ptr() as usize + bytes.len()).next_multiple_of(page);
    (start, end - start)
}

/// Waits until the pages are there, and keeps them: all of them, or none if the system refuses.
pub(crate) fn lock(bytes: &[u8]) -> io::Result<()> {
    let (start, len) = pages_of(bytes);
    // SAFETY: the pages are mapped, since `bytes` is borrowed; locking changes nothing that can be
    // read there.
    if unsafe { libc::mlock(start as *const libc::c_void, len) } == 0 {
        return Ok(());
    }
    let refusal = io::Error::last_os_error();
    // SAFETY: as above. Linux may keep some of them locked where it refuses in the middle, so that
    // is taken back.
    unsafe { libc::munlock(start as *const libc::c_void, len) };
    Err(refusal)
}

/// The limit on locked memory; `None` if there is none.
pub(crate) fn memlock_limit() -> Option<u64> {
    let mut limit = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: the call fills the structure that it is given.
    let ok = unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) } == 0;
    #[allow(clippy::unnecessary_cast, reason = "the type differs between systems")]
    (ok && limit.rlim_cur != libc::RLIM_INFINITY).then_some(limit.rlim_cur as u64)
}

/// Drops the cached pages of a mapped file's bytes. False where the system refuses.
#[cfg(target_os = "macos")]
pub(crate) fn invalidate(bytes: &[u8]) -> bool {
    let (start, len) = pages_of(bytes);
    // SAFETY: the pages are a file's, mapped for reading only: none of them differs from the disk,
    // so nothing can be lost.
    unsafe { libc::msync(start as *mut libc::c_void, len, libc::MS_INVALIDATE) == 0 }
}

/// Puts memory of `shared`, from `offset` on, in the place of mapped pages: `bytes` keep their
/// address and read what is written there from now on. Address, length and offset are whole pages.
#[cfg(any(target_os = "linux", target_os = "macos"))]
pub(crate) fn alias(bytes: &[u8], shared: &File, offset: usize) -> io::Result<()> {
    use std::os::fd::AsRawFd;
    let (page, at) = (page_bytes(), bytes.as_ptr() as usize);
    if !(at.is_multiple_of(page) && bytes.len().is_multiple_of(page) && offset.is_multiple_of(page)) || bytes.is_empty()
    {
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let offset = libc::off_t::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
    // SAFETY: the pages are a part of a mapping of a file, since `bytes` is borrowed from one (the
    // caller's promise), and whole. They stay readable all the time; that their content changes is
    // what every reader of a mapped file has to expect.
    let new = unsafe {
        let flags = libc::MAP_SHARED | libc::MAP_FIXED;
        libc::mmap(at as *mut libc::c_void, bytes.len(), libc::PROT_READ, flags, shared.as_raw_fd(), offset)
    };
    if new == libc::MAP_FAILED { Err(io::Error::last_os_error()) } else { Ok(()) }
}

/// (minor, major) faults.
pub(crate) fn faults() -> (Option<u64>, Option<u64>) {
    let mut usage = std::mem::MaybeUninit::<libc::rusage>::zeroed();
    // SAFETY: getrusage writes the structure it is given; zeroed memory is a valid one in any case.
    let (ok, usage) = unsafe { (libc::getrusage(libc::RUSAGE_SELF, usage.as_mut_ptr()) == 0, usage.assume_init()) };
    let count = |n: libc::c_long| ok.then_some(n as u64);
    (count(usage.ru_minflt), count(usage.ru_majflt))
}

/// Asks mincore about `bytes`, a window at a time.
#[cfg(any(target_os = "linux", target_os = "macos"))]
pub(crate) fn resident_bytes(bytes: &[u8]) -> Option<u64> {
    // Pages asked about at once: 64 KiB of answers cover 256 MB.
    const WINDOW: usize = 64 << 10;
    let page = page_bytes();
    let (start, len) = pages_of(bytes);
    let (first, end) = (bytes.as_ptr() as usize, bytes.as_ptr() as usize + bytes.len());
    let mut answers = vec![0u8; WINDOW.min(len / page)];
    let mut resident = 0;
    for window in (start..start + len).step_by(WINDOW * page) {
        let n_pages = (start + len - window).div_ceil(page).min(WINDOW);
        // SAFETY: the pages are mapped, since `bytes` is borrowed; `answers` has a byte for each of
        // them.
        let result = unsafe { libc::mincore(window as *mut libc::c_void, n_pages * page, answers.as_mut_ptr().cast()) };
        if result != 0 {
            return None;
        }
        for (i, _) in answers[..n_pages].iter().enumerate().filter(|(_, a)| **a & 1 != 0) {
            let at = window + i * page;
            resident += (at + page).min(end) - at.max(first);
        }
    }
    Some(resident as u64)
}

/// The handler that stood before ours.
#[cfg(any(target_os = "linux", target_os = "macos"))]
static FORMER: std::sync::OnceLock<libc::sigaction> = std::sync::OnceLock::new();

/// The modes of the terminal that standard input is, for the handler to give back.
#[cfg(any(target_os = "linux", target_os = "macos"))]
static KEPT_MODES: std::sync::OnceLock<libc::termios> = std::sync::OnceLock::new();

/// Notes the modes that the terminal has now, the first time.
#[cfg(any(target_os = "linux", target_os = "macos"))]
pub(crate) fn keep_terminal_modes() {
    let mut modes = std::mem::MaybeUninit::<libc::termios>::zeroed();
    // SAFETY: the call fills the structure that it is given; zeros are a valid one.
    let (ok, modes) = unsafe { (libc::tcgetattr(libc::STDIN_FILENO, modes.as_mut_ptr()) == 0, modes.assume_init()) };
    if ok {
        let _ = KEPT_MODES.set(modes);
    }
}

/// Sets the handler of SIGBUS, once.
#[cfg(any(target_os = "linux", target_os = "macos"))]
pub(crate) fn handle_lost_pages() -> bool {
    static SET: std::sync::OnceLock<bool> = std::sync::OnceLock::new();
    *SET.get_or_init(|| {
        // SAFETY: zeros are a valid `sigaction` (no flags, an empty mask, the default action),
        // which the first call overwrites with what stands; the handler has the signature that
        // SA_SIGINFO asks for and does only what a handler may do.
        unsafe {
            let mut former: libc::sigaction = std::mem::zeroed();
            if libc::sigaction(libc::SIGBUS, std::ptr::null(), &raw mut former) != 0 {
                return false;
            }
            // Known before the handler can run, so that the handler never waits for it.
            let _ = FORMER.set(former);
            let mut ours: libc::sigaction = std::mem::zeroed();
            let handler: extern "C" fn(libc::c_int, *mut libc::siginfo_t, *mut libc::c_void) = on_lost_page;
            ours.sa_sigaction = handler as usize;
            // On the stack that the thread keeps for signals: Rust's own handler of stack overflows
            // may come after this one.
            ours.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
            libc::sigaction(libc::SIGBUS, &raw const ours, std::ptr::null_mut()) == 0
        }
    })
}

#[cfg(any(target_os = "linux", target_os = "macos"))]
extern "C" fn on_lost_page(_signal: libc::c_int, info: *mut libc::siginfo_t, _context: *mut libc::c_void) {
    // SAFETY: the system passes a valid structure; for SIGBUS it holds an address. `write` takes
    // the line's own extent, `pause` nothing, `tcsetattr` modes that the system gave; a handler may
    // call all of them. `_exit` ends the process without running anything else.
    unsafe {
        let address = (*info).si_addr() as usize;
        let write = |line: &[u8]| {
            if !crate::lost_pages::first_to_report() {
                // Another thread is writing the line and will end the process.
                loop {
                    libc::pause();
                }
            }
            if let Some(modes) = KEPT_MODES.get() {
                // Of another job's terminal the system would stop this process instead of giving
                // the modes back.
                if libc::tcgetpgrp(libc::STDIN_FILENO) == libc::getpgrp() {
                    libc::tcsetattr(libc::STDIN_FILENO, libc::TCSANOW, modes);
                }
            }
            // If the message cannot be written, the exit code still tells.
            let _ = libc::write(libc::STDERR_FILENO, line.as_ptr().cast(), line.len());
        };
        if let Some(exit_code) = crate::lost_pages::message_for(address, write) {
            libc::_exit(exit_code);
        }
    }
    // Another cause: the instruction is tried again under the former handler.
    if let Some(former) = FORMER.get() {
        // SAFETY: this is the structure that the system gave.
        unsafe { libc::sigaction(libc::SIGBUS, former, std::ptr::null_mut()) };
    }
}

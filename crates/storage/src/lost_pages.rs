//! What happens when a page of a mapped file cannot be had any more: another program cut the file
//! short, or its disk failed.
//!
//! The read that wants the page cannot return, since it is a load instruction somewhere in a
//! kernel; the system raises SIGBUS. A program that asks for it ends with a message that names the
//! file. The handler may only do what is safe in the middle of anything: it reads atomics, writes
//! to standard error and ends the process.

use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicI32, AtomicPtr, AtomicU8, AtomicUsize, Ordering};

/// Files that are known by name at once. Of more, as of more than this many shards, the message is
/// the system's own.
const SLOTS: usize = 64;
/// Longer names keep their end.
const NAME_BYTES: usize = 240;

const BEFORE_NAME: &[u8] = b"error: ";
const AFTER_NAME: &[u8] =
    b" was cut short by another program, or its disk failed, while it was mapped: start again when the \
file is whole";
/// As many bytes of what comes behind it are written.
const HINT_BYTES: usize = 128;
/// As many bytes of what comes before it are written: more than any sequence that ends a line
/// needs.
const BEFORE_BYTES: usize = 32;
const LINE_BYTES: usize = BEFORE_BYTES + BEFORE_NAME.len() + NAME_BYTES + AFTER_NAME.len() + HINT_BYTES + 1;

/// A mapping. `start` is 0 in a free slot, 1 while a slot is being filled.
struct Slot {
    start: AtomicUsize,
    len: AtomicUsize,
    name: [AtomicU8; NAME_BYTES], // zeros after its end
}

static MAPPED: [Slot; SLOTS] = [const {
    Slot { start: AtomicUsize::new(0), len: AtomicUsize::new(0), name: [const { AtomicU8::new(0) }; NAME_BYTES] }
}; SLOTS];

static EXIT_CODE: AtomicI32 = AtomicI32::new(1);

/// Set by the first thread that reports: several threads of a kernel lose the same pages at once.
static REPORTED: AtomicBool = AtomicBool::new(false);

/// Whether the caller is the first to ask. The others have nothing to say: the process is about to
/// end.
#[cfg_attr(not(any(target_os = "linux", target_os = "macos")), allow(dead_code, reason = "no such signal is handled"))]
pub(crate) fn first_to_report() -> bool {
    !REPORTED.swap(true, Ordering::Relaxed)
}

/// What the process ends with.
pub(crate) fn set_exit_code(exit_code: i32) {
    EXIT_CODE.store(exit_code, Ordering::Relaxed);
}

/// Bytes that are written before the message, as a pointer to a constant: a handler can take no
/// lock.
static BEFORE: AtomicPtr<&'static [u8]> = AtomicPtr::new(std::ptr::null_mut());

/// What is written before the message.
pub(crate) fn set_before(bytes: &'static &'static [u8]) {
    BEFORE.store(std::ptr::from_ref(bytes).cast_mut(), Ordering::Release);
}

/// Bytes that are written at the end of the message, likewise.
static HINT: AtomicPtr<&'static [u8]> = AtomicPtr::new(std::ptr::null_mut());

/// What is written at the end of the message.
pub(crate) fn set_hint(bytes: &'static &'static [u8]) {
    HINT.store(std::ptr::from_ref(bytes).cast_mut(), Ordering::Release);
}

/// Keeps the name of a mapped file known.
#[derive(Debug)]
pub(crate) struct Named(Option<usize>);

impl Named {
    pub(crate) fn new(bytes: &[u8], path: &Path) -> Named {
        let free = |slot: &&Slot| slot.start.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_ok();
        let Some((index, slot)) = MAPPED.iter().enumerate().find(|(_, slot)| free(slot)) else { return Named(None) };
        let name = path.as_os_str().as_encoded_bytes();
        let end = &name[name.len().saturating_sub(NAME_BYTES)..];
        for (i, byte) in slot.name.iter().enumerate() {
            // A line break or an escape code in a name shall not look like a message.
            let shown = end.get(i).map_or(0, |b| if b.is_ascii_control() { b'?' } else { *b });
            byte.store(shown, Ordering::Relaxed);
        }
        slot.len.store(bytes.len(), Ordering::Relaxed);
        slot.start.store(bytes.as_ptr() as usize, Ordering::Release);
        Named(Some(index))
    }
}

impl Drop for Named {
    fn drop(&mut self) {
        if let Some(index) = self.0 {
            MAPPED[index].start.store(0, Ordering::Release);
        }
    }
}

/// The exit code for a fault at an address, after `write` got the message, one line as a whole;
/// `None` if no file is mapped there. Allocates nothing and takes no lock.
#[cfg_attr(not(any(target_os = "linux", target_os = "macos")), allow(dead_code, reason = "no such signal is handled"))]
pub(crate) fn message_for(address: usize, write: impl FnOnce(&[u8])) -> Option<i32> {
    let slot = MAPPED.iter().find(|slot| {
        let start = slot.start.load(Ordering::Acquire);
        start > 1 && address.wrapping_sub(start) < slot.len.load(Ordering::Relaxed)
    })?;
    let mut line = [0; LINE_BYTES];
    let mut len = 0;
    let mut push = |byte| {
        if let Some(to) = line.get_mut(len) {
            *to = byte;
            len += 1;
        }
    };
    // SAFETY: null, or a constant that lives as long as the process.
    let before = unsafe { BEFORE.load(Ordering::Acquire).as_ref() }.copied().unwrap_or_default();
    before.iter().take(BEFORE_BYTES).chain(BEFORE_NAME).for_each(|byte| push(*byte));
    slot.name.iter().map(|byte| byte.load(Ordering::Relaxed)).take_while(|byte| *byte != 0).for_each(&mut push);
    // SAFETY: as above.
    let hint = unsafe { HINT.load(Ordering::Acquire).as_ref() }.copied().unwrap_or_default();
    AFTER_NAME.iter().chain(hint.iter().take(HINT_BYTES)).chain(b"\n").for_each(|byte| push(*byte));
    write(line.get(..len).unwrap_or_default());
    Some(EXIT_CODE.load(Ordering::Relaxed))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(address: usize) -> Option<String> {
        let mut text = Vec::new();
        message_for(address, |piece| text.extend_from_slice(piece))?;
        Some(String::from_utf8(text).unwrap())
    }

    // One test, since the slots are the whole process's.
    #[test]
    fn an_address_leads_to_the_file() {
        let bytes = vec![0u8; 1000];
        let at = bytes.as_ptr() as usize;
        let named = Named::new(&bytes, Path::new("some/mo\ndel\x1b[1m"));
        for address in [at, at + 999] {
            let line = told(address).unwrap();
            assert!(line.starts_with("error: some/mo?del?[1m was cut short"), "{line:?}");
            assert!(line.ends_with("is whole\n") && line.lines().count() == 1, "{line:?}");
        }
        assert_eq!((told(at - 1), told(at + 1000), told(0), told(usize::MAX)), (None, None, None, None));
        set_before(&(b"\n" as &[u8]));
        assert!(told(at).unwrap().starts_with("\nerror: some/mo?del?[1m was cut short"));
        set_before(&(b"" as &[u8]));
        set_hint(&(b" (or not)" as &[u8]));
        assert!(told(at).unwrap().ends_with("is whole (or not)\n"));
        drop(named);
        assert_eq!(told(at), None);
        let long = "x/".repeat(500) + "model";
        let _named = Named::new(&bytes, Path::new(&long));
        assert!(told(at).unwrap().contains("/x/model was"));

        // More files than slots do no harm.
        let many: Vec<_> = (0..3 * SLOTS).map(|_| Named::new(&bytes, Path::new("many"))).collect();
        drop(many);
        let other = vec![0u8; 10];
        let _named = Named::new(&other, Path::new("one more"));
        assert!(told(other.as_ptr() as usize).unwrap().contains("one more"));
    }
}

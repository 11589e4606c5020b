//! What happens when a page of a mapped file cannot be had any more: another program cut the file short, or its disk failed.
//!
//! The read that wants the page cannot return, since it is a load instruction somewhere in a kernel; the system raises SIGBUS.
//! A program that asks for it ends with a message that names the file. The handler may only do what is safe in the middle of
//! anything: it reads atomics, writes to standard error and ends the process.

use std::path::Path;
use std::sync::atomic::{AtomicI32, AtomicU8, AtomicUsize, Ordering};

use crate::os;

/// Files that are known by name at once. Of more, as of more than this many shards, the message is the system's own.
const SLOTS: usize = 64;
/// Longer names keep their end.
const NAME_BYTES: usize = 240;

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

/// Makes a lost page of a mapped file end the process with `exit_code` and a message on standard error that names the file,
/// instead of a bare SIGBUS. For programs, not for libraries: it replaces the process's handler, and passes on every SIGBUS that
/// has another cause. False where the system does not know the signal (Windows) or refuses.
pub fn report_lost_pages(exit_code: i32) -> bool {
    EXIT_CODE.store(exit_code, Ordering::Relaxed);
    os::handle_lost_pages()
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

/// The message for a fault at an address, in pieces that `write` puts together, and the exit code; `None` if no file is mapped
/// there. Allocates nothing and takes no lock.
#[cfg_attr(not(any(target_os = "linux", target_os = "macos")), allow(dead_code, reason = "no such signal is handled"))]
pub(crate) fn message_for(address: usize, mut write: impl FnMut(&[u8])) -> Option<i32> {
    let slot = MAPPED.iter().find(|slot| {
        let start = slot.start.load(Ordering::Acquire);
        start > 1 && address.wrapping_sub(start) < slot.len.load(Ordering::Relaxed)
    })?;
    let mut name = [0; NAME_BYTES];
    name.iter_mut().zip(&slot.name).for_each(|(to, from)| *to = from.load(Ordering::Relaxed));
    let end = name.iter().position(|byte| *byte == 0).unwrap_or(NAME_BYTES);
    write(b"error: ");
    write(name.get(..end).unwrap_or_default());
    write(
        b" was cut short by another program, or its disk failed, while it was mapped\n  \
          start again when the file is whole; -memory reads it once and does not need it afterwards\n",
    );
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
            assert!(told(address).unwrap().starts_with("error: some/mo?del?[1m was cut short"), "{:?}", told(address));
        }
        assert_eq!((told(at - 1), told(at + 1000), told(0), told(usize::MAX)), (None, None, None, None));
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

//! One worker's share of a loop: a range of chunk numbers that its owner and thieves take from with
//! one compare-and-swap.

use std::sync::atomic::{AtomicU64, Ordering::*};

/// Keeps its content alone on a pair of cache lines: x86 fetches lines in pairs, and some Arm cores
/// have 128-byte ones.
#[repr(align(128))]
pub(crate) struct CachePadded<T>(pub T);

/// The chunks `front..back`, packed into one word so that both ends move atomically.
///
/// Taking a chunk is the only way into a running job: whoever holds a chunk that is not yet counted
/// as done knows that the job's closure is alive. A stale thread may see a word of an earlier job
/// with the same bits as today's; its compare-and-swap then takes a chunk of today's job, which is
/// as good as any.
pub(crate) struct Share(AtomicU64);

impl Share {
    pub fn empty() -> Share {
        Share(AtomicU64::new(0))
    }

    /// Publishes chunks. Everything written before this call is visible to whoever takes one of
    /// them.
    pub fn deal(&self, front: u32, back: u32) {
        self.0.store(pack(front, back), Release);
    }

    /// The owner's side.
    pub fn take_front(&self) -> Option<u32> {
        self.take(|front, back| (front, pack(front + 1, back)))
    }

    /// The thief's side.
    pub fn take_back(&self) -> Option<u32> {
        self.take(|front, back| (back - 1, pack(front, back - 1)))
    }

    /// Whether a chunk was left at some moment; only a hint.
    pub fn has_chunks(&self) -> bool {
        let (front, back) = unpack(self.0.load(Relaxed));
        front < back
    }

    fn take(&self, next: impl Fn(u32, u32) -> (u32, u64)) -> Option<u32> {
        let mut word = self.0.load(Relaxed);
        loop {
            let (front, back) = unpack(word);
            if front >= back {
                return None;
            }
            let (chunk, new) = next(front, back);
            // Acquire pairs with `deal`; takers in between are read-modify-writes, which continue
            // its release sequence.
            match self.0.compare_exchange_weak(word, new, Acquire, Relaxed) {
                Ok(_) => return Some(chunk),
                Err(now) => word = now,
            }
        }
    }
}

fn pack(front: u32, back: u32) -> u64 {
    u64::from(front) << 32 | u64::from(back)
}

fn unpack(word: u64) -> (u32, u32) {
    ((word >> 32) as u32, word as u32)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ends_meet_without_overlap() {
        let share = Share::empty();
        assert_eq!(share.take_front(), None);
        assert_eq!(share.take_back(), None);
        share.deal(3, 7);
        assert!(share.has_chunks());
        assert_eq!(share.take_front(), Some(3));
        assert_eq!(share.take_back(), Some(6));
        assert_eq!(share.take_back(), Some(5));
        assert_eq!(share.take_front(), Some(4));
        assert_eq!(share.take_front(), None);
        assert_eq!(share.take_back(), None);
        assert!(!share.has_chunks());
        share.deal(u32::MAX - 1, u32::MAX);
        assert_eq!(share.take_back(), Some(u32::MAX - 1));
        assert_eq!(share.take_front(), None);
    }
}

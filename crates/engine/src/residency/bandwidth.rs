//! How fast this machine reads memory: the ceiling of decoding, which reads every weight once a
//! token.
//!
//! A sweep reads a buffer that no cache holds, in chunks that the threads of a pool take in turn,
//! and does nothing with the bytes but add them up. The buffer lies on large pages where the system
//! has them, as a mapped model at best does: small ones would measure address translation, which
//! costs a virtual machine several times as much. That is what a row-dot would be if its arithmetic
//! cost nothing. The fastest of several sweeps counts: anything that disturbs a sweep makes it
//! slower.

use std::hint::black_box;
use std::time::{Duration, Instant};

use modelembed_pool::Pool;
use modelembed_storage::{Reserved, process};

/// What [`ReadBandwidth::measure`] found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct ReadBandwidth {
    /// Threads that read at the same time.
    pub threads: usize,
    /// Bytes of one sweep.
    pub swept_bytes: u64,
    /// Bytes per second of the fastest sweep.
    pub bytes_per_second: f64,
}

/// A sweep is this many times as long as the last-level cache, so that nearly nothing of the sweep
/// before is still in it.
const CACHES: u64 = 8;
/// Bounds of a sweep. The lower one serves machines that do not tell their cache: few have more
/// than 64 MiB.
const SWEEP_BYTES: std::ops::RangeInclusive<u64> = 512 << 20..=4 << 30;
/// What a thread reads at a time: long enough that taking a chunk costs nothing beside reading it
/// (10 µs or more).
const CHUNK_BYTES: usize = 256 << 10;
const LINE_WORDS: usize = 16; // of 4 bytes: a cache line
const CHUNK_WORDS: usize = CHUNK_BYTES / 4;
/// Sweeps: at least the first number, and more until the time is over.
const SWEEPS: usize = 5;
const SWEEPING: Duration = Duration::from_millis(400);

impl ReadBandwidth {
    /// Measures with `threads` threads (at least one). Takes about a second and, for that time,
    /// half a gigabyte of memory or more; a quarter of what is available at most.
    ///
    /// `None` where so little memory is available that the caches would be measured.
    pub fn measure(threads: usize) -> Option<ReadBandwidth> {
        let cache_bytes = last_level_cache_bytes();
        let wanted = (cache_bytes.unwrap_or(0) * CACHES).clamp(*SWEEP_BYTES.start(), *SWEEP_BYTES.end());
        let bytes = process::available_memory_bytes().map_or(wanted, |available| wanted.min(available / 4));
        if bytes < cache_bytes.unwrap_or(32 << 20) * 2 {
            return None;
        }
        sweep(threads, bytes as usize / CHUNK_BYTES)
    }
}

fn sweep(threads: usize, n_chunks: usize) -> Option<ReadBandwidth> {
    let pool = Pool::new(threads);
    // Written, since pages that were only reserved are all the same page of zeros, and written by
    // the threads that read it, so that a machine with several memory nodes has it on all of them.
    let mut memory = Reserved::<u32>::zeroed(n_chunks * CHUNK_WORDS).ok()?;
    memory.advise_huge_pages();
    pool.run(memory.len(), CHUNK_WORDS, &mut memory[..], |items, part, _| {
        for (i, word) in items.zip(part) {
            *word = i as u32;
        }
    });
    let mut sums = vec![0u32; n_chunks];
    let mut best = Duration::MAX;
    let start = Instant::now();
    for i in 0.. {
        if i >= SWEEPS && start.elapsed() > SWEEPING {
            break;
        }
        let start = Instant::now();
        pool.run(n_chunks, 1, &mut sums[..], |chunks, sums, _| {
            for (chunk, sum) in chunks.zip(sums) {
                *sum = add_up(&memory[chunk * CHUNK_WORDS..][..CHUNK_WORDS]);
            }
        });
        black_box(&sums);
        best = best.min(start.elapsed());
    }
    let swept_bytes = (n_chunks * CHUNK_BYTES) as u64;
    let bytes_per_second = swept_bytes as f64 / best.as_secs_f64().max(1e-9);
    Some(ReadBandwidth { threads: pool.threads(), swept_bytes, bytes_per_second })
}

/// The sum of all words. Compiles to one vector addition for each vector that is read.
fn add_up(words: &[u32]) -> u32 {
    let mut sums = [0u32; LINE_WORDS];
    let (lines, rest) = words.as_chunks::<LINE_WORDS>();
    for line in lines {
        for (sum, word) in sums.iter_mut().zip(line) {
            *sum = sum.wrapping_add(*word);
        }
    }
    sums.iter().chain(rest).fold(0, |a, b| a.wrapping_add(*b))
}

/// Bytes of the largest cache that the first CPU uses. `None` where the system does not tell.
fn last_level_cache_bytes() -> Option<u64> {
    let size_of = |index: usize| {
        let file = format!("/sys/devices/system/cpu/cpu0/cache/index{index}/size");
        parse_cache_size(&std::fs::read_to_string(file).ok()?)
    };
    (0..8).map_while(size_of).max()
}

/// Reads the kernel's form, such as `32768K`.
fn parse_cache_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = match &text[digits.len()..] {
        "" => 1,
        "K" => 1 << 10,
        "M" => 1 << 20,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cache_sizes() {
        let rows = [("32768K\n", Some(32 << 20)), ("1M", Some(1 << 20)), ("512", Some(512)), ("", None), ("9T", None)];
        let failed: Vec<_> = rows.iter().filter(|(text, wanted)| parse_cache_size(text) != *wanted).collect();
        assert!(failed.is_empty(), "{failed:?}");
    }

    #[test]
    fn every_word_counts_once() {
        let words: Vec<u32> = (0..8005).collect();
        assert_eq!(add_up(&words), (0..8005).sum::<u32>());
    }

    #[test]
    fn a_sweep_has_a_finite_speed() {
        let found = sweep(2, 16).unwrap();
        assert_eq!(found.swept_bytes, 16 * CHUNK_BYTES as u64);
        assert!(found.bytes_per_second.is_finite() && found.bytes_per_second > 0.0, "{found:?}");
    }
}

//! A hash table from byte strings to numbers that owns none of the strings.
//!
//! Slots hold a number and a few bits of its hash; the strings stay where they are (in the model
//! file) and are asked for through a closure only when those bits agree. A vocabulary of 262,144
//! tokens costs 2 MiB and a few milliseconds.

use std::hash::BuildHasher;

/// A keyed hash of short byte strings: multiply 64 by 64 bits and fold the halves, eight bytes at a
/// time.
///
/// The key is drawn for each table, so that a file cannot be made whose strings all fall into one
/// slot.
#[derive(Clone, Copy)]
pub(crate) struct Hash {
    seed: u64,
    factor: u64,
}

impl Hash {
    pub(crate) fn new() -> Hash {
        let random = std::collections::hash_map::RandomState::new();
        // An even factor would lose a bit in every round.
        Hash { seed: random.hash_one(0), factor: random.hash_one(1) | 1 }
    }

    /// Hash of one string.
    pub(crate) fn of(&self, bytes: &[u8]) -> u64 {
        let start = self.seed ^ (bytes.len() as u64).wrapping_mul(self.factor);
        // Nearly all tokens are short: two reads that may overlap cover them, and the length says
        // how they do.
        let (low, high) = match bytes {
            [] => (0, 0),
            [a] => (u64::from(*a), 0),
            [a, b, ..] if bytes.len() < 4 => (u64::from(*a) | u64::from(*b) << 8, u64::from(bytes[bytes.len() - 1])),
            _ if bytes.len() <= 8 => (word32(bytes.first_chunk()), word32(bytes.last_chunk())),
            _ if bytes.len() <= 16 => (word64(bytes.first_chunk()), word64(bytes.last_chunk())),
            _ => return self.of_long(start, bytes),
        };
        fold(fold(start ^ low, self.factor) ^ high, self.factor)
    }

    fn of_long(&self, start: u64, bytes: &[u8]) -> u64 {
        let mut hash = start;
        for chunk in bytes.chunks_exact(8) {
            hash = fold(hash ^ word64(chunk.first_chunk()), self.factor);
        }
        fold(hash ^ word64(bytes.last_chunk()), self.factor)
    }

    /// Hash of an ordered pair of strings.
    pub(crate) fn of_pair(&self, left: &[u8], right: &[u8]) -> u64 {
        fold(self.of(left).rotate_left(23) ^ self.of(right), self.factor)
    }
}

fn word32(bytes: Option<&[u8; 4]>) -> u64 {
    bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes).into())
}

fn word64(bytes: Option<&[u8; 8]>) -> u64 {
    bytes.map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

fn fold(a: u64, b: u64) -> u64 {
    let wide = u128::from(a) * u128::from(b);
    wide as u64 ^ (wide >> 64) as u64
}

/// Which of two equal strings a table keeps.
#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Keep {
    First,
    Last,
}

/// Open addressing with linear probing. A slot is 0 (empty), or the upper bits of the hash above
/// the number plus 1.
pub(crate) struct IdTable {
    slots: Vec<u32>,
    id_bits: u32,
}

impl IdTable {
    /// An empty table for the numbers `0..n`; `n` must be below 2^31.
    pub(crate) fn new(n: usize) -> IdTable {
        // At most half full, so that a miss probes 2.5 slots on average.
        let len = (n.max(4) * 2).next_power_of_two();
        let id_bits = usize::BITS - n.leading_zeros();
        IdTable { slots: vec![0; len], id_bits }
    }

    fn split(&self, slot: u32) -> (u32, u32) {
        let mask = (1u32 << self.id_bits) - 1;
        (slot & !mask, (slot & mask) - 1)
    }

    fn tag(&self, hash: u64) -> u32 {
        ((hash >> 32) as u32) & !((1u32 << self.id_bits) - 1)
    }

    /// The slot where a string with this hash is, or the empty one where it would be.
    fn probe(&self, hash: u64, mut same: impl FnMut(u32) -> bool) -> (usize, Option<u32>) {
        let mask = self.slots.len() - 1;
        let tag = self.tag(hash);
        let mut at = hash as usize & mask;
        loop {
            let slot = self.slots[at];
            if slot == 0 {
                return (at, None);
            }
            let (seen, id) = self.split(slot);
            if seen == tag && same(id) {
                return (at, Some(id));
            }
            at = (at + 1) & mask;
        }
    }

    /// The number of the string with this hash for which `same` holds.
    pub(crate) fn find(&self, hash: u64, same: impl FnMut(u32) -> bool) -> Option<u32> {
        self.probe(hash, same).1
    }

    /// Reads the slots of hashes that will be entered next, so that the memory is asked for all of
    /// them at once.
    pub(crate) fn touch(&self, hashes: &[u64]) {
        let mask = self.slots.len() - 1;
        std::hint::black_box(hashes.iter().fold(0, |all, &hash| all | self.slots[hash as usize & mask]));
    }

    /// Enters number `id`; each number once.
    pub(crate) fn insert(&mut self, hash: u64, id: u32, keep: Keep, same: impl FnMut(u32) -> bool) {
        let (at, seen) = self.probe(hash, same);
        if seen.is_none() || keep == Keep::Last {
            self.slots[at] = self.tag(hash) | (id + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(words: &[&str], keep: Keep) -> (Hash, IdTable) {
        let hash = Hash::new();
        let mut table = IdTable::new(words.len());
        for (i, word) in words.iter().enumerate() {
            table.insert(hash.of(word.as_bytes()), i as u32, keep, |j| words[j as usize] == *word);
        }
        (hash, table)
    }

    #[test]
    fn finds_every_string_and_no_other() {
        let owned: Vec<String> = (0..5000).map(|i| format!("word{i}")).collect();
        let words: Vec<&str> = owned.iter().map(String::as_str).collect();
        let (hash, table) = table(&words, Keep::Last);
        for (i, word) in words.iter().enumerate() {
            assert_eq!(table.find(hash.of(word.as_bytes()), |j| words[j as usize] == *word), Some(i as u32));
        }
        assert_eq!(table.find(hash.of(b"absent"), |j| words[j as usize] == "absent"), None);
    }

    #[test]
    fn keeps_the_first_or_the_last_of_equal_strings() {
        let words = ["a", "b", "a"];
        for (keep, wanted) in [(Keep::First, 0), (Keep::Last, 2)] {
            let (hash, table) = table(&words, keep);
            assert_eq!(table.find(hash.of(b"a"), |j| words[j as usize] == "a"), Some(wanted));
        }
    }

    #[test]
    fn pairs_are_ordered() {
        let hash = Hash::new();
        assert_ne!(hash.of_pair(b"a", b"b"), hash.of_pair(b"b", b"a"));
        assert_ne!(hash.of_pair(b"ab", b"c"), hash.of_pair(b"a", b"bc"));
    }
}

//! Merging neighbours, best pair first: the loop that byte-pair encoding and SentencePiece share.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::ops::Range;

const NONE: u32 = u32::MAX;

/// A piece of the text; `len` 0 once it is part of its left neighbour.
#[derive(Clone, Copy)]
struct Symbol {
    start: u32,
    len: u32,
    prev: u32,
    next: u32,
}

/// A pair that may merge. Ordered by priority (lower first), then from left to right.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Pair {
    priority: u32,
    left: u32,
    right: u32,
    len: u32,
}

/// Scratch of the merging loop, reused from word to word.
#[derive(Default)]
pub(crate) struct Merger {
    symbols: Vec<Symbol>,
    queue: BinaryHeap<Reverse<Pair>>,
}

impl Merger {
    /// Forgets the symbols of the last word.
    pub(crate) fn clear(&mut self) {
        self.symbols.clear();
        self.queue.clear();
    }

    /// Appends a symbol: the next `len` bytes.
    pub(crate) fn push(&mut self, len: usize) {
        let index = self.symbols.len() as u32;
        let start = self.symbols.last().map_or(0, |last| last.start + last.len);
        if let Some(last) = self.symbols.last_mut() {
            last.next = index;
        }
        self.symbols.push(Symbol { start, len: len as u32, prev: index.wrapping_sub(1), next: NONE });
    }

    /// Merges until no pair is left that `priority` (of the bytes of two neighbours) accepts. A
    /// heap makes it O(n log n) in the number of symbols.
    pub(crate) fn run(&mut self, mut priority: impl FnMut(Range<usize>, Range<usize>) -> Option<u32>) {
        for right in 1..self.symbols.len() as u32 {
            self.offer(right - 1, right, &mut priority);
        }
        while let Some(Reverse(pair)) = self.queue.pop() {
            let (left, right) = (self.symbols[pair.left as usize], self.symbols[pair.right as usize]);
            // Stale unless both still are what they were: symbols only grow or vanish.
            if left.len == 0 || right.len == 0 || left.len + right.len != pair.len {
                continue;
            }
            self.symbols[pair.left as usize].len = pair.len;
            self.symbols[pair.left as usize].next = right.next;
            self.symbols[pair.right as usize].len = 0;
            if right.next != NONE {
                self.symbols[right.next as usize].prev = pair.left;
            }
            self.offer(left.prev, pair.left, &mut priority);
            self.offer(pair.left, right.next, &mut priority);
        }
    }

    fn offer(&mut self, left: u32, right: u32, priority: &mut impl FnMut(Range<usize>, Range<usize>) -> Option<u32>) {
        if left == NONE || right == NONE {
            return;
        }
        let (l, r) = (self.symbols[left as usize], self.symbols[right as usize]);
        if let Some(priority) = priority(l.range(), r.range()) {
            self.queue.push(Reverse(Pair { priority, left, right, len: l.len + r.len }));
        }
    }

    /// Byte ranges of what is left, in order.
    pub(crate) fn ranges(&self) -> impl Iterator<Item = Range<usize>> {
        self.symbols.iter().filter(|symbol| symbol.len > 0).map(Symbol::range)
    }
}

impl Symbol {
    fn range(&self) -> Range<usize> {
        self.start as usize..self.start as usize + self.len as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn merged(text: &str, ranks: &[&str]) -> Vec<String> {
        let mut merger = Merger::default();
        text.bytes().for_each(|_| merger.push(1));
        merger.run(|left, right| {
            ranks.iter().position(|rank| *rank == &text[left.start..right.end]).map(|rank| rank as u32)
        });
        merger.ranges().map(|range| text[range].to_string()).collect()
    }

    #[test]
    fn best_pair_first_then_left_to_right() {
        let cases: &[(&str, &[&str], &[&str])] = &[
            ("", &[], &[]),
            ("a", &["aa"], &["a"]),
            ("aaa", &["aa"], &["aa", "a"]),
            ("aaaa", &["aa", "aaaa"], &["aaaa"]),
            ("abc", &["bc", "ab"], &["a", "bc"]),
            ("abcd", &["bc", "ab", "bcd"], &["a", "bcd"]),
            ("abab", &["ab", "aba"], &["ab", "ab"]),
        ];
        for (text, ranks, wanted) in cases {
            assert_eq!(&merged(text, ranks), wanted, "{text} by {ranks:?}");
        }
    }
}

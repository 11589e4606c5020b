//! What attention is over, and its running state.

use std::ops::Range;

/// The running state of some queries. Start from [`AttnState::clear`].
#[derive(Debug)]
pub struct AttnState<'a> {
    /// The greatest score so far, one a query; minus infinity before the first.
    pub max: &'a mut [f32],
    /// The sum of exp(score - max), one a query.
    pub sum: &'a mut [f32],
    /// `(n_q, value_dim)`: the sum of exp(score - max) * v.
    pub acc: &'a mut [f32],
}

impl AttnState<'_> {
    /// Nothing seen yet.
    pub fn clear(&mut self) {
        self.max.fill(f32::NEG_INFINITY);
        self.sum.fill(0.0);
        self.acc.fill(0.0);
    }
}

/// A finished part of the attention of some queries, to be merged: the fields of [`AttnState`],
/// read only.
#[derive(Clone, Copy, Debug)]
pub struct AttnPart<'a> {
    /// The greatest score, one a query.
    pub max: &'a [f32],
    /// The sum of exp(score - max), one a query.
    pub sum: &'a [f32],
    /// `(n_q, value_dim)`.
    pub acc: &'a [f32],
}

/// What queries attend to: one KV head's rows and who sees which of them.
#[derive(Clone, Copy, Debug)]
pub struct AttnInput<'a, T = u16> {
    /// `(n_q, head_dim)`, already scaled.
    pub q: &'a [f32],
    /// Elements of a query and of a key.
    pub head_dim: usize,
    /// Elements of a value, and so of what a query becomes.
    pub value_dim: usize,
    /// `(n_pos, head_dim)`, in half precision (bits in a `u16`), 16-bit integers, Q8_0 blocks
    /// (bytes) or f32.
    pub k: &'a [T],
    /// `(n_pos, value_dim)`.
    pub v: &'a [T],
    /// Keys that are read after these, if it is known which: requested while the last values are
    /// read. They change no number.
    pub next: &'a [T],
    /// For each query the positions that it sees, within `0..n_pos`.
    pub visible: &'a [Range<usize>],
    /// Scores become `cap * tanh(score / cap)`.
    pub soft_cap: Option<f32>,
    /// What is added to each query's scores then, one a query; empty to add nothing.
    pub lines: &'a [Line],
}

/// What is added to a query's scores: `start + slope * position`, with positions counted from the
/// first key.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Line {
    /// How much it grows with each position.
    pub slope: f32,
    /// What it is at the first one.
    pub start: f32,
}

/// What becomes of the scores of a block of positions before they are weighed.
#[derive(Clone, Copy)]
pub(super) struct Bend<'a> {
    pub(super) soft_cap: Option<f32>,
    /// Of the queries at hand, or empty.
    pub(super) lines: &'a [Line],
    /// The block's first position.
    pub(super) block: usize,
}

impl<'a, T> AttnInput<'a, T> {
    /// What becomes of the scores of the queries from `query` on, over the block from `block` on.
    pub(super) fn bend(&self, query: usize, block: usize) -> Bend<'a> {
        Bend { soft_cap: self.soft_cap, lines: self.lines.get(query..).unwrap_or_default(), block }
    }
}

//! Recurrences of single channels (Mamba: Gu and Dao 2023, arXiv 2312.00752).
//!
//! A state's elements fade each by their own factor, which no matrix of a chunk's positions can hold, so
//! positions come one after the other. As elsewhere a state changes at multiples of [`CHUNK`] positions
//! only: a token begins where its chunk does and takes in the rows of the positions before it again,
//! which gives the bits of a prompt.

use std::ops::Range;

use modelembed_kernels::Kernels;
use modelembed_pool::{Blocks, PerWorker, Rows as RowsOf, RowsPart};
use modelembed_spec::{ChannelScan, Register, ScanShape};

use super::numbers::{number, numbers, softplus};
use super::scratch::{Scratch, WorkerScratch};
use super::{GRAIN_COLS, Pass};
use crate::state::records::{CHUNK, Record, Rows, crosses};

/// Channels that are computed together, position by position.
const BLOCK: usize = 16;

/// Numbers that a worker needs for a block: its states, their decay, and the factors of one channel.
pub(super) fn room_len(shape: &ScanShape) -> usize {
    (2 * BLOCK + 1) * shape.key_dim
}

/// A recurrence over a chunk of tokens.
struct Layer<'a> {
    shape: ScanShape,
    kernels: &'static Kernels,
    /// What the convolution gives: (n, channels).
    values: &'a [f32],
    /// Keys and queries: (n, 2, key_dim).
    keys: &'a [f32],
    /// (n, steps_len).
    steps: &'a [f32],
    /// (n, channels).
    taken: &'a [f32],
    /// (channels, key_dim) and (channels), f32 at any address.
    decay: &'a [u8],
    skip: &'a [u8],
}

/// Columns of one sequence, and what stands before them.
struct Span<'a> {
    cols: Range<usize>,
    pos: usize,
    before: Record<'a>,
}

impl Pass<'_> {
    /// heads = what a recurrence of each channel gives; its records take the new positions.
    pub(super) fn channel_scan(&mut self, step: &ChannelScan) {
        self.channel_steps(&step.shape);
        let (model, n, shape) = (self.model, self.n, step.shape);
        let (layout, inner, dim) = (self.store.record_layout(), shape.inner_len(), shape.key_dim);
        let Scratch { registers, workers, .. } = &mut *self.s;
        let wanted = [Register::Scan, Register::Conv, Register::Qkv, Register::Steps, Register::Taken, Register::Heads];
        let [scan, conv, qkv, steps, taken, heads] = registers
            .get_disjoint_mut(wanted.map(|register| register as usize))
            .unwrap_or_else(|_| unreachable!("six registers"));
        let workers: &PerWorker<WorkerScratch> = workers;
        let (steps, taken) = (&steps[..n * shape.steps_len()], &taken[..n * inner]);
        let layer = Layer {
            shape,
            kernels: model.kernels(),
            values: &conv[..n * inner],
            keys: &qkv[..n * 2 * dim],
            steps,
            taken,
            decay: model.tensor_bytes(step.decay),
            skip: model.tensor_bytes(step.skip),
        };
        for run in &mut self.active.runs {
            let (cols, pos) = (run.cols.clone(), run.pos);
            let out = &mut heads[cols.start * inner..cols.end * inner];
            if !crosses(pos, cols.len()) {
                let span = Span { pos, before: layout.of(step.record, run.tables.records.before()), cols };
                let out = RowsOf::new(out, inner, span.cols.len());
                model.pool().run(inner, BLOCK, out, |channels, mut out, worker| {
                    let room = &mut workers.get(worker).taken[..];
                    layer.compute(&span, channels, &mut out, None, room);
                });
                continue;
            }
            let (other, spare) = run.tables.records.crossing();
            let other = other.map(|bytes| &*bytes);
            let (same, state) = layout.split_mut(step.record, spare);
            if let Some(bytes) = other {
                state.copy_from_slice(layout.of(step.record, bytes).state);
            }
            let before = other.map_or(same, |bytes| layout.of(step.record, bytes));
            let span = Span { pos, before, cols };
            let out = (RowsOf::new(out, inner, span.cols.len()), Blocks { data: state, block: dim });
            model.pool().run(inner, BLOCK, out, |channels, (mut out, state), worker| {
                let room = &mut workers.get(worker).taken[..];
                layer.compute(&span, channels, &mut out, Some(state), room);
            });
        }
        let (len, n_steps, column) = (shape.conv_len(), shape.steps_len(), (shape.column_len(), inner));
        let (scan, conv) = (&*scan, &*conv);
        self.active.store(layout, step.record, model.pool(), &|cols| Rows {
            n: cols.len(),
            columns: &scan[cols.start * column.0..cols.end * column.0],
            column,
            conv: &conv[cols.start * len..cols.end * len],
            taken: &taken[cols.start * inner..cols.end * inner],
            steps: &steps[cols.start * n_steps..cols.end * n_steps],
        });
    }

    /// Step sizes and keys side by side, and what states take in: the value times its step size.
    fn channel_steps(&mut self, shape: &ScanShape) {
        let (model, n, inner, dim) = (self.model, self.n, shape.inner_len(), shape.key_dim);
        let wanted = [Register::Gates, Register::Conv, Register::Qkv, Register::Steps, Register::Taken];
        let [raw, values, keys, steps, taken] = self
            .s
            .registers
            .get_disjoint_mut(wanted.map(|register| register as usize))
            .unwrap_or_else(|_| unreachable!("five registers"));
        let (raw, values, keys, len) =
            (&raw[..n * inner], &values[..n * inner], &keys[..n * 2 * dim], shape.steps_len());
        let out = (
            Blocks { data: &mut steps[..n * len], block: len },
            Blocks { data: &mut taken[..n * inner], block: inner },
        );
        model.pool().run(n, GRAIN_COLS, out, |cols, (steps, taken), _| {
            for (col, (steps, taken)) in cols.zip(steps.chunks_exact_mut(len).zip(taken.chunks_exact_mut(inner))) {
                let (sizes, key) = steps.split_at_mut(inner);
                key.copy_from_slice(&keys[col * 2 * dim..][..dim]);
                let columns = raw[col * inner..].iter().zip(&values[col * inner..]);
                for ((raw, value), (size, taken)) in columns.zip(sizes.iter_mut().zip(taken)) {
                    *size = softplus(*raw);
                    *taken = *size * value;
                }
            }
        });
    }
}

impl Layer<'_> {
    /// Outputs of all columns of some channels; `state` is theirs where the columns reach into another
    /// chunk, and becomes that where the last one begins.
    fn compute(
        &self,
        span: &Span<'_>,
        channels: Range<usize>,
        out: &mut RowsPart<'_>,
        mut state: Option<&mut [f32]>,
        room: &mut [f32],
    ) {
        for first in channels.clone().step_by(BLOCK) {
            let (n, at) = (BLOCK.min(channels.end - first), first - channels.start);
            let dim = self.shape.key_dim;
            let state = state.as_deref_mut().map(|state| &mut state[at * dim..][..n * dim]);
            self.block(span, first..first + n, (out, at), state, room);
        }
    }

    /// The same of a block of channels, whose rows in `out` begin with row `at`.
    fn block(
        &self,
        span: &Span<'_>,
        channels: Range<usize>,
        (out, at): (&mut RowsPart<'_>, usize),
        mut state: Option<&mut [f32]>,
        room: &mut [f32],
    ) {
        let (dim, inner, first, n) = (self.shape.key_dim, self.shape.inner_len(), channels.start, channels.len());
        let (states, rest) = room.split_at_mut(n * dim);
        let (decay, rest) = rest.split_at_mut(n * dim);
        let factors = &mut rest[..dim];
        decay.iter_mut().zip(numbers(&self.decay[4 * first * dim..])).for_each(|(x, y)| *x = y);
        match (&state, span.pos >= CHUNK) {
            (_, false) => states.fill(0.0),
            (Some(state), true) => states.copy_from_slice(state),
            (None, true) => states.copy_from_slice(&span.before.state[first * dim..][..n * dim]),
        }
        let mut block = States { layer: self, first, states, decay, factors };
        let (len, n_steps) = (self.shape.conv_len(), self.shape.steps_len());
        for row in 0..span.pos % CHUNK {
            let taken = &span.before.conv[row * len + first..][..n];
            block.take_in(&span.before.steps[row * n_steps..][..n_steps], taken);
        }
        for (i, col) in span.cols.clone().enumerate() {
            block.take_in(&self.steps[col * n_steps..][..n_steps], &self.taken[col * inner + first..][..n]);
            let query = &self.keys[(2 * col + 1) * dim..][..dim];
            let y = &mut out.column(i)[at..at + n];
            self.kernels.dot_rows(query, block.states, dim, y);
            for (c, (y, value)) in y.iter_mut().zip(&self.values[col * inner + first..][..n]).enumerate() {
                *y += number(self.skip, first + c) * value;
            }
            if let (Some(state), 0) = (state.as_deref_mut(), (span.pos + i + 1) % CHUNK) {
                state.copy_from_slice(block.states);
            }
        }
    }
}

/// The states of a block of channels.
struct States<'a> {
    layer: &'a Layer<'a>,
    first: usize,
    states: &'a mut [f32],
    decay: &'a [f32],
    factors: &'a mut [f32],
}

impl States<'_> {
    /// Takes in one position: step sizes of all channels and its key, and what each channel takes in.
    fn take_in(&mut self, steps: &[f32], taken: &[f32]) {
        let (dim, kernels) = (self.layer.shape.key_dim, self.layer.kernels);
        let (sizes, key) = steps.split_at(self.layer.shape.inner_len());
        let channels = self.states.chunks_exact_mut(dim).zip(self.decay.chunks_exact(dim));
        for ((state, decay), (size, taken)) in channels.zip(sizes[self.first..].iter().zip(taken)) {
            // Each channel by itself, so that no factor depends on where its block begins.
            self.factors.iter_mut().zip(decay).for_each(|(factor, decay)| *factor = size * decay);
            kernels.exp(self.factors);
            for ((x, factor), key) in state.iter_mut().zip(&*self.factors).zip(key) {
                *x = *x * factor + taken * key;
            }
        }
    }
}

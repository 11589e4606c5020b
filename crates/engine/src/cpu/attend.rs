//! Attention over the cache: flash-style, no score matrix, keys and values read once for all query
//! heads of a group.
//!
//! The context is cut into spans at fixed positions. The softmax state of each span is computed on
//! its own and the states are merged in order, whether one worker does all spans of a query or
//! several share them: the bits are the same. (Online softmax: Milakov & Gimelshein 2018, arXiv
//! 1805.02867; split over the context: Dao et al. 2023, "Flash-Decoding".)

use std::ops::Range;

use modelembed_kernels::{AttnInput, Kernels};
use modelembed_pool::{Blocks, Grid, PerWorker, Pool, Tiles};
use modelembed_spec::{Attend, Register, Visible};

use super::Pass;
use super::attention_room::{SPAN, State, queries_at_once};
use super::scratch::{Scratch, WorkerScratch};
use crate::state::kv::{KeysValues, KvCache};

/// Positions up to which all heads of a single token are taken to be less work than sharing them.
/// Chosen, not measured: it changes no bits.
const SHORT_CONTEXT: usize = 48;

/// The attention of a layer over a chunk.
struct Layer<'a> {
    step: &'a Attend,
    kernels: &'static Kernels,
    keys: &'a KvCache,
    qkv: &'a [f32],
    /// Position of column 0.
    pos: usize,
}

impl Layer<'_> {
    /// Positions that column `c` sees.
    fn visible(&self, c: usize) -> Range<usize> {
        let end = self.pos + c + 1;
        match self.step.visible {
            Visible::Window(n) => end.saturating_sub(n)..end,
            Visible::Chunk(n) => (end - 1) / n * n..end,
            // Those after it are not in the cache: loading refuses models that look at them.
            Visible::Causal | Visible::All | Visible::Around(_) => 0..end,
        }
    }

    /// Spans that columns `cols` see some of.
    fn spans(&self, cols: Range<usize>) -> Range<usize> {
        self.visible(cols.start).start / SPAN..(self.pos + cols.end).div_ceil(SPAN)
    }

    /// Copies the scaled queries of one key head for some columns: (cols, group, key_dim).
    fn gather(&self, head: usize, cols: Range<usize>, q: &mut [f32]) {
        let heads = &self.step.heads;
        let share = heads.group() * heads.key_dim;
        let stride = heads.qkv_len();
        for (to, column) in q.chunks_exact_mut(share).zip(self.qkv.chunks_exact(stride).skip(cols.start)) {
            to.copy_from_slice(&column[head * share..][..share]);
        }
        self.kernels.scale(&mut q[..cols.len() * share], self.step.scale);
    }

    /// The state of some columns' queries over one span.
    fn span(
        &self,
        head: usize,
        cols: Range<usize>,
        span: usize,
        q: &[f32],
        visible: &mut Vec<Range<usize>>,
        state: &mut State<'_>,
    ) {
        let Attend { heads, cache, soft_cap, .. } = *self.step;
        let first = span * SPAN;
        let end = (first + SPAN).min(self.pos + cols.end);
        visible.clear();
        for col in cols {
            let seen = self.visible(col);
            let range = seen.start.clamp(first, end) - first..seen.end.clamp(first, end) - first;
            visible.extend(std::iter::repeat_n(range, heads.group()));
        }
        state.borrow().clear();
        let (kernels, head_dim, value_dim) = (self.kernels, heads.key_dim, heads.value_dim);
        match self.keys.head(cache, head, first..end) {
            KeysValues::I16([k, v], scales) => {
                kernels.attend_i16(
                    AttnInput { q, head_dim, value_dim, k, v, visible, soft_cap },
                    scales,
                    state.borrow(),
                );
            }
            KeysValues::F16(k, v) => {
                kernels.attend(AttnInput { q, head_dim, value_dim, k, v, visible, soft_cap }, state.borrow())
            }
            KeysValues::Q8(k, v) => {
                kernels.attend(AttnInput { q, head_dim, value_dim, k, v, visible, soft_cap }, state.borrow())
            }
            KeysValues::F32(k, v) => {
                kernels.attend(AttnInput { q, head_dim, value_dim, k, v, visible, soft_cap }, state.borrow())
            }
        }
    }
}

impl Pass<'_> {
    /// heads = softmax(scale * q k) v for every query head of the chunk.
    pub(super) fn attend(&mut self, step: &Attend) {
        let (model, n) = (self.model, self.n);
        let Scratch { registers, partials, workers, .. } = &mut *self.s;
        let [qkv, out] = registers
            .get_disjoint_mut([Register::Qkv as usize, Register::Heads as usize])
            .unwrap_or_else(|_| unreachable!("two registers"));
        let layer = Layer { step, kernels: model.kernels(), keys: self.kv, qkv, pos: self.pos };
        let spans = layer.spans(0..n);
        let at_once = queries_at_once(step);
        let out = &mut out[..n * step.heads.out_len()];
        if n <= at_once && spans.len() > 1 {
            by_spans(&layer, n, spans, partials, out, workers, model.pool());
        } else {
            by_queries(&layer, n, at_once, out, workers, model.pool());
        }
    }
}

/// Few queries, much context: workers share the spans.
fn by_spans(
    layer: &Layer<'_>,
    n: usize,
    spans: Range<usize>,
    partials: &mut [f32],
    out: &mut [f32],
    workers: &PerWorker<WorkerScratch>,
    pool: &Pool,
) {
    let heads = &layer.step.heads;
    let (rows, n_spans) = (n * heads.group(), spans.len());
    let block = State::len(rows, heads.value_dim);
    let partials = &mut partials[..heads.kv_heads * n_spans * block];
    pool.run(heads.kv_heads * n_spans, 1, Blocks { data: &mut *partials, block }, |units, states, worker| {
        let s = &mut workers.get(worker).attention;
        let q = &mut s.q[..rows * heads.key_dim];
        for (unit, state) in units.zip(states.chunks_exact_mut(block)) {
            let head = unit / n_spans;
            layer.gather(head, 0..n, q);
            layer.span(head, 0..n, spans.start + unit % n_spans, q, &mut s.visible, &mut State::of(state, rows));
        }
    });
    let share = heads.group() * heads.value_dim;
    for (head, states) in partials.chunks_exact_mut(n_spans * block).enumerate() {
        let (first, rest) = states.split_at_mut(block);
        let mut running = State::of(first, rows);
        for next in rest.chunks_exact_mut(block) {
            layer.kernels.merge_attn(heads.value_dim, running.borrow(), State::of(next, rows).part());
        }
        layer.kernels.finish_attn(heads.value_dim, running.sum, running.acc);
        for (values, column) in running.acc.chunks_exact(share).zip(out.chunks_exact_mut(heads.out_len())) {
            column[head * share..][..share].copy_from_slice(values);
        }
    }
}

/// Many queries, at least one: workers share the queries, and each goes over all its spans.
fn by_queries(
    layer: &Layer<'_>,
    n: usize,
    at_once: usize,
    out: &mut [f32],
    workers: &PerWorker<WorkerScratch>,
    pool: &Pool,
) {
    let heads = &layer.step.heads;
    let share = heads.group() * heads.value_dim;
    // A few tokens: one unit a worker is worth dealing once it goes over a few dozen positions.
    let heads_at_once = if layer.pos < SHORT_CONTEXT { (at_once / n).clamp(1, heads.kv_heads) } else { 1 };
    let grid = Grid { n_rows: heads.out_len(), n_cols: n, tile_rows: heads_at_once * share, tile_cols: at_once.min(n) };
    pool.run(grid.n_tiles(), 1, Tiles { data: out, grid }, |tile, mut out, worker| {
        let s = &mut workers.get(worker).attention;
        let (of_heads, cols) = grid.tile(tile.start);
        let rows = cols.len() * heads.group();
        let q = &mut s.q[..rows * heads.key_dim];
        let len = State::len(rows, heads.value_dim);
        for (h, head) in (of_heads.start / share..of_heads.end / share).enumerate() {
            layer.gather(head, cols.clone(), q);
            let mut running = State::of(&mut s.running[..len], rows);
            for (i, span) in layer.spans(cols.clone()).enumerate() {
                if i == 0 {
                    layer.span(head, cols.clone(), span, q, &mut s.visible, &mut running);
                } else {
                    let mut next = State::of(&mut s.span[..len], rows);
                    layer.span(head, cols.clone(), span, q, &mut s.visible, &mut next);
                    layer.kernels.merge_attn(heads.value_dim, running.borrow(), next.part());
                }
            }
            layer.kernels.finish_attn(heads.value_dim, running.sum, running.acc);
            for (col, values) in running.acc.chunks_exact(share).enumerate() {
                out.column(col)[h * share..][..share].copy_from_slice(values);
            }
        }
    });
}

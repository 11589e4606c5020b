//! Attention over the cache: flash-style, no score matrix, keys and values read once for all query
//! heads of a group.
//!
//! The context is cut into spans at fixed positions, the pages of the cache. The softmax state of
//! each span is computed on its own and the states are merged in order, whether one worker does all
//! spans of a query or several share them: the bits are the same. (Online softmax: Milakov &
//! Gimelshein 2018, arXiv 1805.02867; split over the context: Dao et al. 2023, "Flash-Decoding".)

use std::ops::Range;

use modelembed_kernels::{AttnInput, Kernels, Line};
use modelembed_pool::{Blocks, Cut, PerWorker, Pool, Strips};
use modelembed_spec::{Attend, Register, Temperature};

use super::Pass;
use super::attention_room::{Deal, SPAN, Seen, SpanRun, State, queries_at_once};
use super::numbers::number;
use super::scratch::{Scratch, WorkerScratch};
use crate::state::active::{Active, ActiveRun};
use crate::state::layout::{KeysValues, Layout};

/// Positions up to which all heads of a single token are taken to be less work than sharing them.
/// Chosen, not measured: it changes no bits.
const SHORT_CONTEXT: usize = 48;
/// Units of work a worker that are taken to be enough for workers to end together. Chosen, not
/// measured: it changes no bits.
const UNITS_PER_WORKER: usize = 8;

/// The attention of a layer over a chunk.
struct Layer<'a> {
    step: &'a Attend,
    kernels: &'static Kernels,
    layout: &'a Layout,
    active: &'a Active,
    qkv: &'a [f32],
    /// (heads), f32 at any address.
    sinks: Option<&'a [u8]>,
}

impl Layer<'_> {
    /// Positions that a column sees.
    fn visible(&self, run: &ActiveRun, col: usize) -> Range<usize> {
        let pos = run.position(col);
        // Those after it are not in the cache: loading refuses models that look at them.
        self.step.visible.first_seen(pos)..pos + 1
    }

    /// Spans that columns `cols` see some of.
    fn spans(&self, run: &ActiveRun, cols: &Range<usize>) -> Range<usize> {
        self.visible(run, cols.start).start / SPAN..run.position(cols.end).div_ceil(SPAN)
    }

    /// Copies the scaled queries of one key head for some columns: (cols, group, key_dim).
    fn gather(&self, run: &ActiveRun, head: usize, cols: Range<usize>, q: &mut [f32]) {
        let heads = &self.step.heads;
        let share = heads.group() * heads.key_dim;
        let stride = heads.qkv_len();
        for (to, column) in q.chunks_exact_mut(share).zip(self.qkv.chunks_exact(stride).skip(cols.start)) {
            to.copy_from_slice(&column[head * share..][..share]);
        }
        self.kernels.scale(&mut q[..cols.len() * share], self.step.scale);
        if let Some(temperature) = &self.step.temperature {
            for (col, q) in cols.zip(q.chunks_exact_mut(share)) {
                let factor = factor_at(temperature, run.position(col));
                if factor != 1.0 {
                    self.kernels.scale(q, factor);
                }
            }
        }
    }

    /// The state of some columns' queries over one span. `next` is the head and the span of the run
    /// that are read after these.
    fn span(
        &self,
        (run, head, span): (&ActiveRun, usize, usize),
        next: Option<(usize, usize)>,
        cols: Range<usize>,
        q: &[f32],
        row: &mut Seen,
        state: &mut State<'_>,
    ) {
        let Attend { heads, cache, soft_cap, max_bias, .. } = *self.step;
        let first = span * SPAN;
        let end = (first + SPAN).min(run.position(cols.end));
        let Seen { visible, lines } = row;
        visible.clear();
        lines.clear();
        for col in cols {
            let seen = self.visible(run, col);
            let range = seen.start.clamp(first, end) - first..seen.end.clamp(first, end) - first;
            visible.extend(std::iter::repeat_n(range, heads.group()));
            if let Some(max_bias) = max_bias {
                let back = first as f32 - run.position(col) as f32;
                let of_group = head * heads.group()..(head + 1) * heads.group();
                let slopes = of_group.map(|head| alibi_slope(max_bias, head, heads.heads));
                lines.extend(slopes.map(|slope| Line { slope, start: slope * back }));
            }
        }
        state.borrow().clear();
        let (kernels, head_dim, value_dim) = (self.kernels, heads.key_dim, heads.value_dim);
        let group = self.layout.group_of(cache);
        let keys_values = self.layout.head(self.active.page(run, group, span), cache, head, end - first);
        // One key is there in any case.
        let next = next.map(|(head, span)| self.layout.head(self.active.page(run, group, span), cache, head, 1));
        match keys_values {
            KeysValues::I16([k, v], scales) => {
                let next = if let Some(KeysValues::I16([k, _], _)) = next { k } else { &[] };
                let input = AttnInput { q, head_dim, value_dim, k, v, next, visible, soft_cap, lines };
                kernels.attend_i16(input, scales, state.borrow());
            }
            KeysValues::F16(k, v) => {
                let next = if let Some(KeysValues::F16(k, _)) = next { k } else { &[] };
                kernels
                    .attend(AttnInput { q, head_dim, value_dim, k, v, next, visible, soft_cap, lines }, state.borrow());
            }
            KeysValues::Q8(k, v) => {
                let next = if let Some(KeysValues::Q8(k, _)) = next { k } else { &[] };
                kernels
                    .attend(AttnInput { q, head_dim, value_dim, k, v, next, visible, soft_cap, lines }, state.borrow());
            }
            KeysValues::F32(k, v) => {
                let next = if let Some(KeysValues::F32(k, _)) = next { k } else { &[] };
                kernels
                    .attend(AttnInput { q, head_dim, value_dim, k, v, next, visible, soft_cap, lines }, state.borrow());
            }
        }
    }

    /// Adds what the heads' sinks take of the weights: the state of rows of one key head, (cols,
    /// group), over all spans.
    fn sink(&self, head: usize, state: &mut State<'_>) {
        let Some(sinks) = self.sinks else { return };
        let heads = &self.step.heads;
        let rows = state.max.iter_mut().zip(state.sum.iter_mut()).zip(state.acc.chunks_exact_mut(heads.value_dim));
        for (row, ((max, sum), acc)) in rows.enumerate() {
            let sink = number(sinks, head * heads.group() + row % heads.group());
            let greatest = sink.max(*max);
            let by = libm::expf(*max - greatest);
            self.kernels.scale(acc, by);
            *sum = *sum * by + libm::expf(sink - greatest);
            *max = greatest;
        }
    }

    /// Deals the chunk's queries: those of a sequence with few of them and much context by spans,
    /// as far as there is room for their states, the others by queries.
    fn deal(&self, at_once: usize, room: usize, threads: usize, deal: &mut Deal) {
        let (heads, runs) = (&self.step.heads, &self.active.runs);
        let spans = |run: &ActiveRun| self.spans(run, &run.cols).len();
        let are_few = runs.len() * heads.kv_heads < UNITS_PER_WORKER * threads;
        let n_spans: usize = if runs.len() == 1 { 0 } else { runs.iter().map(spans).sum() };
        deal.clear();
        for (index, run) in runs.iter().enumerate() {
            let n = run.cols.len();
            let spans = self.spans(run, &run.cols);
            // Many sequences are units enough, unless one of them is much longer than the others.
            let is_long = spans.len() * runs.len() > 2 * n_spans;
            let rows = deal.rows.max(n * heads.group());
            let n_units = deal.n_units + heads.kv_heads * spans.len();
            let fits = n_units * State::len(rows, heads.value_dim) <= room;
            if n <= at_once && spans.len() > 1 && (are_few || is_long) && fits {
                deal.by_spans.push(SpanRun { index, first_unit: deal.n_units, spans });
                (deal.n_units, deal.rows) = (n_units, rows);
                continue;
            }
            for start in run.cols.clone().step_by(at_once) {
                deal.tiles.push(start..run.cols.end.min(start + at_once));
                deal.tile_runs.push(index);
            }
        }
    }
}

/// What a head's scores lose with each position of distance (ALiBi: Press et al. 2021, arXiv
/// 2108.12409): a geometric sequence down to 2 to the power of minus `max_bias` over the largest
/// power of two of the heads, and for the heads beyond it every other one of a sequence twice as
/// dense.
fn alibi_slope(max_bias: f32, head: usize, heads: usize) -> f32 {
    let even = 1 << heads.ilog2();
    let (step, steps) = if head < even { (1.0, head + 1) } else { (0.5, 2 * (head - even) + 1) };
    libm::exp2f(-max_bias * step * steps as f32 / even as f32)
}

/// Factor on the queries of a position.
fn factor_at(temperature: &Temperature, position: usize) -> f32 {
    let Temperature { scale, length_tokens, offset } = *temperature;
    1.0 + scale * libm::logf(((position + offset) / length_tokens + 1) as f32)
}

impl Pass<'_> {
    /// heads = softmax(scale * q k) v for every query head of the chunk.
    pub(super) fn attend(&mut self, step: &Attend) {
        let (model, n) = (self.model, self.n);
        let Scratch { registers, partials, workers, deal, .. } = &mut *self.s;
        let [qkv, out] = registers
            .get_disjoint_mut([Register::Qkv as usize, Register::Heads as usize])
            .unwrap_or_else(|_| unreachable!("two registers"));
        let sinks = step.sinks.map(|id| model.tensor_bytes(id));
        let layer =
            Layer { step, kernels: model.kernels(), layout: self.store.layout(), active: self.active, qkv, sinks };
        let at_once = queries_at_once(step);
        let out = &mut out[..n * step.heads.out_len()];
        layer.deal(at_once, partials.len(), model.pool().threads(), deal);
        if !deal.by_spans.is_empty() {
            by_spans(&layer, deal, partials, out, workers, model.pool());
        }
        if !deal.tiles.is_empty() {
            by_queries(&layer, at_once, deal, out, workers, model.pool());
        }
    }
}

/// Few queries, much context: workers share the spans.
fn by_spans(
    layer: &Layer<'_>,
    deal: &Deal,
    partials: &mut [f32],
    out: &mut [f32],
    workers: &PerWorker<WorkerScratch>,
    pool: &Pool,
) {
    let heads = &layer.step.heads;
    let block = State::len(deal.rows, heads.value_dim);
    let partials = &mut partials[..deal.n_units * block];
    let len = |run: &ActiveRun| State::len(run.cols.len() * heads.group(), heads.value_dim);
    pool.run(deal.n_units, 1, Blocks { data: &mut *partials, block }, |units, states, worker| {
        let s = &mut workers.get(worker).attention;
        for (unit, state) in units.zip(states.chunks_exact_mut(block)) {
            let shared = deal.of_unit(unit);
            let run = &layer.active.runs[shared.index];
            let rows = run.cols.len() * heads.group();
            // A page's heads stand side by side.
            let at = |unit: usize| (unit % heads.kv_heads, shared.spans.start + unit / heads.kv_heads);
            let unit = unit - shared.first_unit;
            let (head, span) = at(unit);
            let next = (unit + 1 < shared.spans.len() * heads.kv_heads).then(|| at(unit + 1));
            let q = &mut s.q[..rows * heads.key_dim];
            layer.gather(run, head, run.cols.clone(), q);
            let mut state = State::of(&mut state[..len(run)], rows);
            layer.span((run, head, span), next, run.cols.clone(), q, &mut s.seen, &mut state);
        }
    });
    let share = heads.group() * heads.value_dim;
    for shared in &deal.by_spans {
        let run = &layer.active.runs[shared.index];
        let (rows, len) = (run.cols.len() * heads.group(), len(run));
        let of_run = &mut partials[shared.first_unit * block..][..heads.kv_heads * shared.spans.len() * block];
        let (firsts, rest) = of_run.split_at_mut(heads.kv_heads * block);
        for (head, first) in firsts.chunks_exact_mut(block).enumerate() {
            let mut running = State::of(&mut first[..len], rows);
            for next in rest.chunks_exact_mut(block).skip(head).step_by(heads.kv_heads) {
                let next = State::of(&mut next[..len], rows);
                layer.kernels.merge_attn(heads.value_dim, running.borrow(), next.part());
            }
            layer.sink(head, &mut running);
            layer.kernels.finish_attn(heads.value_dim, running.sum, running.acc);
            let columns = out.chunks_exact_mut(heads.out_len()).skip(run.cols.start);
            for (values, column) in running.acc.chunks_exact(share).zip(columns) {
                column[head * share..][..share].copy_from_slice(values);
            }
        }
    }
}

/// Many queries, at least one: workers share the queries, and each goes over all its spans.
fn by_queries(
    layer: &Layer<'_>,
    at_once: usize,
    deal: &Deal,
    out: &mut [f32],
    workers: &PerWorker<WorkerScratch>,
    pool: &Pool,
) {
    let heads = &layer.step.heads;
    let share = heads.group() * heads.value_dim;
    // A few tokens: one unit a worker is worth dealing once it goes over a few dozen positions.
    let is_short = layer.active.runs.iter().all(|run| run.pos < SHORT_CONTEXT);
    let widest = deal.tiles.iter().map(Range::len).max().unwrap_or(1);
    let heads_at_once = if is_short { (at_once / widest).clamp(1, heads.kv_heads) } else { 1 };
    let cut = Cut { n_rows: heads.out_len(), tile_rows: heads_at_once * share, cols: &deal.tiles };
    pool.run(cut.n_tiles(), 1, Strips { data: out, cut }, |tile, mut out, worker| {
        let s = &mut workers.get(worker).attention;
        let (of_heads, index) = cut.tile(tile.start);
        let (run, cols) = (&layer.active.runs[deal.tile_runs[index]], cut.cols[index].clone());
        let rows = cols.len() * heads.group();
        let q = &mut s.q[..rows * heads.key_dim];
        let len = State::len(rows, heads.value_dim);
        for (h, head) in (of_heads.start / share..of_heads.end / share).enumerate() {
            layer.gather(run, head, cols.clone(), q);
            let mut running = State::of(&mut s.running[..len], rows);
            let spans = layer.spans(run, &cols);
            for (i, span) in spans.clone().enumerate() {
                let next = (span + 1 < spans.end).then_some((head, span + 1));
                if i == 0 {
                    layer.span((run, head, span), next, cols.clone(), q, &mut s.seen, &mut running);
                } else {
                    let mut state = State::of(&mut s.span[..len], rows);
                    layer.span((run, head, span), next, cols.clone(), q, &mut s.seen, &mut state);
                    layer.kernels.merge_attn(heads.value_dim, running.borrow(), state.part());
                }
            }
            layer.sink(head, &mut running);
            layer.kernels.finish_attn(heads.value_dim, running.sum, running.acc);
            for (col, values) in running.acc.chunks_exact(share).enumerate() {
                out.column(col)[h * share..][..share].copy_from_slice(values);
            }
        }
    });
}

//! Attention over the cache: flash-style, no score matrix, keys and values read once for all query heads of a group.
//!
//! The context is cut into spans at fixed positions. The softmax state of each span is computed on its own and the states are
//! merged in order, whether one worker does all spans of a query or several share them: the bits are the same.
//! (Online softmax: Milakov & Gimelshein 2018, arXiv 1805.02867; split over the context: Dao et al. 2023, "Flash-Decoding".)

use std::ops::Range;

use modelembed_kernels::{AttnInput, AttnPart, AttnState};
use modelembed_pool::{Blocks, Grid, Tiles};

use crate::config::Config;
use crate::forward::Pass;
use crate::kv::{KeysValues, KvCache};
use crate::model::Model;
use crate::scratch::Scratch;

/// Positions of a span.
const SPAN: usize = 256;
/// Query rows (queries times heads of a group) that go over a span together.
const QUERY_ROWS: usize = 64;

/// Positions up to which all heads of a single token are taken to be less work than sharing them. Chosen, not measured: it changes no
/// bits.
const SHORT_CONTEXT: usize = 48;

/// Queries that go over a span together.
fn queries_at_once(config: &Config) -> usize {
    (QUERY_ROWS / config.group()).max(1)
}

/// Softmax states of some query rows: row maxima, row sums, weighted values (rows, head_dim).
struct State<'a> {
    max: &'a mut [f32],
    sum: &'a mut [f32],
    acc: &'a mut [f32],
}

impl<'a> State<'a> {
    fn len(rows: usize, head_dim: usize) -> usize {
        rows * (head_dim + 2)
    }

    fn of(data: &'a mut [f32], rows: usize) -> State<'a> {
        let (max, rest) = data.split_at_mut(rows);
        let (sum, acc) = rest.split_at_mut(rows);
        State { max, sum, acc }
    }

    fn borrow(&mut self) -> AttnState<'_> {
        AttnState { max: self.max, sum: self.sum, acc: self.acc }
    }

    fn part(&self) -> AttnPart<'_> {
        AttnPart { max: self.max, sum: self.sum, acc: self.acc }
    }
}

/// What a worker needs for attention.
pub(crate) struct AttentionScratch {
    q: Box<[f32]>,       // (query rows, head_dim)
    running: Box<[f32]>, // one State
    span: Box<[f32]>,    // one State
    visible: Vec<Range<usize>>,
}

impl AttentionScratch {
    pub(crate) fn new(config: &Config) -> AttentionScratch {
        let rows = queries_at_once(config) * config.group();
        let state = || vec![0.0; State::len(rows, config.head_dim)].into();
        AttentionScratch {
            q: vec![0.0; rows * config.head_dim].into(),
            running: state(),
            span: state(),
            visible: Vec::with_capacity(rows),
        }
    }
}

/// Floats that the states of all spans of one small chunk take, as far as they can be counted.
pub(crate) fn partials_len(config: &Config, capacity: usize) -> usize {
    let rows = queries_at_once(config) * config.group();
    (config.n_head_kv * State::len(rows, config.head_dim)).saturating_mul(capacity.div_ceil(SPAN) + 1)
}

/// Which part of the attention of a layer a call computes.
struct Job<'a> {
    model: &'a Model,
    keys: &'a KvCache,
    qkv: &'a [f32],
    il: usize,
    /// Position of column 0.
    pos: usize,
    /// Tokens that a query sees, itself included.
    window: usize,
}

impl Job<'_> {
    /// Positions that column `c` sees.
    fn visible(&self, c: usize) -> Range<usize> {
        let end = self.pos + c + 1;
        end.saturating_sub(self.window)..end
    }

    /// Spans that columns `cols` see some of.
    fn spans(&self, cols: Range<usize>) -> Range<usize> {
        self.visible(cols.start).start / SPAN..(self.pos + cols.end).div_ceil(SPAN)
    }

    /// Copies the scaled queries of one key head for some columns: (cols, group, head_dim).
    fn gather(&self, head: usize, cols: Range<usize>, q: &mut [f32]) {
        let c = self.model.config();
        let share = c.group() * c.head_dim;
        let stride = c.q_rows() + 2 * c.kv_rows();
        for (to, column) in q.chunks_exact_mut(share).zip(self.qkv.chunks_exact(stride).skip(cols.start)) {
            to.copy_from_slice(&column[head * share..][..share]);
        }
        self.model.kernels().scale(&mut q[..cols.len() * share], c.attn_scale);
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
        let c = self.model.config();
        let first = span * SPAN;
        let end = (first + SPAN).min(self.pos + cols.end);
        visible.clear();
        for col in cols {
            let seen = self.visible(col);
            let range = seen.start.clamp(first, end) - first..seen.end.clamp(first, end) - first;
            visible.extend(std::iter::repeat_n(range, c.group()));
        }
        state.borrow().clear();
        let (kernels, head_dim) = (self.model.kernels(), c.head_dim);
        match self.keys.head(self.il, head, first..end) {
            KeysValues::I16([k, v], scales) => {
                kernels.attend_i16(AttnInput { q, head_dim, k, v, visible, soft_cap: None }, scales, state.borrow());
            }
            KeysValues::F16(k, v) => {
                kernels.attend(AttnInput { q, head_dim, k, v, visible, soft_cap: None }, state.borrow());
            }
            KeysValues::Q8(k, v) => {
                kernels.attend(AttnInput { q, head_dim, k, v, visible, soft_cap: None }, state.borrow());
            }
            KeysValues::F32(k, v) => {
                kernels.attend(AttnInput { q, head_dim, k, v, visible, soft_cap: None }, state.borrow());
            }
        }
    }
}

/// attn = softmax(scale * q k) v for every query head of the chunk: (n, q_rows).
pub(crate) fn attend(pass: &mut Pass<'_>, il: usize) {
    let (model, n, c) = (pass.model, pass.n, pass.model.config());
    let Scratch { qkv, attn, partials, workers, .. } = &mut *pass.s;
    let window = match c.window {
        Some(w) if c.is_windowed(il) => w.n_tokens,
        _ => usize::MAX,
    };
    let job = Job { model, keys: pass.kv, qkv, il, pos: pass.pos, window };
    let spans = job.spans(0..n);
    let at_once = queries_at_once(c);
    let attn = &mut attn[..n * c.q_rows()];
    if n <= at_once && spans.len() > 1 {
        by_spans(&job, n, spans, partials, attn, workers);
    } else {
        by_queries(&job, n, at_once, attn, workers);
    }
}

/// Few queries, much context: workers share the spans.
fn by_spans(
    job: &Job<'_>,
    n: usize,
    spans: Range<usize>,
    partials: &mut [f32],
    attn: &mut [f32],
    workers: &modelembed_pool::PerWorker<crate::scratch::WorkerScratch>,
) {
    let c = job.model.config();
    let (rows, n_spans) = (n * c.group(), spans.len());
    let block = State::len(rows, c.head_dim);
    let partials = &mut partials[..c.n_head_kv * n_spans * block];
    job.model.pool().run(c.n_head_kv * n_spans, 1, Blocks { data: &mut *partials, block }, |units, states, worker| {
        let s = &mut workers.get(worker).attention;
        let q = &mut s.q[..rows * c.head_dim];
        for (unit, state) in units.zip(states.chunks_exact_mut(block)) {
            let head = unit / n_spans;
            job.gather(head, 0..n, q);
            job.span(head, 0..n, spans.start + unit % n_spans, q, &mut s.visible, &mut State::of(state, rows));
        }
    });
    let share = c.group() * c.head_dim;
    for (head, states) in partials.chunks_exact_mut(n_spans * block).enumerate() {
        let (first, rest) = states.split_at_mut(block);
        let mut running = State::of(first, rows);
        for next in rest.chunks_exact_mut(block) {
            job.model.kernels().merge_attn(c.head_dim, running.borrow(), State::of(next, rows).part());
        }
        job.model.kernels().finish_attn(c.head_dim, running.sum, running.acc);
        for (values, column) in running.acc.chunks_exact(share).zip(attn.chunks_exact_mut(c.q_rows())) {
            column[head * share..][..share].copy_from_slice(values);
        }
    }
}

/// Many queries, at least one: workers share the queries, and each goes over all its spans.
fn by_queries(
    job: &Job<'_>,
    n: usize,
    at_once: usize,
    attn: &mut [f32],
    workers: &modelembed_pool::PerWorker<crate::scratch::WorkerScratch>,
) {
    let c = job.model.config();
    let share = c.group() * c.head_dim;
    // A few tokens: one unit a worker is worth dealing once it goes over a few dozen positions.
    let heads_at_once = if job.pos < SHORT_CONTEXT { (at_once / n).clamp(1, c.n_head_kv) } else { 1 };
    let grid = Grid { n_rows: c.q_rows(), n_cols: n, tile_rows: heads_at_once * share, tile_cols: at_once.min(n) };
    job.model.pool().run(grid.n_tiles(), 1, Tiles { data: attn, grid }, |tile, mut out, worker| {
        let s = &mut workers.get(worker).attention;
        let (of_heads, cols) = grid.tile(tile.start);
        let rows = cols.len() * c.group();
        let q = &mut s.q[..rows * c.head_dim];
        let len = State::len(rows, c.head_dim);
        for (h, head) in (of_heads.start / share..of_heads.end / share).enumerate() {
            job.gather(head, cols.clone(), q);
            let mut running = State::of(&mut s.running[..len], rows);
            for (i, span) in job.spans(cols.clone()).enumerate() {
                if i == 0 {
                    job.span(head, cols.clone(), span, q, &mut s.visible, &mut running);
                } else {
                    let mut next = State::of(&mut s.span[..len], rows);
                    job.span(head, cols.clone(), span, q, &mut s.visible, &mut next);
                    job.model.kernels().merge_attn(c.head_dim, running.borrow(), next.part());
                }
            }
            job.model.kernels().finish_attn(c.head_dim, running.sum, running.acc);
            for (col, values) in running.acc.chunks_exact(share).enumerate() {
                out.column(col)[h * share..][..share].copy_from_slice(values);
            }
        }
    });
}

//! Recurrences, in chunks of positions.
//!
//! With G the sum of the logarithms of a head's decay since the chunk began, d its step sizes, and
//! S the state where the chunk begins, the output of position i is
//! `exp(G_i) q_i S + sum over j <= i of exp(G_i - G_j) d_j (q_i k_j) v_j`, and the state where it
//! ends, C positions on, `exp(G_C) S + sum over j of exp(G_C - G_j) d_j k_j v_j^T`. (State space
//! duality: Dao and Gu 2024, arXiv 2405.21060.) Chunks begin at multiples of [`CHUNK`] positions,
//! and each sum goes over positions in their order: an output has the same bits however the
//! sequence is cut.

use std::ops::Range;

use modelembed_kernels::Kernels;
use modelembed_pool::{Blocks, Cut, Rows as RowsOf, RowsPart, Runs, Strips};
use modelembed_spec::{Conv, GateNorm, Register, Scan, ScanShape};

use super::scratch::Scratch;
use super::{GRAIN_COLS, Pass};
use crate::state::active::ActiveRun;
use crate::state::records::{Before, CHUNK, Record, Rows, crosses};

/// Registers that the steps here read and write.
struct Registers<'a> {
    scan: &'a mut [f32],
    conv: &'a mut [f32],
    steps: &'a mut [f32],
    heads: &'a mut [f32],
    products: &'a mut [f32],
    room: &'a mut ScanRoom,
}

/// Lists that are made anew for each step.
#[derive(Default)]
pub(crate) struct ScanRoom {
    /// Weights of a convolution: (kernel, channels).
    taps: Vec<f32>,
    /// Sequences whose state stays as it is, and their columns.
    stay: Vec<usize>,
    stay_cols: Vec<Range<usize>>,
}

impl Scratch {
    /// The registers of a recurrence, as far as `n` columns of them reach.
    fn of_scan(&mut self, shape: &ScanShape, n: usize) -> Registers<'_> {
        let Scratch { registers, products, scan_room, .. } = self;
        let wanted = [Register::Scan, Register::Conv, Register::Steps, Register::Heads].map(|r| r as usize);
        let [scan, conv, steps, heads] =
            registers.get_disjoint_mut(wanted).unwrap_or_else(|_| unreachable!("four registers"));
        Registers {
            scan: &mut scan[..n * shape.column_len()],
            conv: &mut conv[..n * shape.conv_len()],
            steps: &mut steps[..n * shape.steps_len()],
            heads: &mut heads[..n * shape.inner_len()],
            products: &mut products[..n * shape.groups * CHUNK],
            room: scan_room,
        }
    }
}

/// Numbers of a tensor, little-endian f32 at any address.
fn numbers(bytes: &[u8]) -> impl Iterator<Item = f32> {
    bytes.as_chunks().0.iter().map(|b| f32::from_le_bytes(*b))
}

impl Pass<'_> {
    /// conv = silu(a convolution over the last positions) of each channel.
    pub(super) fn conv(&mut self, step: &Conv) {
        let (model, n, kernels, shape) = (self.model, self.n, self.model.kernels(), &step.shape);
        let (len, stride, first, kernel) = (shape.conv_len(), shape.column_len(), shape.inner_len(), step.kernel);
        let Registers { scan, conv, room: ScanRoom { taps, .. }, .. } = self.s.of_scan(shape, n);
        // (kernel, channels), so that channels lie side by side.
        let weights: &[u8] = model.tensor_bytes(step.weight);
        taps.clear();
        taps.extend((0..kernel).flat_map(|tap| numbers(weights).skip(tap).step_by(kernel)));
        let bias = step.bias.map(|id| model.tensor_bytes(id));
        let (scan, taps, active, layout) = (&*scan, &*taps, &*self.active, self.store.record_layout());
        let out = Blocks { data: conv, block: len };
        model.pool().run(n, GRAIN_COLS, out, |cols, out, _| {
            for (col, y) in cols.zip(out.chunks_exact_mut(len)) {
                let run = active.run_of(col);
                let raw = layout.of(step.record, run.tables.records.before()).raw;
                match bias {
                    Some(bias) => y.iter_mut().zip(numbers(bias)).for_each(|(y, b)| *y = b),
                    None => y.fill(0.0),
                }
                for (tap, w) in taps.chunks_exact(len).enumerate() {
                    // The columns of the run come behind the rows of its record.
                    let x = match (col - run.cols.start + tap).checked_sub(kernel - 1) {
                        Some(i) => &scan[(run.cols.start + i) * stride + first..][..len],
                        None => &raw[(run.pos % CHUNK + col - run.cols.start + tap) * len..][..len],
                    };
                    kernels.mul_add(y, x, w);
                }
                kernels.silu(y);
            }
        });
    }

    /// heads = what a recurrence gives; its records take the new positions.
    pub(super) fn scan(&mut self, step: &Scan) {
        self.steps(step);
        self.products(step);
        let (model, n, shape) = (self.model, self.n, step.shape);
        let layout = self.store.record_layout();
        let Registers { scan, conv, steps, heads, products, room } = self.s.of_scan(&shape, n);
        let inner = shape.inner_len();
        let skip = model.tensor_bytes(step.skip);
        let layer = Layer { shape, kernels: model.kernels(), conv, steps, products, skip };
        // States that do not change: all sequences and heads together.
        let ScanRoom { stay, stay_cols, .. } = room;
        let runs = &self.active.runs;
        stay.clear();
        stay.extend((0..runs.len()).filter(|&i| !crosses(runs[i].pos, runs[i].cols.len())));
        stay_cols.clear();
        stay_cols.extend(stay.iter().map(|&i| runs[i].cols.clone()));
        if !stay.is_empty() {
            let cut = Cut { n_rows: inner, tile_rows: shape.value_dim, cols: stay_cols };
            model.pool().run(cut.n_tiles(), 1, Strips { data: &mut *heads, cut }, |tile, mut out, _| {
                let (rows, index) = cut.tile(tile.start);
                let (run, head) = (&runs[stay[index]], rows.start / shape.value_dim);
                let before = layout.of(step.record, run.tables.records.before());
                let of_head = OfHead::new(&layer, run, head, &before);
                let state = of_head.state(&before);
                of_head.outputs(run.cols.clone(), state, &mut out);
            });
        }
        // A sequence whose state changes: its heads, each with its part of the state.
        for run in self.active.runs.iter_mut().filter(|run| crosses(run.pos, run.cols.len())) {
            let ActiveRun { cols, pos, tables, .. } = run;
            let run = Span { cols: cols.clone(), pos: *pos };
            let (other, spare) = tables.records.crossing();
            let other = other.map(|bytes| &*bytes);
            let (same, state) = layout.split_mut(step.record, spare);
            let before = other.map_or(same, |bytes| layout.of(step.record, bytes));
            let out = &mut heads[run.cols.start * inner..run.cols.end * inner];
            let out = Runs { len: shape.value_dim, out: RowsOf::new(out, inner, run.cols.len()) };
            let block = shape.key_dim * shape.value_dim;
            model.pool().run(shape.heads, 1, (out, Blocks { data: state, block }), |head, (mut out, state), _| {
                let mut of_head = OfHead::of(&layer, &run, head.start, &before);
                let from = other.map(|_| &before.state[head.start * block..][..block]);
                of_head.cross(from, state, &mut out);
            });
        }
        let (layout, scan, conv, steps) = (layout, &*scan, &*conv, &*steps);
        let (len, n_steps, column) = (shape.conv_len(), shape.steps_len(), (shape.column_len(), inner));
        let n_runs = self.active.runs.len();
        model.pool().run(n_runs, 1, &mut self.active.runs[..], |_, runs, _| {
            for run in runs {
                let cols = run.cols.clone();
                let rows = Rows {
                    n: cols.len(),
                    columns: &scan[cols.start * column.0..cols.end * column.0],
                    column,
                    conv: &conv[cols.start * len..cols.end * len],
                    steps: &steps[cols.start * n_steps..cols.end * n_steps],
                };
                let records = &mut run.tables.records;
                if crosses(run.pos, cols.len()) {
                    let (other, spare) = records.crossing();
                    let before = other.as_deref().map_or(Before::Earlier, Before::Other);
                    layout.store(step.record, spare, before, run.pos, &rows);
                    if let Some(other) = other {
                        let rows = Rows { n: CHUNK - 1 - run.pos % CHUNK, ..rows };
                        layout.store(step.record, other, Before::Same, run.pos, &rows);
                    }
                } else {
                    layout.store(step.record, records.appended_mut(), Before::Same, run.pos, &rows);
                }
            }
        });
    }

    /// Step sizes of all heads, and the sums of the logarithms of their decay since the chunk
    /// began.
    fn steps(&mut self, step: &Scan) {
        let (model, n, shape) = (self.model, self.n, &step.shape);
        let (heads, len, stride, at) = (shape.heads, shape.steps_len(), shape.column_len(), shape.steps_at());
        let Registers { scan, steps, .. } = self.s.of_scan(shape, n);
        let (scan, bias) = (&*scan, model.tensor_bytes(step.step_bias));
        let out = Blocks { data: &mut *steps, block: len };
        model.pool().run(n, GRAIN_COLS, out, |cols, out, _| {
            for (col, sizes) in cols.zip(out.chunks_exact_mut(len)) {
                let raw = &scan[col * stride + at..][..heads];
                for ((size, raw), bias) in sizes.iter_mut().zip(raw).zip(numbers(bias)) {
                    *size = softplus(raw + bias);
                }
            }
        });
        let decay = model.tensor_bytes(step.decay);
        let layout = self.store.record_layout();
        for run in &self.active.runs {
            let before = layout.of(step.record, run.tables.records.before());
            for col in run.cols.clone() {
                let row = run.position(col) % CHUNK;
                let (earlier, this) = steps.split_at_mut(col * len);
                let last = match row {
                    0 => None,
                    _ if col == run.cols.start => Some(&before.steps[(row - 1) * len..][..len]),
                    _ => Some(&earlier[(col - 1) * len..]),
                };
                for (h, decay) in numbers(decay).enumerate() {
                    let before = last.map_or(0.0, |last| sum_of(last, heads, h));
                    let sum = before + f64::from(this[h]) * f64::from(decay);
                    this[heads + h] = sum as f32;
                    this[2 * heads + h] = (sum - f64::from(sum as f32)) as f32;
                }
            }
        }
    }

    /// Products of each column's queries with the keys of its chunk up to its own: (n, groups,
    /// CHUNK).
    fn products(&mut self, step: &Scan) {
        let (model, n, kernels, shape) = (self.model, self.n, self.model.kernels(), &step.shape);
        let (len, dim, groups) = (shape.conv_len(), shape.key_dim, shape.groups);
        let Registers { conv, products, .. } = self.s.of_scan(shape, n);
        let (conv, active, layout) = (&*conv, &*self.active, self.store.record_layout());
        let out = Blocks { data: products, block: groups * CHUNK };
        model.pool().run(n, GRAIN_COLS, out, |cols, out, _| {
            for (col, products) in cols.zip(out.chunks_exact_mut(groups * CHUNK)) {
                let run = active.run_of(col);
                let before = layout.of(step.record, run.tables.records.before());
                let span = Span { cols: run.cols.clone(), pos: run.pos };
                let (n_before, own) = span.chunk_of(col);
                for (group, products) in products.chunks_exact_mut(CHUNK).enumerate() {
                    let keys = shape.inner_len() + group * dim;
                    let query = &conv[col * len + keys + shape.keys_len()..][..dim];
                    let (first, rest) = products[..n_before + own.len()].split_at_mut(n_before);
                    kernels.dot_rows(query, &before.conv[keys..], len, first);
                    kernels.dot_rows(query, &conv[own.start * len + keys..], len, rest);
                }
            }
        });
    }

    /// heads = norm(silu(gate) * heads).
    pub(super) fn gate_norm(&mut self, step: &GateNorm) {
        let (model, n, kernels, shape) = (self.model, self.n, self.model.kernels(), &step.shape);
        let (stride, inner, group) = (shape.column_len(), shape.inner_len(), shape.inner_len() / shape.groups);
        let weight = step.weight.map(|id| model.tensor_bytes(id));
        let Scratch { registers, workers, .. } = &mut *self.s;
        let [scan, heads] = registers
            .get_disjoint_mut([Register::Scan as usize, Register::Heads as usize])
            .unwrap_or_else(|_| unreachable!("two registers"));
        let (scan, workers) = (&scan[..n * stride], &*workers);
        let out = Blocks { data: &mut heads[..n * inner], block: inner };
        model.pool().run(n, GRAIN_COLS, out, |cols, out, worker| {
            let gated = &mut workers.get(worker).vector[..inner];
            for (column, y) in scan.chunks_exact(stride).skip(cols.start).zip(out.chunks_exact_mut(inner)) {
                gated.copy_from_slice(&column[..inner]);
                kernels.silu_mul(gated, y);
                match weight {
                    Some(weight) => {
                        let groups = gated.chunks_exact(group).zip(y.chunks_exact_mut(group));
                        for ((x, y), weight) in groups.zip(weight.chunks_exact(4 * group)) {
                            kernels.rms_norm(x, Some(weight), step.eps, y);
                        }
                    }
                    None => y.copy_from_slice(gated),
                }
            }
        });
    }
}

/// The sum of a head's decay in a column of steps. Differences of sums that are large need it more
/// exactly than one f32 has it.
fn sum_of(steps: &[f32], heads: usize, head: usize) -> f64 {
    f64::from(steps[heads + head]) + f64::from(steps[2 * heads + head])
}

/// ln(1 + e^x).
fn softplus(x: f32) -> f32 {
    if x > 20.0 { x } else { libm::log1pf(libm::expf(x)) }
}

/// Columns of one sequence, and the position of the first.
struct Span {
    cols: Range<usize>,
    pos: usize,
}

impl Span {
    /// Of the positions of a column's chunk up to its own: how many stand before the columns, and
    /// which columns the others are.
    fn chunk_of(&self, col: usize) -> (usize, Range<usize>) {
        let row = (self.pos + col - self.cols.start) % CHUNK;
        let own = (row + 1).min(col + 1 - self.cols.start);
        (row + 1 - own, col + 1 - own..col + 1)
    }
}

/// A recurrence over a chunk of tokens.
struct Layer<'a> {
    shape: ScanShape,
    kernels: &'static Kernels,
    /// (n, conv_len).
    conv: &'a [f32],
    /// (n, steps_len).
    steps: &'a [f32],
    /// (n, groups, CHUNK).
    products: &'a [f32],
    /// (heads), f32 at any address.
    skip: &'a [u8],
}

/// One head of it, for the columns of one sequence.
struct OfHead<'a> {
    layer: &'a Layer<'a>,
    span: Span,
    head: usize,
    /// Values of the positions before, a row every `conv_len`, from this head's on.
    before: &'a [f32],
    /// Keys of the same.
    keys_before: &'a [f32],
    /// Step sizes and sums of decay of the positions of a chunk; those before the columns at first.
    sizes: [f32; CHUNK],
    sums: [f64; CHUNK],
}

impl<'a> OfHead<'a> {
    fn new(layer: &'a Layer<'a>, run: &ActiveRun, head: usize, before: &Record<'a>) -> OfHead<'a> {
        OfHead::of(layer, &Span { cols: run.cols.clone(), pos: run.pos }, head, before)
    }

    fn of(layer: &'a Layer<'a>, span: &Span, head: usize, before: &Record<'a>) -> OfHead<'a> {
        let shape = &layer.shape;
        let mut of_head = OfHead {
            layer,
            span: Span { cols: span.cols.clone(), pos: span.pos },
            head,
            before: &before.conv[head * shape.value_dim..],
            keys_before: &before.conv[shape.inner_len() + shape.group_of(head) * shape.key_dim..],
            sizes: [0.0; CHUNK],
            sums: [0.0; CHUNK],
        };
        for (row, steps) in before.steps.chunks_exact(shape.steps_len()).take(span.pos % CHUNK).enumerate() {
            (of_head.sizes[row], of_head.sums[row]) = (steps[head], sum_of(steps, shape.heads, head));
        }
        of_head.take_steps(span.cols.start..span.cols.end.min(span.cols.start + CHUNK - span.pos % CHUNK));
        of_head
    }

    /// Notes the steps of columns of one chunk.
    fn take_steps(&mut self, cols: Range<usize>) {
        let (heads, len) = (self.layer.shape.heads, self.layer.shape.steps_len());
        for col in cols {
            let row = (self.span.pos + col - self.span.cols.start) % CHUNK;
            let steps = &self.layer.steps[col * len..][..len];
            (self.sizes[row], self.sums[row]) = (steps[self.head], sum_of(steps, heads, self.head));
        }
    }

    /// The state where the first column's chunk begins; `None` at the start of a sequence.
    fn state(&self, before: &Record<'a>) -> Option<&'a [f32]> {
        let block = self.layer.shape.key_dim * self.layer.shape.value_dim;
        (self.span.pos >= CHUNK).then(|| &before.state[self.head * block..][..block])
    }

    /// Outputs of columns of one chunk, over the state where it begins.
    fn outputs(&self, cols: Range<usize>, state: Option<&[f32]>, out: &mut RowsPart<'_>) {
        let Layer { shape, kernels, conv, products, skip, .. } = self.layer;
        let (len, group) = (shape.conv_len(), shape.group_of(self.head));
        let query_at = shape.inner_len() + shape.keys_len() + group * shape.key_dim;
        let value_at = self.head * shape.value_dim;
        let skip: f32 = numbers(&skip[4 * self.head..]).next().unwrap_or_default();
        let mut weights = [0.0f32; CHUNK];
        for col in cols {
            let (n_before, own) = self.span.chunk_of(col);
            let n = n_before + own.len();
            let (sum, weights) = (self.sums[n - 1], &mut weights[..n]);
            let y = out.column(col - self.span.cols.start);
            y.fill(0.0);
            if let Some(state) = state {
                let query = &conv[col * len + query_at..][..shape.key_dim];
                kernels.add_rows(y, query, state, shape.value_dim);
                let mut faded = [sum as f32];
                kernels.exp(&mut faded);
                kernels.scale(y, faded[0]);
            }
            weights.iter_mut().zip(self.sums).for_each(|(w, earlier)| *w = (sum - earlier) as f32);
            kernels.exp(weights);
            let products = &products[(col * shape.groups + group) * CHUNK..];
            for ((w, size), product) in weights.iter_mut().zip(self.sizes).zip(products) {
                *w *= size * product;
            }
            kernels.add_rows(y, &weights[..n_before], self.before, len);
            kernels.add_rows(y, &weights[n_before..], &conv[own.start * len + value_at..], len);
            kernels.add_rows(y, &[skip], &conv[col * len + value_at..][..shape.value_dim], shape.value_dim);
        }
    }

    /// Outputs of all columns, which reach into another chunk, and the state where the last chunk
    /// begins. `from` is the state where the first one begins, unless `state` has it.
    fn cross(&mut self, from: Option<&[f32]>, state: &mut [f32], out: &mut RowsPart<'_>) {
        let (cols, mut from) = (self.span.cols.clone(), from);
        let mut has_state = self.span.pos >= CHUNK;
        let mut start = cols.start;
        while start < cols.end {
            let row = (self.span.pos + start - cols.start) % CHUNK;
            let end = cols.end.min(start + CHUNK - row);
            self.take_steps(start..end);
            self.outputs(start..end, has_state.then_some(from.unwrap_or(state)), out);
            if row + end - start == CHUNK {
                self.advance(end, has_state.then_some(from), state);
                (from, has_state) = (None, true);
            }
            start = end;
        }
    }

    /// The state behind the chunk that ends with column `end - 1`. `had` is where the state before
    /// is, if there is one: elsewhere, or in its place.
    fn advance(&self, end: usize, had: Option<Option<&[f32]>>, state: &mut [f32]) {
        let Layer { shape, kernels, conv, .. } = self.layer;
        let len = shape.conv_len();
        let (n_before, own) = self.span.chunk_of(end - 1);
        let last = self.sums[CHUNK - 1];
        let mut weights: [f32; CHUNK] = std::array::from_fn(|j| (last - self.sums[j]) as f32);
        kernels.exp(&mut weights);
        weights.iter_mut().zip(self.sizes).for_each(|(w, size)| *w *= size);
        let mut faded = [last as f32];
        kernels.exp(&mut faded);
        let values = &conv[own.start * len + self.head * shape.value_dim..];
        let keys = &conv[own.start * len + shape.inner_len() + shape.group_of(self.head) * shape.key_dim..];
        let mut of_element = [0.0f32; CHUNK];
        for (i, row) in state.chunks_exact_mut(shape.value_dim).enumerate() {
            match had {
                None => row.fill(0.0),
                Some(None) => kernels.scale(row, faded[0]),
                Some(Some(from)) => {
                    row.copy_from_slice(&from[i * shape.value_dim..][..shape.value_dim]);
                    kernels.scale(row, faded[0]);
                }
            }
            for (j, (of_element, weight)) in of_element.iter_mut().zip(weights).enumerate() {
                let key = if j < n_before { self.keys_before[j * len + i] } else { keys[(j - n_before) * len + i] };
                *of_element = weight * key;
            }
            kernels.add_rows(row, &of_element[..n_before], self.before, len);
            kernels.add_rows(row, &of_element[n_before..], values, len);
        }
    }
}

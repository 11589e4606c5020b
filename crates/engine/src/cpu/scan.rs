//! Recurrences, in chunks of positions.
//!
//! With G the sum of the logarithms of a head's decay since the chunk began, n what the state takes
//! in with a position, and S the state where the chunk begins, the output of position i is
//! `exp(G_i) q_i S + sum over j <= i of exp(G_i - G_j) (q_i k_j) n_j`, and the state where the chunk
//! ends `exp(G) S + sum over j of exp(G - G_j) k_j n_j^T`. What is taken in is the value times its
//! step size (state space duality: Dao and Gu 2024, arXiv 2405.21060) or, by the delta rule,
//! `n_i = b_i (v_i - exp(G_i) k_i S - sum over j < i of exp(G_i - G_j) (k_i k_j) n_j)`, one position
//! after the other (Yang et al. 2024, arXiv 2412.06464). Chunks begin at multiples of [`CHUNK`]
//! positions, and each sum goes over positions in their order: an output has the same bits however
//! the sequence is cut.

use std::ops::Range;

use modelembed_kernels::Kernels;
use modelembed_pool::{Blocks, Cut, PerWorker, Rows as RowsOf, RowsPart, Runs, Strips};
use modelembed_spec::{GateNorm, Register, Scan, ScanRule, ScanShape};

use super::numbers::{logistic, number, numbers, softplus};
use super::scratch::{Scratch, WorkerScratch};
use super::{GRAIN_COLS, Pass};
use crate::state::records::{CHUNK, Record, Rows, crosses};

/// Registers that the steps here read and write.
struct Registers<'a> {
    scan: &'a mut [f32],
    conv: &'a mut [f32],
    steps: &'a mut [f32],
    taken: &'a mut [f32],
    heads: &'a mut [f32],
    products: &'a mut [f32],
    room: &'a mut ScanRoom,
    workers: &'a PerWorker<WorkerScratch>,
}

/// Lists that are made anew for each step.
#[derive(Default)]
pub(crate) struct ScanRoom {
    /// Sequences whose state stays as it is, and their columns.
    stay: Vec<usize>,
    stay_cols: Vec<Range<usize>>,
}

/// Products of a column's queries with keys, and by the delta rule of its keys with keys: elements
/// of a group's.
pub(super) fn group_products(shape: &ScanShape) -> usize {
    match shape.rule {
        ScanRule::Value => CHUNK,
        ScanRule::Delta => 2 * CHUNK,
        ScanRule::Channel => 0,
    }
}

impl Scratch {
    /// The registers of a recurrence, as far as `n` columns of them reach.
    fn of_scan(&mut self, shape: &ScanShape, n: usize) -> Registers<'_> {
        let Scratch { registers, products, scan_room, workers, .. } = self;
        let wanted = [Register::Scan, Register::Conv, Register::Steps, Register::Taken, Register::Heads];
        let [scan, conv, steps, taken, heads] = registers
            .get_disjoint_mut(wanted.map(|register| register as usize))
            .unwrap_or_else(|_| unreachable!("five registers"));
        Registers {
            scan: &mut scan[..n * shape.column_len()],
            conv: &mut conv[..n * shape.conv_len()],
            steps: &mut steps[..n * shape.steps_len()],
            taken: &mut taken[..n * shape.inner_len()],
            heads: &mut heads[..n * shape.inner_len()],
            products: &mut products[..n * shape.groups * group_products(shape)],
            room: scan_room,
            workers,
        }
    }
}

impl Pass<'_> {
    /// heads = what a recurrence gives; its records take the new positions.
    pub(super) fn scan(&mut self, step: &Scan) {
        self.steps(step);
        self.products(step);
        let (model, n, shape) = (self.model, self.n, step.shape);
        let layout = self.store.record_layout();
        let Registers { scan, conv, steps, taken, heads, products, room, workers } = self.s.of_scan(&shape, n);
        let inner = shape.inner_len();
        let skip = step.skip.map(|id| model.tensor_bytes(id));
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
            let out = (Strips { data: &mut *heads, cut }, Strips { data: &mut *taken, cut });
            model.pool().run(cut.n_tiles(), 1, out, |tile, (out, taken), worker| {
                let (rows, index) = cut.tile(tile.start);
                let (run, head) = (&runs[stay[index]], rows.start / shape.value_dim);
                let span = Span { cols: run.cols.clone(), pos: run.pos };
                let before = layout.of(step.record, run.tables.records.before());
                let room = &mut workers.get(worker).taken[..];
                OfHead::new(&layer, &span, head, &before, Outputs { out, taken }, room).stay(before.state);
            });
        }
        // A sequence whose state changes: its heads, each with its part of the state.
        for run in self.active.runs.iter_mut().filter(|run| crosses(run.pos, run.cols.len())) {
            let span = Span { cols: run.cols.clone(), pos: run.pos };
            let (other, spare) = run.tables.records.crossing();
            let other = other.map(|bytes| &*bytes);
            let (same, state) = layout.split_mut(step.record, spare);
            let before = other.map_or(same, |bytes| layout.of(step.record, bytes));
            let of_run = span.cols.start * inner..span.cols.end * inner;
            let rows = |data| Runs { len: shape.value_dim, out: RowsOf::new(data, inner, span.cols.len()) };
            let block = shape.key_dim * shape.value_dim;
            let out = (rows(&mut heads[of_run.clone()]), rows(&mut taken[of_run]), Blocks { data: state, block });
            model.pool().run(shape.heads, 1, out, |head, (out, taken, state), worker| {
                let from = other.map(|_| &before.state[head.start * block..][..block]);
                let room = &mut workers.get(worker).taken[..];
                OfHead::new(&layer, &span, head.start, &before, Outputs { out, taken }, room).cross(from, state);
            });
        }
        let (scan, conv, steps, taken) = (&*scan, &*conv, &*steps, &*taken);
        let (len, n_steps, column) = (shape.conv_len(), shape.steps_len(), (shape.column_len(), inner));
        self.active.store(layout, step.record, model.pool(), &|cols| Rows {
            n: cols.len(),
            columns: &scan[cols.start * column.0..cols.end * column.0],
            column,
            conv: &conv[cols.start * len..cols.end * len],
            taken: &taken[cols.start * inner..cols.end * inner],
            steps: &steps[cols.start * n_steps..cols.end * n_steps],
        });
    }

    /// Step sizes of all heads, or by the delta rule strengths, and the sums of the logarithms of
    /// their decay since the chunk began.
    fn steps(&mut self, step: &Scan) {
        let (model, n, shape) = (self.model, self.n, &step.shape);
        let (heads, len, stride, at) = (shape.heads, shape.steps_len(), shape.column_len(), shape.steps_at());
        let Registers { scan, steps, .. } = self.s.of_scan(shape, n);
        let (scan, bias, decay) = (&*scan, model.tensor_bytes(step.step_bias), model.tensor_bytes(step.decay));
        let out = Blocks { data: &mut *steps, block: len };
        // The second number becomes what the sum grows by.
        model.pool().run(n, GRAIN_COLS, out, |cols, out, _| {
            for (col, out) in cols.zip(out.chunks_exact_mut(len)) {
                let raw = &scan[col * stride + at..(col + 1) * stride];
                for (h, (bias, decay)) in numbers(bias).zip(numbers(decay)).enumerate() {
                    let size = softplus(raw[h] + bias);
                    out[h] = match shape.rule {
                        ScanRule::Value | ScanRule::Channel => size,
                        ScanRule::Delta => logistic(raw[heads + h]),
                    };
                    put_sum(out, heads, h, f64::from(size) * f64::from(decay));
                }
            }
        });
        let layout = self.store.record_layout();
        for run in &self.active.runs {
            let before = layout.of(step.record, run.tables.records.before());
            for col in run.cols.clone() {
                let row = run.position(col) % CHUNK;
                let (earlier, this) = steps.split_at_mut(col * len);
                let last = match row {
                    0 => continue,
                    _ if col == run.cols.start => &before.steps[(row - 1) * len..][..len],
                    _ => &earlier[(col - 1) * len..],
                };
                for h in 0..heads {
                    let sum = sum_of(last, heads, h) + sum_of(this, heads, h);
                    put_sum(this, heads, h, sum);
                }
            }
        }
    }

    /// Products of each column's queries, and by the delta rule of its keys, with the keys of its
    /// chunk up to its own: (n, groups, 1 or 2, CHUNK).
    fn products(&mut self, step: &Scan) {
        let (model, n, kernels, shape) = (self.model, self.n, self.model.kernels(), &step.shape);
        let (len, dim, per_group) = (shape.conv_len(), shape.key_dim, group_products(shape));
        let Registers { conv, products, .. } = self.s.of_scan(shape, n);
        let (conv, active, layout) = (&*conv, &*self.active, self.store.record_layout());
        let out = Blocks { data: products, block: shape.groups * per_group };
        model.pool().run(n, GRAIN_COLS, out, |cols, out, _| {
            for (col, products) in cols.zip(out.chunks_exact_mut(shape.groups * per_group)) {
                let run = active.run_of(col);
                let before = layout.of(step.record, run.tables.records.before());
                let (n_before, own) = Span { cols: run.cols.clone(), pos: run.pos }.chunk_of(col);
                for (group, products) in products.chunks_exact_mut(per_group).enumerate() {
                    let keys = shape.keys_at() + group * dim;
                    for (products, x) in products.chunks_exact_mut(CHUNK).zip([shape.queries_at(), shape.keys_at()]) {
                        let x = &conv[col * len + x + group * dim..][..dim];
                        let (first, rest) = products[..n_before + own.len()].split_at_mut(n_before);
                        kernels.dot_rows(x, &before.conv[keys..], len, first);
                        kernels.dot_rows(x, &conv[own.start * len + keys..], len, rest);
                    }
                }
            }
        });
    }

    /// heads = norm(silu(gate) * heads), or by the delta rule silu(gate) * norm(heads).
    pub(super) fn gate_norm(&mut self, step: &GateNorm) {
        let (model, n, kernels, shape) = (self.model, self.n, self.model.kernels(), &step.shape);
        let (stride, inner) = (shape.column_len(), shape.inner_len());
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
                let gates = &column[..inner];
                match (shape.rule, weight) {
                    (ScanRule::Value | ScanRule::Channel, None) => {
                        gated.copy_from_slice(gates);
                        kernels.silu_mul(gated, y);
                        y.copy_from_slice(gated);
                    }
                    (ScanRule::Value | ScanRule::Channel, Some(weight)) => {
                        gated.copy_from_slice(gates);
                        kernels.silu_mul(gated, y);
                        let group = inner / shape.groups;
                        let groups = gated.chunks_exact(group).zip(y.chunks_exact_mut(group));
                        for ((x, y), weight) in groups.zip(weight.chunks_exact(4 * group)) {
                            kernels.rms_norm(x, Some(weight), step.eps, y);
                        }
                    }
                    (ScanRule::Delta, weight) => {
                        let heads = y.chunks_exact(shape.value_dim).zip(gated.chunks_exact_mut(shape.value_dim));
                        heads.for_each(|(x, normed)| kernels.rms_norm(x, weight, step.eps, normed));
                        y.copy_from_slice(gates);
                        kernels.silu_mul(y, gated);
                    }
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

fn put_sum(steps: &mut [f32], heads: usize, head: usize, sum: f64) {
    steps[heads + head] = sum as f32;
    steps[2 * heads + head] = (sum - f64::from(sum as f32)) as f32;
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
    /// (n, groups, 1 or 2, CHUNK).
    products: &'a [f32],
    /// (heads), f32 at any address.
    skip: Option<&'a [u8]>,
}

/// One head's part of some columns.
struct Outputs<'o> {
    out: RowsPart<'o>,
    taken: RowsPart<'o>,
}

/// One head of a recurrence, for the columns of one sequence.
struct OfHead<'a, 'o> {
    layer: &'a Layer<'a>,
    span: &'a Span,
    head: usize,
    outputs: Outputs<'o>,
    /// Keys of the positions before the columns, a row every `conv_len`.
    keys_before: &'a [f32],
    /// Of the positions of the chunk that is computed: what the state takes in with them, (CHUNK,
    /// value_dim), step sizes or strengths, and sums of decay.
    taken: &'a mut [f32],
    sizes: [f32; CHUNK],
    sums: [f64; CHUNK],
}

impl<'a, 'o> OfHead<'a, 'o> {
    fn new(
        layer: &'a Layer<'a>,
        span: &'a Span,
        head: usize,
        before: &Record<'a>,
        outputs: Outputs<'o>,
        taken: &'a mut [f32],
    ) -> OfHead<'a, 'o> {
        let shape = &layer.shape;
        let (len, dim) = (shape.conv_len(), shape.value_dim);
        let keys_before = &before.conv[shape.keys_at() + shape.group_of(head) * shape.key_dim..];
        let mut of_head =
            OfHead { layer, span, head, outputs, keys_before, taken, sizes: [0.0; CHUNK], sums: [0.0; CHUNK] };
        for row in 0..span.pos % CHUNK {
            let at = row * len + shape.values_at() + head * dim;
            of_head.taken[row * dim..][..dim].copy_from_slice(&before.conv[at..at + dim]);
            let steps = &before.steps[row * shape.steps_len()..];
            (of_head.sizes[row], of_head.sums[row]) = (steps[head], sum_of(steps, shape.heads, head));
        }
        of_head
    }

    /// Outputs of all columns, which are of one chunk. `states` are those of all heads where it
    /// begins, which there are from the second chunk on.
    fn stay(&mut self, states: &[f32]) {
        let block = self.layer.shape.key_dim * self.layer.shape.value_dim;
        let state = (self.span.pos >= CHUNK).then(|| &states[self.head * block..][..block]);
        self.compute(self.span.cols.clone(), state);
    }

    /// Outputs of all columns, which reach into another chunk, and the state where the last chunk
    /// begins. `from` is the state where the first one begins, unless `state` has it.
    fn cross(&mut self, mut from: Option<&[f32]>, state: &mut [f32]) {
        let cols = self.span.cols.clone();
        let mut has_state = self.span.pos >= CHUNK;
        let mut start = cols.start;
        while start < cols.end {
            let row = (self.span.pos + start - cols.start) % CHUNK;
            let end = cols.end.min(start + CHUNK - row);
            self.compute(start..end, has_state.then_some(from.unwrap_or(state)));
            if row + end - start == CHUNK {
                self.advance(end, has_state.then_some(from), state);
                (from, has_state) = (None, true);
            }
            start = end;
        }
    }

    /// Outputs of columns of one chunk, over the state where it begins.
    fn compute(&mut self, cols: Range<usize>, state: Option<&[f32]>) {
        let Layer { shape, kernels, conv, steps, products, skip } = self.layer;
        let (len, n_steps, dim) = (shape.conv_len(), shape.steps_len(), shape.value_dim);
        let (group, per_group) = (shape.group_of(self.head), group_products(shape));
        let value_at = shape.values_at() + self.head * dim;
        let skip = skip.map(|skip| number(skip, self.head));
        let mut fading = [0.0f32; CHUNK];
        let mut weights = [0.0f32; CHUNK];
        for col in cols {
            let (n_before, own) = self.span.chunk_of(col);
            let (n, row) = (n_before + own.len(), n_before + own.len() - 1);
            let steps = &steps[col * n_steps..][..n_steps];
            (self.sizes[row], self.sums[row]) = (steps[self.head], sum_of(steps, shape.heads, self.head));
            let (size, sum) = (self.sizes[row], self.sums[row]);
            let mut faded = [sum as f32];
            kernels.exp(&mut faded);
            let fading = &mut fading[..n];
            fading.iter_mut().zip(self.sums).for_each(|(w, earlier)| *w = (sum - earlier) as f32);
            kernels.exp(fading);
            let products = &products[(col * shape.groups + group) * per_group..][..per_group];
            let of_state = |x_at: usize, y: &mut [f32]| {
                y.fill(0.0);
                if let Some(state) = state {
                    let x = &conv[col * len + x_at + group * shape.key_dim..][..shape.key_dim];
                    kernels.add_rows(y, x, state, dim);
                    kernels.scale(y, faded[0]);
                }
            };
            let value = &conv[col * len + value_at..][..dim];
            let (earlier, taken) = self.taken.split_at_mut(row * dim);
            let taken = &mut taken[..dim];
            match shape.rule {
                ScanRule::Value | ScanRule::Channel => taken.copy_from_slice(value),
                ScanRule::Delta => {
                    of_state(shape.keys_at(), taken);
                    let weights = &mut weights[..row];
                    let keys = &products[CHUNK..];
                    weights.iter_mut().zip(&*fading).zip(keys).for_each(|((w, fading), product)| *w = fading * product);
                    kernels.add_rows(taken, weights, earlier, dim);
                    taken.iter_mut().zip(value).for_each(|(known, value)| *known = value - *known);
                }
            }
            kernels.scale(taken, size);
            self.outputs.taken.column(col - self.span.cols.start).copy_from_slice(taken);
            let y = self.outputs.out.column(col - self.span.cols.start);
            of_state(shape.queries_at(), y);
            let weights = &mut weights[..n];
            weights.iter_mut().zip(&*fading).zip(products).for_each(|((w, fading), product)| *w = fading * product);
            kernels.add_rows(y, weights, self.taken, dim);
            if let Some(skip) = skip {
                kernels.add_rows(y, &[skip], value, dim);
            }
        }
    }

    /// The state behind the chunk that ends with column `end - 1`. `had` is where the state before
    /// is, if there is one: elsewhere, or in its place.
    fn advance(&self, end: usize, had: Option<Option<&[f32]>>, state: &mut [f32]) {
        let Layer { shape, kernels, conv, .. } = self.layer;
        let (len, dim) = (shape.conv_len(), shape.value_dim);
        let (n_before, own) = self.span.chunk_of(end - 1);
        let last = self.sums[CHUNK - 1];
        let mut fading: [f32; CHUNK] = std::array::from_fn(|j| (last - self.sums[j]) as f32);
        kernels.exp(&mut fading);
        let mut faded = [last as f32];
        kernels.exp(&mut faded);
        let keys = &conv[own.start * len + shape.keys_at() + shape.group_of(self.head) * shape.key_dim..];
        let mut weights = [0.0f32; CHUNK];
        for (i, row) in state.chunks_exact_mut(dim).enumerate() {
            match had {
                None => row.fill(0.0),
                Some(None) => kernels.scale(row, faded[0]),
                Some(Some(from)) => {
                    row.copy_from_slice(&from[i * dim..][..dim]);
                    kernels.scale(row, faded[0]);
                }
            }
            for (j, (weight, fading)) in weights.iter_mut().zip(fading).enumerate() {
                let key = if j < n_before { self.keys_before[j * len + i] } else { keys[(j - n_before) * len + i] };
                *weight = fading * key;
            }
            kernels.add_rows(row, &weights, self.taken, dim);
        }
    }
}

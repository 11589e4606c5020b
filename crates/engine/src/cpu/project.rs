//! Products of weight matrices with a chunk's columns.

use std::ops::Range;

use modelembed_kernels::{ActLayout, Acts, Kernels, MatRef, Output, Strided};
use modelembed_pool::{RowsPart, Tiles, Worker};
use modelembed_spec::{Clamp, HiddenActivation, Input, Linear, Register};

use super::Pass;
use super::experts::{activate, gated};
use super::grid::projection_grid;
use super::numbers::numbers;
use super::scratch::{InputBuffers, Scratch};
use crate::load::model::Model;

/// Matrices that one step projects with at most: queries, keys and values, or four of a recurrence.
const MAX_PARTS: usize = 4;

/// Rows of a matrix with the activations that they meet.
struct Bound<'a> {
    w: MatRef<'a>,
    rows: Range<usize>,
    acts: Acts<'a>,
    bias: Option<&'a [u8]>,
}

impl<'a> Bound<'a> {
    fn new(model: &'a Model, linear: &Linear, input: &'a InputBuffers, n: usize) -> Bound<'a> {
        let w = model.matrix(linear.w);
        let kind = Kernels::act_kind(w.ty(), model.is_exact());
        Bound {
            w,
            rows: linear.rows.clone(),
            acts: Acts::new(ActLayout::new(kind, w.k()), input.bytes(kind), n),
            bias: linear.bias.map(|id| model.tensor_bytes(id)),
        }
    }

    /// The products of rows `rows`, counted from the first one here, with columns `cols`, and their
    /// bias.
    fn multiply(&self, kernels: &Kernels, rows: Range<usize>, cols: Range<usize>, out: &mut dyn Output) {
        let n = cols.len();
        let of_matrix = self.rows.start + rows.start..self.rows.start + rows.end;
        kernels.mul_rows(self.w, of_matrix, self.acts.columns(cols), out);
        add_bias(self.bias, rows, n, out);
    }
}

impl Pass<'_> {
    /// The rows of some matrices, one matrix after the other, times every column of an input; or
    /// added to what is there.
    pub(super) fn project(&mut self, from: Input, parts: &[Linear], to: Register, adds: bool) {
        let (model, n, kernels) = (self.model, self.n, self.model.kernels());
        let rows: usize = parts.iter().map(Linear::n_rows).sum();
        let Scratch { registers, inputs, workers, .. } = &mut *self.s;
        let (input, workers) = (&inputs[from as usize], &*workers);
        let mut bound: [Option<Bound<'_>>; MAX_PARTS] = [const { None }; MAX_PARTS];
        for (place, linear) in bound.iter_mut().zip(parts) {
            *place = Some(Bound::new(model, linear, input, n));
        }
        let out = &mut registers[to as usize][..n * rows];
        let grid = projection_grid(rows, n, model.pool().threads());
        model.pool().run(grid.n_tiles(), 1, Tiles { data: out, grid }, |tile, mut part, worker| {
            let (chunk, cols) = grid.tile(tile.start);
            let room = if adds { &mut workers.get(worker).tile[..] } else { &mut [] };
            let mut first = 0; // of this matrix, among all rows
            for matrix in bound.iter().flatten() {
                let n_rows = matrix.rows.len();
                let range = intersect(&chunk, first..first + n_rows);
                if !range.is_empty() {
                    let own = range.start - first..range.end - first;
                    let mut out = SubRows { part: &mut part, rows: range.start - chunk.start..range.end - chunk.start };
                    if adds {
                        let len = own.len();
                        let mut sums = Strided { data: &mut room[..cols.len() * len], stride: len, rows: len };
                        matrix.multiply(kernels, own, cols.clone(), &mut sums);
                        for c in 0..cols.len() {
                            kernels.add(out.column(c), sums.column(c));
                        }
                    } else {
                        matrix.multiply(kernels, own, cols.clone(), &mut out);
                    }
                }
                first += n_rows;
            }
        });
    }

    /// hidden = act(Wgate y) * Wup y, both rows of a pair by the same worker.
    pub(super) fn gate_up(
        &mut self,
        from: Input,
        gate: &Linear,
        up: &Linear,
        (activation, clamp): (HiddenActivation, Option<Clamp>),
        to: Register,
    ) {
        let (model, n, rows, kernels) = (self.model, self.n, gate.n_rows(), self.model.kernels());
        let Scratch { registers, inputs, workers, .. } = &mut *self.s;
        let (workers, input) = (&*workers, &inputs[from as usize]);
        let (gate, up) = (Bound::new(model, gate, input, n), Bound::new(model, up, input, n));
        let grid = projection_grid(rows, n, model.pool().threads());
        let out = Tiles { data: &mut registers[to as usize][..n * rows], grid };
        model.pool().run(grid.n_tiles(), 1, out, |tile, mut part, worker: &mut Worker| {
            let (chunk, cols) = grid.tile(tile.start);
            let n = cols.len();
            let room = &mut workers.get(worker).tile[..n * chunk.len()];
            let mut ups = Strided { data: room, stride: chunk.len(), rows: chunk.len() };
            let mut gates = SubRows { part: &mut part, rows: 0..chunk.len() };
            gate.multiply(kernels, chunk.clone(), cols.clone(), &mut gates);
            up.multiply(kernels, chunk, cols, &mut ups);
            for c in 0..n {
                gated(kernels, activation, clamp, gates.column(c), ups.column(c));
            }
        });
    }
}

impl Pass<'_> {
    /// hidden = act(Wup y).
    pub(super) fn up(&mut self, from: Input, up: &Linear, activation: HiddenActivation, to: Register) {
        let (model, n, rows, kernels) = (self.model, self.n, up.n_rows(), self.model.kernels());
        let Scratch { registers, inputs, .. } = &mut *self.s;
        let up = Bound::new(model, up, &inputs[from as usize], n);
        let grid = projection_grid(rows, n, model.pool().threads());
        let out = Tiles { data: &mut registers[to as usize][..n * rows], grid };
        model.pool().run(grid.n_tiles(), 1, out, |tile, mut part, _| {
            let (chunk, cols) = grid.tile(tile.start);
            let n = cols.len();
            let mut sums = SubRows { part: &mut part, rows: 0..chunk.len() };
            up.multiply(kernels, chunk, cols, &mut sums);
            for c in 0..n {
                activate(kernels, activation, sums.column(c));
            }
        });
    }
}

/// Some of the rows of a chunk.
pub(super) struct SubRows<'a, 'b> {
    pub(super) part: &'a mut RowsPart<'b>,
    pub(super) rows: Range<usize>,
}

impl Output for SubRows<'_, '_> {
    fn column(&mut self, c: usize) -> &mut [f32] {
        &mut self.part.column(c)[self.rows.clone()]
    }
}

fn intersect(a: &Range<usize>, b: Range<usize>) -> Range<usize> {
    a.start.max(b.start)..a.end.min(b.end)
}

/// Adds elements `rows` of a bias, little-endian f32 at any address, to `n` columns.
pub(super) fn add_bias(bias: Option<&[u8]>, rows: Range<usize>, n: usize, out: &mut dyn Output) {
    let Some(bias) = bias else { return };
    for c in 0..n {
        let bias = numbers(&bias[rows.start * 4..rows.end * 4]);
        out.column(c).iter_mut().zip(bias).for_each(|(y, b)| *y += b);
    }
}

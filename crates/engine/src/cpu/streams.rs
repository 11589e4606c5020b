//! Several residual streams, and branches that join them.

use std::f32::consts::FRAC_1_SQRT_2;

use modelembed_kernels::{Kernels, MatRef};
use modelembed_pool::Blocks;
use modelembed_spec::{JoinBranch, MAX_STREAMS, Register, StreamStep, Streams};

use super::norm::BoundNorm;
use super::numbers::number;
use super::scratch::Scratch;
use super::{GRAIN_COLS, Pass};

/// One column of the registers of streams.
struct Column<'a> {
    kernels: &'a Kernels,
    /// Streams, and elements of one.
    n: usize,
    len: usize,
    /// The first stream, and the others.
    x: &'a mut [f32],
    others: &'a mut [f32],
    predicted: &'a mut [f32],
    delta: &'a mut [f32],
    /// The router's numbers.
    router: &'a mut [f32],
    /// Room for a vector.
    vector: &'a mut [f32],
}

impl Pass<'_> {
    /// Does something to all streams.
    pub(super) fn streams(&mut self, step: &Streams) {
        let (model, n, kernels, count, len) = (self.model, self.n, self.model.kernels(), step.count, step.len);
        let matrix = |id| model.matrix(id);
        let norm = match &step.step {
            StreamStep::Add { norm } => Some(BoundNorm::new(model, norm)),
            _ => None,
        };
        let Scratch { registers, workers, .. } = &mut *self.s;
        let wanted = [Register::Residual, Register::Streams, Register::Predicted, Register::Delta, Register::Router];
        let [x, others, predicted, delta, router] = registers
            .get_disjoint_mut(wanted.map(|register| register as usize))
            .unwrap_or_else(|_| unreachable!("five registers"));
        let workers = &*workers;
        let blocks = |data, block| Blocks { data, block };
        let behind = (count - 1) * len;
        let out = (
            (blocks(&mut x[..n * len], len), blocks(&mut others[..n * behind], behind)),
            (
                blocks(&mut predicted[..n * len], len),
                blocks(&mut delta[..n * len], len),
                blocks(&mut router[..n * count], count),
            ),
        );
        model.pool().run(n, GRAIN_COLS, out, |_, ((x, others), (predicted, delta, router)), worker| {
            let vector = &mut workers.get(worker).vector[..];
            let columns = x.chunks_exact_mut(len).zip(others.chunks_exact_mut((count - 1) * len));
            let rest = predicted.chunks_exact_mut(len).zip(delta.chunks_exact_mut(len));
            let rest = rest.zip(router.chunks_exact_mut(count));
            for ((x, others), ((predicted, delta), router)) in columns.zip(rest) {
                let n = count;
                let mut column = Column { kernels, n, len, x, others, predicted, delta, router, vector: &mut *vector };
                match step.step {
                    StreamStep::Spread => column.spread(),
                    StreamStep::Predict { weights } => column.predict(matrix(weights)),
                    StreamStep::Correct { weights, scale } => {
                        column.correct(matrix(weights), model.tensor_bytes(scale));
                    }
                    StreamStep::Add { .. } => norm.iter().for_each(|norm| column.add(norm)),
                    StreamStep::Set { stream } => column.others[stream * len..][..len].copy_from_slice(column.delta),
                    StreamStep::Merge => column.merge(),
                }
            }
        });
    }

    /// The residual stream takes the mixer's output and a branch beside it.
    pub(super) fn join_branch(&mut self, step: &JoinBranch) {
        let (model, n, kernels, len) = (self.model, self.n, self.model.kernels(), self.model.spec().n_embd);
        let [of_mixer, of_input, of_branch] =
            [step.of_mixer, step.of_input, step.of_branch].map(|norm| BoundNorm::new(model, &norm));
        let Scratch { registers, workers, .. } = &mut *self.s;
        let wanted = [Register::Residual, Register::Delta, Register::Aside].map(|register| register as usize);
        let [x, delta, aside] = registers.get_disjoint_mut(wanted).unwrap_or_else(|_| unreachable!("three registers"));
        let (delta, workers) = (&delta[..n * len], &*workers);
        let out = (Blocks { data: &mut x[..n * len], block: len }, Blocks { data: &mut aside[..n * len], block: len });
        model.pool().run(n, GRAIN_COLS, out, |cols, (x, aside), worker| {
            let vector = &mut workers.get(worker).vector[..len];
            let columns = x.chunks_exact_mut(len).zip(aside.chunks_exact_mut(len));
            for ((x, aside), delta) in columns.zip(delta.chunks_exact(len).skip(cols.start)) {
                of_branch.apply(kernels, aside, vector);
                aside.copy_from_slice(vector);
                of_input.apply(kernels, x, vector);
                kernels.add(aside, vector);
                of_mixer.apply(kernels, delta, vector);
                kernels.add(x, vector);
                kernels.add(x, aside);
                kernels.scale(x, FRAC_1_SQRT_2);
            }
        });
    }

    /// hidden = gelu(max(0, gate - what it must be above)) * up.
    pub(super) fn sparse_gate(&mut self, len: usize, deviations: f32) {
        let (model, n, kernels) = (self.model, self.n, self.model.kernels());
        let [scan, hidden] = self
            .s
            .registers
            .get_disjoint_mut([Register::Scan as usize, Register::Hidden as usize])
            .unwrap_or_else(|_| unreachable!("two registers"));
        let scan = &scan[..n * 2 * len];
        model.pool().run(n, GRAIN_COLS, Blocks { data: &mut hidden[..n * len], block: len }, |cols, hidden, _| {
            let columns = hidden.chunks_exact_mut(len).zip(scan.chunks_exact(2 * len).skip(cols.start));
            for (hidden, column) in columns {
                let (gate, up) = column.split_at(len);
                let mean = gate.iter().map(|x| f64::from(*x)).sum::<f64>() / len as f64;
                let squares: f64 = gate.iter().map(|x| (f64::from(*x) - mean).powi(2)).sum();
                let cut = (mean + f64::from(deviations) * (squares / (len as f64 - 1.0)).sqrt()) as f32;
                hidden.iter_mut().zip(gate).for_each(|(y, x)| *y = (x - cut).max(0.0));
                kernels.gelu_mul(hidden, up);
            }
        });
    }
}

impl Column<'_> {
    /// Those behind the first get its length.
    fn spread(&mut self) {
        let length = |x: &[f32]| {
            let mut squares = [0.0];
            self.kernels.dot_rows(x, x, x.len(), &mut squares);
            squares[0].sqrt()
        };
        let wanted = length(self.x);
        for stream in self.others.chunks_exact_mut(self.len) {
            let seen = length(stream).max(f32::MIN_POSITIVE);
            self.kernels.scale(stream, wanted / seen);
        }
    }

    /// The weights that a matrix gives for tanh(router / len).
    fn weights(&mut self, matrix: MatRef<'_>, out: &mut [f32]) {
        let by = 1.0 / self.len as f32;
        self.router.iter_mut().for_each(|x| *x = libm::tanhf(*x * by));
        let row = &mut self.vector[..self.n];
        for (i, out) in out.iter_mut().enumerate() {
            self.kernels.dequantize_row(matrix, i, row);
            *out = row.iter().zip(&*self.router).map(|(w, m)| w * m).sum();
        }
    }

    fn predict(&mut self, matrix: MatRef<'_>) {
        let n = self.n;
        let mut weights = [0.0; MAX_STREAMS * MAX_STREAMS];
        let weights = &mut weights[..n * n];
        self.weights(matrix, weights);
        let mut all = [0.0; MAX_STREAMS];
        for e in 0..self.len {
            all[0] = self.x[e];
            (1..n).for_each(|i| all[i] = self.others[(i - 1) * self.len + e]);
            let sum = |j: usize| (0..n).map(|i| weights[j * n + i] * all[i]).sum::<f32>() + all[j];
            self.x[e] = sum(0);
            (1..n).for_each(|j| self.others[(j - 1) * self.len + e] = sum(j));
        }
        self.predicted.copy_from_slice(self.x);
    }

    fn correct(&mut self, matrix: MatRef<'_>, scale: &[u8]) {
        let mut weights = [0.0; MAX_STREAMS];
        let weights = &mut weights[..self.n];
        self.weights(matrix, weights);
        // What is new, in the place of the first stream.
        self.x.iter_mut().zip(&*self.predicted).for_each(|(x, predicted)| *x -= predicted);
        for (stream, weight) in self.others.chunks_exact_mut(self.len).zip(&weights[1..]) {
            self.kernels.add_rows(stream, &[1.0 + weight], self.x, self.len);
        }
        self.kernels.scale(self.x, 1.0 + weights[0]);
        self.kernels.add(self.x, self.predicted);
        for (i, (y, x)) in self.delta.iter_mut().zip(&*self.x).enumerate() {
            *y = number(scale, i) * x;
        }
    }

    fn add(&mut self, norm: &BoundNorm<'_>) {
        let normed = &mut self.vector[..self.len];
        norm.apply(self.kernels, self.delta, normed);
        self.others.chunks_exact_mut(self.len).for_each(|stream| self.kernels.add(stream, normed));
    }

    fn merge(&mut self) {
        self.spread();
        self.others.chunks_exact(self.len).for_each(|stream| self.kernels.add(self.x, stream));
        self.kernels.scale(self.x, 1.0 / self.n as f32);
    }
}

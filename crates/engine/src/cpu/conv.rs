//! Convolutions over the last positions: those before recurrences, and short ones between two gates.
//! The positions before a chunk of tokens are in the sequences' records.

use modelembed_kernels::Kernels;
use modelembed_pool::Blocks;
use modelembed_spec::{Conv, Register, ScanRule, ShortConv};

use super::numbers::numbers;
use super::scratch::Scratch;
use super::{GRAIN_COLS, Pass};
use crate::state::active::ActiveRun;
use crate::state::records::{CHUNK, Rows};

impl Pass<'_> {
    /// conv = silu(a convolution over the last positions) of each channel; keys and queries of the
    /// delta rule get their lengths.
    pub(super) fn conv(&mut self, step: &Conv) {
        let (model, n, kernels, shape) = (self.model, self.n, self.model.kernels(), &step.shape);
        let (len, stride, first) = (shape.conv_len(), shape.column_len(), shape.inner_len());
        let Scratch { registers, taps, .. } = &mut *self.s;
        let [scan, conv] = registers
            .get_disjoint_mut([Register::Scan as usize, Register::Conv as usize])
            .unwrap_or_else(|_| unreachable!("two registers"));
        let taps = Taps::new(model.tensor_bytes(step.weight), step.kernel, len, taps);
        let bias = step.bias.map(|id| model.tensor_bytes(id));
        let (scan, active, layout) = (&scan[..n * stride], &*self.active, self.store.record_layout());
        let out = Blocks { data: &mut conv[..n * len], block: len };
        model.pool().run(n, GRAIN_COLS, out, |cols, out, _| {
            for (col, y) in cols.zip(out.chunks_exact_mut(len)) {
                let run = active.run_of(col);
                let raw = layout.of(step.record, run.tables.records.before()).raw;
                match bias {
                    Some(bias) => y.iter_mut().zip(numbers(bias)).for_each(|(y, b)| *y = b),
                    None => y.fill(0.0),
                }
                taps.add(kernels, run, col, raw, |col| &scan[col * stride + first..][..len], y);
                kernels.silu(y);
                if shape.rule == ScanRule::Delta {
                    let dim = shape.key_dim;
                    let by = |at: usize| if at == shape.queries_at() { 1.0 / (dim as f32).sqrt() } else { 1.0 };
                    for at in [shape.queries_at(), shape.keys_at()] {
                        for x in y[at..at + shape.keys_len()].chunks_exact_mut(dim) {
                            set_length(kernels, x, by(at), step.eps);
                        }
                    }
                }
            }
        });
    }

    /// heads = c . conv(b . u); the records take the new positions.
    pub(super) fn short_conv(&mut self, step: &ShortConv) {
        let (model, n, kernels, len) = (self.model, self.n, self.model.kernels(), step.len);
        let Scratch { registers, taps, .. } = &mut *self.s;
        let wanted = [Register::Scan, Register::Conv, Register::Heads].map(|register| register as usize);
        let [scan, gated, heads] =
            registers.get_disjoint_mut(wanted).unwrap_or_else(|_| unreachable!("three registers"));
        let (scan, gated) = (&scan[..n * 3 * len], &mut gated[..n * len]);
        let out = Blocks { data: &mut *gated, block: len };
        model.pool().run(n, GRAIN_COLS, out, |cols, out, _| {
            for (column, y) in scan.chunks_exact(3 * len).skip(cols.start).zip(out.chunks_exact_mut(len)) {
                y.fill(0.0);
                kernels.mul_add(y, &column[..len], &column[2 * len..]);
            }
        });
        let taps = Taps::new(model.tensor_bytes(step.weight), step.kernel, len, taps);
        let (gated, active, layout) = (&*gated, &*self.active, self.store.record_layout());
        let out = Blocks { data: &mut heads[..n * len], block: len };
        model.pool().run(n, GRAIN_COLS, out, |cols, out, _| {
            for (col, y) in cols.zip(out.chunks_exact_mut(len)) {
                let run = active.run_of(col);
                let raw = layout.of(step.record, run.tables.records.before()).raw;
                y.fill(0.0);
                taps.add(kernels, run, col, raw, |col| &gated[col * len..][..len], y);
                y.iter_mut().zip(&scan[(col * 3 + 1) * len..]).for_each(|(y, c)| *y *= c);
            }
        });
        self.active.store(layout, step.record, model.pool(), &|cols| Rows {
            n: cols.len(),
            columns: &gated[cols.start * len..cols.end * len],
            column: (len, 0),
            conv: &[],
            taken: &[],
            steps: &[],
        });
    }
}

/// Weights of a convolution.
struct Taps<'a> {
    /// (kernel, channels), so that channels lie side by side.
    weights: &'a [f32],
    kernel: usize,
    len: usize,
}

impl<'a> Taps<'a> {
    /// From a tensor of (channels, kernel), in some room.
    fn new(weights: &[u8], kernel: usize, len: usize, room: &'a mut Vec<f32>) -> Taps<'a> {
        room.clear();
        room.extend((0..kernel).flat_map(|tap| numbers(weights).skip(tap).step_by(kernel)));
        Taps { weights: room, kernel, len }
    }

    /// Adds the convolution of a column of a run to `y`; `raw` are the rows before the run, `x` those
    /// of its columns.
    fn add<'x>(
        &self,
        kernels: &Kernels,
        run: &ActiveRun,
        col: usize,
        raw: &'x [f32],
        x: impl Fn(usize) -> &'x [f32],
        y: &mut [f32],
    ) {
        for (tap, w) in self.weights.chunks_exact(self.len).enumerate() {
            let x = match (col - run.cols.start + tap).checked_sub(self.kernel - 1) {
                Some(i) => x(run.cols.start + i),
                None => &raw[(run.pos % CHUNK + col - run.cols.start + tap) * self.len..][..self.len],
            };
            kernels.mul_add(y, x, w);
        }
    }
}

/// Makes `x`, whose sum of squares gets `eps` more, a vector of this length.
fn set_length(kernels: &Kernels, x: &mut [f32], length: f32, eps: f32) {
    let mut squares = [0.0];
    kernels.dot_rows(x, x, x.len(), &mut squares);
    kernels.scale(x, length / (squares[0] + eps).sqrt());
}

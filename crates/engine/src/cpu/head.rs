//! From the residual stream to logits.

use std::ops::Range;

use modelembed_kernels::{ActKind, ActLayout, Acts, Kernels, Output, Strided};
use modelembed_pool::{Groups, Rows};
use modelembed_spec::{Input, Linear, Register, Step};
use modelembed_text::TokenId;

use super::Pass;
use super::norm::Kinds;
use super::peaks::greatest;
use super::project::{SubRows, add_bias};
use super::scratch::{HEAD_COLS, LOGIT_COLS, Scratch, head_grain};
use crate::error::Result;
use crate::gpu::{Best, GpuSession};
use crate::run::timing::Stage;

/// What a sampler needs of logits.
pub(crate) struct Wanted {
    /// So many of the most likely tokens' are enough; `None`: all.
    pub(crate) n_best: Option<usize>,
    /// These tokens' too.
    pub(crate) also: Vec<TokenId>,
}

impl Pass<'_> {
    /// Columns whose logits are computed together at most.
    pub(crate) fn head_cols(&self) -> usize {
        if self.gpu.as_deref().is_some_and(GpuSession::has_head) { LOGIT_COLS } else { HEAD_COLS }
    }

    /// What a sampler needs of the logits of some columns: the best of them if they can be found
    /// where they are computed, all others as [`logits`](Self::logits).
    pub(crate) fn logits_for(&mut self, cols: Range<usize>, wanted: &Wanted) -> Result<Option<Vec<Best>>> {
        let all_count = self.model.tokenizer().suppressed().is_empty();
        let gpu = self.gpu.as_deref_mut().filter(|gpu| gpu.has_head() && all_count);
        if let (Some(gpu), Some(n_best)) = (gpu, wanted.n_best) {
            let best = gpu.best(self.model.program(), cols.clone(), n_best, &wanted.also)?;
            if best.is_some() {
                self.lap_on_gpu(Stage::Head)?;
                return Ok(best);
            }
        }
        self.logits(cols)?;
        Ok(None)
    }

    /// Runs the head over some columns, at most [`head_cols`](Self::head_cols), into the register
    /// of logits: (columns, n_vocab); computed here, they leave their peaks in `peaks`. Columns may
    /// be asked for once, in ascending order: they are moved over those asked for before.
    pub(crate) fn logits(&mut self, cols: impl Iterator<Item = usize> + Clone) -> Result<()> {
        let n = cols.clone().count();
        let Some(first) = cols.clone().next() else { return Ok(()) };
        if let Some(gpu) = self.gpu.as_deref_mut().filter(|gpu| gpu.has_head()) {
            // Of the one sequence that there is they are neighbours.
            gpu.logits(self.model.program(), first..first + n, self.s.register(Register::Logits))?;
            let n_vocab = self.model.n_vocab();
            for logits in self.s.register(Register::Logits).chunks_exact_mut(n_vocab).take(n) {
                suppress(self.model.tokenizer().suppressed(), 0, logits);
            }
            return self.lap_on_gpu(Stage::Head);
        }
        self.head(cols, n, true);
        Ok(())
    }

    /// The same without the product: afterwards [`normed`](Self::normed) has what the head reads.
    pub(crate) fn hidden(&mut self, cols: impl Iterator<Item = usize> + Clone) {
        let n = cols.clone().count();
        self.head(cols, n, false);
    }

    /// The residual stream behind the last norm, of a column of those that the head was last run
    /// over: (n_embd).
    pub(crate) fn normed(&self, index: usize) -> impl Iterator<Item = f32> {
        let n_embd = self.model.spec().n_embd;
        let bytes = self.s.inputs[Input::Normed as usize].bytes(ActKind::F32);
        let column = ActLayout::new(ActKind::F32, n_embd).col_bytes();
        bytes[index * column..][..4 * n_embd].as_chunks().0.iter().map(|x| f32::from_ne_bytes(*x))
    }

    /// Runs the head over `n` columns, with the product or without.
    fn head(&mut self, cols: impl Iterator<Item = usize> + Clone, n: usize, with_logits: bool) {
        let model = self.model;
        // The columns asked for move to the front, where the steps look for theirs.
        let n_embd = model.spec().n_embd;
        for register in [Register::Residual, Register::Delta] {
            let register = self.s.register(register);
            for (to, col) in cols.clone().enumerate() {
                register.copy_within(col * n_embd..(col + 1) * n_embd, to * n_embd);
            }
        }
        let all = std::mem::replace(&mut self.n, n);
        for step in &model.program().head().steps {
            match step {
                Step::JoinNorm { join, norm, to, readers } => {
                    let kinds = Kinds { f32: true, ..self.kinds(readers) };
                    self.join_norm(join.as_ref(), norm.as_ref(), *to, kinds);
                }
                Step::Logits { .. } if !with_logits => {}
                Step::Logits { from, output, scale, soft_cap } => self.multiply(*from, output, *scale, *soft_cap),
                step => self.step(step),
            }
        }
        self.n = all;
        self.lap(Stage::Head);
    }

    /// logits = soft_cap(scale * output y), and their peaks.
    fn multiply(&mut self, from: Input, output: &Linear, scale: f32, soft_cap: Option<f32>) {
        let (model, n, kernels) = (self.model, self.n, self.model.kernels());
        let w = model.matrix(output.w);
        let kind = Kernels::act_kind(w.ty(), model.is_exact());
        let layout = ActLayout::new(kind, w.k());
        let n_inputs = if kind == ActKind::Q8 { self.add_residuals(from, layout) } else { n };
        let n_vocab = output.n_rows();
        let bias = output.bias.map(|id| model.tensor_bytes(id));
        let suppressed = model.tokenizer().suppressed();
        let grain = head_grain(n_vocab, n, model.pool().threads());
        let Scratch { registers, peaks, workers, inputs, stretch, .. } = &mut *self.s;
        *stretch = grain;
        let acts = Acts::new(layout, inputs[from as usize].bytes(kind), n_inputs);
        let workers = &*workers;
        let n_stretches = n_vocab.div_ceil(grain);
        let peaks = Groups { size: grain, out: Rows::new(&mut peaks[..n * n_stretches], n_stretches, n) };
        let logits = &mut registers[Register::Logits as usize][..n * n_vocab];
        let out = (Rows::new(logits, n_vocab, n), peaks);
        model.pool().run(n_vocab, grain, out, |chunk, (mut part, mut peaks), worker| {
            let rows = chunk.len();
            let tile = &mut workers.get(worker).tile[..n * rows];
            let first = SubRows { part: &mut part, rows: 0..rows };
            let mut out = Paired { first, n, second: Strided { data: tile, stride: rows, rows } };
            kernels.mul_rows(w, chunk.clone(), acts, &mut out);
            if n_inputs > n {
                for c in 0..n {
                    kernels.add(out.first.column(c), out.second.column(c));
                }
            }
            let first = chunk.start;
            add_bias(bias, chunk, n, &mut out.first);
            for c in 0..n {
                let logits = out.first.column(c);
                if scale != 1.0 {
                    kernels.scale(logits, scale);
                }
                if let Some(cap) = soft_cap {
                    kernels.soft_cap(logits, cap);
                }
                suppress(suppressed, first, logits);
                // While the logits are in this core's cache.
                for (peak, stretch) in peaks.column(c).iter_mut().zip(logits.chunks(grain)) {
                    *peak = greatest(stretch);
                }
            }
        });
    }

    /// Puts behind the `n` quantised columns `n` more, of what quantising them lost; returns their
    /// number.
    ///
    /// Logits are what a token is chosen by, and the error of the head's input goes straight into
    /// them: measured on SmolLM2 it is a quarter of the variance that 8-bit activations cause in
    /// all the model. The second column costs arithmetic only, which the head, read once a token,
    /// has to spare.
    fn add_residuals(&mut self, input: Input, layout: ActLayout) -> usize {
        let (n, k, kernels) = (self.n, layout.k(), self.model.kernels());
        let Scratch { inputs, registers, .. } = &mut *self.s;
        let (q8, f32) = inputs[input as usize].both_mut();
        let (columns, residuals) = q8.split_at_mut(n * layout.col_bytes());
        let x = &mut registers[Register::Delta as usize][..k]; // has been joined
        let exact = f32.chunks_exact(ActLayout::new(ActKind::F32, k).col_bytes());
        let columns = columns.chunks_exact(layout.col_bytes()).zip(residuals.chunks_exact_mut(layout.col_bytes()));
        for (exact, (column, residual)) in exact.zip(columns) {
            for (x, bytes) in x.iter_mut().zip(exact.as_chunks().0) {
                *x = f32::from_ne_bytes(*bytes);
            }
            layout.subtract(column, x);
            kernels.quantize(layout, x, residual);
        }
        2 * n
    }
}

/// Takes tokens that must not be produced out of the logits of tokens from `first` on.
fn suppress(tokens: &[TokenId], first: usize, logits: &mut [f32]) {
    let begin = tokens.partition_point(|id| id.index() < first);
    for id in &tokens[begin..] {
        match logits.get_mut(id.index() - first) {
            Some(logit) => *logit = f32::NEG_INFINITY,
            None => break,
        }
    }
}

/// The first `n` columns, then as many others.
struct Paired<A, B> {
    first: A,
    n: usize,
    second: B,
}

impl<A: Output, B: Output> Output for Paired<A, B> {
    fn column(&mut self, c: usize) -> &mut [f32] {
        if c < self.n { self.first.column(c) } else { self.second.column(c - self.n) }
    }
}

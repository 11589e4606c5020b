//! From tokens to the residual stream, and the angles of their positions.

use modelembed_pool::Blocks;
use modelembed_spec::Step;
use modelembed_text::TokenId;

use super::norm::BoundNorm;
use super::scratch::Scratch;
use super::{GRAIN_COLS, Pass};

impl Pass<'_> {
    /// A register = norm(scale * row of each token + what is learned of its position).
    pub(super) fn embed(&mut self, step: &Step, tokens: &[TokenId]) {
        let Step::Embed { table, scale, to, positions, norm } = step else { unreachable!("the only step of its kind") };
        let (model, n) = (self.model, self.n);
        let (table, kernels) = (model.table(*table), model.kernels());
        let n_embd = table.k();
        let (positions, norm) = (positions.map(|id| model.matrix(id)), norm.as_ref().map(|n| BoundNorm::new(model, n)));
        let Scratch { registers, workers, .. } = &mut *self.s;
        let (workers, runs) = (&*workers, &self.active.runs);
        let position = |col: usize| runs.iter().find(|run| run.cols.contains(&col)).map_or(0, |run| run.position(col));
        let out = Blocks { data: &mut registers[*to as usize][..n * n_embd], block: n_embd };
        model.pool().run(n, GRAIN_COLS, out, |cols, x, worker| {
            for (col, column) in cols.zip(x.chunks_exact_mut(n_embd)) {
                kernels.dequantize_row(table, tokens[col].0 as usize, column);
                if *scale != 1.0 {
                    kernels.scale(column, *scale);
                }
                if positions.is_none() && norm.is_none() {
                    continue;
                }
                let vector = &mut workers.get(worker).vector[..n_embd];
                if let Some(positions) = positions {
                    kernels.dequantize_row(positions, position(col), vector);
                    kernels.add(column, vector);
                }
                if let Some(norm) = &norm {
                    norm.apply(kernels, column, vector);
                    column.copy_from_slice(vector);
                }
            }
        });
    }

    /// Cosines and sines of every position of the chunk, of each rotary embedding.
    pub(super) fn angles(&mut self) {
        for (rope, angles) in self.model.ropes().iter().zip(&mut self.s.angles) {
            let table = rope.table(self.ctx_tokens);
            let pairs = table.n_pairs();
            let positions = self.active.runs.iter().flat_map(|run| run.cols.clone().map(|col| run.position(col)));
            for (position, column) in positions.zip(angles.chunks_exact_mut(2 * pairs)) {
                let (cos, sin) = column.split_at_mut(pairs);
                table.fill(position, cos, sin);
            }
        }
    }
}

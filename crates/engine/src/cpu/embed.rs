//! From tokens to the residual stream, and the angles of their positions.

use modelembed_pool::Blocks;
use modelembed_spec::Step;
use modelembed_text::TokenId;

use super::{GRAIN_COLS, Pass};

impl Pass<'_> {
    /// A register = scale * row of each token.
    pub(super) fn embed(&mut self, step: &Step, tokens: &[TokenId]) {
        let Step::Embed { table, scale, to } = *step else { unreachable!("the only step of its kind") };
        let (model, n) = (self.model, self.n);
        let (table, kernels) = (model.table(table), model.kernels());
        let n_embd = table.k();
        let out = Blocks { data: &mut self.s.register(to)[..n * n_embd], block: n_embd };
        model.pool().run(n, GRAIN_COLS, out, |cols, x, _| {
            for (&id, column) in tokens[cols].iter().zip(x.chunks_exact_mut(n_embd)) {
                kernels.dequantize_row(table, id.0 as usize, column);
                if scale != 1.0 {
                    kernels.scale(column, scale);
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

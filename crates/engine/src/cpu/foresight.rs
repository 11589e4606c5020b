//! Guessing which experts the next layer will choose: its router is asked with the residual stream
//! of today, to which some of this layer's experts have not added yet, nor the next layer's
//! attention.

use std::ops::Range;

use modelembed_kernels::{ActLayout, Acts, Kernels, Strided};
use modelembed_spec::Register;

use super::Pass;
use super::experts::{Chosen, choose, score};
use super::norm::BoundNorm;
use super::project::add_bias;
use super::scratch::Scratch;
use crate::residency::experts::{ExpertSlots, Foresight};

/// Columns for which guesses are made: of more, most experts are used anyway.
pub(super) const MOST_COLS: usize = 4;

impl Pass<'_> {
    /// Has the experts of the next layer read that its router is surest of today. `given` are the
    /// pairs of this layer whose experts were computed already; with `adds` something else is to be
    /// added, too.
    pub(super) fn foresee(
        &mut self,
        slots: &ExpertSlots,
        (foresight, n_guesses): (&Foresight, usize),
        given: &[Range<usize>],
        adds: bool,
    ) {
        let (model, kernels, n_embd) = (self.model, self.model.kernels(), self.model.spec().n_embd);
        let Foresight { norm, router, route, joins_plainly, .. } = foresight;
        let norm = BoundNorm::new(model, norm);
        let w = model.matrix(router.w);
        let layout = ActLayout::new(Kernels::act_kind(w.ty(), model.is_exact()), w.k());
        let Scratch { registers, routes, given: outputs, .. } = &mut *self.s;
        let residual = &registers[Register::Residual as usize][..self.n * n_embd];
        let delta = &registers[Register::Delta as usize][..self.n * n_embd];
        let mut sum = vec![0.0; n_embd];
        let mut normed = vec![0.0; n_embd];
        let mut input = vec![0; layout.col_bytes()];
        let [router_bias, choice_bias] = [router.bias, route.choice_bias].map(|id| id.map(|id| model.tensor_bytes(id)));
        let (mut numbers, mut scores) = (vec![0.0; route.n_experts], vec![0.0; route.n_experts]);
        let mut surest = vec![Chosen::default(); n_guesses];
        let mut wanted: Vec<u32> = Vec::new();
        for (col, residual) in residual.chunks_exact(n_embd).enumerate() {
            sum.copy_from_slice(residual);
            if *joins_plainly {
                if adds {
                    kernels.add(&mut sum, &delta[col * n_embd..][..n_embd]);
                }
                for pair in given.iter().flat_map(|of| of.clone()).filter(|pair| routes.col(*pair) == col) {
                    kernels.add_rows(&mut sum, &[routes.weight(pair)], &outputs[pair * n_embd..][..n_embd], n_embd);
                }
            }
            norm.apply(kernels, &sum, &mut normed);
            kernels.quantize(layout, &normed, &mut input);
            let mut out = Strided { data: &mut numbers, stride: route.n_experts, rows: route.n_experts };
            kernels.mul_rows(w, router.rows.clone(), Acts::new(layout, &input, 1), &mut out);
            add_bias(router_bias, 0..route.n_experts, 1, &mut out);
            score(kernels, route, choice_bias, &mut numbers, &mut scores);
            choose(&scores, &mut surest);
            for expert in surest.iter().map(Chosen::expert) {
                if !wanted.contains(&expert) && !slots.has(foresight, expert) {
                    wanted.push(expert);
                }
            }
        }
        slots.expect(foresight, wanted.into_iter());
    }
}

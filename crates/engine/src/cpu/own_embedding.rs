//! Embeddings that each layer has of its own, and halves of a feed-forward network that are normed
//! apart.

use std::f32::consts::FRAC_1_SQRT_2;
use std::ops::Range;

use modelembed_pool::Blocks;
use modelembed_spec::{MixOwn, Norm, Register};

use super::norm::BoundNorm;
use super::scratch::Scratch;
use super::{GRAIN_COLS, Pass};

impl Pass<'_> {
    /// own = (own + norm(scale * hidden)) / sqrt(2), slice by slice.
    pub(super) fn mix_own(&mut self, step: &MixOwn) {
        let (model, n, kernels, width) = (self.model, self.n, self.model.kernels(), step.width);
        let (norm, len) = (BoundNorm::new(model, &step.norm), width * step.n_layer);
        let Scratch { registers, workers, .. } = &mut *self.s;
        let [own, projected] = two(registers, Register::Own, Register::Hidden);
        let workers = &*workers;
        let out =
            (Blocks { data: &mut own[..n * len], block: len }, Blocks { data: &mut projected[..n * len], block: len });
        model.pool().run(n, GRAIN_COLS, out, |_, (own, projected), worker| {
            let normed = &mut workers.get(worker).vector[..width];
            kernels.scale(projected, step.scale);
            for (own, projected) in own.chunks_exact_mut(width).zip(projected.chunks_exact(width)) {
                norm.apply(kernels, projected, normed);
                kernels.add(own, normed);
            }
            kernels.scale(own, FRAC_1_SQRT_2);
        });
    }

    /// A register is multiplied by a layer's own embedding.
    pub(super) fn times_own(&mut self, of: Register, slice: &Range<usize>, stride: usize) {
        let (model, n, len) = (self.model, self.n, slice.len());
        let [of, own] = two(&mut self.s.registers, of, Register::Own);
        let own = &own[..n * stride];
        model.pool().run(n, GRAIN_COLS, Blocks { data: &mut of[..n * len], block: len }, |cols, of, _| {
            for (x, own) in of.chunks_exact_mut(len).zip(own.chunks_exact(stride).skip(cols.start)) {
                x.iter_mut().zip(&own[slice.clone()]).for_each(|(x, y)| *x *= y);
            }
        });
    }

    /// aside = norm(delta).
    pub(super) fn set_aside(&mut self, norm: &Norm, len: usize) {
        let (model, n, kernels) = (self.model, self.n, self.model.kernels());
        let norm = BoundNorm::new(model, norm);
        let [aside, delta] = two(&mut self.s.registers, Register::Aside, Register::Delta);
        let delta = &delta[..n * len];
        model.pool().run(n, GRAIN_COLS, Blocks { data: &mut aside[..n * len], block: len }, |cols, aside, _| {
            for (aside, delta) in aside.chunks_exact_mut(len).zip(delta.chunks_exact(len).skip(cols.start)) {
                norm.apply(kernels, delta, aside);
            }
        });
    }

    /// delta = norm(delta) + aside.
    pub(super) fn add_aside(&mut self, norm: &Norm, len: usize) {
        let (model, n, kernels) = (self.model, self.n, self.model.kernels());
        let norm = BoundNorm::new(model, norm);
        let Scratch { registers, workers, .. } = &mut *self.s;
        let [delta, aside] = two(registers, Register::Delta, Register::Aside);
        let (aside, workers) = (&aside[..n * len], &*workers);
        let out = Blocks { data: &mut delta[..n * len], block: len };
        model.pool().run(n, GRAIN_COLS, out, |cols, delta, worker| {
            let normed = &mut workers.get(worker).vector[..len];
            for (delta, aside) in delta.chunks_exact_mut(len).zip(aside.chunks_exact(len).skip(cols.start)) {
                norm.apply(kernels, delta, normed);
                kernels.add(normed, aside);
                delta.copy_from_slice(normed);
            }
        });
    }
}

/// Two registers.
fn two<T>(registers: &mut [T], a: Register, b: Register) -> [&mut T; 2] {
    registers.get_disjoint_mut([a as usize, b as usize]).unwrap_or_else(|_| unreachable!("two registers"))
}

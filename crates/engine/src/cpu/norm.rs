//! Joining the residual stream, norms, and turning columns into the inputs of projections.

use modelembed_kernels::{ActKind, ActLayout, Kernels};
use modelembed_pool::Blocks;
use modelembed_spec::{Input, Norm, Pending, Register, TensorId};
use modelembed_terms::NormKind;

use super::numbers::number;
use super::scratch::Scratch;
use super::{GRAIN_COLS, Pass};
use crate::load::model::Model;

/// Kinds of activations that some weights want.
#[derive(Clone, Copy, Default)]
pub(super) struct Kinds {
    pub(super) q8: bool,
    pub(super) f32: bool,
}

/// A norm and the bytes of its tensors.
#[derive(Clone)]
pub(super) struct BoundNorm<'a> {
    kind: NormKind,
    eps: f32,
    weight: Option<&'a [u8]>,
    bias: Option<&'a [u8]>,
}

impl<'a> BoundNorm<'a> {
    pub(super) fn new(model: &'a Model, norm: &Norm) -> BoundNorm<'a> {
        let bytes = |id: TensorId| model.tensor_bytes(id);
        BoundNorm { kind: norm.kind, eps: norm.eps, weight: norm.weight.map(bytes), bias: norm.bias.map(bytes) }
    }

    /// An RMS norm that adds `eps` to the mean square and nothing else.
    pub(super) fn without_weights(eps: f32) -> BoundNorm<'a> {
        BoundNorm { kind: NormKind::Rms, eps, weight: None, bias: None }
    }

    /// The one with row `row` of the weights, of `len` elements each.
    pub(super) fn row(&self, row: usize, len: usize) -> BoundNorm<'a> {
        BoundNorm { weight: self.weight.map(|bytes| &bytes[4 * row * len..][..4 * len]), ..self.clone() }
    }

    pub(super) fn apply(&self, kernels: &Kernels, x: &[f32], out: &mut [f32]) {
        match self.kind {
            NormKind::Rms => {
                kernels.rms_norm(x, self.weight, self.eps, out);
                let bias = self.bias.unwrap_or_default().as_chunks().0;
                out.iter_mut().zip(bias).for_each(|(y, b)| *y += f32::from_le_bytes(*b));
            }
            NormKind::Layer => kernels.layer_norm(x, self.weight, self.bias, self.eps, out),
        }
    }
}

impl Pass<'_> {
    /// The kinds of activations that some matrices want.
    pub(super) fn kinds(&self, readers: &[TensorId]) -> Kinds {
        let mut kinds = Kinds::default();
        for id in readers {
            match Kernels::act_kind(self.model.tensor(*id).ty, self.model.is_exact()) {
                ActKind::Q8 => kinds.q8 = true,
                ActKind::F32 => kinds.f32 = true,
            }
        }
        kinds
    }

    /// x += what is pending (normalised where the architecture does); then the norm of x becomes an
    /// input of these kinds.
    pub(super) fn join_norm(&mut self, join: Option<&Pending>, norm: Option<&Norm>, to: Input, kinds: Kinds) {
        let (model, n, kernels) = (self.model, self.n, self.model.kernels());
        let n_embd = model.spec().n_embd;
        let norm = norm.map(|norm| BoundNorm::new(model, norm));
        let join_norm = join.and_then(|join| join.norm.as_ref()).map(|norm| BoundNorm::new(model, norm));
        let (from, scale) = join.map_or((Register::Delta, 1.0), |join| (join.from, join.scale));
        let output_scale = join.and_then(|join| join.output_scale).map(|id| number(model.tensor_bytes(id), 0));
        let targets = Targets::new(kinds, n_embd, n);
        let Scratch { registers, inputs, workers, .. } = &mut *self.s;
        let (q8, f32) = targets.split(inputs[to as usize].both_mut());
        let [x, pending] = registers
            .get_disjoint_mut([Register::Residual as usize, from as usize])
            .unwrap_or_else(|_| unreachable!("a half of a layer writes to no residual stream"));
        let (pending, workers) = (&pending[..], &*workers);
        let out = (Blocks { data: &mut x[..n * n_embd], block: n_embd }, q8, f32);
        model.pool().run(n, GRAIN_COLS, out, |cols, (x, q8, f32), worker| {
            let vector = &mut workers.get(worker).vector[..n_embd];
            for (i, (c, x)) in cols.zip(x.chunks_exact_mut(n_embd)).enumerate() {
                if join.is_some() {
                    let pending = &pending[c * n_embd..][..n_embd];
                    match &join_norm {
                        Some(norm) => norm.apply(kernels, pending, vector),
                        None if scale != 1.0 => vector.copy_from_slice(pending),
                        None => {}
                    }
                    if scale != 1.0 {
                        kernels.scale(vector, scale);
                    }
                    kernels.add(x, if join_norm.is_some() || scale != 1.0 { vector } else { pending });
                    if let Some(by) = output_scale {
                        kernels.scale(x, by);
                    }
                }
                match &norm {
                    Some(norm) => {
                        norm.apply(kernels, x, vector);
                        targets.write(kernels, vector, i, q8, f32);
                    }
                    None => targets.write(kernels, x, i, q8, f32),
                }
            }
        });
    }

    /// Columns of a register become an input of these kinds.
    pub(super) fn quantize(&mut self, from: Register, len: usize, to: Input, kinds: Kinds) {
        self.quantize_part(from, (0, len, len), to, kinds);
    }

    /// The same of `len` elements of each column from element `at` on, in columns of `stride`.
    pub(super) fn quantize_part(
        &mut self,
        from: Register,
        (at, len, stride): (usize, usize, usize),
        to: Input,
        kinds: Kinds,
    ) {
        let (model, n) = (self.model, self.n);
        let targets = Targets::new(kinds, len, n);
        let Scratch { registers, inputs, .. } = &mut *self.s;
        let columns = &registers[from as usize][..n * stride];
        let out = targets.split(inputs[to as usize].both_mut());
        model.pool().run(n, GRAIN_COLS, out, |cols, (q8, f32), _| {
            for (i, column) in columns.chunks_exact(stride).skip(cols.start).take(cols.len()).enumerate() {
                targets.write(model.kernels(), &column[at..at + len], i, q8, f32);
            }
        });
    }
}

/// Which kinds of activations are to be written, and their layouts. A kind that nobody wants has no
/// bytes.
struct Targets {
    q8: Option<ActLayout>,
    f32: Option<ActLayout>,
    n: usize,
}

impl Targets {
    fn new(kinds: Kinds, k: usize, n: usize) -> Targets {
        Targets {
            q8: kinds.q8.then(|| ActLayout::new(ActKind::Q8, k)),
            f32: kinds.f32.then(|| ActLayout::new(ActKind::F32, k)),
            n,
        }
    }

    fn split<'a>(&self, (q8, f32): (&'a mut [u8], &'a mut [u8])) -> (Blocks<'a, u8>, Blocks<'a, u8>) {
        let blocks = |data: &'a mut [u8], layout: Option<ActLayout>| {
            let block = layout.map_or(0, |l| l.col_bytes());
            Blocks { data: &mut data[..self.n * block], block }
        };
        (blocks(q8, self.q8), blocks(f32, self.f32))
    }

    /// Writes `x` as the `i`-th column of a chunk's bytes.
    fn write(&self, kernels: &Kernels, x: &[f32], i: usize, q8: &mut [u8], f32: &mut [u8]) {
        for (layout, out) in [(self.q8, q8), (self.f32, f32)] {
            if let Some(layout) = layout {
                let bytes = layout.col_bytes();
                kernels.quantize(layout, x, &mut out[i * bytes..][..bytes]);
            }
        }
    }
}

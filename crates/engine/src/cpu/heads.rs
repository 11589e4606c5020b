//! Queries, keys and values between their projection and attention.

use modelembed_kernels::Kernels;
use modelembed_pool::{Blocks, Pool, Rows, Runs};
use modelembed_spec::{HeadNormSpan, HeadRope, HeadShape, Register};

use super::norm::BoundNorm;
use super::scratch::Scratch;
use super::{GRAIN_COLS, Pass};
use crate::state::kv::{HeadRows, NewRows};

/// Columns whose keys and values a worker stores at a time.
const STORE_COLS: usize = 64;

impl Pass<'_> {
    /// Norms queries and keys where the architecture does, and turns them by their positions.
    pub(super) fn head_rope(&mut self, step: &HeadRope) {
        let (model, n, kernels, heads) = (self.model, self.n, self.model.kernels(), &step.heads);
        let q_norm = step.q_norm.as_ref().map(|norm| BoundNorm::new(model, norm));
        let k_norm = step.k_norm.as_ref().map(|norm| BoundNorm::new(model, norm));
        let rope = step.rope.map(|id| (&model.spec().ropes[usize::from(id.0)], id));
        let (stride, key_dim, q_len) = (heads.qkv_len(), heads.key_dim, heads.q_len());
        let qk_len = q_len + heads.k_len();
        let Scratch { registers, angles, workers, .. } = &mut *self.s;
        let rope = rope.map(|(spec, id)| (spec.style, spec.n_rot, &*angles[usize::from(id.0)]));
        let workers = &*workers;
        let out = Blocks { data: &mut registers[Register::Qkv as usize][..n * stride], block: stride };
        model.pool().run(n, GRAIN_COLS, out, |cols, qkv, worker| {
            let normed = &mut workers.get(worker).vector[..];
            let mut norm = |norm: &BoundNorm<'_>, x: &mut [f32]| {
                let normed = &mut normed[..x.len()];
                norm.apply(kernels, x, normed);
                x.copy_from_slice(normed);
            };
            for (col, column) in cols.zip(qkv.chunks_exact_mut(stride)) {
                if step.span == HeadNormSpan::Row {
                    let (q, k) = column[..qk_len].split_at_mut(q_len);
                    q_norm.iter().for_each(|n| norm(n, q));
                    k_norm.iter().for_each(|n| norm(n, k));
                }
                let angles = rope.map(|(style, n_rot, angles)| {
                    let (cos, sin) = angles[col * n_rot..][..n_rot].split_at(n_rot / 2);
                    (style, cos, sin)
                });
                for (h, head) in column[..qk_len].chunks_exact_mut(key_dim).enumerate() {
                    if step.span == HeadNormSpan::Head
                        && let Some(n) = if h < heads.heads { &q_norm } else { &k_norm }
                    {
                        norm(n, head);
                    }
                    if let Some((style, cos, sin)) = angles {
                        kernels.rope(head, cos, sin, style);
                    }
                }
            }
        });
    }

    /// Puts the chunk's keys and values into the cache.
    pub(super) fn store_kv(&mut self, heads: &HeadShape, cache: usize) {
        let (pool, n, kernels) = (self.model.pool(), self.n, self.model.kernels());
        let stride = heads.qkv_len();
        let source = Source { qkv: &self.s.registers[Register::Qkv as usize][..n * stride], heads, n };
        match self.kv.new_rows(cache, self.pos) {
            NewRows::I16(rows, scales) => store_integers(kernels, pool, &source, rows, scales),
            NewRows::F16(rows) => store(pool, &source, rows, |x, row| kernels.to_f16(x, row)),
            NewRows::Q8(rows) => store(pool, &source, rows, |x, row| kernels.to_q8_0(x, row)),
            NewRows::F32(rows) => store(pool, &source, rows, |x, row| row.copy_from_slice(x)),
        }
    }
}

/// Where a chunk's keys and values are.
struct Source<'a> {
    /// (n, elements of a column).
    qkv: &'a [f32],
    heads: &'a HeadShape,
    n: usize,
}

impl Source<'_> {
    /// Key and value of one head in a column.
    fn key_value(&self, col: usize, head: usize) -> (&[f32], &[f32]) {
        let HeadShape { key_dim, value_dim, .. } = *self.heads;
        let column = &self.qkv[col * self.heads.qkv_len()..][..self.heads.qkv_len()];
        let (k, v) = column[self.heads.q_len()..].split_at(self.heads.k_len());
        (&k[head * key_dim..][..key_dim], &v[head * value_dim..][..value_dim])
    }
}

/// Writes keys and values as `write` says.
fn store<T: Send + 'static>(
    pool: &Pool,
    source: &Source<'_>,
    [k, v]: [HeadRows<'_, T>; 2],
    write: impl Fn(&[f32], &mut [T]) + Sync,
) {
    let (k_len, v_len) = (k.len, v.len);
    pool.run(source.n, STORE_COLS, (k.by_position(), v.by_position()), |cols, (mut k, mut v), _| {
        for head in 0..source.heads.kv_heads {
            let rows = k.column(head).chunks_exact_mut(k_len).zip(v.column(head).chunks_exact_mut(v_len));
            for (col, (k, v)) in cols.clone().zip(rows) {
                let (key, value) = source.key_value(col, head);
                write(key, k);
                write(value, v);
            }
        }
    });
}

/// Writes keys and values as integers with a scale a row.
fn store_integers(
    kernels: &Kernels,
    pool: &Pool,
    source: &Source<'_>,
    [k, v]: [HeadRows<'_, i16>; 2],
    [k_scales, v_scales]: [HeadRows<'_, f32>; 2],
) {
    let (k_len, v_len) = (k.len, v.len);
    let scales: (Runs<Rows<'_>>, Runs<Rows<'_>>) = (k_scales.by_position(), v_scales.by_position());
    let out = ((k.by_position(), v.by_position()), scales);
    pool.run(source.n, STORE_COLS, out, |cols, ((mut k, mut v), (mut k_scales, mut v_scales)), _| {
        for head in 0..source.heads.kv_heads {
            let rows = k.column(head).chunks_exact_mut(k_len).zip(v.column(head).chunks_exact_mut(v_len));
            let scales = k_scales.column(head).iter_mut().zip(v_scales.column(head));
            for (col, ((k, v), (k_scale, v_scale))) in cols.clone().zip(rows.zip(scales)) {
                let (key, value) = source.key_value(col, head);
                *k_scale = kernels.to_i16(key, k);
                *v_scale = kernels.to_i16(value, v);
            }
        }
    });
}

//! Queries, keys and values between their projection and attention.

use modelembed_pool::Blocks;
use modelembed_spec::{GateActivation, HeadNormSpan, HeadRope, HeadShape, JoinHeads, Register};

use super::norm::BoundNorm;
use super::numbers::softplus;
use super::scratch::Scratch;
use super::{GRAIN_COLS, Pass};

impl Pass<'_> {
    /// Keeps queries, keys and values within +- a limit.
    pub(super) fn limit_heads(&mut self, heads: &HeadShape, limit: f32) {
        let (n, stride) = (self.n, heads.qkv_len());
        let qkv = &mut self.s.registers[Register::Qkv as usize][..n * stride];
        self.model.pool().run(n, GRAIN_COLS, Blocks { data: qkv, block: stride }, |_, qkv, _| {
            qkv.iter_mut().for_each(|x| *x = x.clamp(-limit, limit));
        });
    }

    /// Norms queries and keys where the architecture does, and turns them by their positions.
    pub(super) fn head_rope(&mut self, step: &HeadRope) {
        let (model, n, kernels, heads) = (self.model, self.n, self.model.kernels(), &step.heads);
        let q_norm = step.q_norm.as_ref().map(|norm| BoundNorm::new(model, norm));
        let k_norm = step.k_norm.as_ref().map(|norm| BoundNorm::new(model, norm));
        let rope = step.rope.map(|id| (&model.spec().ropes[usize::from(id.0)], id));
        let (stride, key_dim, q_len) = (heads.qkv_len(), heads.key_dim, heads.q_len());
        let qk_len = q_len + heads.k_len();
        let v_norm = step.value_eps.map(BoundNorm::without_weights);
        let Scratch { registers, angles, workers, .. } = &mut *self.s;
        let rope = rope.map(|(spec, id)| (spec, &*angles[usize::from(id.0)]));
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
                let angles = rope.map(|(spec, angles)| {
                    let (cos, sin) = angles[col * spec.n_rot..][..spec.n_rot].split_at(spec.n_rot / 2);
                    (spec, cos, sin)
                });
                for (h, head) in column[..qk_len].chunks_exact_mut(key_dim).enumerate() {
                    let (of_kind, h) = if h < heads.heads { (&q_norm, h) } else { (&k_norm, h - heads.heads) };
                    let of_head = match step.span {
                        HeadNormSpan::Head | HeadNormSpan::Plain => of_kind.clone(),
                        HeadNormSpan::OwnHead => of_kind.as_ref().map(|norm| norm.row(h, key_dim)),
                        HeadNormSpan::Row => None,
                    };
                    if let (Some(n), false) = (&of_head, step.norm_is_last) {
                        norm(n, head);
                    }
                    if let Some((spec, cos, sin)) = angles {
                        kernels.rope(&mut head[spec.first..], cos, sin, spec.style);
                    }
                    if let (Some(n), true) = (&of_head, step.norm_is_last) {
                        norm(n, head);
                    }
                }
                if let Some(n) = &v_norm {
                    column[qk_len..].chunks_exact_mut(heads.value_dim).for_each(|value| norm(n, value));
                }
            }
        });
    }

    /// Puts queries, and the parts of keys and values, where attention looks for them.
    pub(super) fn join_heads(&mut self, step: &JoinHeads) {
        let (model, n, JoinHeads { heads, shared }) = (self.model, self.n, *step);
        let wanted = [Register::Heads, Register::Scan, Register::Gates, Register::Qkv];
        let [queries, parts, ends, qkv] = self
            .s
            .registers
            .get_disjoint_mut(wanted.map(|register| register as usize))
            .unwrap_or_else(|_| unreachable!("four registers"));
        let (dim, value_dim, len) = (heads.key_dim, heads.value_dim, heads.qkv_len());
        let own = dim - shared;
        let n_parts = heads.heads * (own + value_dim);
        let (queries, parts, ends) = (&queries[..n * heads.q_len()], &parts[..n * n_parts], &ends[..n * shared]);
        model.pool().run(n, GRAIN_COLS, Blocks { data: &mut qkv[..n * len], block: len }, |cols, qkv, _| {
            for (col, column) in cols.zip(qkv.chunks_exact_mut(len)) {
                let (q, rest) = column.split_at_mut(heads.q_len());
                let (k, v) = rest.split_at_mut(heads.k_len());
                q.copy_from_slice(&queries[col * heads.q_len()..][..heads.q_len()]);
                let parts = parts[col * n_parts..][..n_parts].chunks_exact(own + value_dim);
                let of_heads = k.chunks_exact_mut(dim).zip(v.chunks_exact_mut(value_dim));
                for (part, (key, value)) in parts.zip(of_heads) {
                    key[..own].copy_from_slice(&part[..own]);
                    key[own..].copy_from_slice(&ends[col * shared..][..shared]);
                    value.copy_from_slice(&part[own..]);
                }
            }
        });
    }

    /// Parts each query of the scan register from the gate behind it.
    pub(super) fn split_gates(&mut self, heads: &HeadShape) {
        let (model, n, dim) = (self.model, self.n, heads.key_dim);
        let (len, stride) = (heads.qkv_len(), heads.qkv_len() + heads.q_len());
        let wanted = [Register::Scan, Register::Qkv, Register::Gates].map(|register| register as usize);
        let [scan, qkv, gates] =
            self.s.registers.get_disjoint_mut(wanted).unwrap_or_else(|_| unreachable!("three registers"));
        let (scan, block) = (&scan[..n * stride], heads.out_len());
        let out = (Blocks { data: &mut qkv[..n * len], block: len }, Blocks { data: &mut gates[..n * block], block });
        model.pool().run(n, GRAIN_COLS, out, |cols, (qkv, gates), _| {
            let columns = qkv.chunks_exact_mut(len).zip(gates.chunks_exact_mut(block));
            for (from, (qkv, gates)) in scan.chunks_exact(stride).skip(cols.start).zip(columns) {
                let (queries, rest) = from.split_at(2 * heads.q_len());
                let to = qkv.chunks_exact_mut(dim).zip(gates.chunks_exact_mut(dim));
                for (from, (query, gate)) in queries.chunks_exact(2 * dim).zip(to) {
                    query.copy_from_slice(&from[..dim]);
                    gate.copy_from_slice(&from[dim..]);
                }
                qkv[heads.q_len()..].copy_from_slice(rest);
            }
        });
    }

    /// heads = act(gates) * heads, of which `per_gate` that follow each other share a gate.
    pub(super) fn gate_heads(&mut self, len: usize, per_gate: usize, activation: GateActivation) {
        let (model, n, kernels) = (self.model, self.n, self.model.kernels());
        let n_gates = len / per_gate;
        let [heads, gates] = self
            .s
            .registers
            .get_disjoint_mut([Register::Heads as usize, Register::Gates as usize])
            .unwrap_or_else(|_| unreachable!("two registers"));
        let gates = Blocks { data: &mut gates[..n * n_gates], block: n_gates };
        let out = (Blocks { data: &mut heads[..n * len], block: len }, gates);
        model.pool().run(n, GRAIN_COLS, out, |_, (heads, gates), _| match activation {
            GateActivation::Sigmoid => {
                gates.iter_mut().for_each(|gate| *gate = -*gate);
                kernels.exp(gates);
                for (heads, e) in heads.chunks_exact_mut(per_gate).zip(gates) {
                    heads.iter_mut().for_each(|x| *x /= 1.0 + *e);
                }
            }
            GateActivation::Softplus => {
                for (heads, gate) in heads.chunks_exact_mut(per_gate).zip(gates) {
                    kernels.scale(heads, softplus(*gate));
                }
            }
        });
    }

    /// Puts the chunk's keys and values into their pages.
    pub(super) fn store_kv(&mut self, heads: &HeadShape, cache: usize) {
        let (pool, n, kernels, layout) = (self.model.pool(), self.n, self.model.kernels(), self.store.layout());
        let source = Source { qkv: &self.s.registers[Register::Qkv as usize][..n * heads.qkv_len()], heads };
        let writes = self.active.writes_mut(layout.group_of(cache));
        pool.run(writes.len(), 1, writes, |_, writes, _| {
            for write in writes {
                let (cols, first_row) = (write.cols.clone(), write.row);
                let page = write.bytes_mut();
                for head in 0..heads.kv_heads {
                    for (i, col) in cols.clone().enumerate() {
                        let (key, value) = source.key_value(col, head);
                        layout.store(kernels, page, (cache, head, first_row + i), key, value);
                    }
                }
            }
        });
    }
}

/// Where a chunk's keys and values come from.
struct Source<'a> {
    /// (n, elements of a column).
    qkv: &'a [f32],
    heads: &'a HeadShape,
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

//! Attention over keys and values that are made of one compressed row a position (MLA: DeepSeek-V2 2024,
//! arXiv 2405.04434), which are stored as they are.

use crate::error::Result;
use crate::model::{HeadNormSpan, LatentExpansion, LatentSpec, Need, NormSpec, Position};
use crate::program::{
    Attend, Builder, CacheShape, HeadRope, HeadShape, Input, JoinHeads, Linear, Norm, Register, Step,
};
use crate::want::{Role, TensorId};

/// Attention with its tensors, not yet among the steps.
pub(super) struct Attention {
    /// To the compressed query, where there is one.
    compress: Option<(Linear, Norm)>,
    queries: Linear,
    /// To the compressed row, and the part of a key that all heads share.
    row: Linear,
    row_norm: Norm,
    /// From the row to the rest of the keys, and to values.
    expand: Linear,
    join: JoinHeads,
    head_rope: HeadRope,
    attend: Attend,
    output: Linear,
}

/// Asks for the tensors.
pub(super) fn prepare(b: &mut Builder<'_>, il: usize, spec: &LatentSpec) -> Result<Attention> {
    // Of deepseek2 only the first files have the matrices as one, and nothing has been compared with them.
    if spec.expansion == LatentExpansion::Split || !b.spec.arch.runs {
        return Err(b.not_run("latent attention"));
    }
    let Position::Rope(rope) = spec.position else { return Err(b.not_run("latent attention without a rotation")) };
    let (n_embd, n) = (b.spec.n_embd, spec.heads);
    let LatentSpec { kv_rank, nope_dim, rope_dim, value_dim, eps, .. } = *spec;
    let heads = HeadShape { heads: n, kv_heads: n, key_dim: nope_dim + rope_dim, value_dim, has_kv: true };
    let compress = match spec.query_rank {
        Some(rank) => {
            let linear = b.linear(il, "attn_q_a", (rank, n_embd), Role::Query, Need::Never)?;
            Some((linear, b.norm(&NormSpec::rms("attn_q_a_norm", eps), Some(il), rank)?))
        }
        None => None,
    };
    let (part, k) = spec.query_rank.map_or(("attn_q", n_embd), |rank| ("attn_q_b", rank));
    let queries = b.linear(il, part, (heads.q_len(), k), Role::Query, Need::Never)?;
    let row = b.linear(il, "attn_kv_a_mqa", (kv_rank + rope_dim, n_embd), Role::Key, Need::Never)?;
    let row_norm = b.norm(&NormSpec::rms("attn_kv_a_norm", eps), Some(il), kv_rank)?;
    let rows = n * (nope_dim + value_dim);
    let expand = b.linear(il, "attn_kv_b", (rows, kv_rank), Role::QueryKeyValue, Need::Never)?;
    let output = b.linear(il, "attn_output", (n_embd, heads.out_len()), Role::AttentionOutput, Need::Never)?;
    let visible = spec.visible;
    let cache =
        b.cache(CacheShape { layer: il, kv_heads: n, key_dim: heads.key_dim, value_dim, rope: Some(rope), visible });
    Ok(Attention {
        compress,
        queries,
        row,
        row_norm,
        expand,
        join: JoinHeads { heads, shared: rope_dim },
        head_rope: HeadRope {
            heads,
            q_norm: None,
            k_norm: None,
            span: HeadNormSpan::Head,
            rope: Some(rope),
            value_eps: None,
            norm_is_last: false,
        },
        attend: Attend {
            heads,
            cache,
            scale: spec.scale,
            temperature: spec.temperature,
            soft_cap: None,
            max_bias: None,
            visible,
            sinks: None,
        },
        output,
    })
}

impl Attention {
    /// The matrices that read the input.
    pub(super) fn readers(&self) -> Vec<TensorId> {
        vec![self.compress.as_ref().map_or(self.queries.w, |(linear, _)| linear.w), self.row.w]
    }

    /// Appends the steps behind the norm: delta = output * attention, or delta += that.
    pub(super) fn emit(self, b: &mut Builder<'_>, adds: bool) {
        let heads = self.attend.heads;
        let project = |from, part: Linear, to| Step::Project { from, parts: vec![part], to, adds: false };
        let quantize = |from, len, reader| Step::Quantize { from, len, to: Input::Inner, readers: vec![reader] };
        let norm = |of, len, norm| Step::NormParts { of, parts: vec![(len, norm)] };
        match self.compress {
            Some((compress, of_rank)) => {
                let rank = compress.n_rows();
                b.step(project(Input::Normed, compress, Register::Hidden));
                b.step(norm(Register::Hidden, rank, of_rank));
                b.step(quantize(Register::Hidden, rank, self.queries.w));
                b.step(project(Input::Inner, self.queries, Register::Heads));
            }
            None => b.step(project(Input::Normed, self.queries, Register::Heads)),
        }
        let (rank, all) = (self.expand.k, self.row.n_rows());
        b.step(project(Input::Normed, Builder::part_of(&self.row, 0..rank), Register::Hidden));
        b.step(project(Input::Normed, Builder::part_of(&self.row, rank..all), Register::Gates));
        b.step(norm(Register::Hidden, rank, self.row_norm));
        b.step(quantize(Register::Hidden, rank, self.expand.w));
        b.step(project(Input::Inner, self.expand, Register::Scan));
        b.step(Step::JoinHeads(self.join));
        b.step(Step::HeadRope(self.head_rope));
        b.step(Step::StoreKv { heads, cache: self.attend.cache });
        b.step(Step::Attend(self.attend));
        b.step(quantize(Register::Heads, heads.out_len(), self.output.w));
        b.step(Step::Project { from: Input::Inner, parts: vec![self.output], to: Register::Delta, adds });
    }
}

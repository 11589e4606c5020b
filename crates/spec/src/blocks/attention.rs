//! Softmax attention.

use crate::error::Result;
use crate::model::{
    AttentionSpec, GateActivation, HeadNorm, HeadNormSpan, KvSource, Need, OutputGate, Position, RopeSpec,
};
use crate::program::{Attend, Builder, CacheShape, HeadRope, HeadShape, Input, Linear, Norm, Register, Step};
use crate::want::{Role, TensorId};

/// Attention with its tensors, not yet among the steps.
pub(super) struct Attention {
    qkv: Vec<Linear>,
    /// Whether each query has a gate of the output behind it.
    has_gates: bool,
    /// A projection of such gates, and how many elements share one.
    gate: Option<(Linear, usize)>,
    gate_activation: GateActivation,
    sub_norm: Option<Norm>,
    limit: Option<f32>,
    head_rope: HeadRope,
    attend: Attend,
    output: Linear,
}

/// Asks for the tensors.
pub(super) fn prepare(b: &mut Builder<'_>, il: usize, spec: &AttentionSpec) -> Result<Attention> {
    let rope = match spec.position {
        Position::None => None,
        Position::Rope(rope) => {
            let RopeSpec { first, .. } = b.spec.ropes[usize::from(rope.0)];
            if first != 0 {
                return Err(b.not_run("a rotation of other elements than the first"));
            }
            Some(rope)
        }
        Position::Alibi { .. } => None,
        Position::RelativeBias { .. } => return Err(b.not_run("a learned bias for distances")),
    };
    let has_gates = spec.output_gate == OutputGate::OfQuery;
    if has_gates && spec.key_dim != spec.value_dim {
        return Err(b.not_run("gates of another length than values"));
    }
    let n_embd = b.spec.n_embd;
    let AttentionSpec { heads, kv_heads, key_dim, value_dim, .. } = *spec;
    let has_kv = !matches!(spec.kv, KvSource::Layer(_));
    if has_gates && !has_kv {
        return Err(b.not_run("gates of the output beside another layer's keys and values"));
    }
    let heads = HeadShape { heads, kv_heads, key_dim, value_dim, has_kv };
    let q_rows = if has_gates { 2 * heads.q_len() } else { heads.q_len() };
    let qkv = if !has_kv {
        // Files may hold these all the same.
        for part in ["attn_k.weight", "attn_v.weight", "attn_k_norm.weight"] {
            b.leave_unread(il, part);
        }
        vec![b.linear(il, "attn_q", (q_rows, n_embd), Role::Query, spec.qkv_bias)?]
    } else if spec.may_be_fused && !has_gates && b.has(&format!("blk.{il}.attn_qkv.weight")) {
        vec![b.linear(il, "attn_qkv", (heads.qkv_len(), n_embd), Role::QueryKeyValue, spec.qkv_bias)?]
    } else {
        let q = b.linear(il, "attn_q", (q_rows, n_embd), Role::Query, spec.qkv_bias)?;
        let k = b.linear(il, "attn_k", (heads.k_len(), n_embd), Role::Key, spec.qkv_bias)?;
        let v = if spec.kv == KvSource::OwnOrKeys && !b.has(&format!("blk.{il}.attn_v.weight")) {
            k.clone()
        } else {
            b.linear(il, "attn_v", (heads.v_len(), n_embd), Role::Value, spec.qkv_bias)?
        };
        vec![q, k, v]
    };
    let per_gate = match spec.output_gate {
        OutputGate::None | OutputGate::OfQuery => None,
        OutputGate::Elements => Some(1),
        OutputGate::Heads => Some(value_dim),
        OutputGate::HeadsOrElements => {
            let rows = b.rows_of(&format!("blk.{il}.attn_gate.weight"));
            Some(if rows == Some(heads.out_len()) { 1 } else { value_dim })
        }
    };
    let gate = per_gate.map(|per_gate| {
        let rows = heads.out_len() / per_gate;
        Ok((b.linear(il, "attn_gate", (rows, n_embd), Role::Query, Need::Never)?, per_gate))
    });
    let gate = gate.transpose()?;
    let norms = spec.head_norm.map(|norm| head_norms(b, il, &norm, &heads)).transpose()?.flatten();
    let output = b.linear(il, "attn_output", (n_embd, heads.out_len()), Role::AttentionOutput, spec.output_bias)?;
    let sub_norm = spec.sub_norm.map(|norm| b.norm(&norm, Some(il), heads.out_len())).transpose()?;
    let sinks = format!("blk.{il}.attn_sinks.weight");
    let sinks = b.needed(spec.sinks, &sinks, &[spec.heads as u64], Role::Bias, Some(il))?;
    let shape = CacheShape { layer: il, kv_heads, key_dim, value_dim, rope, visible: spec.visible };
    let cache = match spec.kv {
        KvSource::Own | KvSource::OwnOrKeys => b.cache(shape),
        KvSource::Layer(of) => match b.cache_of(of) {
            Some((cache, stored)) if stored == (CacheShape { layer: of, ..shape }) => cache,
            _ => return Err(b.not_run("attention over keys and values of another shape")),
        },
    };
    let max_bias = match spec.position {
        Position::Alibi { max_bias } => Some(max_bias),
        _ => None,
    };
    let (scale, soft_cap, visible) = (spec.scale, spec.soft_cap, spec.visible);
    Ok(Attention {
        qkv,
        has_gates,
        gate,
        gate_activation: spec.gate_activation,
        sub_norm,
        limit: spec.qkv_limit,
        head_rope: HeadRope {
            heads,
            q_norm: norms.map(|(q, _)| q),
            k_norm: norms.and_then(|(_, k)| k),
            span: spec.head_norm.map_or(HeadNormSpan::Head, |norm| norm.span),
            rope,
            value_eps: spec.value_norm_eps.filter(|_| has_kv),
            norm_is_last: spec.head_norm.is_some_and(|norm| norm.after_rope),
        },
        attend: Attend { heads, cache, scale, temperature: spec.temperature, soft_cap, max_bias, visible, sinks },
        output,
    })
}

/// Norms of queries, and of keys where there are any; `None` where the file has none and need not.
fn head_norms(
    b: &mut Builder<'_>,
    il: usize,
    norm: &HeadNorm,
    heads: &HeadShape,
) -> Result<Option<(Norm, Option<Norm>)>> {
    if norm.need == Need::Maybe && !b.has(&format!("blk.{il}.attn_q_norm.weight")) {
        return Ok(None);
    }
    let (dim, HeadShape { heads: n, kv_heads, .. }) = (heads.key_dim as u64, *heads);
    let [q_dims, k_dims] = match norm.span {
        HeadNormSpan::Head => [vec![dim], vec![dim]],
        HeadNormSpan::Row => [vec![heads.q_len() as u64], vec![heads.k_len() as u64]],
        HeadNormSpan::OwnHead => [vec![dim, n as u64], vec![dim, kv_heads as u64]],
        HeadNormSpan::Plain => {
            let norm = Norm { kind: norm.kind, eps: norm.eps, weight: None, bias: None };
            return Ok(Some((norm, heads.has_kv.then_some(norm))));
        }
    };
    let HeadNorm { kind, eps, .. } = *norm;
    let mut of = |name: &str, dims: &[u64]| {
        let weight = b.required(&format!("blk.{il}.{name}.weight"), dims, Role::Norm, Some(il))?;
        Ok(Norm { kind, eps, weight: Some(weight), bias: None })
    };
    let q = of("attn_q_norm", &q_dims)?;
    let k = if heads.has_kv { Some(of("attn_k_norm", &k_dims)?) } else { None };
    Ok(Some((q, k)))
}

impl Attention {
    /// The matrices that read the input.
    pub(super) fn readers(&self) -> Vec<TensorId> {
        let mut readers: Vec<TensorId> = self.qkv.iter().map(|part| part.w).collect();
        readers.dedup();
        readers.extend(self.gate.iter().map(|(gate, _)| gate.w));
        readers
    }

    /// Appends the steps behind the norm: delta = output * attention(rope(q), rope(k), v), or delta
    /// += that.
    pub(super) fn emit(self, b: &mut Builder<'_>, adds: bool) {
        let heads = self.attend.heads;
        let to = if self.has_gates { Register::Scan } else { Register::Qkv };
        b.step(Step::Project { from: Input::Normed, parts: self.qkv, to, adds: false });
        if self.has_gates {
            b.step(Step::SplitGates(heads));
        }
        let mut per_gate = self.has_gates.then_some(1);
        if let Some((gate, shared_by)) = self.gate {
            b.step(Step::Project { from: Input::Normed, parts: vec![gate], to: Register::Gates, adds: false });
            per_gate = Some(shared_by);
        }
        if let Some(limit) = self.limit {
            b.step(Step::LimitHeads { heads, limit });
        }
        let HeadRope { q_norm, k_norm, rope, value_eps, .. } = &self.head_rope;
        if q_norm.is_some() || k_norm.is_some() || rope.is_some() || value_eps.is_some() {
            b.step(Step::HeadRope(self.head_rope));
        }
        if heads.has_kv {
            b.step(Step::StoreKv { heads, cache: self.attend.cache });
        }
        b.step(Step::Attend(self.attend));
        if let Some(per_gate) = per_gate {
            b.step(Step::GateHeads { len: heads.out_len(), per_gate, activation: self.gate_activation });
        }
        if let Some(norm) = self.sub_norm {
            b.step(Step::NormParts { of: Register::Heads, parts: vec![(heads.out_len(), norm)] });
        }
        let readers = vec![self.output.w];
        b.step(Step::Quantize { from: Register::Heads, len: heads.out_len(), to: Input::Inner, readers });
        b.step(Step::Project { from: Input::Inner, parts: vec![self.output], to: Register::Delta, adds });
    }
}

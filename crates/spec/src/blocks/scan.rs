//! Recurrences over the positions.

use crate::error::Result;
use crate::model::{KeySharing, Need, ScanKind, ScanPacking, ScanSpec};
use crate::program::{
    Builder, Conv, GateNorm, Input, Linear, RecordShape, Register, Regroup, Scan, ScanRule, ScanShape, Step,
};
use crate::want::{Role, TensorId};

/// A recurrence with its tensors, not yet among the steps.
pub(super) struct Recurrence {
    /// Into the columns of the scan register.
    input: Vec<Linear>,
    /// What brings these into their order.
    regroup: Option<Regroup>,
    conv: Conv,
    scan: Scan,
    gate_norm: GateNorm,
    output: Linear,
}

/// Asks for the tensors.
pub(super) fn prepare(b: &mut Builder<'_>, il: usize, spec: &ScanSpec) -> Result<Recurrence> {
    let rule = match spec.kind {
        ScanKind::Mamba2 => ScanRule::Value,
        ScanKind::GatedDelta => ScanRule::Delta,
        ScanKind::KimiDelta => return Err(b.not_run("a decay for each element of a key")),
    };
    let shape = ScanShape {
        rule,
        heads: spec.value_heads,
        groups: spec.key_heads,
        key_dim: spec.key_dim,
        value_dim: spec.value_dim,
        is_tiled: spec.sharing == KeySharing::Tiled,
    };
    let (n_embd, inner, channels) = (b.spec.n_embd, shape.inner_len(), shape.conv_len());
    let delta = [("attn_gate", inner), ("attn_qkv", channels), ("ssm_alpha", shape.heads), ("ssm_beta", shape.heads)];
    let value = [("ssm_in", shape.column_len())];
    let packed = [("attn_gate", inner), ("attn_qkv", channels), ("ssm_ba", 2 * shape.heads)];
    let in_groups = [("ssm_in", inner + channels), ("ssm_ba", 2 * shape.heads)];
    let is_packed = spec.packing == ScanPacking::ByKeyHead;
    let is_all = is_packed && b.has(&format!("blk.{il}.ssm_in.weight"));
    let parts: &[(&str, usize)] = match (rule, is_packed, is_all) {
        (ScanRule::Delta, true, true) => &in_groups,
        (ScanRule::Delta, true, false) => &packed,
        (ScanRule::Delta, false, _) => &delta,
        (ScanRule::Value | ScanRule::Channel, ..) => &value,
    };
    let regroup = is_packed.then_some(Regroup { shape, is_all });
    let mut input = Vec::with_capacity(parts.len());
    for (part, rows) in parts {
        input.push(b.linear(il, part, (*rows, n_embd), Role::RecurrenceInput, Need::Never)?);
    }
    let name = |part: &str| format!("blk.{il}.{part}");
    let conv_dims = [spec.conv_kernel as u64, channels as u64];
    let weight = b.required(&name("ssm_conv1d.weight"), &conv_dims, Role::Convolution, Some(il))?;
    let conv_bias = b.needed(spec.conv_bias, &name("ssm_conv1d.bias"), &conv_dims[1..], Role::Bias, Some(il))?;
    let heads = [1, shape.heads as u64];
    let step_bias = b.required(&name("ssm_dt.bias"), &heads[1..], Role::Bias, Some(il))?;
    let group_dims = [(inner / shape.groups) as u64, shape.groups as u64];
    let head_dims = [shape.value_dim as u64];
    let (decay_dims, norm_dims) = match rule {
        ScanRule::Value | ScanRule::Channel => (&heads[..], &group_dims[..]),
        ScanRule::Delta => (&heads[1..], &head_dims[..]),
    };
    let decay = b.required(&name("ssm_a"), decay_dims, Role::Decay, Some(il))?;
    let has_skip = if rule == ScanRule::Value { Need::Always } else { Need::Never };
    let skip = b.needed(has_skip, &name("ssm_d"), &heads, Role::Norm, Some(il))?;
    let norm = b.needed(spec.output_norm, &name("ssm_norm.weight"), norm_dims, Role::Norm, Some(il))?;
    let output = b.linear(il, "ssm_out", (n_embd, inner), Role::RecurrenceOutput, Need::Never)?;
    let record =
        b.record(RecordShape { layer: il, conv_rows: spec.conv_kernel - 1, conv_len: channels, scan: Some(shape) });
    Ok(Recurrence {
        input,
        regroup,
        conv: Conv { record, shape, kernel: spec.conv_kernel, weight, bias: conv_bias, eps: spec.eps },
        scan: Scan { record, shape, step_bias, decay, skip },
        gate_norm: GateNorm { shape, weight: norm, eps: spec.eps },
        output,
    })
}

impl Recurrence {
    /// The matrices that read the input.
    pub(super) fn readers(&self) -> Vec<TensorId> {
        self.input.iter().map(|part| part.w).collect()
    }

    /// Appends the steps behind the norm: delta = output * what the recurrence gives, or delta +=
    /// that.
    pub(super) fn emit(self, b: &mut Builder<'_>, adds: bool) {
        let len = self.scan.shape.inner_len();
        b.step(Step::Project { from: Input::Normed, parts: self.input, to: Register::Scan, adds: false });
        if let Some(regroup) = self.regroup {
            b.step(Step::Regroup(regroup));
        }
        b.step(Step::Conv(self.conv));
        b.step(Step::Scan(self.scan));
        b.step(Step::GateNorm(self.gate_norm));
        let readers = vec![self.output.w];
        b.step(Step::Quantize { from: Register::Heads, len, to: Input::Inner, readers });
        b.step(Step::Project { from: Input::Inner, parts: vec![self.output], to: Register::Delta, adds });
    }
}

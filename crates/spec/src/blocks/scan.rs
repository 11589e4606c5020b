//! Recurrences over the positions.

use crate::error::Result;
use crate::model::{KeySharing, Need, ScanKind, ScanSpec};
use crate::program::{Builder, Conv, GateNorm, Input, Linear, RecordShape, Register, Scan, ScanShape, Step};
use crate::want::{Role, TensorId};

/// A recurrence with its tensors, not yet among the steps.
pub(super) struct Recurrence {
    input: Linear,
    conv: Conv,
    scan: Scan,
    gate_norm: GateNorm,
    output: Linear,
}

/// Asks for the tensors.
pub(super) fn prepare(b: &mut Builder<'_>, il: usize, spec: &ScanSpec) -> Result<Recurrence> {
    if spec.kind != ScanKind::Mamba2 || spec.sharing != KeySharing::Grouped {
        return Err(b.not_run("a delta rule"));
    }
    let shape =
        ScanShape { heads: spec.value_heads, groups: spec.key_heads, key_dim: spec.key_dim, value_dim: spec.value_dim };
    let (n_embd, inner, channels) = (b.spec.n_embd, shape.inner_len(), shape.conv_len());
    let input = b.linear(il, "ssm_in", (shape.column_len(), n_embd), Role::RecurrenceInput, Need::Never)?;
    let name = |part: &str| format!("blk.{il}.{part}");
    let conv_dims = [spec.conv_kernel as u64, channels as u64];
    let weight = b.required(&name("ssm_conv1d.weight"), &conv_dims, Role::Convolution, Some(il))?;
    let conv_bias = b.needed(spec.conv_bias, &name("ssm_conv1d.bias"), &conv_dims[1..], Role::Bias, Some(il))?;
    let heads = [1, shape.heads as u64];
    let step_bias = b.required(&name("ssm_dt.bias"), &heads[1..], Role::Bias, Some(il))?;
    let decay = b.required(&name("ssm_a"), &heads, Role::Decay, Some(il))?;
    let skip = b.required(&name("ssm_d"), &heads, Role::Norm, Some(il))?;
    let norm_dims = [(inner / shape.groups) as u64, shape.groups as u64];
    let norm = b.needed(spec.output_norm, &name("ssm_norm.weight"), &norm_dims, Role::Norm, Some(il))?;
    let output = b.linear(il, "ssm_out", (n_embd, inner), Role::RecurrenceOutput, Need::Never)?;
    let record = b.record(RecordShape { layer: il, conv_rows: spec.conv_kernel - 1, scan: shape });
    Ok(Recurrence {
        input,
        conv: Conv { record, shape, kernel: spec.conv_kernel, weight, bias: conv_bias },
        scan: Scan { record, shape, step_bias, decay, skip },
        gate_norm: GateNorm { shape, weight: norm, eps: spec.eps },
        output,
    })
}

impl Recurrence {
    /// The matrices that read the input.
    pub(super) fn readers(&self) -> Vec<TensorId> {
        vec![self.input.w]
    }

    /// Appends the steps behind the norm: delta = output * what the recurrence gives, or delta +=
    /// that.
    pub(super) fn emit(self, b: &mut Builder<'_>, adds: bool) {
        let len = self.scan.shape.inner_len();
        b.step(Step::Project { from: Input::Normed, parts: vec![self.input], to: Register::Scan, adds: false });
        b.step(Step::Conv(self.conv));
        b.step(Step::Scan(self.scan));
        b.step(Step::GateNorm(self.gate_norm));
        let readers = vec![self.output.w];
        b.step(Step::Quantize { from: Register::Heads, len, to: Input::Inner, readers });
        b.step(Step::Project { from: Input::Inner, parts: vec![self.output], to: Register::Delta, adds });
    }
}

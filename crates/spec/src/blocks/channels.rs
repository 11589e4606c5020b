//! Recurrences of single channels.

use modelembed_terms::NormKind;

use crate::error::Result;
use crate::model::{ChannelNorm, ChannelSpec, Need, NormSpec};
use crate::program::{
    Builder, ChannelScan, Conv, GateNorm, Input, Linear, Norm, RecordShape, Register, ScanRule, ScanShape, Step,
};
use crate::want::{Role, TensorId};

/// A recurrence with its tensors, not yet among the steps.
pub(super) struct Recurrence {
    input: Linear,
    conv: Conv,
    /// From what the convolution gives to what step sizes are made of, a key and a query.
    chosen: Linear,
    rank: usize,
    /// Norms of the three.
    norms: Option<[Norm; 3]>,
    steps: Linear,
    scan: ChannelScan,
    gate_norm: GateNorm,
    output: Linear,
}

/// Asks for the tensors.
pub(super) fn prepare(b: &mut Builder<'_>, il: usize, spec: &ChannelSpec) -> Result<Recurrence> {
    let ChannelSpec { channels, state, rank, conv_kernel: kernel, norm, eps } = *spec;
    let n_embd = b.spec.n_embd;
    let shape = ScanShape {
        rule: ScanRule::Channel,
        heads: channels,
        groups: 1,
        key_dim: state,
        value_dim: 1,
        is_tiled: false,
    };
    let name = |part: &str| format!("blk.{il}.{part}");
    let input = b.linear(il, "ssm_in", (2 * channels, n_embd), Role::RecurrenceInput, Need::Never)?;
    let dims = [kernel as u64, channels as u64];
    let weight = b.required(&name("ssm_conv1d.weight"), &dims, Role::Convolution, Some(il))?;
    let bias = Some(b.required(&name("ssm_conv1d.bias"), &dims[1..], Role::Bias, Some(il))?);
    let chosen = b.linear(il, "ssm_x", (rank + 2 * state, channels), Role::RecurrenceInput, Need::Never)?;
    let mut of = |name, len| {
        Ok(match norm {
            ChannelNorm::None => None,
            ChannelNorm::Plain => Some(Norm { kind: NormKind::Rms, eps, weight: None, bias: None }),
            ChannelNorm::Weighted => Some(b.norm(&NormSpec::rms(name, eps), Some(il), len)?),
        })
    };
    let norms = [of("ssm_dt_norm", rank)?, of("ssm_b_norm", state)?, of("ssm_c_norm", state)?];
    let norms = match norms {
        [Some(steps), Some(key), Some(query)] => Some([steps, key, query]),
        _ => None,
    };
    let steps = b.linear(il, "ssm_dt", (channels, rank), Role::RecurrenceInput, Need::Always)?;
    let decay = b.required(&name("ssm_a"), &[state as u64, channels as u64], Role::Decay, Some(il))?;
    let skip = b.required(&name("ssm_d"), &[channels as u64], Role::Norm, Some(il))?;
    let output = b.linear(il, "ssm_out", (n_embd, channels), Role::RecurrenceOutput, Need::Never)?;
    let record = b.record(RecordShape { layer: il, conv_rows: kernel - 1, conv_len: channels, scan: Some(shape) });
    Ok(Recurrence {
        input,
        conv: Conv { record, shape, kernel, weight, bias, eps },
        chosen,
        rank,
        norms,
        steps,
        scan: ChannelScan { record, shape, decay, skip },
        gate_norm: GateNorm { shape, weight: None, eps },
        output,
    })
}

impl Recurrence {
    /// The matrices that read the input.
    pub(super) fn readers(&self) -> Vec<TensorId> {
        vec![self.input.w]
    }

    /// Appends the steps behind the norm: delta = output * what the recurrence gives, or delta += that.
    pub(super) fn emit(self, b: &mut Builder<'_>, adds: bool) {
        let ScanShape { heads: len, key_dim: state, .. } = self.scan.shape;
        let project = |from, part: Linear, to| Step::Project { from, parts: vec![part], to, adds: false };
        let quantize = |from, len, reader| Step::Quantize { from, len, to: Input::Inner, readers: vec![reader] };
        // The file has gates behind what the convolution goes over.
        let halves = [len..2 * len, 0..len].map(|rows| Builder::part_of(&self.input, rows));
        b.step(Step::Project { from: Input::Normed, parts: halves.into(), to: Register::Scan, adds: false });
        b.step(Step::Conv(self.conv));
        b.step(quantize(Register::Conv, len, self.chosen.w));
        let of_steps = Builder::part_of(&self.chosen, 0..self.rank);
        let of_keys = Builder::part_of(&self.chosen, self.rank..self.rank + 2 * state);
        b.step(project(Input::Inner, of_steps, Register::Hidden));
        b.step(project(Input::Inner, of_keys, Register::Qkv));
        if let Some([of_steps, of_key, of_query]) = self.norms {
            b.step(Step::NormParts { of: Register::Hidden, parts: vec![(self.rank, of_steps)] });
            b.step(Step::NormParts { of: Register::Qkv, parts: vec![(state, of_key), (state, of_query)] });
        }
        b.step(quantize(Register::Hidden, self.rank, self.steps.w));
        b.step(project(Input::Inner, self.steps, Register::Gates));
        b.step(Step::ChannelScan(self.scan));
        b.step(Step::GateNorm(self.gate_norm));
        b.step(quantize(Register::Heads, len, self.output.w));
        b.step(Step::Project { from: Input::Inner, parts: vec![self.output], to: Register::Delta, adds });
    }
}

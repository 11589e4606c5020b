//! Gated convolutions over the last positions.

use crate::error::Result;
use crate::model::Need;
use crate::program::{Builder, Input, Linear, RecordShape, Register, ShortConv, Step};
use crate::want::{Role, TensorId};

/// A convolution with its tensors, not yet among the steps.
pub(super) struct Convolution {
    input: Linear,
    conv: ShortConv,
    output: Linear,
}

/// Asks for the tensors.
pub(super) fn prepare(b: &mut Builder<'_>, il: usize, kernel: usize) -> Result<Convolution> {
    let len = b.spec.n_embd;
    let input = b.linear(il, "shortconv.in_proj", (3 * len, len), Role::RecurrenceInput, Need::Never)?;
    let dims = [kernel as u64, len as u64];
    let weight = b.required(&format!("blk.{il}.shortconv.conv.weight"), &dims, Role::Convolution, Some(il))?;
    let output = b.linear(il, "shortconv.out_proj", (len, len), Role::RecurrenceOutput, Need::Never)?;
    let record = b.record(RecordShape { layer: il, conv_rows: kernel - 1, conv_len: len, scan: None });
    Ok(Convolution { input, conv: ShortConv { record, len, kernel, weight }, output })
}

impl Convolution {
    /// The matrices that read the input.
    pub(super) fn readers(&self) -> Vec<TensorId> {
        vec![self.input.w]
    }

    /// Appends the steps behind the norm: delta = output * (c . conv(b . u)), or delta += that.
    pub(super) fn emit(self, b: &mut Builder<'_>, adds: bool) {
        let len = self.conv.len;
        b.step(Step::Project { from: Input::Normed, parts: vec![self.input], to: Register::Scan, adds: false });
        b.step(Step::ShortConv(self.conv));
        let readers = vec![self.output.w];
        b.step(Step::Quantize { from: Register::Heads, len, to: Input::Inner, readers });
        b.step(Step::Project { from: Input::Inner, parts: vec![self.output], to: Register::Delta, adds });
    }
}

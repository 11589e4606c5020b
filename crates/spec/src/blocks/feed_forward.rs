//! Feed-forward networks.

use crate::error::Result;
use crate::model::{Clamp, GatedSpec, HiddenActivation, Need, PlainSpec};
use crate::program::{Builder, Input, Linear, Norm, Register, Step};
use crate::want::{Role, TensorId};

/// A gated network with its tensors, not yet among the steps.
pub(super) struct Gated {
    gate: Linear,
    up: Linear,
    down: Linear,
    activation: HiddenActivation,
    clamp: Option<Clamp>,
    sparsity: Option<f32>,
    sub_norm: Option<Norm>,
}

/// Either kind.
pub(super) enum Network {
    Gated(Gated),
    Plain(Plain),
}

impl Network {
    /// The matrices that read the input.
    pub(super) fn readers(&self) -> Vec<TensorId> {
        match self {
            Network::Gated(network) => network.readers(),
            Network::Plain(network) => vec![network.up.w],
        }
    }

    /// Appends the steps behind the norm: delta = what the network gives, or delta += that; with
    /// `is_weighed` its hidden state is weighed with the logistic function of the router's only
    /// element.
    pub(super) fn emit(self, b: &mut Builder<'_>, adds: bool, is_weighed: bool) {
        match self {
            Network::Gated(network) => network.emit_weighed(b, adds, is_weighed),
            Network::Plain(network) => network.emit_weighed(b, adds, is_weighed),
        }
    }
}

/// What a file calls the matrices of a network.
pub(super) struct Names {
    pub(super) gate: &'static str,
    pub(super) up: &'static str,
    pub(super) down: &'static str,
}

/// Of a layer's network.
const LAYER: Names = Names { gate: "ffn_gate", up: "ffn_up", down: "ffn_down" };

/// Asks for the tensors.
pub(super) fn gated(b: &mut Builder<'_>, il: usize, spec: &GatedSpec) -> Result<Gated> {
    gated_as(b, il, spec, &LAYER)
}

/// The same of other names.
pub(super) fn gated_as(b: &mut Builder<'_>, il: usize, spec: &GatedSpec, names: &Names) -> Result<Gated> {
    let (width, n_embd) = (spec.width, b.spec.n_embd);
    if spec.sparsity.is_some() && (spec.clamp.is_some() || spec.activation != HiddenActivation::Gelu) {
        return Err(b.not_run("sparse gates with limits or another activation than GELU"));
    }
    let (gate, up) = if spec.is_fused {
        if spec.bias == Need::Always {
            return Err(b.not_run("a bias of gate and up projection as one"));
        }
        let both = b.linear(il, names.up, (2 * width, n_embd), Role::GateUp, Need::Never)?;
        (Builder::part_of(&both, 0..width), Builder::part_of(&both, width..2 * width))
    } else {
        let gate = b.linear(il, names.gate, (width, n_embd), Role::Gate, spec.bias)?;
        (gate, b.linear(il, names.up, (width, n_embd), Role::Up, spec.bias)?)
    };
    let down = b.linear(il, names.down, (n_embd, width), Role::Down, spec.bias)?;
    let sub_norm = spec.sub_norm.map(|norm| b.norm(&norm, Some(il), width)).transpose()?;
    let GatedSpec { activation, sparsity, .. } = *spec;
    Ok(Gated { gate, up, down, activation, clamp: spec.clamp.filter(Clamp::is_there), sparsity, sub_norm })
}

impl Gated {
    /// The matrices that read the input.
    pub(super) fn readers(&self) -> Vec<TensorId> {
        if self.gate.w == self.up.w { vec![self.gate.w] } else { vec![self.gate.w, self.up.w] }
    }

    /// Appends the steps behind the norm: delta = down * (act(gate) * up), or delta += that.
    pub(super) fn emit(self, b: &mut Builder<'_>, adds: bool) {
        self.emit_weighed(b, adds, false);
    }

    fn emit_weighed(self, b: &mut Builder<'_>, adds: bool, is_weighed: bool) {
        let Gated { gate, up, down, activation, clamp, sparsity, sub_norm } = self;
        let (width, from, readers) = (gate.n_rows(), Input::Normed, vec![down.w]);
        if let Some(deviations) = sparsity {
            b.step(Step::Project { from, parts: vec![gate, up], to: Register::Scan, adds: false });
            b.step(Step::SparseGate { len: width, deviations });
        } else {
            b.step(Step::GateUp { from, gate, up, activation, clamp, to: Register::Hidden });
        }
        if let Some(norm) = sub_norm {
            b.step(Step::NormParts { of: Register::Hidden, parts: vec![(width, norm)] });
        }
        if is_weighed {
            b.step(Step::Weigh { by: Register::Router, of: Register::Hidden, len: width });
        }
        b.step(Step::Quantize { from: Register::Hidden, len: width, to: Input::Inner, readers });
        b.step(Step::Project { from: Input::Inner, parts: vec![down], to: Register::Delta, adds });
    }
}

/// A network without a gate, with its tensors, not yet among the steps.
pub(super) struct Plain {
    up: Linear,
    down: Linear,
    activation: HiddenActivation,
}

/// Asks for the tensors.
pub(super) fn plain(b: &mut Builder<'_>, il: usize, spec: &PlainSpec) -> Result<Plain> {
    plain_as(b, il, spec, &LAYER)
}

/// The same of other names.
pub(super) fn plain_as(b: &mut Builder<'_>, il: usize, spec: &PlainSpec, names: &Names) -> Result<Plain> {
    let (width, n_embd) = (spec.width, b.spec.n_embd);
    if let HiddenActivation::ClampedSwiglu { .. } = spec.activation {
        return Err(b.not_run("a clamped gate"));
    }
    let up = b.linear(il, names.up, (width, n_embd), Role::Up, spec.bias)?;
    let down = b.linear(il, names.down, (n_embd, width), Role::Down, spec.bias)?;
    Ok(Plain { up, down, activation: spec.activation })
}

impl Plain {
    /// Appends the steps behind the norm: delta = down * act(up), or delta += that.
    fn emit_weighed(self, b: &mut Builder<'_>, adds: bool, is_weighed: bool) {
        let (len, readers) = (self.up.n_rows(), vec![self.down.w]);
        b.step(Step::Up { from: Input::Normed, up: self.up, activation: self.activation, to: Register::Hidden });
        if is_weighed {
            b.step(Step::Weigh { by: Register::Router, of: Register::Hidden, len });
        }
        b.step(Step::Quantize { from: Register::Hidden, len, to: Input::Inner, readers });
        b.step(Step::Project { from: Input::Inner, parts: vec![self.down], to: Register::Delta, adds });
    }
}

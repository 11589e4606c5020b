//! Feed-forward networks.

use modelembed_terms::Activation;

use crate::error::Result;
use crate::model::{GatedSpec, HiddenActivation, Need, PlainSpec};
use crate::program::{Builder, Input, Linear, Register, Step};
use crate::want::{Role, TensorId};

/// A gated network with its tensors, not yet among the steps.
pub(super) struct Gated {
    gate: Linear,
    up: Linear,
    down: Linear,
    activation: Activation,
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
    if spec.clamp.is_some() || spec.sparsity.is_some() {
        return Err(b.not_run("limits in the feed-forward network"));
    }
    let activation = match spec.activation {
        HiddenActivation::Silu => Activation::Silu,
        HiddenActivation::Gelu => Activation::Gelu,
        HiddenActivation::Relu | HiddenActivation::ReluSquared => return Err(b.not_run("a gate with ReLU")),
        HiddenActivation::Xielu { .. } => return Err(b.not_run("a gate with xIELU")),
        HiddenActivation::ClampedSwiglu { .. } => return Err(b.not_run("a clamped gate")),
    };
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
    Ok(Gated { gate, up, down, activation })
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
        let (width, readers) = (self.gate.n_rows(), vec![self.down.w]);
        b.step(Step::GateUp {
            from: Input::Normed,
            gate: self.gate,
            up: self.up,
            activation: self.activation,
            to: Register::Hidden,
        });
        if is_weighed {
            b.step(Step::Weigh { by: Register::Router, of: Register::Hidden, len: width });
        }
        b.step(Step::Quantize { from: Register::Hidden, len: width, to: Input::Inner, readers });
        b.step(Step::Project { from: Input::Inner, parts: vec![self.down], to: Register::Delta, adds });
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

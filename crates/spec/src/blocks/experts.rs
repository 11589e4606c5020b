//! Mixtures of experts.

use super::feed_forward::{self, Network};
use crate::error::Result;
use crate::model::{
    Choice, Clamp, ExpertSpec, GatedSpec, HiddenActivation, MoeSpec, Need, NormSpec, PlainSpec, RouterInput,
};
use crate::program::{Builder, ExpertLinear, Experts, Input, Linear, Norm, Register, Route, Step};
use crate::want::{Role, TensorId};

/// A mixture with its tensors, not yet among the steps.
pub(super) struct Mixture {
    /// Norm of the residual stream for the router, where it does not read what the experts do.
    router_norm: Option<Norm>,
    /// Whether its numbers are there before the mixer.
    is_early: bool,
    router: Linear,
    route: Route,
    experts: Experts,
    shared: Option<Shared>,
}

/// Experts that every position uses.
struct Shared {
    network: Network,
    /// What its output is weighed with.
    weight: Option<Linear>,
}

/// The matrix that gives a number for each expert.
pub(super) fn router(b: &mut Builder<'_>, il: usize, spec: &MoeSpec) -> Result<Linear> {
    b.linear(il, "ffn_gate_inp", (spec.n_experts, b.spec.n_embd), Role::Router, spec.router_bias)
}

/// Asks for the tensors.
pub(super) fn prepare(b: &mut Builder<'_>, il: usize, spec: &MoeSpec) -> Result<Mixture> {
    if spec.choice == Choice::Token {
        return Err(b.not_run("experts that are chosen by the token"));
    }
    if spec.latent.is_some() {
        return Err(b.not_run("experts over a compressed input"));
    }
    let (n_embd, n) = (b.spec.n_embd, spec.n_experts);
    let ExpertSpec { width, activation, is_gated, bias, clamp } = spec.expert;
    if !is_gated && matches!(activation, HiddenActivation::ClampedSwiglu { .. }) {
        return Err(b.not_run("a clamped gate that is not there"));
    }
    let router = router(b, il, spec)?;
    let router_norm = match spec.router_input {
        RouterInput::OwnNorm { eps } => {
            let norm = NormSpec { is_bare: true, ..NormSpec::rms("ffn_gate_inp.scale", eps) };
            Some(b.norm(&norm, Some(il), n_embd)?)
        }
        _ => None,
    };
    let biases = match spec.choice {
        Choice::Biased(need) => need,
        _ => Need::Never,
    };
    // Files of some architectures have the name alone.
    let choice = format!("blk.{il}.exp_probs_b.bias");
    let bare = choice.trim_end_matches(".bias").to_owned();
    let choice = if !b.has(&choice) && b.has(&bare) { bare } else { choice };
    let choice_bias = b.needed(biases, &choice, &[n as u64], Role::Bias, Some(il))?;
    let is_fused = is_gated && b.has(&format!("blk.{il}.ffn_gate_up_exps.weight"));
    if is_fused && bias == Need::Always {
        return Err(b.not_run("biases of gates and up projections as one"));
    }
    let mut linear = |part: &str, (rows, k): (usize, usize), role: Role| {
        let dims = [k as u64, rows as u64, n as u64];
        let w = b.required(&format!("blk.{il}.{part}.weight"), &dims, role, Some(il))?;
        let bias = b.needed(bias, &format!("blk.{il}.{part}.bias"), &dims[1..], Role::Bias, Some(il))?;
        Ok(ExpertLinear { w, stride: rows, first: 0, rows, k, bias })
    };
    let (gate, up) = if is_fused {
        let both = linear("ffn_gate_up_exps", (2 * width, n_embd), Role::GateUp)?;
        let half = |first| ExpertLinear { first, rows: width, ..both };
        (Some(half(0)), half(width))
    } else {
        let gate = is_gated.then(|| linear("ffn_gate_exps", (width, n_embd), Role::Gate)).transpose()?;
        (gate, linear("ffn_up_exps", (width, n_embd), Role::Up)?)
    };
    let down = linear("ffn_down_exps", (n_embd, width), Role::Down)?;
    let expert_scale = b.optional(&format!("blk.{il}.ffn_down_exps.scale"), &[n as u64], Role::Scale, Some(il))?;
    if expert_scale.is_some() && bias == Need::Always {
        return Err(b.not_run("factors on what experts with biases give"));
    }
    let shared = spec.shared.map(|shared| {
        let names = feed_forward::Names { gate: "ffn_gate_shexp", up: "ffn_up_shexp", down: "ffn_down_shexp" };
        let network = if is_gated {
            let gated = GatedSpec { bias, clamp: shared.clamp, ..GatedSpec::plain(shared.width, activation) };
            Network::Gated(feed_forward::gated_as(b, il, &gated, &names)?)
        } else {
            let plain = PlainSpec { width: shared.width, activation, bias };
            Network::Plain(feed_forward::plain_as(b, il, &plain, &names)?)
        };
        let weight = shared.is_weighted.then(|| b.row(il, "ffn_gate_inp_shexp", n_embd)).transpose()?;
        Ok(Shared { network, weight })
    });
    let route = Route {
        n_experts: n,
        n_used: spec.n_used,
        groups: spec.groups,
        choice_bias,
        gating: spec.gating,
        normalised: spec.normalised,
        scale: spec.scale,
        number_scale: if router_norm.is_some() { 1.0 / (n_embd as f32).sqrt() } else { 1.0 },
        expert_scale,
    };
    let (clamp, weighs_input) = (clamp.filter(Clamp::is_there), spec.weighs_input);
    if weighs_input && (bias != Need::Never || !is_gated) {
        return Err(b.not_run("weighed inputs of experts with biases or without gates"));
    }
    let experts = Experts { from: Input::Normed, n_used: spec.n_used, gate, up, down, activation, clamp, weighs_input };
    let is_early = spec.router_input == RouterInput::LayerInput;
    Ok(Mixture { router_norm, is_early, router, route, experts, shared: shared.transpose()? })
}

impl Mixture {
    /// The matrices that read the input.
    pub(super) fn readers(&self) -> Vec<TensorId> {
        let is_apart = self.router_norm.is_some() || self.is_early;
        let mut readers = if is_apart { Vec::new() } else { vec![self.router.w] };
        readers.push(self.experts.up.w);
        readers.extend(self.experts.gate.iter().map(|gate| gate.w).filter(|gate| *gate != self.experts.up.w));
        if let Some(shared) = &self.shared {
            readers.extend(shared.weight.iter().map(|weight| weight.w));
            readers.extend(shared.network.readers());
        }
        readers
    }

    /// Appends the steps from the residual stream, which nothing is joined to: as [`emit`], behind
    /// `norm`.
    ///
    /// [`emit`]: Mixture::emit
    pub(super) fn emit_behind(self, b: &mut Builder<'_>, norm: Norm) {
        let (readers, router) = (self.readers(), self.router.w);
        let input = |norm, readers| Step::Norm { norm, to: Input::Normed, readers };
        match self.router_norm {
            Some(of_router) => {
                b.step(input(of_router, vec![router]));
                self.choose(b);
                b.step(input(norm, readers));
            }
            None => {
                b.step(input(norm, readers));
                self.choose(b);
            }
        }
        self.compute(b, false);
    }

    /// Appends the steps behind the norm: delta = what the chosen experts give, weighed, and what
    /// the shared ones do; or delta += that.
    pub(super) fn emit(self, b: &mut Builder<'_>, adds: bool) {
        self.choose(b);
        self.compute(b, adds);
    }

    fn choose(&self, b: &mut Builder<'_>) {
        let parts = vec![self.router.clone()];
        if !self.is_early {
            b.step(Step::Project { from: Input::Normed, parts, to: Register::Router, adds: false });
        }
        b.step(Step::Route(self.route));
    }

    fn compute(self, b: &mut Builder<'_>, adds: bool) {
        let from = Input::Normed;
        b.step(Step::Experts { experts: self.experts, adds });
        let Some(Shared { network, weight }) = self.shared else { return };
        let (is_weighted, parts) = (weight.is_some(), weight.into_iter().collect());
        if is_weighted {
            b.step(Step::Project { from, parts, to: Register::Router, adds: false });
        }
        network.emit(b, true, is_weighted);
    }
}

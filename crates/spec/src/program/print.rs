//! A model and its program, printed: layers that are alike once.

use std::fmt::Write;

use super::{
    ExpertLinear, HeadShape, Input, JoinBranch, Linear, MixOwn, Norm, Part, Pending, Program, Register, ScanRule,
    ScanShape, Step, StreamStep, Streams,
};
use crate::model::{GateActivation, Gating, HiddenActivation, ModelSpec};
use crate::print;
use crate::want::TensorId;
use modelembed_terms::NormKind;

impl Program {
    /// The program as text, a line a step; `spec` is what it was made from.
    pub fn describe(&self, spec: &ModelSpec) -> String {
        let mut out = String::new();
        for (i, rope) in spec.ropes.iter().enumerate() {
            let _ = writeln!(out, "rope {i}: {}", print::rope(rope));
        }
        let _ = writeln!(out, "input");
        for step in &self.embed {
            let _ = writeln!(out, "  {}", self.line(step, None));
        }
        let layers: Vec<String> = (0..self.n_layer).map(|il| self.layer(il)).collect();
        print::layers(&mut out, "layer", &layers);
        let _ = writeln!(out, "head");
        for step in &self.head().steps {
            let _ = writeln!(out, "  {}", self.line(step, None));
        }
        out
    }

    fn layer(&self, il: usize) -> String {
        let of_layer = |part: Part| part.layer() == Some(il);
        let steps = self.segments.iter().filter(|segment| of_layer(segment.part)).flat_map(|segment| &segment.steps);
        steps.fold(String::new(), |text, step| format!("{text}  {}\n", self.line(step, Some(il))))
    }

    /// One step as a line. Before the first layer nothing is pending, which alone makes no layer
    /// another one.
    fn line(&self, step: &Step, layer: Option<usize>) -> String {
        let linear = |linear: &Linear| {
            let all = self.tensor(linear.w).rows() == linear.n_rows();
            let rows = if all { String::new() } else { format!("[{}..{}]", linear.rows.start, linear.rows.end) };
            let bias = if linear.bias.is_some() { " + bias" } else { "" };
            format!("{}{rows} ({} x {}){bias}", self.name(linear.w), linear.n_rows(), linear.k)
        };
        match step {
            Step::Embed { table, scale, positions, norm, to } => {
                let scale = if *scale == 1.0 { String::new() } else { format!("{scale} * ") };
                let row = |id: &TensorId| format!(" + {}[position]", self.name(*id));
                let sum =
                    format!("{scale}{}[token]{}", self.name(*table), positions.as_ref().map_or(String::new(), row));
                let normed = norm.as_ref().map_or(sum.clone(), |norm| self.norm(norm, Some(&sum)));
                format!("embed      {} = {normed}", to.name())
            }
            Step::JoinNorm { join, norm: with, to, .. } => {
                let x = Register::Residual.name();
                let join = join.or_else(|| self.is_first_join(step).then(|| self.first_pending(layer)));
                let sum = join.map_or(String::new(), |Pending { from, norm, scale, output_scale }| {
                    let pending = norm.map_or(from.name().to_owned(), |n| self.norm(&n, Some(from.name())));
                    let scale = if scale == 1.0 { String::new() } else { format!("{scale} * ") };
                    let scaled = output_scale.map_or(String::new(), |id| format!("{x} *= {}; ", self.name(id)));
                    format!("{x} += {scale}{pending}; {scaled}")
                });
                let normed = with.as_ref().map_or(x.to_owned(), |n| self.norm(n, Some(x)));
                format!("join-norm  {sum}{} = {normed}", to.name())
            }
            Step::Norm { norm, to, .. } => {
                format!("norm       {} = {}", to.name(), self.norm(norm, Some(Register::Residual.name())))
            }
            Step::MixOwn(MixOwn { width, n_layer, scale, norm }) => {
                let normed = self.norm(norm, Some(&format!("{scale} * hidden")));
                format!("mix-own    own = (own + {normed}) / sqrt(2), {n_layer} slices of {width}")
            }
            Step::TimesOwn { of, .. } => format!("times-own  {} *= own of this layer", of.name()),
            Step::Streams(Streams { count, step, .. }) => {
                let what = match step {
                    StreamStep::Spread => "streams as long as x".to_owned(),
                    StreamStep::Predict { weights } => {
                        let w = self.name(*weights);
                        format!("x, streams += {w} * tanh(router) of all; predicted = x")
                    }
                    StreamStep::Correct { weights, scale } => {
                        let (w, scale) = (self.name(*weights), self.name(*scale));
                        format!("x, streams += (1 + {w} * tanh(router)) (x - predicted); delta = {scale} . x")
                    }
                    StreamStep::Add { norm } => format!("streams += {}", self.norm(norm, Some("delta"))),
                    StreamStep::Set { stream } => format!("streams[{stream}] = delta"),
                    StreamStep::Merge => format!("x = mean of x and streams as long as x, {count} in all"),
                };
                format!("streams    {what}")
            }
            Step::StreamInput { stream, to, .. } => format!("quantize   {} = streams[{stream}]", to.name()),
            Step::JoinBranch(JoinBranch { of_mixer, of_input, of_branch }) => {
                let norm = |norm, of| self.norm(norm, Some(of));
                let (delta, x, aside) = (norm(of_mixer, "delta"), norm(of_input, "x"), norm(of_branch, "aside"));
                format!("join       x = (x + {delta} + {x} + {aside}) / sqrt(2)")
            }
            Step::SparseGate { deviations, .. } => {
                let gate = format!("relu(gate - mean - {deviations} deviations)");
                format!("sparse     gate, up = scan; hidden = gelu({gate}) . up")
            }
            Step::SetAside { norm, .. } => format!("set-aside  aside = {}", self.norm(norm, Some("delta"))),
            Step::AddAside { norm, .. } => format!("add-aside  delta = {} + aside", self.norm(norm, Some("delta"))),
            Step::Project { from, parts, to, adds } => {
                let parts: Vec<String> = parts.iter().map(linear).collect();
                let sign = if *adds { "+=" } else { "=" };
                format!("project    {} {sign} {} * {}", to.name(), parts.join(", "), from.name())
            }
            Step::LimitHeads { limit, .. } => format!("limit      qkv within {limit}"),
            Step::HeadRope(step) => {
                let norms = [&step.q_norm, &step.k_norm].into_iter().flatten();
                let norms = norms.fold(String::new(), |text, n| format!("{text} -> {}", self.norm(n, None)));
                let rope = step.rope.map_or(" -> no rope".to_owned(), |rope| format!(" -> rope {}", rope.0));
                let (first, last) = if step.norm_is_last { (rope, norms) } else { (norms, rope) };
                let of = if step.heads.has_kv { "q, k" } else { "q" };
                let values = if step.value_eps.is_some() { "; v -> rms" } else { "" };
                format!("head-rope  {of}{first}{last}{values}")
            }
            Step::StoreKv { heads, .. } => {
                format!("store-kv   {} heads of {} and {}", heads.kv_heads, heads.key_dim, heads.value_dim)
            }
            Step::Attend(step) => {
                let seen = print::visible(step.visible);
                let cap = step.soft_cap.map_or(String::new(), |cap| format!(", cap {cap}"));
                let (heads, group) = (step.heads.heads, step.heads.group());
                let sinks = step.sinks.map_or(String::new(), |id| format!(", sinks {}", self.name(id)));
                let temperature =
                    step.temperature.as_ref().map_or(String::new(), |t| format!(", {}", print::temperature(t)));
                let bias = step.max_bias.map_or(String::new(), |bias| format!(", ALiBi up to {bias}"));
                let scores = format!("scale {}{temperature}{cap}{bias}{sinks}", step.scale);
                let of = Some(self.caches[step.cache].layer).filter(|of| Some(*of) != layer);
                let of = of.map_or(String::new(), |il| format!(", keys and values of layer {il}"));
                format!("attend     heads = {heads} in groups of {group}, {seen}, {scores}{of}")
            }
            Step::Conv(step) => {
                let bias = if step.bias.is_some() { " + bias" } else { "" };
                let (w, kernel) = (self.name(step.weight), step.kernel);
                format!("conv       conv = silu({w} * scan over {kernel} positions{bias})")
            }
            Step::ShortConv(step) => {
                let (w, kernel) = (self.name(step.weight), step.kernel);
                format!("conv       b, c, u = scan; heads = c . ({w} * (b . u) over {kernel} positions)")
            }
            Step::Scan(step) => {
                let ScanShape { heads, groups, key_dim, value_dim, rule, .. } = step.shape;
                let rule = if rule == ScanRule::Delta { ", by the delta rule" } else { "" };
                format!("scan       heads = {heads} states of {key_dim} x {value_dim} in {groups} groups{rule}")
            }
            Step::Regroup(step) => {
                let parts = if step.is_all {
                    "queries, keys, values, gates, strengths and steps"
                } else {
                    "strengths and steps"
                };
                format!("regroup    scan = {parts} of {} groups in their order", step.shape.groups)
            }
            Step::NormParts { of, parts } => {
                let norms: Vec<String> =
                    parts.iter().map(|(len, norm)| format!("{len} -> {}", self.norm(norm, None))).collect();
                format!("norm-parts {}: {}", of.name(), norms.join(", "))
            }
            Step::ChannelScan(step) => {
                let ScanShape { heads, key_dim, .. } = step.shape;
                format!(
                    "scan       heads = {heads} channels with states of {key_dim}; steps softplus(gates), keys and queries qkv"
                )
            }
            Step::GateNorm(step) => {
                let (gated, rule) = ("silu(gate) . heads", step.shape.rule);
                let normed = step.weight.map(|id| match rule {
                    ScanRule::Value | ScanRule::Channel => format!("rms({gated}; {})", self.name(id)),
                    ScanRule::Delta => format!("silu(gate) . rms(heads; {})", self.name(id)),
                });
                format!("gate-norm  heads = {}", normed.as_deref().unwrap_or(gated))
            }
            Step::Up { from, up, activation, to } => {
                let (up, y) = (linear(up), from.name());
                format!("up         {} = {}({up} * {y})", to.name(), hidden_name(*activation))
            }
            Step::SplitGates(_) => "split      gates, qkv = scan".to_owned(),
            Step::JoinHeads(step) => {
                let HeadShape { heads, key_dim, value_dim, .. } = step.heads;
                let own = key_dim - step.shared;
                format!(
                    "join-heads qkv = heads, {heads} keys of {own} and {value_dim} of scan, {} of gates for all",
                    step.shared
                )
            }
            Step::GateHeads { per_gate, activation, .. } => {
                let shared = if *per_gate == 1 { String::new() } else { format!(", one for {per_gate} elements") };
                let act = match activation {
                    GateActivation::Sigmoid => "sigmoid",
                    GateActivation::Softplus => "softplus",
                };
                format!("gate       heads *= {act}(gates){shared}")
            }
            Step::Route(step) => {
                let groups = step.groups.map_or(String::new(), |(n, used)| format!(" in {used} of {n} groups"));
                let by = match step.gating {
                    Gating::Softmax => "softmax",
                    Gating::Sigmoid => "sigmoid",
                    Gating::SoftmaxOfChosen => "softmax of the chosen",
                    Gating::SqrtSoftplus => "sqrt(softplus)",
                };
                let bias = step.choice_bias.map_or(String::new(), |id| format!(", chosen with {}", self.name(id)));
                let normalised = if step.normalised { ", their sum 1" } else { "" };
                let scale = if step.scale == 1.0 { String::new() } else { format!(", times {}", step.scale) };
                let numbers = step.number_scale;
                let numbers = if numbers == 1.0 { String::new() } else { format!(" of {numbers} * router") };
                let of_experts = step.expert_scale.map_or(String::new(), |id| format!(", times {}", self.name(id)));
                let (used, n) = (step.n_used, step.n_experts);
                let by = format!("{by}{numbers}{bias}{normalised}{scale}{of_experts}");
                format!("route      {used} of {n} experts{groups} by {by}")
            }
            Step::Experts { experts, adds } => {
                let part = |part: &ExpertLinear| {
                    let bias = if part.bias.is_some() { " + bias" } else { "" };
                    let ExpertLinear { first, rows, k, .. } = *part;
                    let of = if part.stride == rows { String::new() } else { format!("[{first}..{}]", first + rows) };
                    format!("{}{of} ({rows} x {k}){bias}", self.name(part.w))
                };
                let (sign, y, z) = (if *adds { "+=" } else { "=" }, experts.from.name(), Input::Inner.name());
                let act = hidden_name(experts.activation);
                let y = if experts.weighs_input { format!("(weight * {y})") } else { y.to_owned() };
                let up = format!("{} * {y}", part(&experts.up));
                let hidden = match &experts.gate {
                    Some(gate) => format!("{act}({} * {y}) . {up}", part(gate)),
                    None => format!("{act}({up})"),
                };
                let limits = if experts.clamp.is_some() { " within limits" } else { "" };
                format!("experts    {z} = {hidden}{limits}; delta {sign} {} * {z}", part(&experts.down))
            }
            Step::Weigh { by, of, .. } => format!("weigh      {} *= sigmoid({})", of.name(), by.name()),
            Step::Quantize { from, to, .. } => format!("quantize   {} = {}", to.name(), from.name()),
            Step::GateUp { from, gate, up, activation, clamp, to } => {
                let (gate, up, y) = (linear(gate), linear(up), from.name());
                let limits = if clamp.is_some() { " within limits" } else { "" };
                format!("gate-up    {} = {}({gate} * {y}) . {up} * {y}{limits}", to.name(), hidden_name(*activation))
            }
            Step::Logits { from, output, scale, soft_cap } => {
                let scale = if *scale == 1.0 { String::new() } else { format!("{scale} * ") };
                let cap = soft_cap.map_or(String::new(), |cap| format!(", cap {cap}"));
                format!("logits     logits = {scale}{} * {}{cap}", linear(output), from.name())
            }
        }
    }

    /// Whether a step is the first one that would join something.
    fn is_first_join(&self, step: &Step) -> bool {
        let mut steps = self.segments.iter().flat_map(|segment| &segment.steps);
        steps.find(|step| matches!(step, Step::JoinNorm { .. })).is_some_and(|first| std::ptr::eq(first, step))
    }

    /// What a layer's first join would add if it were not the first layer: as of the second one.
    fn first_pending(&self, layer: Option<usize>) -> Pending {
        let next = |il: usize| {
            let segment = self.segments.iter().find(|segment| segment.part == Part::Mixer(il + 1))?;
            segment.steps.iter().find_map(|step| match step {
                Step::JoinNorm { join, .. } => *join,
                _ => None,
            })
        };
        layer.and_then(next).unwrap_or(Pending::normed(Register::Delta, None))
    }

    /// A norm as a function of what it is over, where a line names that, and of its weights, if it
    /// has any.
    fn norm(&self, norm: &Norm, of: Option<&str>) -> String {
        let kind = match norm.kind {
            NormKind::Rms => "rms",
            NormKind::Layer => "layer_norm",
        };
        let weights = norm.weight.map(|id| self.name(id));
        match (of, weights) {
            (Some(of), Some(weights)) => format!("{kind}({of}; {weights})"),
            (Some(of), None) => format!("{kind}({of})"),
            (None, Some(weights)) => format!("{kind}({weights})"),
            (None, None) => kind.to_owned(),
        }
    }

    /// A tensor's name without its layer.
    fn name(&self, id: TensorId) -> &str {
        self.tensor(id).part().trim_end_matches(".weight")
    }
}

fn hidden_name(activation: HiddenActivation) -> &'static str {
    match activation {
        HiddenActivation::Silu => "silu",
        HiddenActivation::Gelu => "gelu",
        HiddenActivation::Relu => "relu",
        HiddenActivation::ReluSquared => "relu^2",
        HiddenActivation::Xielu { .. } => "xielu",
        HiddenActivation::ClampedSwiglu { .. } => "swiglu",
    }
}

//! A model, printed: what each kind of layer is made of, in the order in which it computes; layers
//! that are alike once.

use std::fmt::{self, Display, Write};

use modelembed_terms::{NormKind, RopeStyle};

use crate::model::*;

impl Display for ModelSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = self.name.as_ref().map_or(String::new(), |name| format!(" \"{}\"", crate::keys::clean(name)));
        let (n, n_embd, ctx) = (self.layers.len(), self.n_embd, self.ctx_train);
        writeln!(f, "{}{name}: {n} layers, embedding of {n_embd}, context of {ctx} tokens", self.arch.name)?;
        if self.n_nextn > 0 {
            writeln!(f, "behind the layers {} that predict further tokens", self.n_nextn)?;
        }
        for (i, spec) in self.ropes.iter().enumerate() {
            writeln!(f, "rope {i}: {}", rope(spec))?;
        }
        writeln!(f, "input: {}", input(&self.input))?;
        let mut out = String::new();
        if let Some(encoder) = &self.encoder {
            layers(&mut out, "encoder layer", &encoder.layers.iter().map(layer).collect::<Vec<_>>());
            let _ = writeln!(out, "encoder output: {}", norm(&encoder.norm));
            if let Some(token) = encoder.start_token {
                let _ = writeln!(out, "layers begin with token {token}");
            }
        }
        layers(&mut out, "layer", &self.layers.iter().map(layer).collect::<Vec<_>>());
        f.write_str(&out)?;
        writeln!(f, "output: {}", output(&self.output))
    }
}

/// Appends texts of layers, those that are equal once.
pub(crate) fn layers(out: &mut String, what: &str, texts: &[String]) {
    for (numbers, text) in alike(texts) {
        let plural = if numbers.contains([',', '-']) { "s" } else { "" };
        let _ = writeln!(out, "{what}{plural} {numbers}");
        out.push_str(text);
    }
}

/// Texts that are equal, once each with the numbers where they stand, in the order of the first.
fn alike(texts: &[String]) -> Vec<(String, &str)> {
    let mut groups: Vec<(Vec<usize>, &str)> = Vec::new();
    for (i, text) in texts.iter().enumerate() {
        match groups.iter_mut().find(|(_, seen)| seen == text) {
            Some((numbers, _)) => numbers.push(i),
            None => groups.push((vec![i], text)),
        }
    }
    groups.into_iter().map(|(numbers, text)| (ranges(&numbers), text)).collect()
}

/// Ascending numbers as "0-3, 5".
fn ranges(numbers: &[usize]) -> String {
    let mut parts: Vec<(usize, usize)> = Vec::new();
    for &n in numbers {
        match parts.last_mut() {
            Some((_, last)) if *last + 1 == n => *last = n,
            _ => parts.push((n, n)),
        }
    }
    let text = |(a, b): &(usize, usize)| if a == b { a.to_string() } else { format!("{a}-{b}") };
    parts.iter().map(text).collect::<Vec<_>>().join(", ")
}

/// A rotary embedding in a line.
pub(crate) fn rope(rope: &RopeSpec) -> String {
    let pairs = match rope.style {
        RopeStyle::Adjacent => "adjacent pairs",
        RopeStyle::Halves => "pairs across the halves",
    };
    let mut text = format!("{pairs} of {} elements", rope.n_rot);
    if rope.first > 0 {
        let _ = write!(text, " behind the first {}", rope.first);
    }
    let _ = write!(text, ", base {}", rope.base);
    match rope.scaling {
        RopeScaling::None => {}
        RopeScaling::Linear { factor } => {
            let _ = write!(text, ", positions / {factor}");
        }
        RopeScaling::Yarn { factor, original_ctx_tokens, .. } => {
            let _ = write!(text, ", YaRN {factor} times {original_ctx_tokens}");
        }
    }
    if let RopeFactors::LongOrShort { original_ctx_tokens } = rope.factors {
        let _ = write!(text, ", LongRoPE above {original_ctx_tokens} tokens");
    }
    // With YaRN 1 is not the usual one.
    if rope.magnitude != 1.0 || matches!(rope.scaling, RopeScaling::Yarn { .. }) {
        let _ = write!(text, ", magnitude {}", rope.magnitude);
    }
    if let Some(RopeSections { pairs, is_interleaved }) = rope.sections {
        let how = if is_interleaved { ", interleaved" } else { "" };
        let _ = write!(text, ", sections {pairs:?}{how}");
    }
    text
}

/// Which positions are seen.
pub(crate) fn visible(visible: Visible) -> String {
    match visible {
        Visible::Causal => "all before".to_owned(),
        Visible::Window(n) => format!("the last {n}"),
        Visible::Chunk(n) => format!("its chunk of {n}"),
        Visible::All => "all".to_owned(),
        Visible::Around(n) => format!("{n} around"),
    }
}

fn input(spec: &InputSpec) -> String {
    let mut text = "token".to_owned();
    if spec.has_positions {
        text.push_str(" + position");
    }
    match spec.token_types {
        Need::Always => text.push_str(" + segment type"),
        Need::Maybe => text.push_str(" + segment type if there is one"),
        Need::Never => {}
    }
    if spec.scale != 1.0 {
        let _ = write!(text, " * {}", spec.scale);
    }
    if let Some(spec) = &spec.norm {
        let _ = write!(text, ", {}", norm(spec));
    }
    if let Some(PerLayerEmbedding { width, .. }) = spec.per_layer {
        let _ = write!(text, "; {width} for each layer");
    }
    text
}

fn output(spec: &OutputSpec) -> String {
    let mut parts: Vec<String> = spec.norm.iter().map(norm).collect();
    if spec.has_head {
        let scale = if spec.scale == 1.0 { String::new() } else { format!(" * {}", spec.scale) };
        let cap = spec.soft_cap.map_or(String::new(), |cap| format!(" within {cap}"));
        parts.push(format!("logits{scale}{cap}"));
    }
    match spec.pooling {
        Pooling::None if spec.has_head => {}
        Pooling::None => parts.push("each position".to_owned()),
        Pooling::Mean => parts.push("mean of positions".to_owned()),
        Pooling::First => parts.push("first position".to_owned()),
        Pooling::Last => parts.push("last position".to_owned()),
        Pooling::Rank => parts.push("score of a pair".to_owned()),
    }
    parts.join(", ")
}

fn norm(norm: &NormSpec) -> String {
    let kind = kind(norm.kind);
    match (norm.name, norm.instead) {
        (Some(name), Some(other)) => format!("{name} or else {other} ({kind}, eps {:e})", norm.eps),
        (Some(name), None) => format!("{name} ({kind}, eps {:e})", norm.eps),
        (None, _) => format!("without weights ({kind}, eps {:e})", norm.eps),
    }
}

fn kind(kind: NormKind) -> &'static str {
    match kind {
        NormKind::Rms => "rms",
        NormKind::Layer => "layer norm",
    }
}

/// A layer's parts, in the order in which it computes.
fn layer(layer: &LayerSpec) -> String {
    let mut out = String::new();
    let mut item = |label: &str, lines: &[String]| {
        for (i, line) in lines.iter().filter(|line| !line.is_empty()).enumerate() {
            let _ = writeln!(out, "  {:<10} {line}", if i == 0 { label } else { "" });
        }
    };
    let a_norm = |spec: &Option<NormSpec>| spec.iter().map(norm).collect::<Vec<_>>();
    item("residual", &[residual(layer)]);
    item("norm", &a_norm(&layer.norms.before_mixer));
    for (label, lines) in mixer(&layer.mixer) {
        item(label, &lines);
    }
    if let Some(LowRankSpec { rank, norm: of }) = &layer.low_rank {
        item("beside", &[format!("matrices of rank {rank}, {}", norm(of))]);
    }
    item("post norm", &a_norm(&layer.norms.after_mixer));
    if let Some(cross) = &layer.cross {
        item("norm", &[norm(&cross.norm)]);
        item("to encoder", &attention(&cross.attention));
    }
    item("norm", &a_norm(&layer.norms.before_ffn));
    for (label, lines) in feed_forward(&layer.ffn) {
        item(label, &lines);
    }
    item("post norm", &a_norm(&layer.norms.after_ffn));
    if layer.has_own_embedding {
        item("branch", &["with the layer's own embedding".to_owned()]);
    }
    match layer.output_scale {
        Need::Always => item("scale", &["by a number of the layer".to_owned()]),
        Need::Maybe => item("scale", &["by a number of the layer if there is one".to_owned()]),
        Need::Never => {}
    }
    out
}

fn residual(layer: &LayerSpec) -> String {
    let joined = match layer.residual {
        Residual::Sequential if layer.residual_scale == 1.0 => return String::new(),
        Residual::Sequential => "one half after the other".to_owned(),
        Residual::Parallel => "both halves on the same input".to_owned(),
        Residual::ParallelUnlessNormed => "both halves on the same input where the second has no norm".to_owned(),
        Residual::NormOfSum => "norms of the sums".to_owned(),
        Residual::Streams { count, kind: StreamKind::AltUp { active } } => {
            format!("{count} streams, AltUp around stream {active}")
        }
        Residual::Streams { count, kind: StreamKind::HyperConnections { sinkhorn_iterations, eps } } => {
            format!("{count} streams, hyper-connections normalised {sinkhorn_iterations} times, eps {eps:e}")
        }
    };
    let scale = if layer.residual_scale == 1.0 { String::new() } else { format!(", * {}", layer.residual_scale) };
    joined + &scale
}

type Item = (&'static str, Vec<String>);

fn mixer(spec: &Mixer) -> Vec<Item> {
    match spec {
        Mixer::Attention(spec) => vec![("attention", attention(spec))],
        Mixer::Latent(spec) => vec![("latent", latent(spec))],
        Mixer::SharedRow(spec) => vec![("shared row", shared_row(spec))],
        Mixer::Linear => vec![("linear", vec!["in the place of attention".to_owned()])],
        Mixer::Scan(spec) => vec![("scan", scan(spec))],
        Mixer::Channels(spec) => vec![("scan", channels(spec))],
        Mixer::ShortConv { kernel } => vec![("short conv", vec![format!("over {kernel} positions")])],
        Mixer::Two(a, b) => {
            let (mut items, mut second) = (mixer(a), mixer(b));
            second.iter_mut().for_each(|(_, lines)| lines[0].insert_str(0, "and "));
            items.append(&mut second);
            items
        }
        Mixer::None => Vec::new(),
    }
}

fn attention(spec: &AttentionSpec) -> Vec<String> {
    let dims = if spec.key_dim == spec.value_dim {
        spec.key_dim.to_string()
    } else {
        format!("{} and {}", spec.key_dim, spec.value_dim)
    };
    let seen = visible(spec.visible);
    let of_queries = format!("{} heads of {dims}, {} of keys and values, {seen}", spec.heads, spec.kv_heads);
    let mut scores = vec![position(spec.position), format!("scale {}", spec.scale)];
    scores.extend(spec.soft_cap.map(|cap| format!("scores within {cap}")));
    scores.extend(spec.temperature.as_ref().map(temperature));
    match spec.sinks {
        Need::Always => scores.push("sinks".to_owned()),
        Need::Maybe => scores.push("sinks if there are any".to_owned()),
        Need::Never => {}
    }
    let mut norms: Vec<String> =
        spec.qkv_limit.iter().map(|limit| format!("queries, keys and values within {limit}")).collect();
    if let Some(HeadNorm { kind: of, eps, span, after_rope, need }) = spec.head_norm {
        let span = match span {
            HeadNormSpan::Head => "each head",
            HeadNormSpan::OwnHead => "each head with its weights",
            HeadNormSpan::Row => "all heads together",
            HeadNormSpan::Plain => "each head without weights",
        };
        let place = if after_rope { " behind the rotation" } else { "" };
        let need = if need == Need::Maybe { " if there is one" } else { "" };
        norms.push(format!("queries and keys: {} of {span}{place}, eps {eps:e}{need}", kind(of)));
    }
    norms.extend(spec.value_norm_eps.map(|eps| format!("values: rms of each head without weights, eps {eps:e}")));
    let gate = match spec.output_gate {
        OutputGate::None => None,
        OutputGate::OfQuery => Some("output gate beside each query"),
        OutputGate::Elements => Some("output gate for each element"),
        OutputGate::Heads => Some("output gate for each head"),
        OutputGate::HeadsOrElements => Some("output gate for each head or element"),
    };
    let of_gate = match spec.gate_activation {
        GateActivation::Sigmoid => "",
        GateActivation::Softplus => ", by softplus",
    };
    let mut rest: Vec<String> = gate.into_iter().map(|gate| format!("{gate}{of_gate}")).collect();
    rest.extend(spec.sub_norm.as_ref().map(|of| format!("output behind {}", norm(of))));
    if spec.value_scale != 1.0 {
        rest.push(format!("output * {}", spec.value_scale));
    }
    if spec.qkv_bias == Need::Always {
        rest.push("biases of queries, keys and values".to_owned());
    }
    if spec.output_bias == Need::Always {
        rest.push("bias of the output".to_owned());
    }
    match spec.kv {
        KvSource::Own => {}
        KvSource::OwnOrKeys => rest.push("values are keys if they have no matrix".to_owned()),
        KvSource::Layer(il) => rest.push(format!("keys and values of layer {il}")),
    }
    let mut lines = vec![of_queries, scores.join(", ")];
    lines.extend(norms);
    lines.push(rest.join(", "));
    lines
}

fn position(position: Position) -> String {
    match position {
        Position::None => "no positions".to_owned(),
        Position::Rope(id) => format!("rope {}", id.0),
        Position::RelativeBias { buckets } => format!("a bias in {buckets} buckets of distances"),
        Position::Alibi { max_bias } => format!("ALiBi up to {max_bias}"),
    }
}

/// Factor on queries.
pub(crate) fn temperature(spec: &Temperature) -> String {
    format!("temperature {} over {} tokens", spec.scale, spec.length_tokens)
}

fn latent(spec: &LatentSpec) -> Vec<String> {
    let LatentSpec { heads, nope_dim, rope_dim, value_dim, kv_rank, .. } = spec;
    let queries = spec.query_rank.map_or("queries at once".to_owned(), |rank| format!("queries through {rank}"));
    let expansion = match spec.expansion {
        LatentExpansion::Split => "matrices apart",
        LatentExpansion::Joined => "one matrix",
    };
    let mut scores = vec![position(spec.position), format!("scale {}", spec.scale)];
    scores.extend(spec.temperature.as_ref().map(temperature));
    vec![
        format!("{heads} heads of {nope_dim} + {rope_dim} and {value_dim}, {}", visible(spec.visible)),
        format!("rows of {kv_rank} + {rope_dim}, expanded by {expansion}; {queries}; eps {:e}", spec.eps),
        scores.join(", "),
    ]
}

fn shared_row(spec: &SharedRowSpec) -> Vec<String> {
    let SharedRowSpec { heads, dim, query_rank, window, scale, output_groups: (groups, rank), .. } = spec;
    let before = spec.compressed.map_or(String::new(), |CompressedRows { ratio, overlaps, indexer }| {
        let overlaps = if overlaps { ", overlapping" } else { "" };
        let chosen = indexer.map_or(String::new(), |IndexerSpec { heads, key_dim, top_k }| {
            format!(", {top_k} chosen by {heads} heads of {key_dim}")
        });
        format!("a row for each {ratio} before{overlaps}{chosen}")
    });
    vec![
        format!("{heads} heads of {dim}, the last {window}, sinks, eps {:e}", spec.eps),
        before,
        format!("rope {}, scale {scale}", spec.rope.0),
        format!("queries through {query_rank}, outputs in {groups} groups through {rank} each"),
    ]
}

fn channels(spec: &ChannelSpec) -> Vec<String> {
    let ChannelSpec { channels, state, rank, conv_kernel, norm, eps } = spec;
    let norms = match norm {
        ChannelNorm::None => String::new(),
        ChannelNorm::Plain => format!(", norms of all three without weights, eps {eps:e}"),
        ChannelNorm::Weighted => format!(", norms of all three, eps {eps:e}"),
    };
    vec![
        format!("Mamba: {channels} channels with states of {state}, steps by a rank of {rank}"),
        format!("convolution over {conv_kernel} positions{norms}"),
    ]
}

fn scan(spec: &ScanSpec) -> Vec<String> {
    let ScanSpec { key_heads, value_heads, key_dim, value_dim, conv_kernel, eps, .. } = spec;
    let name = match spec.kind {
        ScanKind::GatedDelta => "gated delta net",
        ScanKind::KimiDelta => "Kimi delta attention",
        ScanKind::Mamba2 => "Mamba 2",
    };
    let sharing = match spec.sharing {
        KeySharing::Grouped => "grouped",
        KeySharing::Tiled => "tiled",
    };
    let norm = match spec.output_norm {
        Need::Always => ", norm of the output",
        Need::Maybe => ", norm of the output if there is one",
        Need::Never => "",
    };
    let packing = match spec.packing {
        ScanPacking::Apart => "",
        ScanPacking::ByKeyHead => ", packed by key head",
    };
    vec![
        format!("{name}: {value_heads} heads of {value_dim}, {key_heads} of keys of {key_dim}, {sharing}{packing}"),
        format!("convolution over {conv_kernel} positions{norm}, eps {eps:e}"),
    ]
}

fn feed_forward(spec: &FeedForward) -> Vec<Item> {
    match spec {
        FeedForward::Gated(spec) => vec![("gated", vec![gated(spec)])],
        FeedForward::Plain(spec) => vec![("plain", vec![plain(spec)])],
        FeedForward::GatedOrPlain(with, without) => {
            let without = format!("without a gate {}", plain(without));
            vec![("gated", vec![format!("{} if there is a gate", gated(with)), without])]
        }
        FeedForward::Moe(spec) => vec![("experts", moe(spec))],
        FeedForward::MoeOrGated(with, without) => {
            vec![("experts", moe(with)), ("gated", vec![format!("{} if there is no router", gated(without))])]
        }
        FeedForward::Both(both) => vec![
            ("gated", vec![gated(&both.network)]),
            ("post norm", vec![norm(&both.after_network)]),
            ("norm", vec![norm(&both.before_experts)]),
            ("experts", moe(&both.experts)),
            ("post norm", vec![norm(&both.after_experts)]),
        ],
        FeedForward::None => Vec::new(),
    }
}

fn gated(spec: &GatedSpec) -> String {
    let fused = if spec.is_fused { ", gate and up as one" } else { "" };
    let bias = if spec.bias == Need::Always { ", biases" } else { "" };
    let sparsity = spec.sparsity.map_or(String::new(), |x| format!(", above {x} deviations"));
    let sub_norm = spec.sub_norm.as_ref().map_or(String::new(), |of| format!(", behind {}", norm(of)));
    format!("{}, {}{fused}{bias}{sparsity}{}{sub_norm}", spec.width, activation(spec.activation), clamp(spec.clamp))
}

fn plain(spec: &PlainSpec) -> String {
    let bias = if spec.bias == Need::Always { ", biases" } else { "" };
    format!("{}, {}{bias}", spec.width, activation(spec.activation))
}

fn activation(activation: HiddenActivation) -> String {
    match activation {
        HiddenActivation::Silu => "silu".to_owned(),
        HiddenActivation::Gelu => "gelu".to_owned(),
        HiddenActivation::Relu => "relu".to_owned(),
        HiddenActivation::ReluSquared => "relu squared".to_owned(),
        HiddenActivation::Xielu { positive, negative, beta, .. } => format!("xielu {positive}, {negative}, {beta}"),
        HiddenActivation::ClampedSwiglu { limit, alpha } => format!("swiglu within {limit}, alpha {alpha}"),
    }
}

fn clamp(clamp: Option<Clamp>) -> String {
    match clamp {
        None => String::new(),
        Some(Clamp::BeforeActivation(limit)) => format!(", within {limit} before the activation"),
        Some(Clamp::AfterActivation(limit)) => format!(", within {limit} behind the activation"),
    }
}

fn moe(spec: &MoeSpec) -> Vec<String> {
    let ExpertSpec { width, activation: of, is_gated, bias, clamp: limits } = spec.expert;
    let gate = if is_gated { "" } else { " without a gate" };
    let bias = if bias == Need::Always { ", biases" } else { "" };
    let latent = spec.latent.map_or(String::new(), |n| format!(", through {n}"));
    let limits = clamp(limits);
    let (n_used, n_experts, of) = (spec.n_used, spec.n_experts, activation(of));
    let mut lines = vec![format!("{n_used} of {n_experts} of {width}, {of}{gate}{bias}{latent}{limits}"), router(spec)];
    if let Some(SharedSpec { width, is_weighted, clamp: limits }) = spec.shared {
        let weighted = if is_weighted { ", weighed by the input" } else { "" };
        lines.push(format!("shared {width}{weighted}{}", clamp(limits)));
    }
    if spec.weighs_input {
        lines.push("inputs weighed".to_owned());
    }
    lines
}

fn router(spec: &MoeSpec) -> String {
    let gating = match spec.gating {
        Gating::Softmax => "softmax",
        Gating::Sigmoid => "sigmoid",
        Gating::SoftmaxOfChosen => "softmax of the chosen",
        Gating::SqrtSoftplus => "sqrt-softplus",
    };
    let mut text = format!("router: {gating}");
    match spec.choice {
        Choice::Probabilities => {}
        Choice::Biased(Need::Maybe) => text.push_str(", chosen with a bias if there is one"),
        Choice::Biased(_) => text.push_str(", chosen with a bias"),
        Choice::Token => text.push_str(", chosen by the token"),
    }
    if let Some((count, used)) = spec.groups {
        let _ = write!(text, ", {used} of {count} groups");
    }
    match spec.router_input {
        RouterInput::Normed => {}
        RouterInput::LayerInput => text.push_str(", of the layer's input"),
        RouterInput::OwnNorm { eps } => {
            let _ = write!(text, ", behind its own norm, eps {eps:e}");
        }
    }
    if spec.router_bias == Need::Always {
        text.push_str(", bias");
    }
    if spec.normalised {
        text.push_str(", sum 1");
    }
    if spec.scale != 1.0 {
        let _ = write!(text, ", * {}", spec.scale);
    }
    text
}

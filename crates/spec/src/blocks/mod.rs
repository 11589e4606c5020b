//! The kinds of blocks that models are built of: each asks for its tensors and appends its steps.

mod attention;
mod channels;
mod experts;
mod feed_forward;
mod latent;
mod own_embedding;
mod scan;
mod short_conv;
mod streams;

pub use streams::MAX_STREAMS;

use crate::error::Result;
use crate::model::{BothSpec, FeedForward, LayerSpec, Mixer, Need, NormSpec, Residual, RouterInput};
use crate::program::{Builder, Input, Linear, Norm, Part, Pending, Register, Step};
use crate::want::{Role, TensorId};

/// x = scale * embedding of each token, with what is added to it and its norm.
pub(crate) fn embed(b: &mut Builder<'_>, table: TensorId) -> Result<()> {
    let (input, len) = (&b.spec.input, b.spec.n_embd);
    if input.token_types != Need::Never {
        return Err(b.not_run("learned embeddings of segments"));
    }
    let dims = [len as u64, b.spec.ctx_train as u64];
    let need = if input.has_positions { Need::Always } else { Need::Never };
    let positions = b.needed(need, "position_embd.weight", &dims, Role::Positions, None)?;
    let norm = input.norm.as_ref().map(|norm| b.norm(norm, None, len)).transpose()?;
    let (scale, per_layer) = (input.scale, input.per_layer);
    b.step(Step::Embed { table, scale, positions, norm, to: Register::Residual });
    if let Some(spec) = per_layer {
        own_embedding::embed(b, &spec)?;
    }
    streams::embed(b)
}

/// A layer's two halves.
pub(crate) fn layer(b: &mut Builder<'_>, il: usize, layer: &LayerSpec) -> Result<()> {
    if layer.cross.is_some() {
        return Err(b.not_run("attention to an encoder's result"));
    }
    if layer.low_rank.is_some() && !matches!(layer.residual, Residual::Streams { .. }) {
        return Err(b.not_run("a branch beside the mixer"));
    }
    let is_parallel = match layer.residual {
        Residual::Sequential => false,
        Residual::Parallel => true,
        Residual::ParallelUnlessNormed => {
            let name = layer.norms.before_ffn.and_then(|norm| norm.name).unwrap_or_default();
            !b.has(&format!("blk.{il}.{name}.weight"))
        }
        Residual::NormOfSum => return Err(b.not_run("norms of sums")),
        Residual::Streams { .. } => return streams::layer(b, il, layer),
    };
    if is_parallel && matches!(layer.ffn, FeedForward::Both(..)) {
        return Err(b.not_run("two networks beside the mixer"));
    }
    if is_parallel && (layer.mixer == Mixer::None || layer.ffn == FeedForward::None) {
        return Err(b.not_run("half a layer beside nothing"));
    }
    if layer.mixer != Mixer::None {
        b.segment(Part::Mixer(il));
        let mixers = mixers(b, il, &layer.mixer)?;
        let mut readers: Vec<TensorId> = mixers.iter().flat_map(Prepared::readers).collect();
        let after_mixer = after(b, il, layer.norms.after_mixer.as_ref())?;
        // Tensors are declared half by half; those of the second are needed here where it reads the
        // first one's input.
        let parallel = if is_parallel { network(b, il, &layer.ffn)? } else { None };
        let own_norm = own_norm(b, il, layer, is_parallel)?;
        if own_norm.is_none() {
            readers.extend(parallel.iter().flat_map(Network::readers));
        }
        match early_router(b, il, &layer.ffn)? {
            None => join_norm(b, Some(il), layer.norms.before_mixer.as_ref(), readers)?,
            Some(router) => {
                join_norm(b, Some(il), None, vec![router.w])?;
                b.step(Step::Project { from: Input::Normed, parts: vec![router], to: Register::Router, adds: false });
                let norm = after(b, il, layer.norms.before_mixer.as_ref())?;
                let norm = norm.ok_or_else(|| b.not_run("a router beside a mixer without a norm"))?;
                b.step(Step::Norm { norm, to: Input::Normed, readers });
            }
        }
        for (i, mixer) in mixers.into_iter().enumerate() {
            mixer.emit(b, i > 0);
        }
        if let Some(ffn) = parallel {
            b.segment(Part::FeedForward(il));
            if own_norm.is_some() {
                b.step(Step::JoinNorm { join: None, norm: own_norm, to: Input::Normed, readers: ffn.readers() });
            }
            ffn.emit(b, true);
            let norm = after(b, il, layer.norms.after_ffn.as_ref())?;
            b.pending = Some(Pending { scale: layer.residual_scale, ..Pending::normed(Register::Delta, norm) });
            return end(b, il, layer);
        }
        let scale = layer.residual_scale * value_scale(b, layer)?;
        b.pending = Some(Pending { scale, ..Pending::normed(Register::Delta, after_mixer) });
    }
    if layer.ffn == FeedForward::None {
        return end(b, il, layer);
    }
    b.segment(Part::FeedForward(il));
    if let Some(ffn) = network(b, il, &layer.ffn)? {
        join_norm(b, Some(il), layer.norms.before_ffn.as_ref(), ffn.readers())?;
        ffn.emit(b, false);
        let norm = after(b, il, layer.norms.after_ffn.as_ref())?;
        b.pending = Some(Pending { scale: layer.residual_scale, ..Pending::normed(Register::Delta, norm) });
    }
    end(b, il, layer)
}

/// The router of a layer's mixture where it reads the layer's input.
fn early_router(b: &mut Builder<'_>, il: usize, ffn: &FeedForward) -> Result<Option<Linear>> {
    match ffn {
        FeedForward::Moe(spec) if spec.router_input == RouterInput::LayerInput => {
            experts::router(b, il, spec).map(Some)
        }
        _ => Ok(None),
    }
}

/// The factor on the heads' outputs, which is one on what their projection gives, too.
fn value_scale(b: &Builder<'_>, layer: &LayerSpec) -> Result<f32> {
    let Mixer::Attention(attention) = &layer.mixer else { return Ok(1.0) };
    if attention.value_scale != 1.0 && (layer.norms.after_mixer.is_some() || attention.output_bias != Need::Never) {
        return Err(b.not_run("a scale of values before a norm or a bias"));
    }
    Ok(attention.value_scale)
}

/// What comes behind a layer's halves.
fn end(b: &mut Builder<'_>, il: usize, layer: &LayerSpec) -> Result<()> {
    if layer.has_own_embedding {
        own_embedding::branch(b, il)?;
    }
    let name = format!("blk.{il}.layer_output_scale.weight");
    if let Some(scale) = b.needed(layer.output_scale, &name, &[1], Role::Scale, Some(il))? {
        match &mut b.pending {
            Some(pending) => pending.output_scale = Some(scale),
            None => return Err(b.not_run("a factor of a layer of nothing")),
        }
    }
    Ok(())
}

/// The norm of a network beside the mixer, where it is another one than the mixer's.
fn own_norm(b: &mut Builder<'_>, il: usize, layer: &LayerSpec, is_parallel: bool) -> Result<Option<Norm>> {
    let norms = &layer.norms;
    let (Some(of_ffn), true) = (norms.before_ffn.as_ref(), is_parallel) else { return Ok(None) };
    if layer.residual == Residual::ParallelUnlessNormed {
        return Ok(None);
    }
    let of_ffn = b.norm(of_ffn, Some(il), b.spec.n_embd)?;
    let of_mixer = norms.before_mixer.as_ref().map(|norm| b.norm(norm, Some(il), b.spec.n_embd)).transpose()?;
    Ok(Some(of_ffn).filter(|norm| of_mixer.as_ref() != Some(norm)))
}

/// What lets positions see each other, with its tensors.
enum Prepared {
    Attention(Box<attention::Attention>),
    Channels(Box<channels::Recurrence>),
    Latent(Box<latent::Attention>),
    Linear(Linear),
    Recurrence(scan::Recurrence),
    Convolution(short_conv::Convolution),
}

impl Prepared {
    fn readers(&self) -> Vec<TensorId> {
        match self {
            Prepared::Attention(attention) => attention.readers(),
            Prepared::Channels(recurrence) => recurrence.readers(),
            Prepared::Latent(attention) => attention.readers(),
            Prepared::Linear(linear) => vec![linear.w],
            Prepared::Recurrence(recurrence) => recurrence.readers(),
            Prepared::Convolution(conv) => conv.readers(),
        }
    }

    fn emit(self, b: &mut Builder<'_>, adds: bool) {
        match self {
            Prepared::Attention(attention) => attention.emit(b, adds),
            Prepared::Channels(recurrence) => recurrence.emit(b, adds),
            Prepared::Latent(attention) => attention.emit(b, adds),
            Prepared::Linear(linear) => {
                b.step(Step::Project { from: Input::Normed, parts: vec![linear], to: Register::Delta, adds });
            }
            Prepared::Recurrence(recurrence) => recurrence.emit(b, adds),
            Prepared::Convolution(conv) => conv.emit(b, adds),
        }
    }
}

/// The mixers of a layer, whose outputs are added.
fn mixers(b: &mut Builder<'_>, il: usize, mixer: &Mixer) -> Result<Vec<Prepared>> {
    Ok(match mixer {
        Mixer::Attention(spec) => vec![Prepared::Attention(Box::new(attention::prepare(b, il, spec)?))],
        Mixer::Scan(spec) => vec![Prepared::Recurrence(scan::prepare(b, il, spec)?)],
        Mixer::Linear => {
            let len = b.spec.n_embd;
            vec![Prepared::Linear(b.linear(il, "attn_output", (len, len), Role::AttentionOutput, Need::Never)?)]
        }
        Mixer::Channels(spec) => vec![Prepared::Channels(Box::new(channels::prepare(b, il, spec)?))],
        Mixer::Two(first, second) => {
            let mut both = mixers(b, il, first)?;
            both.extend(mixers(b, il, second)?);
            both
        }
        Mixer::Latent(spec) => vec![Prepared::Latent(Box::new(latent::prepare(b, il, spec)?))],
        Mixer::SharedRow(_) => return Err(b.not_run("attention over rows that are key and value at once")),
        Mixer::ShortConv { kernel } => vec![Prepared::Convolution(short_conv::prepare(b, il, *kernel)?)],
        Mixer::None => Vec::new(),
    })
}

/// A feed-forward network with its tensors.
enum Network {
    Alone(feed_forward::Network),
    Mixture(Box<experts::Mixture>),
    Both(Box<Both>),
}

/// A network and a mixture side by side.
struct Both {
    network: feed_forward::Gated,
    after_network: Norm,
    before_experts: Norm,
    experts: experts::Mixture,
    after_experts: Norm,
}

impl Both {
    fn prepare(b: &mut Builder<'_>, il: usize, spec: &BothSpec) -> Result<Both> {
        let len = b.spec.n_embd;
        let norm = |b: &mut Builder<'_>, norm| b.norm(norm, Some(il), len);
        Ok(Both {
            network: feed_forward::gated(b, il, &spec.network)?,
            after_network: norm(b, &spec.after_network)?,
            before_experts: norm(b, &spec.before_experts)?,
            experts: experts::prepare(b, il, &spec.experts)?,
            after_experts: norm(b, &spec.after_experts)?,
        })
    }

    fn emit(self, b: &mut Builder<'_>) {
        let len = b.spec.n_embd;
        self.network.emit(b, false);
        b.step(Step::SetAside { norm: self.after_network, len });
        self.experts.emit_behind(b, self.before_experts);
        b.step(Step::AddAside { norm: self.after_experts, len });
    }
}

impl Network {
    fn readers(&self) -> Vec<TensorId> {
        match self {
            Network::Alone(ffn) => ffn.readers(),
            Network::Mixture(ffn) => ffn.readers(),
            Network::Both(both) => both.network.readers(),
        }
    }

    fn emit(self, b: &mut Builder<'_>, adds: bool) {
        match self {
            Network::Alone(ffn) => ffn.emit(b, adds, false),
            Network::Mixture(ffn) => ffn.emit(b, adds),
            Network::Both(both) => both.emit(b),
        }
    }
}

/// The feed-forward network of a layer, if it has one.
fn network(b: &mut Builder<'_>, il: usize, ffn: &FeedForward) -> Result<Option<Network>> {
    Ok(match ffn {
        FeedForward::Gated(spec) => {
            Some(Network::Alone(feed_forward::Network::Gated(feed_forward::gated(b, il, spec)?)))
        }
        FeedForward::Plain(spec) => {
            Some(Network::Alone(feed_forward::Network::Plain(feed_forward::plain(b, il, spec)?)))
        }
        FeedForward::GatedOrPlain(..) => return Err(b.not_run("a feed-forward network without a gate")),
        FeedForward::Moe(spec) if matches!(spec.router_input, RouterInput::OwnNorm { .. }) => {
            return Err(b.not_run("a router with a norm of its own"));
        }
        FeedForward::MoeOrGated(moe, _) if b.has(&format!("blk.{il}.ffn_gate_inp.weight")) => {
            Some(Network::Mixture(Box::new(experts::prepare(b, il, moe)?)))
        }
        FeedForward::MoeOrGated(_, spec) => {
            Some(Network::Alone(feed_forward::Network::Gated(feed_forward::gated(b, il, spec)?)))
        }
        FeedForward::Moe(spec) => Some(Network::Mixture(Box::new(experts::prepare(b, il, spec)?))),
        FeedForward::Both(spec) => Some(Network::Both(Box::new(Both::prepare(b, il, spec)?))),
        FeedForward::None => None,
    })
}

/// The last norm and the logits.
pub(crate) fn head(b: &mut Builder<'_>, table: TensorId) -> Result<()> {
    let (spec, n_embd, n_vocab) = (b.spec.output, b.spec.n_embd, b.n_vocab());
    if !spec.has_head {
        return Err(b.not_run("a model without an output head"));
    }
    b.segment(Part::Head);
    let dims = [n_embd as u64, n_vocab as u64];
    // The embedding itself in models that tie the two.
    let w = b.optional("output.weight", &dims, Role::Head, None)?.unwrap_or(table);
    join_norm(b, None, spec.norm.as_ref(), vec![w])?;
    let bias = b.needed_bias("output.bias", n_vocab, spec.bias)?;
    let output = Linear { w, rows: 0..n_vocab, k: n_embd, bias };
    b.step(Step::Logits { from: Input::Normed, output, scale: spec.scale, soft_cap: spec.soft_cap });
    Ok(())
}

/// Joins what is pending to the residual stream; its norm becomes the input of `readers`.
fn join_norm(b: &mut Builder<'_>, layer: Option<usize>, norm: Option<&NormSpec>, readers: Vec<TensorId>) -> Result<()> {
    let (join, len) = (b.pending.take(), b.spec.n_embd);
    let norm = norm.map(|norm| b.norm(norm, layer, len)).transpose()?;
    b.step(Step::JoinNorm { join, norm, to: Input::Normed, readers });
    Ok(())
}

fn after(b: &mut Builder<'_>, il: usize, norm: Option<&NormSpec>) -> Result<Option<Norm>> {
    let len = b.spec.n_embd;
    norm.map(|norm| b.norm(norm, Some(il), len)).transpose()
}

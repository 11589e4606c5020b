//! The kinds of blocks that models are built of: each asks for its tensors and appends its steps.

mod attention;
mod feed_forward;

use crate::error::Result;
use crate::model::{FeedForward, LayerSpec, Mixer, Need, NormSpec, Residual};
use crate::program::{Builder, Input, Linear, Part, Pending, Register, Step};
use crate::want::{Role, TensorId};

/// x = scale * embedding of each token.
pub(crate) fn embed(b: &mut Builder<'_>, table: TensorId) -> Result<()> {
    let input = &b.spec.input;
    if input.norm.is_some() {
        return Err(b.not_run("a norm of the embedding"));
    }
    if input.has_positions || input.token_types != Need::Never {
        return Err(b.not_run("learned embeddings of positions or segments"));
    }
    if input.per_layer.is_some() {
        return Err(b.not_run("an embedding for each layer"));
    }
    let scale = input.scale;
    b.step(Step::Embed { table, scale, to: Register::Residual });
    Ok(())
}

/// A layer's two halves.
pub(crate) fn layer(b: &mut Builder<'_>, il: usize, layer: &LayerSpec) -> Result<()> {
    if layer.has_own_embedding || layer.has_output_scale {
        return Err(b.not_run("a branch or a factor at the end of a layer"));
    }
    if layer.cross.is_some() {
        return Err(b.not_run("attention to an encoder's result"));
    }
    if layer.low_rank.is_some() {
        return Err(b.not_run("a branch beside the mixer"));
    }
    let is_parallel = match layer.residual {
        Residual::Sequential => false,
        Residual::Parallel => true,
        Residual::NormOfSum => return Err(b.not_run("norms of sums")),
        Residual::Streams { .. } => return Err(b.not_run("several residual streams")),
    };
    let n_embd = b.spec.n_embd;
    b.segment(Part::Mixer(il));
    let mixer = match &layer.mixer {
        Mixer::Attention(spec) => attention::prepare(b, il, spec)?,
        Mixer::Latent(_) => return Err(b.not_run("latent attention")),
        Mixer::SharedRow(_) => return Err(b.not_run("attention over rows that are key and value at once")),
        Mixer::Scan(_) => return Err(b.not_run("a recurrence")),
        Mixer::ShortConv { .. } => return Err(b.not_run("a convolution over positions")),
        Mixer::Two(..) => return Err(b.not_run("two mixers in a layer")),
        Mixer::None => return Err(b.not_run("a layer without attention")),
    };
    let mut readers = mixer.readers();
    let after_mixer = after(b, il, layer.norms.after_mixer.as_ref())?;
    // Tensors are declared half by half; those of the second are needed here where it reads the
    // first one's input.
    let ffn = |b: &mut Builder<'_>| match &layer.ffn {
        FeedForward::Gated(spec) => feed_forward::gated(b, il, spec),
        FeedForward::Plain(_) | FeedForward::GatedOrPlain(..) => {
            Err(b.not_run("a feed-forward network without a gate"))
        }
        FeedForward::Moe(_) | FeedForward::Both(..) => Err(b.not_run("a mixture of experts")),
        FeedForward::None => Err(b.not_run("a layer without a feed-forward network")),
    };
    let parallel = if is_parallel { Some(ffn(b)?) } else { None };
    readers.extend(parallel.iter().flat_map(feed_forward::Gated::readers));
    join_norm(b, Some(il), layer.norms.before_mixer.as_ref(), n_embd, readers)?;
    mixer.emit(b);
    match parallel {
        Some(ffn) => {
            b.segment(Part::FeedForward(il));
            ffn.emit(b, true);
        }
        None => {
            b.pending = Some(Pending { from: Register::Delta, norm: after_mixer, scale: layer.residual_scale });
            b.segment(Part::FeedForward(il));
            let ffn = ffn(b)?;
            join_norm(b, Some(il), layer.norms.before_ffn.as_ref(), n_embd, ffn.readers())?;
            ffn.emit(b, false);
        }
    }
    let norm = after(b, il, layer.norms.after_ffn.as_ref())?;
    b.pending = Some(Pending { from: Register::Delta, norm, scale: layer.residual_scale });
    Ok(())
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
    join_norm(b, None, spec.norm.as_ref(), n_embd, vec![w])?;
    let bias = b.needed_bias("output.bias", n_vocab, spec.bias)?;
    let output = Linear { w, rows: 0..n_vocab, k: n_embd, bias };
    b.step(Step::Logits { from: Input::Normed, output, scale: spec.scale, soft_cap: spec.soft_cap });
    Ok(())
}

/// Joins what is pending to the residual stream; its norm becomes the input of `readers`.
fn join_norm(
    b: &mut Builder<'_>,
    layer: Option<usize>,
    norm: Option<&NormSpec>,
    len: usize,
    readers: Vec<TensorId>,
) -> Result<()> {
    let join = b.pending.take();
    let norm = norm.map(|norm| b.norm(norm, layer, len)).transpose()?;
    b.step(Step::JoinNorm { join, norm, to: Input::Normed, readers });
    Ok(())
}

fn after(b: &mut Builder<'_>, il: usize, norm: Option<&NormSpec>) -> Result<Option<crate::program::Norm>> {
    let len = b.spec.n_embd;
    norm.map(|norm| b.norm(norm, Some(il), len)).transpose()
}

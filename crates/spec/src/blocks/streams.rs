//! Several residual streams that are predicted and corrected around each layer (AltUp: Baykal et al.
//! 2023, arXiv 2301.13310). The first is the residual stream, which a layer reads and changes as usual.

use super::{Prepared, after, end, mixers, network};
use crate::error::Result;
use crate::model::{LayerSpec, LowRankSpec, Need, NormSpec, Residual, StreamKind};
use crate::program::{Builder, Input, JoinBranch, Linear, Norm, Part, Pending, Register, Step, StreamStep, Streams};
use crate::want::{Role, TensorId};

/// Streams that a model may have.
pub const MAX_STREAMS: usize = 8;

/// How many streams there are, if more than one.
fn count(b: &Builder<'_>) -> Result<Option<usize>> {
    let of_layer = |layer: &LayerSpec| match layer.residual {
        Residual::Streams { count, kind } => Some((count, kind)),
        _ => None,
    };
    let mut streams = b.spec.layers.iter().map(of_layer);
    let Some(first) = streams.next().flatten() else { return Ok(None) };
    if !streams.all(|streams| streams == Some(first)) {
        return Err(b.not_run("streams of another number in some layers"));
    }
    match first {
        (count, StreamKind::AltUp { .. }) if !(2..=MAX_STREAMS).contains(&count) => {
            Err(b.not_run("one stream, or more than 8"))
        }
        (count, StreamKind::AltUp { active: 0 }) => Ok(Some(count)),
        (_, StreamKind::AltUp { .. }) => Err(b.not_run("layers that read another stream than the first")),
        (_, StreamKind::HyperConnections { .. }) => Err(b.not_run("several residual streams")),
    }
}

/// The streams behind the first: projections of the embedding, as long as it is.
pub(super) fn embed(b: &mut Builder<'_>) -> Result<()> {
    let Some(count) = count(b)? else { return Ok(()) };
    let (len, n) = (b.spec.n_embd, count - 1);
    let w = square(b, "altup_proj.weight", n)?;
    let parts = vec![Linear { w, rows: 0..n * len, k: len, bias: None }];
    b.first_steps.extend([
        Step::Quantize { from: Register::Residual, len, to: Input::Normed, readers: vec![w] },
        Step::Project { from: Input::Normed, parts, to: Register::Streams, adds: false },
        Step::Streams(Streams { count, len, step: StreamStep::Spread }),
    ]);
    Ok(())
}

/// A matrix from a stream to itself for each stream but the first.
fn square(b: &mut Builder<'_>, name: &str, n: usize) -> Result<TensorId> {
    let len = b.spec.n_embd as u64;
    b.required(name, &[len, len, n as u64], Role::LayerProjection, None)
}

/// A branch beside the mixer, on its input.
struct Branch {
    down: Linear,
    up: Linear,
    norm: Norm,
}

impl Branch {
    fn prepare(b: &mut Builder<'_>, il: usize, spec: &LowRankSpec) -> Result<Branch> {
        let n_embd = b.spec.n_embd;
        Ok(Branch {
            down: b.linear(il, "laurel_l", (spec.rank, n_embd), Role::LayerProjection, Need::Never)?,
            up: b.linear(il, "laurel_r", (n_embd, spec.rank), Role::LayerProjection, Need::Never)?,
            norm: b.norm(&spec.norm, Some(il), n_embd)?,
        })
    }
}

/// A layer of such a model.
pub(super) fn layer(b: &mut Builder<'_>, il: usize, layer: &LayerSpec) -> Result<()> {
    let Some(count) = count(b)? else { return Err(b.not_run("several residual streams in some layers")) };
    let (len, n) = (b.spec.n_embd, count);
    let streams = |step| Step::Streams(Streams { count, len, step });
    let Some(low_rank) = &layer.low_rank else { return Err(b.not_run("several streams without a branch")) };
    b.segment(Part::Mixer(il));
    let router = b.linear(il, "altup_router", (n, len), Role::Router, Need::Never)?;
    let dims = |rows: usize| [n as u64, rows as u64];
    let name = |part: &str| format!("blk.{il}.{part}.weight");
    let predict = b.required(&name("altup_predict_coef"), &dims(n * n), Role::Router, Some(il))?;
    let correct = b.required(&name("altup_correct_coef"), &dims(n), Role::Router, Some(il))?;
    let scale = b.required(&name("altup_correct_scale"), &[len as u64], Role::Scale, Some(il))?;
    let mixers = mixers(b, il, &layer.mixer)?;
    let branch = Branch::prepare(b, il, low_rank)?;
    let [before_mixer, after_mixer] = [layer.norms.before_mixer, layer.norms.after_mixer];
    let norms = (after(b, il, before_mixer.as_ref())?, after(b, il, after_mixer.as_ref())?);
    let (Some(before_mixer), Some(after_mixer)) = norms else {
        return Err(b.not_run("several streams without norms around the mixer"));
    };
    let of_router = b.norm(&NormSpec::rms("altup_router_norm", before_mixer.eps), Some(il), len)?;
    let route = |parts| Step::Project { from: Input::Normed, parts, to: Register::Router, adds: false };

    b.step(Step::Norm { norm: of_router, to: Input::Normed, readers: vec![router.w] });
    b.step(route(vec![router.clone()]));
    b.step(streams(StreamStep::Predict { weights: predict }));
    let mut readers: Vec<TensorId> = mixers.iter().flat_map(Prepared::readers).collect();
    readers.push(branch.down.w);
    b.step(Step::Norm { norm: before_mixer, to: Input::Normed, readers });
    let rank = branch.down.n_rows();
    let project = |from, part: Linear, to| Step::Project { from, parts: vec![part], to, adds: false };
    let up = branch.up.w;
    b.step(project(Input::Normed, branch.down, Register::Hidden));
    b.step(Step::Quantize { from: Register::Hidden, len: rank, to: Input::Inner, readers: vec![up] });
    b.step(project(Input::Inner, branch.up, Register::Aside));
    for (i, mixer) in mixers.into_iter().enumerate() {
        mixer.emit(b, i > 0);
    }
    b.step(Step::JoinBranch(JoinBranch { of_mixer: after_mixer, of_input: before_mixer, of_branch: branch.norm }));

    b.segment(Part::FeedForward(il));
    let Some(ffn) = network(b, il, &layer.ffn)? else { return Err(b.not_run("several streams without a network")) };
    let Some(norm) = after(b, il, layer.norms.before_ffn.as_ref())? else {
        return Err(b.not_run("several streams without a norm before the network"));
    };
    b.step(Step::Norm { norm, to: Input::Normed, readers: ffn.readers() });
    ffn.emit(b, false);
    let norm = after(b, il, layer.norms.after_ffn.as_ref())?;
    let join = Some(Pending::normed(Register::Delta, norm));
    b.step(Step::JoinNorm { join, norm: Some(of_router), to: Input::Normed, readers: vec![router.w] });
    b.step(route(vec![router]));
    b.step(streams(StreamStep::Correct { weights: correct, scale }));
    // What comes behind a layer is added to the streams behind the first.
    end(b, il, layer)?;
    if let Some(norm) = b.pending.take().and_then(|pending| pending.norm) {
        b.step(streams(StreamStep::Add { norm }));
    }
    if il + 1 == b.spec.layers.len() {
        let w = square(b, "altup_unembd_proj.weight", n - 1)?;
        for stream in 0..n - 1 {
            let rows = stream * len..(stream + 1) * len;
            b.step(Step::StreamInput { stream, len, n: n - 1, to: Input::Normed, readers: vec![w] });
            b.step(project(Input::Normed, Linear { w, rows, k: len, bias: None }, Register::Delta));
            b.step(streams(StreamStep::Set { stream }));
        }
        b.step(streams(StreamStep::Merge));
    }
    Ok(())
}

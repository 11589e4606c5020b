//! Embeddings of the token that each layer has of its own (Gemma 3n, Gemma 4).

use super::join_norm;
use crate::error::Result;
use crate::model::{HiddenActivation, Need, NormSpec, PerLayerEmbedding, Residual};
use crate::program::{Builder, Input, Linear, MixOwn, Pending, Register, Step};
use crate::want::Role;

/// own = sqrt(width) * embedding of each token, mixed with a projection of the common embedding:
/// that reads a matrix, so it is done where the first layer begins.
pub(super) fn embed(b: &mut Builder<'_>, spec: &PerLayerEmbedding) -> Result<()> {
    let (n_embd, n_layer, width) = (b.spec.n_embd, b.spec.layers.len(), spec.width);
    let len = width * n_layer;
    let dims = [len as u64, b.n_vocab().max(1) as u64];
    let table = b.required("per_layer_token_embd.weight", &dims, Role::LayerEmbedding, None)?;
    let dims = [n_embd as u64, len as u64];
    let w = b.required("per_layer_model_proj.weight", &dims, Role::LayerProjection, None)?;
    let norm = b.norm(&NormSpec::rms("per_layer_proj_norm", spec.eps), None, width)?;
    let scale = (width as f32).sqrt();
    b.step(Step::Embed { table, scale, positions: None, norm: None, to: Register::Own });
    let parts = vec![Linear { w, rows: 0..len, k: n_embd, bias: None }];
    b.first_steps = vec![
        Step::Quantize { from: Register::Residual, len: n_embd, to: Input::Normed, readers: vec![w] },
        Step::Project { from: Input::Normed, parts, to: Register::Hidden, adds: false },
        Step::MixOwn(MixOwn { width, n_layer, scale: 1.0 / (n_embd as f32).sqrt(), norm }),
    ];
    Ok(())
}

/// x += norm(proj * (gelu(gate * x) . own)) at a layer's end.
pub(super) fn branch(b: &mut Builder<'_>, il: usize) -> Result<()> {
    let Some(PerLayerEmbedding { width, eps }) = b.spec.input.per_layer else {
        return Err(b.not_run("a layer's own embedding that there is none of"));
    };
    let n_embd = b.spec.n_embd;
    let gate = b.linear(il, "inp_gate", (width, n_embd), Role::LayerProjection, Need::Never)?;
    let proj = b.linear(il, "proj", (n_embd, width), Role::LayerProjection, Need::Never)?;
    let norm = b.norm(&NormSpec::rms("post_norm", eps), Some(il), n_embd)?;
    match b.spec.layers[il].residual {
        // The corrected stream with its weights.
        Residual::Streams { .. } => {
            b.step(Step::Quantize { from: Register::Delta, len: n_embd, to: Input::Normed, readers: vec![gate.w] });
        }
        _ => join_norm(b, Some(il), None, vec![gate.w])?,
    }
    let (activation, of) = (HiddenActivation::Gelu, Register::Hidden);
    b.step(Step::Up { from: Input::Normed, up: gate, activation, to: of });
    let len = b.spec.layers.len() * width;
    b.step(Step::TimesOwn { of, slice: il * width..(il + 1) * width, len });
    b.step(Step::Quantize { from: of, len: width, to: Input::Inner, readers: vec![proj.w] });
    b.step(Step::Project { from: Input::Inner, parts: vec![proj], to: Register::Delta, adds: false });
    b.pending = Some(Pending::normed(Register::Delta, Some(norm)));
    Ok(())
}

//! What dense decoders have in common: the sizes of heads and layers, and a model of layers that
//! are alike.

use modelembed_terms::{NormKind, RopeStyle};

use super::Architecture;
use crate::error::Result;
use crate::keys::{Keys, MAX_HEADS, MAX_LENGTH};
use crate::model::{
    AttentionSpec, FeedForward, GatedSpec, HeadNorm, HeadNormSpan, HiddenActivation, InputSpec, LayerNorms, LayerSpec,
    Mixer, ModelSpec, Need, NormSpec, OutputSpec, PlainSpec, Position, Residual, RopeId, RopeSpec, Visible,
};

/// Sizes of one layer's heads.
#[derive(Clone, Copy)]
pub(super) struct Heads {
    pub(super) heads: usize,
    pub(super) kv_heads: usize,
    pub(super) key_dim: usize,
    pub(super) value_dim: usize,
}

/// The sizes of each layer's heads, where layers without key heads have no attention.
pub(super) fn heads_or_none(keys: &Keys<'_>, n_embd: usize) -> Result<Vec<Option<Heads>>> {
    let key = "attention.head_count_kv";
    let counts = keys.per_layer(key)?.ok_or_else(|| keys.bad(key, "is missing"))?;
    let of_layer = |kv_heads: &u32, heads: usize| -> Result<Option<Heads>> {
        let kv_heads = *kv_heads as usize;
        if kv_heads == 0 {
            return Ok(None);
        }
        if !heads.is_multiple_of(kv_heads) {
            return Err(keys.bad(key, format!("{kv_heads} does not divide the {heads} heads")));
        }
        let (key_dim, value_dim) = lengths(keys, n_embd, heads)?;
        Ok(Some(Heads { heads, kv_heads, key_dim, value_dim }))
    };
    let heads = keys.sizes_of_layers("attention.head_count", MAX_HEADS)?;
    counts.iter().zip(heads).map(|(kv_heads, heads)| of_layer(kv_heads, heads)).collect()
}

/// The sizes of each layer's heads, where all have the same length.
pub(super) fn heads(keys: &Keys<'_>, n_embd: usize) -> Result<Vec<Heads>> {
    let heads = long_heads(keys, n_embd)?;
    let Heads { key_dim, value_dim, .. } = heads[0];
    let what = "heads of another length in layers with a window";
    keys.refuse_unless("attention.key_length_swa", &[key_dim as f64], what)?;
    keys.refuse_unless("attention.value_length_swa", &[value_dim as f64], what)?;
    Ok(heads)
}

/// The sizes of each layer's heads, of the length that those without a window have.
pub(super) fn long_heads(keys: &Keys<'_>, n_embd: usize) -> Result<Vec<Heads>> {
    let heads = keys.sizes_of_layers("attention.head_count", MAX_HEADS)?;
    let kv_heads = match keys.per_layer("attention.head_count_kv")? {
        // 0 is not "absent" here: it marks layers without attention.
        Some(counts) => {
            let bounded = counts.into_iter().map(|n| keys.bounded("attention.head_count_kv", n, MAX_HEADS));
            bounded.collect::<Result<Vec<_>>>()?
        }
        None => heads.clone(),
    };
    let (key_dim, value_dim) = lengths(keys, n_embd, heads[0])?;
    if let Some((n, of)) = kv_heads.iter().zip(&heads).find(|(kv, heads)| *heads % *kv != 0) {
        return Err(keys.bad("attention.head_count_kv", format!("{n} does not divide the {of} heads")));
    }
    let layer = |(heads, kv_heads)| Heads { heads, kv_heads, key_dim, value_dim };
    Ok(heads.into_iter().zip(kv_heads).map(layer).collect())
}

/// Elements of a key and of a value of each of so many heads.
fn lengths(keys: &Keys<'_>, n_embd: usize, heads: usize) -> Result<(usize, usize)> {
    let key_dim = match keys.optional_size("attention.key_length", MAX_LENGTH)? {
        Some(n) => n,
        None if n_embd.is_multiple_of(heads) => n_embd / heads,
        None => {
            let problem = format!("{heads} does not divide the embedding length {n_embd}");
            return Err(keys.bad("attention.head_count", problem));
        }
    };
    if key_dim % 2 != 0 {
        return Err(keys.bad("attention.key_length", format!("is {key_dim}, wanted an even number")));
    }
    Ok((key_dim, keys.optional_size("attention.value_length", MAX_LENGTH)?.unwrap_or(key_dim)))
}

/// A decoder whose layers are attention and a gated network with SiLU behind RMS norms: what llama
/// is, and what others change.
pub(super) fn decoder(arch: &'static Architecture, keys: &Keys<'_>, style: RopeStyle) -> Result<ModelSpec> {
    let eps = keys.rms_eps()?;
    decoder_with(arch, keys, style, |name| NormSpec::rms(name, eps))
}

/// The same with norms of another kind: `norm` makes the one of a name.
pub(super) fn decoder_with(
    arch: &'static Architecture,
    keys: &Keys<'_>,
    style: RopeStyle,
    norm: impl Fn(&'static str) -> NormSpec,
) -> Result<ModelSpec> {
    let mut spec = attention_with(arch, keys, style, &norm)?;
    let widths = keys.sizes_of_layers("feed_forward_length", MAX_LENGTH)?;
    let gated = |il: usize| FeedForward::Gated(GatedSpec::plain(widths[il], HiddenActivation::Silu));
    spec.fill_ffn(norm("ffn_norm"), |il| Ok(gated(il)))?;
    Ok(spec)
}

/// A decoder whose layers are attention behind an RMS norm, still without feed-forward networks.
pub(super) fn attention(arch: &'static Architecture, keys: &Keys<'_>, style: RopeStyle) -> Result<ModelSpec> {
    let eps = keys.rms_eps()?;
    attention_with(arch, keys, style, |name| NormSpec::rms(name, eps))
}

fn attention_with(
    arch: &'static Architecture,
    keys: &Keys<'_>,
    style: RopeStyle,
    norm: impl Fn(&'static str) -> NormSpec,
) -> Result<ModelSpec> {
    let n_embd = keys.size("embedding_length", MAX_LENGTH)?;
    let heads = heads(keys, n_embd)?;
    let rope = keys.rope(style, heads[0].key_dim)?;
    let swa = "a rotation of another length in layers with a window";
    keys.refuse_unless("rope.dimension_count_swa", &[rope.n_rot as f64], swa)?;
    attention_of(arch, keys, rope, &heads, norm)
}

/// A decoder whose layers are attention with these heads, still without feed-forward networks.
pub(super) fn attention_of(
    arch: &'static Architecture,
    keys: &Keys<'_>,
    rope: RopeSpec,
    heads: &[Heads],
    norm: impl Fn(&'static str) -> NormSpec,
) -> Result<ModelSpec> {
    let layer = |heads: &Heads| {
        let attention = AttentionSpec {
            value_dim: heads.value_dim,
            ..AttentionSpec::plain(heads.heads, heads.kv_heads, heads.key_dim, RopeId(0))
        };
        let norms = LayerNorms { before_mixer: Some(norm("attn_norm")), ..LayerNorms::default() };
        LayerSpec::sequential(Mixer::Attention(attention), FeedForward::None, norms)
    };
    let layers = heads.iter().map(layer).collect();
    let mut spec = of_layers(arch, keys, vec![rope], layers, norm("output_norm"))?;
    if let Some(scale) = keys.f32("attention.scale")? {
        spec.each_attention(|_, attention| attention.scale = scale);
    }
    Ok(spec)
}

/// A decoder of these layers, with a plain embedding before them, a norm and a head behind them.
pub(super) fn of_layers(
    arch: &'static Architecture,
    keys: &Keys<'_>,
    ropes: Vec<RopeSpec>,
    layers: Vec<LayerSpec>,
    last_norm: NormSpec,
) -> Result<ModelSpec> {
    let n_embd = keys.size("embedding_length", MAX_LENGTH)?;
    let ctx_train = keys.size("context_length", u32::MAX)?;
    keys.refuse_unless("embedding_length_out", &[n_embd as f64], "an output of another length")?;
    Ok(ModelSpec {
        arch,
        name: None,
        n_embd,
        ctx_train,
        input: InputSpec::scaled(1.0),
        ropes,
        layers,
        n_nextn: 0,
        encoder: None,
        output: OutputSpec::head(last_norm),
    })
}

/// A norm of each query and each key with the same weights for all heads.
pub(super) fn norm_of_heads(eps: f32) -> HeadNorm {
    HeadNorm { kind: NormKind::Rms, eps, span: HeadNormSpan::Head, after_rope: false, need: Need::Always }
}

/// The greatest bias of ALiBi, which a file must say.
pub(super) fn alibi(keys: &Keys<'_>) -> Result<f32> {
    let key = "attention.max_alibi_bias";
    keys.positive_f32(key)?.ok_or_else(|| keys.bad(key, "is missing"))
}

/// The greatest bias of ALiBi where an architecture has the paper's; a file may say it, too.
pub(super) fn usual_alibi(keys: &Keys<'_>) -> Result<f32> {
    const MAX_BIAS: f32 = 8.0;
    keys.refuse_unless("attention.max_alibi_bias", &[f64::from(MAX_BIAS)], "another bias of ALiBi")?;
    Ok(MAX_BIAS)
}

/// Refuses a window where an architecture has none; one that holds the whole context hides nothing.
pub(super) fn refuse_window(keys: &Keys<'_>, ctx_train: usize) -> Result<()> {
    let key = "attention.sliding_window";
    match keys.u32(key)? {
        Some(n) if (n as usize) < ctx_train => {
            let wanted = format!("0 or at least the context of {ctx_train} tokens");
            let arch = keys.arch;
            Err(keys.bad(key, format!("is {n}, wanted {wanted}: architecture {arch} runs without windows here")))
        }
        _ => Ok(()),
    }
}

impl ModelSpec {
    /// Gives each layer a feed-forward network behind a norm.
    pub(super) fn fill_ffn(&mut self, norm: NormSpec, ffn: impl Fn(usize) -> Result<FeedForward>) -> Result<()> {
        for (il, layer) in self.layers.iter_mut().enumerate() {
            layer.ffn = ffn(il)?;
            layer.norms.before_ffn = Some(norm);
        }
        Ok(())
    }

    /// Takes away the blocks that predict further tokens, which are no layers.
    pub(super) fn drop_nextn(&mut self, keys: &Keys<'_>) -> Result<()> {
        let (n_layer, n_nextn) = keys.layers_and_nextn()?;
        self.layers.truncate(n_layer);
        self.n_nextn = n_nextn;
        Ok(())
    }

    /// Changes the attention of every layer that has one.
    pub(super) fn each_attention(&mut self, mut change: impl FnMut(usize, &mut AttentionSpec)) {
        for (il, layer) in self.layers.iter_mut().enumerate() {
            if let Mixer::Attention(attention) = &mut layer.mixer {
                change(il, attention);
            }
        }
    }

    /// Lets the layers for which `is_windowed` says so see the last `window` positions only,
    /// rotated by `rope`.
    pub(super) fn window_layers(&mut self, is_windowed: &[bool], window: u32, rope: RopeId) {
        self.each_attention(|il, attention| {
            if is_windowed[il] {
                attention.visible = Visible::Window(window as usize);
                attention.position = Position::Rope(rope);
            }
        });
    }

    /// Puts both halves of each layer side by side, on one norm unless the second has its own.
    pub(super) fn in_parallel(&mut self) {
        for layer in &mut self.layers {
            layer.residual = Residual::Parallel;
        }
    }

    /// Replaces the gated networks by such without a gate.
    pub(super) fn without_gates(&mut self, activation: HiddenActivation, bias: Need) {
        for layer in &mut self.layers {
            if let FeedForward::Gated(GatedSpec { width, .. }) = layer.ffn {
                layer.ffn = FeedForward::Plain(PlainSpec { width, activation, bias });
            }
        }
    }

    /// Wants biases of all projections of attention.
    pub(super) fn with_attention_biases(&mut self) {
        self.each_attention(|_, attention| {
            attention.qkv_bias = Need::Always;
            attention.output_bias = Need::Always;
        });
    }

    /// Takes the rotation away from the layers for which `is_still` says so.
    pub(super) fn without_rope(&mut self, is_still: impl Fn(usize) -> bool) {
        self.each_attention(|il, attention| {
            if is_still(il) {
                attention.position = Position::None;
            }
        });
    }

    /// Gives every layer ALiBi in the place of a rotation.
    pub(super) fn with_alibi(&mut self, max_bias: f32) {
        self.ropes.clear();
        self.each_attention(|_, attention| attention.position = Position::Alibi { max_bias });
    }

    /// Changes the gated network of every layer that has one.
    pub(super) fn each_gated(&mut self, change: impl Fn(&mut GatedSpec)) {
        for layer in &mut self.layers {
            if let FeedForward::Gated(gated) = &mut layer.ffn {
                change(gated);
            }
        }
    }
}

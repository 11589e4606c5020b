//! deepseek4: DeepSeek V4. Heads share one row a position, of which older ones are compressed; four
//! residual streams; experts that the first layers choose by the token.

use modelembed_terms::RopeStyle;

use super::Architecture;
use super::experts::Experts;
use crate::error::Result;
use crate::keys::{Keys, MAX_HEADS, MAX_LENGTH};
use crate::model::{
    Choice, Clamp, CompressedRows, FeedForward, Gating, IndexerSpec, InputSpec, LayerNorms, LayerSpec, Mixer,
    ModelSpec, MoeSpec, Need, NormSpec, OutputSpec, Residual, RopeId, RopeScaling, RopeSpec, SharedRowSpec, StreamKind,
};

pub(super) const ARCH: Architecture = Architecture::new("deepseek4", "DeepSeek V4", read)
    .described("latent attention with compressed keys and several residual streams have no steps yet");

fn read(arch: &'static Architecture, keys: &Keys<'_>) -> Result<ModelSpec> {
    let n_embd = keys.size("embedding_length", MAX_LENGTH)?;
    let eps = keys.rms_eps()?;
    let heads = keys.sizes_of_layers("attention.head_count", MAX_HEADS)?;
    let (n_layer, n_nextn) = keys.layers_and_nextn()?;
    let row = shared_row(keys, eps)?;
    let indexer = IndexerSpec {
        heads: keys.size("attention.indexer.head_count", MAX_HEADS)?,
        key_dim: keys.size("attention.indexer.key_length", MAX_LENGTH)?,
        top_k: keys.size("attention.indexer.top_k", u32::MAX)?,
    };
    let ratios = keys.first_of_array("attention.compress_ratios")?;
    let experts = Experts::read(keys, Gating::SqrtSoftplus, false)?;
    let clamps = clamps(keys)?;
    let n_by_token = keys.stored_u32("hash_layer_count")?.unwrap_or(0) as usize;
    let count = keys.size("hyper_connection.count", MAX_HEADS)?;
    let sinkhorn_iterations = keys.size("hyper_connection.sinkhorn_iterations", MAX_LENGTH)?;
    let stream_eps = keys.positive_f32("hyper_connection.epsilon")?;
    let stream_eps = stream_eps.ok_or_else(|| keys.bad("hyper_connection.epsilon", "is missing"))?;
    keys.refuse_unless("embedding_length_out", &[n_embd as f64 * count as f64], "an output of another length")?;
    let layer = |il: usize| -> Result<LayerSpec> {
        let compressed = compressed(keys, ratios[il], indexer)?;
        let rope = RopeId(u8::from(compressed.is_some()));
        let mixer = Mixer::SharedRow(SharedRowSpec { heads: heads[il], rope, compressed, ..row.clone() });
        let by_token = il < n_by_token;
        let choice = if by_token { Choice::Token } else { Choice::Biased(Need::Always) };
        let moe = clamped(MoeSpec { choice, ..experts.layer(il)? }, clamps[il]);
        let norms = LayerNorms {
            before_mixer: Some(NormSpec::rms("attn_norm", eps)),
            before_ffn: Some(NormSpec::rms("ffn_norm", eps)),
            ..LayerNorms::default()
        };
        let kind = StreamKind::HyperConnections { sinkhorn_iterations, eps: stream_eps };
        let residual = Residual::Streams { count, kind };
        Ok(LayerSpec { residual, ..LayerSpec::sequential(mixer, FeedForward::Moe(moe), norms) })
    };
    Ok(ModelSpec {
        arch,
        name: None,
        n_embd,
        ctx_train: keys.size("context_length", u32::MAX)?,
        input: InputSpec::scaled(1.0),
        ropes: ropes(keys, row.dim)?,
        layers: (0..n_layer).map(layer).collect::<Result<_>>()?,
        n_nextn,
        encoder: None,
        output: OutputSpec::head(NormSpec::rms("output_norm", eps)),
    })
}

/// What the layers' attention has in common.
fn shared_row(keys: &Keys<'_>, eps: f32) -> Result<SharedRowSpec> {
    let dim = keys.size("attention.key_length", MAX_LENGTH)?;
    let what = "values of another length than keys";
    keys.refuse_unless("attention.value_length", &[dim as f64], what)?;
    keys.refuse_unless("attention.head_count_kv", &[1.0], "more than one row a position")?;
    let groups = keys.size("attention.output_group_count", MAX_HEADS)?;
    Ok(SharedRowSpec {
        heads: 0,
        dim,
        query_rank: keys.size("attention.q_lora_rank", MAX_LENGTH)?,
        eps,
        rope: RopeId(0),
        window: keys.size("attention.sliding_window", u32::MAX)?,
        compressed: None,
        scale: 1.0 / (dim as f32).sqrt(),
        output_groups: (groups, keys.size("attention.output_lora_rank", MAX_LENGTH)?),
    })
}

/// The rotation of layers that see a window only, and that of the others, which alone is scaled.
/// The magnitude of both is 1, whatever a file says.
fn ropes(keys: &Keys<'_>, dim: usize) -> Result<Vec<RopeSpec>> {
    let mut scaled = keys.rope(RopeStyle::Adjacent, dim)?;
    scaled.first = dim - scaled.n_rot;
    scaled.magnitude = 1.0;
    let plain = RopeSpec { scaling: RopeScaling::None, ..scaled.clone() };
    let key = "attention.compress_rope_freq_base";
    scaled.base = keys.positive_f32(key)?.ok_or_else(|| keys.bad(key, "is missing"))?;
    Ok(vec![plain, scaled])
}

fn compressed(keys: &Keys<'_>, ratio: u32, indexer: IndexerSpec) -> Result<Option<CompressedRows>> {
    match ratio {
        0 => Ok(None),
        4 => Ok(Some(CompressedRows { ratio: 4, overlaps: true, indexer: Some(indexer) })),
        128 => Ok(Some(CompressedRows { ratio: 128, overlaps: false, indexer: None })),
        other => Err(keys.unsupported("attention.compress_ratios", format!("{other} in a layer"), "0, 4 or 128")),
    }
}

/// Limits of each layer's experts and shared experts; those of the first where the file names none
/// for the second.
fn clamps(keys: &Keys<'_>) -> Result<Vec<[f32; 2]>> {
    let experts = keys.fractions_of_layers("swiglu_clamp_exp")?;
    let experts = experts.ok_or_else(|| keys.bad("swiglu_clamp_exp", "is missing"))?;
    let shared = keys.fractions_of_layers("swiglu_clamp_shexp")?.unwrap_or_else(|| experts.clone());
    Ok(experts.into_iter().zip(shared).map(|(of_experts, of_shared)| [of_experts, of_shared]).collect())
}

fn clamped(mut moe: MoeSpec, [of_experts, of_shared]: [f32; 2]) -> MoeSpec {
    // 0 stands for no limit.
    let clamp = |limit: f32| (limit > 1e-6).then_some(Clamp::BeforeActivation(limit));
    moe.expert.clamp = clamp(of_experts);
    moe.shared.iter_mut().for_each(|shared| shared.clamp = clamp(of_shared));
    moe
}

//! minimax-m2, dots1, bailingmoe2, glm4moe and hy_v3: decoders whose experts are chosen by a sigmoid and a
//! bias of each: MiniMax M2, dots.llm1 (arXiv 2506.05767), Ling 2 and Ring 2, GLM-4.5 to 4.7, Hunyuan 3.

use modelembed_terms::RopeStyle;

use super::experts::Experts;
use super::{Architecture, dense};
use crate::error::Result;
use crate::keys::Keys;
use crate::model::{Choice, Gating, HeadNorm, HeadNormSpan, ModelSpec, Need, NormSpec, SharedSpec};

pub(super) const MINIMAX_M2: Architecture = Architecture::new("minimax-m2", "MiniMax M2", minimax_m2);
pub(super) const GLM4: Architecture = Architecture::new("glm4moe", "GLM-4.5, 4.6 and 4.7, Solar Open", glm4)
    .limit("blocks that predict several tokens (`nextn`) are not used");
pub(super) const DOTS1: Architecture = Architecture::new("dots1", "dots.llm1", dots1);
pub(super) const BAILING2: Architecture = Architecture::new("bailingmoe2", "Ling 2, Ring 2", bailing2)
    .limit("blocks that predict several tokens (`nextn`) are not used");
pub(super) const HY_V3: Architecture =
    Architecture::new("hy_v3", "Hunyuan 3", hy_v3).limit("blocks that predict several tokens (`nextn`) are not used");

fn minimax_m2(arch: &'static Architecture, keys: &Keys<'_>) -> Result<ModelSpec> {
    let norm = HeadNorm { span: HeadNormSpan::Row, ..dense::norm_of_heads(keys.rms_eps()?) };
    decoder(arch, keys, norm, Experts::read(keys, Gating::Sigmoid, true)?)
}

fn dots1(arch: &'static Architecture, keys: &Keys<'_>) -> Result<ModelSpec> {
    decoder(arch, keys, dense::norm_of_heads(keys.rms_eps()?), Experts::read(keys, Gating::Sigmoid, false)?)
}

fn bailing2(arch: &'static Architecture, keys: &Keys<'_>) -> Result<ModelSpec> {
    let mut spec =
        decoder(arch, keys, dense::norm_of_heads(keys.rms_eps()?), Experts::read(keys, Gating::Sigmoid, false)?)?;
    spec.drop_nextn(keys)?;
    Ok(spec)
}

fn decoder(arch: &'static Architecture, keys: &Keys<'_>, norm: HeadNorm, experts: Experts<'_>) -> Result<ModelSpec> {
    let mut spec = dense::attention(arch, keys, RopeStyle::Halves)?;
    dense::refuse_window(keys, spec.ctx_train)?;
    spec.each_attention(|_, attention| attention.head_norm = Some(norm));
    experts.fill(
        &mut spec,
        NormSpec::rms("ffn_norm", norm.eps),
        |_| true,
        |moe| {
            moe.choice = Choice::Biased(Need::Maybe);
        },
    )?;
    Ok(spec)
}

/// GLM-4.5 to 4.7 (arXiv 2508.06471): norms of queries and keys in the largest, and another name for the
/// second norm.
fn glm4(arch: &'static Architecture, keys: &Keys<'_>) -> Result<ModelSpec> {
    let eps = keys.rms_eps()?;
    let norm = HeadNorm { need: Need::Maybe, ..dense::norm_of_heads(eps) };
    let mut spec = decoder(arch, keys, norm, Experts::read(keys, Gating::Sigmoid, false)?)?;
    let norm = NormSpec::rms("post_attention_norm", eps);
    spec.layers.iter_mut().for_each(|layer| layer.norms.before_ffn = Some(norm));
    spec.drop_nextn(keys)?;
    Ok(spec)
}

/// Hunyuan 3: dense layers are those without a router in the file.
fn hy_v3(arch: &'static Architecture, keys: &Keys<'_>) -> Result<ModelSpec> {
    let mut spec = dense::attention(arch, keys, RopeStyle::Halves)?;
    dense::refuse_window(keys, spec.ctx_train)?;
    let eps = keys.rms_eps()?;
    let norm = dense::norm_of_heads(eps);
    spec.each_attention(|_, attention| attention.head_norm = Some(norm));
    let experts = Experts::read(keys, Gating::Sigmoid, false)?;
    experts.fill_where_routed(&mut spec, NormSpec::rms("ffn_norm", eps), |_, moe, _| {
        moe.choice = Choice::Biased(Need::Maybe);
        let width = moe.expert.width;
        moe.shared.get_or_insert(SharedSpec { width, is_weighted: false, clamp: None });
    })?;
    spec.drop_nextn(keys)?;
    Ok(spec)
}

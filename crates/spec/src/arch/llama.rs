//! llama: Llama 1 to 3, Mistral, TinyLlama, SmolLM 1 and 2, Yi (Touvron et al. 2023, arXiv
//! 2302.13971), and with a mixture of experts Mixtral (Jiang et al. 2024, arXiv 2401.04088).

use modelembed_terms::RopeStyle;

use super::experts::Experts;
use super::{Architecture, dense};
use crate::error::Result;
use crate::keys::Keys;
use crate::model::{FeedForward, Gating, ModelSpec, NormSpec};

pub(super) const ARCH: Architecture =
    Architecture::new("llama", "Llama 1 to 3, Mistral, Mixtral, TinyLlama, SmolLM and SmolLM2, Yi, InternLM3", read);

fn read(arch: &'static Architecture, keys: &Keys<'_>) -> Result<ModelSpec> {
    let mut spec = dense::decoder(arch, keys, RopeStyle::Adjacent)?;
    dense::refuse_window(keys, spec.ctx_train)?;
    if Experts::are_there(keys)? {
        let experts = Experts::read(keys, Gating::Softmax, true)?.with_dense_width();
        spec.fill_ffn(NormSpec::rms("ffn_norm", keys.rms_eps()?), |il| Ok(FeedForward::Moe(experts.layer(il)?)))?;
    }
    Ok(spec)
}

//! llama: Llama 1 to 3, Mistral, TinyLlama, SmolLM 1 and 2, Yi (Touvron et al. 2023, arXiv
//! 2302.13971).

use modelembed_terms::RopeStyle;

use super::{Architecture, dense};
use crate::error::Result;
use crate::keys::Keys;
use crate::model::ModelSpec;

pub(super) const ARCH: Architecture = Architecture { name: "llama", runs: true, read };

fn read(arch: &'static Architecture, keys: &Keys<'_>) -> Result<ModelSpec> {
    let spec = dense::decoder(arch, keys, RopeStyle::Adjacent)?;
    dense::refuse_window(keys, spec.ctx_train)?;
    Ok(spec)
}

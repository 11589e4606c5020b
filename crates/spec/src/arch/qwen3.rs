//! qwen3: dense Qwen 3 (arXiv 2505.09388): llama with other pairs in RoPE, and norms of queries and
//! keys.

use modelembed_terms::RopeStyle;

use super::{Architecture, dense};
use crate::error::Result;
use crate::keys::Keys;
use crate::model::ModelSpec;

pub(super) const ARCH: Architecture = Architecture::new("qwen3", "Qwen 3", read);

fn read(arch: &'static Architecture, keys: &Keys<'_>) -> Result<ModelSpec> {
    let mut spec = dense::decoder(arch, keys, RopeStyle::Halves)?;
    dense::refuse_window(keys, spec.ctx_train)?;
    let norm = dense::norm_of_heads(keys.rms_eps()?);
    spec.each_attention(|_, attention| attention.head_norm = Some(norm));
    Ok(spec)
}

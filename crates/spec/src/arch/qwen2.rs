//! qwen2: Qwen 2 and 2.5 (arXiv 2407.10671): llama with other pairs in RoPE, and biases of queries,
//! keys and values.

use modelembed_terms::RopeStyle;

use super::{Architecture, dense};
use crate::error::Result;
use crate::keys::Keys;
use crate::model::{ModelSpec, Need};

pub(super) const ARCH: Architecture =
    Architecture::new("qwen2", "Qwen 1.5, Qwen 2, Qwen 2.5, QwQ, the DeepSeek R1 distillations of them", read);

fn read(arch: &'static Architecture, keys: &Keys<'_>) -> Result<ModelSpec> {
    let mut spec = dense::decoder(arch, keys, RopeStyle::Halves)?;
    dense::refuse_window(keys, spec.ctx_train)?;
    spec.each_attention(|_, attention| attention.qkv_bias = Need::Always);
    Ok(spec)
}

//! Metadata of each architecture, and the tensors that follow from it.

use modelembed_gguf::{HeaderWriter, TensorType};
use modelembed_spec::{Role, Want};
use modelembed_synthetic::{random_rows, wanted_tensors};

use super::families::family;
use super::vocab::{TINY_BOS, TINY_EOS, TINY_VOCAB, tiny_vocab};
use super::{TinyArch, TinyRope, TinySpec};
use crate::{GgufValue, Rng};

/// A tensor of a tiny model.
#[derive(Clone, Debug, PartialEq)]
pub struct TinyTensor {
    /// Its name.
    pub name: String,
    /// Its type.
    pub ty: TensorType,
    /// Its dimensions, the row length first.
    pub dims: Vec<u64>,
    /// Its values as stored.
    pub data: Vec<u8>,
}

impl TinyArch {
    /// The value of `general.architecture`, which is also the prefix of its keys.
    pub fn name(self) -> &'static str {
        match self {
            TinyArch::Llama => "llama",
            TinyArch::Qwen2 => "qwen2",
            TinyArch::Qwen3 => "qwen3",
            TinyArch::Gemma3 => "gemma3",
            TinyArch::Phi3 => "phi3",
            TinyArch::Olmo2 => "olmo2",
            TinyArch::CommandR => "command-r",
            TinyArch::Gemma2 => "gemma2",
            TinyArch::FalconH1 => "falcon-h1",
            TinyArch::NemotronH => "nemotron_h",
            TinyArch::Mixtral => "llama",
            TinyArch::Olmoe => "olmoe",
            TinyArch::Qwen2Moe => "qwen2moe",
            TinyArch::Qwen3Moe => "qwen3moe",
            TinyArch::GptOss => "gpt-oss",
            TinyArch::NemotronHMoe => "nemotron_h_moe",
            TinyArch::Qwen3Vl => "qwen3vl",
            TinyArch::Qwen3VlMoe => "qwen3vlmoe",
            TinyArch::MinimaxM2 => "minimax-m2",
            TinyArch::Dots1 => "dots1",
            TinyArch::BailingMoe2 => "bailingmoe2",
            TinyArch::Deepseek => "deepseek",
            TinyArch::Ernie45Moe => "ernie4_5-moe",
            TinyArch::Lfm2 => "lfm2",
            TinyArch::Lfm2Moe => "lfm2moe",
            TinyArch::Gemma4 | TinyArch::Gemma4Large | TinyArch::Gemma4Moe => "gemma4",
            TinyArch::Qwen35 => "qwen35",
            TinyArch::Qwen35Moe => "qwen35moe",
            TinyArch::Family(name) => family(name).arch,
        }
    }
}

/// All metadata of the model, in file order.
pub fn metadata(spec: &TinySpec) -> Vec<(String, GgufValue)> {
    let arch = spec.arch.name();
    let mut out = vec![
        ("general.architecture".to_owned(), GgufValue::from(arch)),
        ("general.name".to_owned(), GgufValue::from(format!("tiny {}", spec.name))),
    ];
    let mut own = |key: &str, value: GgufValue| out.push((format!("{arch}.{key}"), value));
    let u32 = |v: usize| GgufValue::U32(v as u32);
    own("block_count", u32(spec.n_layer));
    own("context_length", u32(1024));
    own("embedding_length", u32(spec.n_embd));
    match spec.arch {
        TinyArch::NemotronH | TinyArch::NemotronHMoe => {
            // What layer `il` has of these, by its kind.
            let of = |kind: usize, n: usize| {
                GgufValue::from(
                    (0..spec.n_layer).map(|il| if il % 3 == kind { n as u32 } else { 0 }).collect::<Vec<_>>(),
                )
            };
            own("feed_forward_length", of(1, spec.n_ff));
            own("attention.head_count", u32(spec.n_head));
            own("attention.head_count_kv", of(2, spec.n_head_kv));
        }
        TinyArch::Lfm2 | TinyArch::Lfm2Moe => {
            let of = |il: usize| if il % 2 == 1 { spec.n_head_kv as u32 } else { 0 };
            own("feed_forward_length", u32(spec.n_ff));
            own("attention.head_count", u32(spec.n_head));
            own("attention.head_count_kv", GgufValue::from((0..spec.n_layer).map(of).collect::<Vec<_>>()));
            own("shortconv.l_cache", u32(3));
        }
        TinyArch::Gemma4 | TinyArch::Gemma4Large | TinyArch::Gemma4Moe => {
            let is_local = |il: usize| il % 3 != 2;
            let shares = |il: usize| spec.arch == TinyArch::Gemma4 && il >= spec.n_layer - 3;
            let width = |il: usize| (if shares(il) { spec.n_ff * 3 / 2 } else { spec.n_ff }) as u32;
            let kv_heads = |il: usize| if is_local(il) { spec.n_head_kv as u32 } else { 1 };
            own("feed_forward_length", GgufValue::from((0..spec.n_layer).map(width).collect::<Vec<_>>()));
            own("attention.head_count", u32(spec.n_head));
            own("attention.head_count_kv", GgufValue::from((0..spec.n_layer).map(kv_heads).collect::<Vec<_>>()));
            own(
                "attention.sliding_window_pattern",
                GgufValue::from((0..spec.n_layer).map(is_local).collect::<Vec<bool>>()),
            );
            own("attention.key_length_swa", u32(spec.head_dim / 2));
            own("attention.value_length_swa", u32(spec.head_dim / 2));
            own("rope.dimension_count_swa", u32(spec.head_dim / 2));
            own("rope.freq_base_swa", GgufValue::F32(1e4));
            let is_small = spec.arch == TinyArch::Gemma4;
            own("attention.shared_kv_layers", u32(if is_small { 3 } else { 0 }));
            let width = if spec.ty == TensorType::F32 { 24 } else { 32 };
            own("embedding_length_per_layer_input", u32(if is_small { width } else { 0 }));
            // So low that most logits are changed.
            own("final_logit_softcapping", GgufValue::F32(6.0));
        }
        _ => {
            own("feed_forward_length", u32(spec.n_ff));
            own("attention.head_count", u32(spec.n_head));
            own("attention.head_count_kv", u32(spec.n_head_kv));
        }
    }
    if let Some((n, used)) = spec.experts() {
        own("expert_count", u32(n));
        own("expert_used_count", u32(used));
        // Others are as wide as a dense network.
        if !matches!(spec.arch, TinyArch::Mixtral | TinyArch::Olmoe) {
            own("expert_feed_forward_length", u32(if spec.ty == TensorType::F32 { 36 } else { spec.n_ff }));
        }
    }
    match spec.arch {
        TinyArch::Qwen35 | TinyArch::Qwen35Moe => {
            own("full_attention_interval", u32(4));
            own("rope.dimension_sections", GgufValue::from(vec![3i32, 3, 2, 0]));
        }
        _ => {}
    }
    match spec.arch {
        // With these the pairs 13 and 14 of 16 do not turn.
        TinyArch::Qwen3Vl | TinyArch::Qwen3VlMoe => {
            own("rope.dimension_sections", GgufValue::from(vec![6i32, 5, 5, 0]));
        }
        TinyArch::MinimaxM2 => own("expert_gating_func", u32(2)),
        TinyArch::Dots1 | TinyArch::BailingMoe2 => {
            own("leading_dense_block_count", u32(1));
            own("expert_shared_count", u32(2));
            own("expert_gating_func", u32(2));
            own("expert_weights_norm", GgufValue::Bool(true));
            own("expert_weights_scale", GgufValue::F32(2.5));
            if spec.arch == TinyArch::BailingMoe2 {
                own("expert_group_count", u32(4));
                own("expert_group_used_count", u32(2));
            }
        }
        TinyArch::Deepseek => {
            own("leading_dense_block_count", u32(1));
            own("expert_shared_count", u32(2));
            own("expert_weights_scale", GgufValue::F32(1.0));
        }
        TinyArch::Ernie45Moe => {
            own("leading_dense_block_count", u32(1));
            own("interleave_moe_layer_step", u32(1));
            own("expert_shared_count", u32(2));
            own("expert_shared_feed_forward_length", u32(72));
        }
        TinyArch::Lfm2Moe => {
            own("leading_dense_block_count", u32(2));
            own("expert_gating_func", u32(2));
        }
        TinyArch::Qwen2Moe | TinyArch::Qwen35Moe => own("expert_shared_feed_forward_length", u32(80)),
        TinyArch::NemotronHMoe => {
            own("expert_shared_feed_forward_length", u32(80));
            own("expert_shared_count", u32(1));
            own("expert_group_count", u32(4));
            own("expert_group_used_count", u32(2));
            own("expert_weights_norm", GgufValue::Bool(true));
            own("expert_weights_scale", GgufValue::F32(2.5));
        }
        _ => {}
    }
    if let Some([inner, state, heads, groups]) = spec.recurrence() {
        own("ssm.conv_kernel", u32(4));
        own("ssm.inner_size", u32(inner));
        own("ssm.state_size", u32(state));
        own("ssm.time_step_rank", u32(heads));
        own("ssm.group_count", u32(groups));
    }
    match spec.arch {
        TinyArch::Family(name) if family(name).has_layer_norms => {
            own("attention.layer_norm_epsilon", GgufValue::F32(1e-5));
        }
        TinyArch::CommandR => {
            own("attention.layer_norm_epsilon", GgufValue::F32(1e-5));
            own("logit_scale", GgufValue::F32(0.4));
        }
        TinyArch::NemotronH | TinyArch::NemotronHMoe => {
            own("attention.layer_norm_rms_epsilon", GgufValue::F32(1e-5));
            own("attention.layer_norm_epsilon", GgufValue::F32(1e-5));
        }
        _ => own("attention.layer_norm_rms_epsilon", GgufValue::F32(1e-5)),
    }
    own("rope.freq_base", GgufValue::F32(spec.rope_freq_base));
    if spec.head_dim * spec.n_head != spec.n_embd || spec.recurrence().is_some() {
        own("attention.key_length", u32(spec.head_dim));
        own("attention.value_length", u32(spec.head_dim));
    }
    // Gemma's files leave the key out: the whole head is rotated.
    if spec.rope_dims != spec.head_dim || !matches!(spec.arch, TinyArch::Gemma2 | TinyArch::Gemma3) {
        own("rope.dimension_count", u32(spec.rope_dims));
    }
    let mut scaling = |kind: &str, factor: f32| {
        own("rope.scaling.type", GgufValue::from(kind));
        own("rope.scaling.factor", GgufValue::F32(factor));
    };
    match spec.rope {
        TinyRope::Plain | TinyRope::Factors => {}
        TinyRope::Linear(factor) => scaling("linear", factor),
        TinyRope::Yarn(factor, original) => {
            scaling("yarn", factor);
            own("rope.scaling.original_context_length", GgufValue::U32(original));
        }
        TinyRope::LongOrShort(original) => {
            own("rope.scaling.original_context_length", GgufValue::U32(original));
        }
    }
    if let Some(magnitude) = spec.rope_magnitude {
        own("rope.scaling.attn_factor", GgufValue::F32(magnitude));
    }
    if spec.arch == TinyArch::Gemma2 {
        // So low that most scores and logits are changed.
        own("attn_logit_softcapping", GgufValue::F32(3.0));
        own("final_logit_softcapping", GgufValue::F32(6.0));
    }
    if let Some(window) = spec.sliding_window {
        own("attention.sliding_window", GgufValue::U32(window));
    }
    if let TinyArch::Family(name) = spec.arch {
        for (key, value) in family(name).keys {
            let key = if key.starts_with("xielu.") { (*key).to_owned() } else { format!("{arch}.{key}") };
            out.retain(|(other, _)| *other != key);
            out.push((key, value.value()));
        }
    }
    out.extend(vocab_metadata());
    out
}

fn vocab_metadata() -> Vec<(String, GgufValue)> {
    let vocab = tiny_vocab();
    let entries = [
        ("model", GgufValue::from("llama")),
        ("tokens", GgufValue::from(vocab.iter().map(|t| t.text.clone()).collect::<Vec<_>>())),
        ("scores", GgufValue::from(vocab.iter().map(|t| t.score).collect::<Vec<_>>())),
        ("token_type", GgufValue::from(vocab.iter().map(|t| t.kind).collect::<Vec<_>>())),
        ("bos_token_id", GgufValue::U32(TINY_BOS)),
        ("eos_token_id", GgufValue::U32(TINY_EOS)),
        ("unknown_token_id", GgufValue::U32(0)),
        ("add_bos_token", GgufValue::Bool(true)),
    ];
    entries.map(|(key, value)| (format!("tokenizer.ggml.{key}"), value)).into()
}

impl TinySpec {
    /// Elements of all heads of its recurrence, elements of a key, heads, and groups of heads that
    /// share keys.
    fn recurrence(&self) -> Option<[usize; 4]> {
        match self.arch {
            TinyArch::FalconH1 if self.n_embd == 54 => Some([90, 18, 6, 3]),
            TinyArch::FalconH1 => Some([96, 16, 6, 1]),
            TinyArch::Qwen35 | TinyArch::Qwen35Moe => Some([96, 16, 6, 3]),
            TinyArch::NemotronH | TinyArch::NemotronHMoe => Some([96, 32, 12, 2]),
            _ => None,
        }
    }

    /// Its experts, and how many of them a position uses.
    fn experts(&self) -> Option<(usize, usize)> {
        match self.arch {
            TinyArch::Mixtral | TinyArch::Qwen2Moe | TinyArch::Qwen35Moe => Some((8, 2)),
            TinyArch::Gemma4Moe => Some((8, 3)),
            TinyArch::Lfm2Moe => Some((8, 3)),
            TinyArch::Qwen3VlMoe | TinyArch::Deepseek | TinyArch::Ernie45Moe | TinyArch::MinimaxM2 => Some((8, 3)),
            TinyArch::Dots1 | TinyArch::BailingMoe2 => Some((16, 3)),
            TinyArch::Olmoe => Some((12, 5)),
            TinyArch::Qwen3Moe if self.ty != TensorType::F32 => Some((8, 3)),
            TinyArch::Qwen3Moe | TinyArch::NemotronHMoe => Some((16, 3)),
            TinyArch::GptOss => Some((6, 4)),
            _ => None,
        }
    }

    /// Whether the model has a tensor that its architecture may have.
    fn has(&self, tensor: &str) -> bool {
        match tensor {
            "output.weight" => !self.tied,
            "rope_freqs.weight" => self.rope == TinyRope::Factors,
            "rope_factors_long.weight" | "rope_factors_short.weight" => matches!(self.rope, TinyRope::LongOrShort(_)),
            _ if tensor.ends_with("ssm_norm.weight") => self.n_embd == 54,
            _ if tensor.ends_with("ssm_conv1d.bias") => true,
            _ if tensor.ends_with("layer_output_scale.weight") => true,
            // In the others values are keys where everything is seen.
            _ if tensor.ends_with("attn_v.weight") && !matches!(self.arch, TinyArch::Family(_)) => {
                let local = |il: usize| il % 3 != 2;
                let layer = tensor.split('.').nth(1).and_then(|il| il.parse().ok());
                self.arch == TinyArch::Gemma4 || layer.is_some_and(local)
            }
            _ if tensor.ends_with("ffn_gate_up_exps.weight") || tensor.ends_with("ffn_down_exps.scale") => {
                self.arch == TinyArch::Gemma4Moe
            }
            _ => match self.arch {
                TinyArch::Family(name) => family(name).tensors.iter().any(|end| tensor.ends_with(end)),
                TinyArch::Phi3 | TinyArch::BailingMoe2 if tensor.ends_with("attn_qkv.weight") => true,
                _ => tensor.ends_with("exp_probs_b.bias"),
            },
        }
    }
}

/// What tensors the model has, in file order.
pub fn wants(spec: &TinySpec) -> Vec<Want> {
    let mut header = HeaderWriter::default();
    metadata(spec).into_iter().for_each(|(key, value)| header.pair(&key, value));
    let wants = wanted_tensors(&header, TINY_VOCAB, &|tensor| spec.has(tensor));
    wants.unwrap_or_else(|e| panic!("tiny model {}: {e}", spec.name))
}

/// The type that llama.cpp's quantiser takes where rows are no multiple of a type's block.
fn fitting(ty: TensorType, row_len: u64) -> TensorType {
    let fits = |ty: &TensorType| row_len.is_multiple_of(ty.block_len() as u64);
    let other = match ty {
        TensorType::Q4_K => TensorType::Q5_0,
        TensorType::Q5_K => TensorType::Q5_1,
        TensorType::Q6_K => TensorType::Q8_0,
        TensorType::IQ4_XS => TensorType::IQ4_NL,
        _ => TensorType::F16,
    };
    [ty, other, TensorType::F16].into_iter().find(fits).unwrap_or(TensorType::F16)
}

/// All tensors of the model, in file order. Each is drawn from a generator of its own (seed and
/// name), so that adding one leaves the others as they are.
pub fn tensors(spec: &TinySpec) -> Vec<TinyTensor> {
    let draw = |want: Want| {
        // llama.cpp's quantiser leaves the projection of embeddings to all layers as it is, and those of
        // branches and streams.
        let is_of_layer = want.layer.is_some() && !want.name.contains("laurel_");
        let is_left = want.role == Role::Router || (want.role == Role::LayerProjection && !is_of_layer);
        let ty = if want.role.is_matrix() && !is_left { fitting(spec.ty, want.dims[0]) } else { TensorType::F32 };
        let data = random_rows(&want, ty, want.rows(), &mut Rng::for_name(spec.seed, &want.name));
        TinyTensor { name: want.name, ty, dims: want.dims, data }
    };
    wants(spec).into_iter().map(draw).collect()
}

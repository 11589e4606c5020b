//! Metadata of real models. Keys and types are those of llama.cpp's converter, numbers those of the
//! models' configurations.

use modelembed_gguf::{Gguf, GgufValue, HeaderWriter, TensorType};
use modelembed_spec::{Error, ModelSpec, Want};

/// Metadata of a file, which tests change.
#[derive(Clone)]
pub struct Model {
    pub arch: &'static str,
    pairs: Vec<(String, GgufValue)>,
}

impl Model {
    /// An architecture's name and the model's, and nothing else.
    pub fn new(arch: &'static str, name: &str) -> Model {
        let pairs = vec![("general.architecture".to_owned(), arch.into()), ("general.name".to_owned(), name.into())];
        Model { arch, pairs }
    }

    /// With a key of the architecture's, which may replace one.
    pub fn with(mut self, key: &str, value: impl Into<GgufValue>) -> Model {
        let key = format!("{}.{key}", self.arch);
        self.pairs.retain(|(other, _)| *other != key);
        self.pairs.push((key, value.into()));
        self
    }

    /// With a key of the architecture's that is not there.
    pub fn with_new(self, key: &str, value: GgufValue) -> Option<Model> {
        let full = format!("{}.{key}", self.arch);
        (!self.pairs.iter().any(|(other, _)| *other == full)).then(|| self.with(key, value))
    }

    /// With a key that has no architecture's prefix.
    pub fn with_global(mut self, key: &str, value: impl Into<GgufValue>) -> Model {
        self.pairs.retain(|(other, _)| other != key);
        self.pairs.push((key.to_owned(), value.into()));
        self
    }

    /// With keys of numbers.
    fn with_all(self, pairs: &[(&str, u32)]) -> Model {
        pairs.iter().fold(self, |model, (key, n)| model.with(key, *n))
    }

    /// Without a key of the architecture's, which must be there.
    pub fn without(mut self, key: &str) -> Model {
        let key = format!("{}.{key}", self.arch);
        assert!(self.pairs.iter().any(|(other, _)| *other == key), "{key} is not there");
        self.pairs.retain(|(other, _)| *other != key);
        self
    }

    /// A header of these keys and of F32 tensors.
    fn header(&self, tensors: &[(String, Vec<u64>)]) -> Vec<u8> {
        let mut writer = HeaderWriter::default();
        for (key, value) in &self.pairs {
            writer.pair(key, value.clone());
        }
        for (name, dims) in tensors {
            writer.tensor(name, TensorType::F32, dims, 4 * dims.iter().product::<u64>());
        }
        writer.build()
    }

    /// What the metadata describes.
    pub fn read(&self) -> Result<ModelSpec, Error> {
        let header = self.header(&[]);
        let gguf = Gguf::parse(&header, header.len() as u64).unwrap();
        ModelSpec::from_gguf(&gguf, &header)
    }

    /// A file with tensors.
    pub fn gguf(&self, tensors: &[(String, Vec<u64>)]) -> Gguf {
        let header = self.header(tensors);
        Gguf::parse(&header, u64::MAX / 2).unwrap()
    }
}

/// Names and shapes of wanted tensors.
pub fn shapes(wants: &[Want]) -> Vec<(String, Vec<u64>)> {
    wants.iter().map(|want| (want.name.clone(), want.dims.clone())).collect()
}

/// What every decoder has.
pub fn decoder(arch: &'static str, name: &str, [n_layer, ctx, n_embd, heads, kv_heads]: [u32; 5], eps: f32) -> Model {
    Model::new(arch, name)
        .with_all(&[
            ("block_count", n_layer),
            ("context_length", ctx),
            ("embedding_length", n_embd),
            ("attention.head_count", heads),
            ("attention.head_count_kv", kv_heads),
        ])
        .with("attention.layer_norm_rms_epsilon", eps)
}

pub fn llama() -> Model {
    decoder("llama", "Llama 3.2 1B Instruct", [16, 131_072, 2048, 32, 8], 1e-5)
        .with_all(&[("feed_forward_length", 8192), ("rope.dimension_count", 64), ("vocab_size", 128_256)])
        .with_all(&[("attention.key_length", 64), ("attention.value_length", 64)])
        .with("rope.freq_base", 500_000f32)
}

pub fn qwen2() -> Model {
    decoder("qwen2", "Qwen2.5 0.5B Instruct", [24, 32_768, 896, 14, 2], 1e-6)
        .with("feed_forward_length", 4864u32)
        .with("rope.freq_base", 1e6f32)
}

pub fn qwen3() -> Model {
    decoder("qwen3", "Qwen3 0.6B", [28, 40_960, 1024, 16, 8], 1e-6)
        .with_all(&[("feed_forward_length", 3072), ("attention.key_length", 128), ("attention.value_length", 128)])
        .with("rope.freq_base", 1e6f32)
}

pub fn gemma3() -> Model {
    decoder("gemma3", "Gemma 3 270m It", [18, 32_768, 640, 4, 1], 1e-6)
        .with_all(&[("feed_forward_length", 2048), ("attention.key_length", 256), ("attention.value_length", 256)])
        .with("attention.sliding_window", 512u32)
        .with("rope.freq_base", 1e6f32)
        .with("rope.freq_base_swa", 1e4f32)
}

pub fn phi3() -> Model {
    decoder("phi3", "Phi 4 Mini Instruct", [32, 131_072, 3072, 24, 8], 1e-5)
        .with_all(&[("feed_forward_length", 8192), ("rope.dimension_count", 96)])
        .with("rope.freq_base", 1e4f32)
        .with("rope.scaling.original_context_length", 4096u32)
        .with("rope.scaling.attn_factor", 1.190_238_1f32)
        .with("attention.sliding_window", 262_144u32)
}

pub fn olmo2() -> Model {
    decoder("olmo2", "Olmo 3 7B Instruct", [32, 65_536, 4096, 32, 32], 1e-6)
        .with("feed_forward_length", 11_008u32)
        .with("rope.freq_base", 5e5f32)
        .with("rope.scaling.type", "yarn")
        .with("rope.scaling.factor", 8f32)
        .with("rope.scaling.original_context_length", 8192u32)
        .with("attention.sliding_window", 4096u32)
        .with("attention.sliding_window_pattern", (0..32).map(|il| il % 4 != 3).collect::<Vec<bool>>())
}

pub fn command_r() -> Model {
    decoder("command-r", "C4ai Command R V01", [40, 131_072, 8192, 64, 64], 0.0)
        .without("attention.layer_norm_rms_epsilon")
        .with("attention.layer_norm_epsilon", 1e-5f32)
        .with("feed_forward_length", 22_528u32)
        .with("rope.freq_base", 8e6f32)
        .with("rope.scaling.type", "none")
        .with("logit_scale", 0.0625f32)
}

pub fn gemma2() -> Model {
    decoder("gemma2", "Gemma 2 2b It", [26, 8192, 2304, 8, 4], 1e-6)
        .with_all(&[("feed_forward_length", 9216), ("attention.key_length", 256), ("attention.value_length", 256)])
        .with("attention.sliding_window", 4096u32)
        .with("attn_logit_softcapping", 50f32)
        .with("final_logit_softcapping", 30f32)
}

pub fn qwen3moe() -> Model {
    decoder("qwen3moe", "Qwen3 30B A3B", [48, 40_960, 2048, 32, 4], 1e-6)
        .with_all(&[("feed_forward_length", 6144), ("attention.key_length", 128), ("attention.value_length", 128)])
        .with_all(&[("expert_count", 128), ("expert_used_count", 8), ("expert_feed_forward_length", 768)])
        .with("rope.freq_base", 1e6f32)
}

pub fn mixtral() -> Model {
    decoder("llama", "Mixtral 8x7B Instruct v0.1", [32, 32_768, 4096, 32, 8], 1e-5)
        .with_all(&[("feed_forward_length", 14_336), ("expert_count", 8), ("expert_used_count", 2)])
        .with("rope.freq_base", 1e6f32)
}

pub fn qwen2moe() -> Model {
    decoder("qwen2moe", "Qwen1.5 MoE A2.7B Chat", [24, 8192, 2048, 16, 16], 1e-6)
        .with_all(&[("feed_forward_length", 5632), ("expert_count", 60), ("expert_used_count", 4)])
        .with_all(&[("expert_feed_forward_length", 1408), ("expert_shared_feed_forward_length", 5632)])
        .with("rope.freq_base", 1e6f32)
}

pub fn olmoe() -> Model {
    decoder("olmoe", "OLMoE 1B 7B 0924 Instruct", [16, 4096, 2048, 16, 16], 1e-5)
        .with_all(&[("feed_forward_length", 1024), ("expert_count", 64), ("expert_used_count", 8)])
        .with("rope.freq_base", 1e4f32)
}

pub fn qwen3vl() -> Model {
    decoder("qwen3vl", "Qwen3 VL 4B Instruct", [36, 262_144, 2560, 32, 8], 1e-6)
        .with_all(&[("feed_forward_length", 9728), ("attention.key_length", 128), ("attention.value_length", 128)])
        .with("rope.dimension_sections", vec![24i32, 20, 20, 0])
        .with("n_deepstack_layers", 3u32)
        .with("rope.freq_base", 5e6f32)
}

pub fn qwen3vlmoe() -> Model {
    decoder("qwen3vlmoe", "Qwen3 VL 30B A3B Instruct", [48, 262_144, 2048, 32, 4], 1e-6)
        .with_all(&[("feed_forward_length", 6144), ("attention.key_length", 128), ("attention.value_length", 128)])
        .with_all(&[("expert_count", 128), ("expert_used_count", 8), ("expert_feed_forward_length", 768)])
        .with("rope.dimension_sections", vec![24i32, 20, 20, 0])
        .with("n_deepstack_layers", 3u32)
        .with("rope.freq_base", 5e6f32)
}

pub fn minimax_m2() -> Model {
    decoder("minimax-m2", "MiniMax M2", [62, 196_608, 3072, 48, 8], 1e-6)
        .with_all(&[("feed_forward_length", 1536), ("attention.key_length", 128), ("attention.value_length", 128)])
        .with_all(&[("expert_count", 256), ("expert_used_count", 8), ("expert_feed_forward_length", 1536)])
        .with_all(&[("expert_gating_func", 2), ("rope.dimension_count", 64)])
        .with("rope.freq_base", 5e6f32)
}

pub fn dots1() -> Model {
    decoder("dots1", "Dots.Llm1.Inst", [62, 32_768, 4096, 32, 32], 1e-5)
        .with_all(&[("feed_forward_length", 10_944), ("attention.key_length", 128), ("attention.value_length", 128)])
        .with_all(&[("expert_count", 128), ("expert_used_count", 6), ("expert_feed_forward_length", 1408)])
        .with_all(&[("expert_shared_count", 2), ("leading_dense_block_count", 1), ("expert_gating_func", 2)])
        .with("expert_weights_norm", true)
        .with("expert_weights_scale", 2.5f32)
        .with("rope.freq_base", 1e7f32)
}

pub fn bailingmoe2() -> Model {
    decoder("bailingmoe2", "Ling Mini 2.0", [20, 32_768, 2048, 16, 4], 1e-6)
        .with_all(&[("feed_forward_length", 5120), ("attention.key_length", 128), ("attention.value_length", 128)])
        .with_all(&[("expert_count", 256), ("expert_used_count", 8), ("expert_feed_forward_length", 512)])
        .with_all(&[("expert_shared_count", 1), ("leading_dense_block_count", 1), ("expert_gating_func", 2)])
        .with_all(&[("expert_group_count", 8), ("expert_group_used_count", 4), ("rope.dimension_count", 64)])
        .with("expert_weights_norm", true)
        .with("expert_weights_scale", 2.5f32)
        .with("rope.freq_base", 600_000f32)
}

pub fn deepseek() -> Model {
    decoder("deepseek", "DeepSeek MoE 16B Chat", [28, 4096, 2048, 16, 16], 1e-6)
        .with_all(&[("feed_forward_length", 10_944), ("expert_count", 64), ("expert_used_count", 6)])
        .with_all(&[("expert_feed_forward_length", 1408), ("expert_shared_count", 2), ("leading_dense_block_count", 1)])
        .with("expert_weights_scale", 1f32)
        .with("rope.freq_base", 1e4f32)
}

pub fn ernie45_moe() -> Model {
    decoder("ernie4_5-moe", "ERNIE 4.5 21B A3B PT", [28, 131_072, 2560, 20, 4], 1e-5)
        .with_all(&[("feed_forward_length", 12_288), ("expert_count", 64), ("expert_used_count", 6)])
        .with_all(&[("expert_feed_forward_length", 1536), ("expert_shared_count", 2), ("leading_dense_block_count", 1)])
        .with_all(&[("expert_shared_feed_forward_length", 3072), ("interleave_moe_layer_step", 1)])
        .with_all(&[("attention.key_length", 128), ("attention.value_length", 128)])
        .with("rope.freq_base", 500_000f32)
}

/// Layers of attention among short convolutions.
fn lfm(arch: &'static str, name: &str, sizes: [u32; 4], attention: &[usize]) -> Model {
    let [n_layer, n_embd, heads, kv_heads] = sizes;
    let of = |il: usize| if attention.contains(&il) { kv_heads } else { 0 };
    decoder(arch, name, [n_layer, 128_000, n_embd, heads, kv_heads], 1e-5)
        .with("attention.head_count_kv", (0..n_layer as usize).map(of).collect::<Vec<u32>>())
        .with_all(&[("shortconv.l_cache", 3), ("vocab_size", 65_536)])
        .with("rope.freq_base", 1e6f32)
}

pub fn lfm2() -> Model {
    lfm("lfm2", "LFM2 1.2B", [16, 2048, 32, 8], &[2, 5, 8, 10, 12, 14]).with("feed_forward_length", 8192u32)
}

pub fn lfm2moe() -> Model {
    lfm("lfm2moe", "LFM2 8B A1B", [24, 2048, 32, 8], &[2, 6, 10, 14, 18, 21])
        .with_all(&[("feed_forward_length", 7168), ("expert_count", 32), ("expert_used_count", 4)])
        .with_all(&[("expert_feed_forward_length", 1792), ("leading_dense_block_count", 2), ("expert_gating_func", 2)])
}

/// The `ssm` keys.
pub fn with_ssm(model: Model, [conv, inner, state, heads, groups]: [u32; 5]) -> Model {
    model.with_all(&[
        ("ssm.conv_kernel", conv),
        ("ssm.state_size", state),
        ("ssm.group_count", groups),
        ("ssm.time_step_rank", heads),
        ("ssm.inner_size", inner),
    ])
}

pub fn qwen35() -> Model {
    let model = decoder("qwen35", "Qwen3.5 27B", [64, 262_144, 5120, 24, 4], 1e-6)
        .with_all(&[("feed_forward_length", 17_408), ("attention.key_length", 256), ("attention.value_length", 256)])
        .with("rope.dimension_sections", vec![11i32, 11, 10, 0])
        .with_all(&[("rope.dimension_count", 64), ("full_attention_interval", 4)])
        .with("rope.freq_base", 1e7f32);
    with_ssm(model, [4, 6144, 128, 48, 16])
}

/// With the layer that predicts one further token, and a list of the recurrent layers.
pub fn qwen35moe() -> Model {
    let is_recurrent: Vec<bool> = (0..41).map(|il| il != 40 && il % 4 != 3).collect();
    let model = decoder("qwen35moe", "Qwen3.5 35B A3B", [41, 262_144, 2048, 16, 2], 1e-6)
        .with_all(&[("nextn_predict_layers", 1), ("attention.key_length", 256), ("attention.value_length", 256)])
        .with_all(&[("expert_count", 256), ("expert_used_count", 8), ("expert_feed_forward_length", 512)])
        .with("expert_shared_feed_forward_length", 512u32)
        .with("attention.recurrent_layers", is_recurrent)
        .with("rope.dimension_sections", vec![11i32, 11, 10, 0])
        .with_all(&[("rope.dimension_count", 64), ("full_attention_interval", 4)])
        .with("rope.freq_base", 1e7f32);
    with_ssm(model, [4, 4096, 128, 32, 16])
}

pub fn gpt_oss() -> Model {
    decoder("gpt-oss", "Gpt Oss 20b", [24, 131_072, 2880, 64, 8], 1e-5)
        .with_all(&[("feed_forward_length", 2880), ("attention.key_length", 64), ("attention.value_length", 64)])
        .with_all(&[("expert_count", 32), ("expert_used_count", 4), ("expert_feed_forward_length", 2880)])
        .with_all(&[("attention.sliding_window", 128), ("rope.scaling.original_context_length", 4096)])
        .with("rope.scaling.type", "yarn")
        .with("rope.scaling.factor", 32f32)
        .with("rope.scaling.yarn_beta_fast", 32f32)
        .with("rope.scaling.yarn_beta_slow", 1f32)
        .with("rope.freq_base", 150_000f32)
}

pub fn falcon_h1() -> Model {
    let model = decoder("falcon-h1", "Falcon H1 0.5B Base", [36, 16_384, 1024, 8, 2], 1e-5)
        .with_all(&[("feed_forward_length", 2048), ("attention.key_length", 64), ("attention.value_length", 64)])
        .with("vocab_size", 32_784u32)
        .with("rope.freq_base", 1e11f32);
    with_ssm(model, [4, 1536, 128, 24, 1])
}

pub fn gemma3n() -> Model {
    // Minus infinity is the quantile of 0.
    let deviations: Vec<f32> = (0..30).map(|il| if il < 10 { 1.644_853_4 } else { f32::NEG_INFINITY }).collect();
    decoder("gemma3n", "Gemma 3n E2B It", [30, 32_768, 2048, 8, 2], 1e-6)
        .with("feed_forward_length", vec![8192i32; 30])
        .with_all(&[("attention.key_length", 256), ("attention.value_length", 256), ("attention.sliding_window", 512)])
        .with("attention.sliding_window_pattern", (0..30).map(|il| il % 5 != 4).collect::<Vec<bool>>())
        .with_all(&[("altup.active_idx", 0), ("altup.num_inputs", 4), ("attention.shared_kv_layers", 10)])
        .with("embedding_length_per_layer_input", 256u32)
        .with("activation_sparsity_scale", deviations)
        .with("final_logit_softcapping", 30f32)
        .with("rope.freq_base", 1e6f32)
        .with("rope.freq_base_swa", 1e4f32)
}

/// What the files of Gemma 4 have in common: of each `period` layers the last sees everything.
fn gemma4_of(name: &str, sizes: [u32; 4], period: usize, kv_heads: [i32; 2], window: u32) -> Model {
    let [n_layer, ctx, n_embd, heads] = sizes;
    let is_local = |il: usize| il % period != period - 1;
    let of_layers = |f: &dyn Fn(usize) -> i32| (0..n_layer as usize).map(f).collect::<Vec<i32>>();
    decoder("gemma4", name, [n_layer, ctx, n_embd, heads, 0], 1e-6)
        .with("attention.head_count_kv", of_layers(&|il| kv_heads[usize::from(!is_local(il))]))
        .with_all(&[("attention.key_length", 512), ("attention.value_length", 512)])
        .with_all(&[("attention.key_length_swa", 256), ("attention.value_length_swa", 256)])
        .with_all(&[("rope.dimension_count", 512), ("rope.dimension_count_swa", 256)])
        .with("attention.sliding_window", window)
        .with("attention.sliding_window_pattern", (0..n_layer as usize).map(is_local).collect::<Vec<bool>>())
        .with("embedding_length_per_layer_input", 0u32)
        .with("attention.shared_kv_layers", 0u32)
        .with("final_logit_softcapping", 30f32)
        .with("rope.freq_base", 1e6f32)
        .with("rope.freq_base_swa", 1e4f32)
}

pub fn gemma4() -> Model {
    gemma4_of("Gemma 4 E2B It", [35, 131_072, 1536, 8], 5, [1, 1], 512)
        .with("feed_forward_length", (0..35).map(|il| if il < 15 { 6144 } else { 12_288 }).collect::<Vec<i32>>())
        .with_all(&[("embedding_length_per_layer_input", 256), ("attention.shared_kv_layers", 20)])
}

pub fn gemma4_moe() -> Model {
    gemma4_of("Gemma 4 26B A4B It", [30, 262_144, 2816, 16], 6, [8, 2], 1024)
        .with_all(&[("feed_forward_length", 2112), ("expert_feed_forward_length", 704)])
        .with_all(&[("expert_count", 128), ("expert_used_count", 8)])
}

pub fn deepseek2() -> Model {
    decoder("deepseek2", "DeepSeek V3", [61, 163_840, 7168, 128, 1], 1e-6)
        .with_all(&[("feed_forward_length", 18_432), ("leading_dense_block_count", 3), ("vocab_size", 129_280)])
        .with_all(&[("attention.q_lora_rank", 1536), ("attention.kv_lora_rank", 512)])
        .with_all(&[("attention.key_length", 576), ("attention.value_length", 512)])
        .with_all(&[("attention.key_length_mla", 192), ("attention.value_length_mla", 128)])
        .with_all(&[("expert_count", 256), ("expert_used_count", 8), ("expert_feed_forward_length", 2048)])
        .with_all(&[("expert_group_count", 8), ("expert_group_used_count", 4), ("expert_gating_func", 2)])
        .with_all(&[("expert_shared_count", 1), ("rope.dimension_count", 64)])
        .with("expert_weights_scale", 2.5f32)
        .with("expert_weights_norm", true)
        .with("rope.freq_base", 1e4f32)
        .with("rope.scaling.type", "yarn")
        .with("rope.scaling.factor", 40f32)
        .with("rope.scaling.original_context_length", 4096u32)
        .with("rope.scaling.yarn_beta_fast", 32f32)
        .with("rope.scaling.yarn_beta_slow", 1f32)
        .with("rope.scaling.yarn_log_multiplier", 0.1f32)
}

/// As files of 2024 are, with the lengths of heads in the place of the rows'.
pub fn deepseek2_lite() -> Model {
    decoder("deepseek2", "DeepSeek V2 Lite", [27, 163_840, 2048, 16, 16], 1e-6)
        .with_all(&[("feed_forward_length", 10_944), ("leading_dense_block_count", 1), ("vocab_size", 102_400)])
        .with_all(&[("attention.kv_lora_rank", 512), ("rope.dimension_count", 64)])
        .with_all(&[("attention.key_length", 192), ("attention.value_length", 128)])
        .with_all(&[("expert_count", 64), ("expert_used_count", 6), ("expert_feed_forward_length", 1408)])
        .with_all(&[("expert_group_count", 1), ("expert_group_used_count", 1), ("expert_shared_count", 2)])
        .with("expert_weights_scale", 1f32)
        .with("rope.freq_base", 1e4f32)
        .with("rope.scaling.type", "yarn")
        .with("rope.scaling.factor", 40f32)
        .with("rope.scaling.original_context_length", 4096u32)
        .with("rope.scaling.yarn_log_multiplier", 0.0707f32)
}

pub fn deepseek4() -> Model {
    // The list goes on for a block that is not in the file.
    let ratios: Vec<i32> = (0..44).map(|il| [[4, 128][il % 2], 0][usize::from(il < 2 || il == 43)]).collect();
    decoder("deepseek4", "DeepSeek V4 Flash", [43, 1_048_576, 4096, 64, 1], 1e-6)
        .with_all(&[("vocab_size", 129_280), ("embedding_length_out", 16_384), ("rope.dimension_count", 64)])
        .with_all(&[("attention.key_length", 512), ("attention.value_length", 512), ("attention.q_lora_rank", 1024)])
        .with_all(&[("attention.sliding_window", 128), ("hash_layer_count", 3), ("expert_gating_func", 4)])
        .with_all(&[("expert_count", 256), ("expert_used_count", 6), ("expert_feed_forward_length", 2048)])
        .with_all(&[("attention.indexer.head_count", 64), ("attention.indexer.key_length", 128)])
        .with_all(&[("attention.indexer.top_k", 512), ("expert_shared_count", 1)])
        .with_all(&[("attention.output_group_count", 8), ("attention.output_lora_rank", 1024)])
        .with_all(&[("hyper_connection.count", 4), ("hyper_connection.sinkhorn_iterations", 20)])
        .with("hyper_connection.epsilon", 1e-6f32)
        .with("expert_weights_scale", 1.5f32)
        .with("expert_weights_norm", true)
        .with("swiglu_clamp_exp", vec![10f32; 43])
        .with("swiglu_clamp_shexp", vec![10f32; 43])
        .with("attention.compress_ratios", ratios)
        .with("attention.compress_rope_freq_base", 160_000f32)
        .with("rope.freq_base", 1e4f32)
        .with("rope.scaling.type", "yarn")
        .with("rope.scaling.factor", 16f32)
        .with("rope.scaling.original_context_length", 65_536u32)
        .with("rope.scaling.yarn_beta_fast", 32f32)
        .with("rope.scaling.yarn_beta_slow", 1f32)
}

/// Keys and values of Nemotron, from its pattern of letters: M for Mamba 2, * for attention, others
/// for a network.
fn nemotron(arch: &'static str, name: &str, n_embd: u32, heads: [u32; 2], pattern: &str, width: u32) -> Model {
    let of = |one: u8, n: u32| pattern.bytes().map(|c| if c == one { n as i32 } else { 0 }).collect::<Vec<i32>>();
    let widths = pattern.bytes().map(|c| if matches!(c, b'M' | b'*') { 0 } else { width as i32 });
    decoder(arch, name, [pattern.len() as u32, 1 << 20, n_embd, heads[0], 0], 1e-5)
        .with("attention.layer_norm_epsilon", 1e-5f32)
        .with("attention.head_count_kv", of(b'*', heads[1]))
        .with("feed_forward_length", widths.collect::<Vec<i32>>())
        .with_all(&[("attention.key_length", 128), ("attention.value_length", 128)])
        .with("rope.scaling.finetuned", false)
        .with("vocab_size", 131_072u32)
}

pub fn nemotron_h() -> Model {
    let pattern = "M-M-M-MM-M-M-M*-M-M-M*-M-M-M-M*-M-M-M-M*-M-MM-M-M-M-M-M-";
    let model = nemotron("nemotron_h", "NVIDIA Nemotron Nano 9B v2", 4480, [40, 8], pattern, 15_680);
    with_ssm(model, [4, 10_240, 128, 128, 8])
}

pub fn nemotron_h_moe() -> Model {
    let pattern = "MEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEM*EMEMEMEM*EMEMEMEME";
    let model = nemotron("nemotron_h_moe", "NVIDIA Nemotron 3 Nano 30B A3B", 2688, [32, 2], pattern, 1856)
        .with_all(&[("expert_count", 128), ("expert_used_count", 6), ("expert_feed_forward_length", 1856)])
        .with_all(&[("expert_shared_feed_forward_length", 3712), ("expert_shared_count", 1)])
        .with_all(&[("expert_group_count", 1), ("expert_group_used_count", 1)])
        .with("expert_weights_norm", true)
        .with("expert_weights_scale", 2.5f32);
    with_ssm(model, [4, 4096, 128, 64, 8])
}

pub fn bert() -> Model {
    Model::new("bert", "Bge Small En v1.5")
        .with_all(&[("block_count", 12), ("context_length", 512), ("embedding_length", 384)])
        .with_all(&[("feed_forward_length", 1536), ("attention.head_count", 12), ("pooling_type", 2)])
        .with("attention.layer_norm_epsilon", 1e-12f32)
        .with("attention.causal", false)
}

pub fn t5() -> Model {
    Model::new("t5", "Flan T5 Small")
        .with_all(&[("context_length", 512), ("embedding_length", 512), ("feed_forward_length", 1024)])
        .with_all(&[("block_count", 8), ("decoder_block_count", 8), ("attention.head_count", 6)])
        .with_all(&[("attention.key_length", 64), ("attention.value_length", 64)])
        .with_all(&[("attention.relative_buckets_count", 32), ("decoder_start_token_id", 0)])
        .with("attention.layer_norm_epsilon", 1e-6f32)
        .with("attention.layer_norm_rms_epsilon", 1e-6f32)
}

/// All of them, with the name of their golden.
pub fn all() -> Vec<(&'static str, Model)> {
    let families = crate::families::all().into_iter().map(|model| (model.arch, model));
    let mut all = vec![
        ("llama", llama()),
        ("qwen2", qwen2()),
        ("qwen3", qwen3()),
        ("gemma3", gemma3()),
        ("phi3", phi3()),
        ("olmo2", olmo2()),
        ("command-r", command_r()),
        ("gemma2", gemma2()),
        ("qwen3moe", qwen3moe()),
        ("mixtral", mixtral()),
        ("qwen2moe", qwen2moe()),
        ("olmoe", olmoe()),
        ("qwen3vl", qwen3vl()),
        ("qwen3vlmoe", qwen3vlmoe()),
        ("minimax-m2", minimax_m2()),
        ("dots1", dots1()),
        ("bailingmoe2", bailingmoe2()),
        ("deepseek", deepseek()),
        ("ernie4_5-moe", ernie45_moe()),
        ("lfm2", lfm2()),
        ("lfm2moe", lfm2moe()),
        ("qwen35", qwen35()),
        ("qwen35moe", qwen35moe()),
        ("gpt-oss", gpt_oss()),
        ("falcon-h1", falcon_h1()),
        ("gemma3n", gemma3n()),
        ("gemma4", gemma4()),
        ("gemma4-moe", gemma4_moe()),
        ("deepseek2", deepseek2()),
        ("deepseek2-lite", deepseek2_lite()),
        ("deepseek4", deepseek4()),
        ("nemotron_h", nemotron_h()),
        ("nemotron_h_moe", nemotron_h_moe()),
        ("bert", bert()),
        ("t5", t5()),
    ];
    all.extend(families);
    all.extend(crate::mixtures::all());
    all
}

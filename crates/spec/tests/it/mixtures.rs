//! Metadata of real models with recurrences or experts, as [`models`](crate::models) has it.

use crate::models::{Model, decoder, with_ssm};

fn head_dim(model: Model, n: u32) -> Model {
    model.with("attention.key_length", n).with("attention.value_length", n)
}

/// Experts, those that a position uses, and the width of one.
fn experts(model: Model, [n, used, width]: [u32; 3]) -> Model {
    model.with("expert_count", n).with("expert_used_count", used).with("expert_feed_forward_length", width)
}

/// Key heads in the layers for which `is_attention` says so, none in the others.
fn some_attention(model: Model, n_layer: usize, kv_heads: i32, is_attention: impl Fn(usize) -> bool) -> Model {
    let heads = (0..n_layer).map(|il| if is_attention(il) { kv_heads } else { 0 });
    model.with("attention.head_count_kv", heads.collect::<Vec<i32>>())
}

pub fn qwen3next() -> Model {
    let model = decoder("qwen3next", "Qwen3 Next 80B A3B Instruct", [48, 262_144, 2048, 16, 2], 1e-6);
    let model = experts(head_dim(model, 256), [512, 10, 512])
        .with("feed_forward_length", 5120u32)
        .with("expert_shared_feed_forward_length", 512u32)
        .with("rope.dimension_count", 64u32)
        .with("full_attention_interval", 4u32)
        .with("rope.freq_base", 1e7f32);
    with_ssm(model, [4, 4096, 128, 32, 16])
}

pub fn granitehybrid() -> Model {
    let model = decoder("granitehybrid", "Granite 4.0 H Small", [40, 131_072, 4096, 32, 8], 1e-5);
    let model = some_attention(model, 40, 8, |il| il % 10 == 5)
        .with("feed_forward_length", 768u32)
        .with("expert_count", 72u32)
        .with("expert_used_count", 10u32)
        .with("expert_shared_feed_forward_length", 1536u32)
        .with("embedding_scale", 12f32)
        .with("residual_scale", 0.22f32)
        .with("attention.scale", 0.007_812_5f32)
        .with("logit_scale", 16f32)
        .with("rope.dimension_count", 128u32)
        .with("rope.scaling.finetuned", false);
    with_ssm(model, [4, 8192, 128, 128, 1])
}

/// A model without attention and networks.
fn recurrent(arch: &'static str, name: &str, [n_layer, n_embd]: [u32; 2]) -> Model {
    decoder(arch, name, [n_layer, 1 << 20, n_embd, 0, 0], 1e-5).with("feed_forward_length", 0u32)
}

pub fn mamba2() -> Model {
    with_ssm(recurrent("mamba2", "Mamba Codestral 7B v0.1", [64, 4096]), [4, 8192, 128, 128, 8])
}

/// The keys of Mamba: the convolution, channels, elements of a state and the rank of the steps.
fn channels(model: Model, [conv, channels, state, rank]: [u32; 4]) -> Model {
    model
        .with("ssm.conv_kernel", conv)
        .with("ssm.inner_size", channels)
        .with("ssm.state_size", state)
        .with("ssm.time_step_rank", rank)
}

pub fn mamba() -> Model {
    channels(recurrent("mamba", "Mamba 130m Hf", [24, 768]), [4, 1536, 16, 48])
}

pub fn falcon_mamba() -> Model {
    let model = channels(recurrent("mamba", "Falcon Mamba 7b Instruct", [64, 4096]), [4, 8192, 16, 256]);
    model.with("ssm.dt_b_c_rms", true)
}

pub fn jamba() -> Model {
    let model = decoder("jamba", "Jamba v0.1", [32, 262_144, 4096, 32, 8], 1e-6);
    let model = some_attention(model, 32, 8, |il| il % 8 == 4)
        .with("feed_forward_length", 14_336u32)
        .with("expert_count", 16u32)
        .with("expert_used_count", 2u32);
    channels(model, [4, 8192, 16, 256])
}

pub fn qwen2vl() -> Model {
    decoder("qwen2vl", "Qwen2.5 VL 7B Instruct", [28, 128_000, 3584, 28, 4], 1e-6)
        .with("feed_forward_length", 18_944u32)
        .with("rope.dimension_sections", vec![16i32, 24, 24, 0])
        .with("rope.freq_base", 1e6f32)
}

pub fn afmoe() -> Model {
    let model = decoder("afmoe", "Trinity Mini", [32, 131_072, 2048, 32, 4], 1e-5);
    experts(head_dim(model, 128), [128, 8, 1024])
        .with("feed_forward_length", 6144u32)
        .with("expert_shared_count", 1u32)
        .with("expert_gating_func", 2u32)
        .with("expert_weights_norm", true)
        .with("expert_weights_scale", 2.826f32)
        .with("leading_dense_block_count", 2u32)
        .with("attention.sliding_window", 2048u32)
        .with("rope.freq_base", 1e4f32)
}

/// With the block that predicts one further token.
pub fn exaone_moe() -> Model {
    let model = decoder("exaone-moe", "K EXAONE 236B A23B", [49, 262_144, 6144, 64, 8], 1e-5);
    experts(head_dim(model, 128), [128, 8, 2048])
        .with("feed_forward_length", 18_432u32)
        .with("nextn_predict_layers", 1u32)
        .with("expert_shared_count", 1u32)
        .with("expert_gating_func", 2u32)
        .with("expert_weights_norm", true)
        .with("expert_weights_scale", 2.5f32)
        .with("leading_dense_block_count", 1u32)
        .with("attention.sliding_window", 128u32)
        .with("rope.freq_base", 1e6f32)
}

/// With the block that predicts one further token.
pub fn hy_v3() -> Model {
    let model = decoder("hy_v3", "Hy3 Preview", [81, 262_144, 4096, 64, 8], 1e-5);
    experts(head_dim(model, 128), [192, 8, 1536])
        .with("feed_forward_length", 13_312u32)
        .with("nextn_predict_layers", 1u32)
        .with("expert_shared_count", 1u32)
        .with("expert_gating_func", 2u32)
        .with("expert_weights_norm", true)
        .with("expert_weights_scale", 2.826f32)
        .with("rope.freq_base", 11_158_840f32)
}

pub fn smallthinker() -> Model {
    let model = decoder("smallthinker", "SmallThinker 21BA3B Instruct", [52, 16_384, 2560, 28, 4], 1e-6);
    experts(head_dim(model, 128), [64, 6, 768])
        .with("feed_forward_length", 768u32)
        .with("expert_gating_func", 2u32)
        .with("attention.sliding_window", 4096u32)
        .with("rope.freq_base", 1.5e6f32)
}

pub fn llama4() -> Model {
    let model = decoder("llama4", "Llama 4 Scout 17B 16E Instruct", [48, 10_485_760, 5120, 40, 8], 1e-5);
    experts(head_dim(model, 128), [16, 1, 8192])
        .with("feed_forward_length", 16_384u32)
        .with("interleave_moe_layer_step", 1u32)
        .with("rope.dimension_count", 128u32)
        .with("rope.freq_base", 5e5f32)
}

/// Without a window the first of each six layers, and the last one.
pub fn mimo2() -> Model {
    let is_windowed = |il: usize| il != 0 && il != 47 && il % 6 != 5;
    let kv_heads = (0..48).map(|il| if is_windowed(il) { 8 } else { 4 });
    let model = decoder("mimo2", "MiMo V2 Flash", [48, 262_144, 4096, 64, 4], 1e-5);
    experts(model, [256, 8, 2048])
        .with("attention.head_count_kv", kv_heads.collect::<Vec<i32>>())
        .with("attention.key_length", 192u32)
        .with("attention.value_length", 128u32)
        .with("attention.value_scale", 0.707f32)
        .with("attention.sliding_window", 128u32)
        .with("attention.sliding_window_pattern", (0..48).map(is_windowed).collect::<Vec<bool>>())
        .with("feed_forward_length", 16_384u32)
        .with("rope.dimension_count", 64u32)
        .with("rope.freq_base", 5e6f32)
        .with("rope.freq_base_swa", 1e4f32)
}

/// With three blocks that predict further tokens.
pub fn step35() -> Model {
    let is_windowed = |il: usize| !il.is_multiple_of(4);
    let heads = (0..48).map(|il| if is_windowed(il) { 96 } else { 64 });
    let limits = |limit: f32| (0..48).map(|il| if il == 43 || il == 44 { limit } else { 0.0 }).collect::<Vec<f32>>();
    let model = decoder("step35", "Step 3.5 Flash", [48, 262_144, 4096, 64, 8], 1e-5);
    experts(head_dim(model, 128), [288, 8, 1280])
        .with("attention.head_count", heads.collect::<Vec<i32>>())
        .with("nextn_predict_layers", 3u32)
        .with("attention.sliding_window", 512u32)
        .with("attention.sliding_window_pattern", (0..48).map(is_windowed).collect::<Vec<bool>>())
        .with("feed_forward_length", 11_264u32)
        .with("expert_shared_feed_forward_length", 1280u32)
        .with("expert_weights_norm", true)
        .with("expert_weights_scale", 3f32)
        .with("swiglu_clamp_exp", limits(7.0))
        .with("swiglu_clamp_shexp", limits(16.0))
        .with("rope.dimension_count", 128u32)
        .with("rope.freq_base", 5e6f32)
        .with("rope.freq_base_swa", 1e4f32)
}

pub fn laguna() -> Model {
    let heads = (0..40).map(|il| if il % 4 == 0 { 48 } else { 64 });
    let model = decoder("laguna", "Laguna XS.2", [40, 131_072, 2048, 48, 8], 1e-6);
    experts(head_dim(model, 128), [256, 8, 512])
        .with("attention.head_count", heads.collect::<Vec<i32>>())
        .with("attention.sliding_window", 512u32)
        .with("feed_forward_length", 8192u32)
        .with("expert_shared_feed_forward_length", 512u32)
        .with("expert_weights_norm", true)
        .with("expert_weights_scale", 2.5f32)
        .with("leading_dense_block_count", 1u32)
        .with("rope.dimension_count", 64u32)
        .with("rope.dimension_count_swa", 128u32)
        .with("rope.freq_base", 5e5f32)
        .with("rope.freq_base_swa", 1e4f32)
        .with("rope.scaling.type", "yarn")
        .with("rope.scaling.factor", 32f32)
        .with("rope.scaling.original_context_length", 4096u32)
}

pub fn mellum() -> Model {
    let model = decoder("mellum", "Mellum 2 12B A2.5B", [28, 131_072, 2304, 32, 4], 1e-6);
    experts(head_dim(model, 128), [64, 8, 896])
        .with("feed_forward_length", 7168u32)
        .with("attention.sliding_window", 1024u32)
        .with("rope.freq_base", 5e5f32)
        .with("rope.scaling.type", "yarn")
        .with("rope.scaling.factor", 16f32)
        .with("rope.scaling.original_context_length", 8192u32)
}

/// A search has left 49 of 80 layers with attention, and networks of many widths; here as an example
/// four of a period.
pub fn deci() -> Model {
    let of = |numbers: [i32; 4]| (0..80).map(|il| numbers[il % 4]).collect::<Vec<i32>>();
    decoder("deci", "Llama 3_3 Nemotron Super 49B v1", [80, 131_072, 8192, 64, 8], 1e-5)
        .with("attention.head_count", of([64, 0, 64, 0]))
        .with("attention.head_count_kv", of([8, 0, 0, 0]))
        .with("feed_forward_length", of([28_672, 14_336, 5632, 2816]))
        .with("attention.key_length", 128u32)
        .with("attention.value_length", 128u32)
        .with("rope.freq_base", 5e5f32)
}

pub fn bitnet() -> Model {
    decoder("bitnet", "Bitnet B1_58 3B", [26, 2048, 3200, 32, 32], 1e-5).with("feed_forward_length", 8640u32)
}

pub fn minicpm3() -> Model {
    decoder("minicpm3", "MiniCPM3 4B", [62, 32_768, 2560, 40, 40], 1e-5)
        .with("feed_forward_length", 6400u32)
        .with("attention.key_length", 96u32)
        .with("attention.value_length", 64u32)
        .with("attention.q_lora_rank", 768u32)
        .with("attention.kv_lora_rank", 256u32)
        .with("rope.dimension_count", 32u32)
        .with("rope.scaling.type", "longrope")
        .with("rope.scaling.original_context_length", 32_768u32)
        .with("rope.scaling.attn_factor", 1f32)
}

/// All of them, with the name of their golden.
pub fn all() -> Vec<(&'static str, Model)> {
    vec![
        ("qwen3next", qwen3next()),
        ("granitehybrid", granitehybrid()),
        ("mamba", mamba()),
        ("falcon-mamba", falcon_mamba()),
        ("mamba2", mamba2()),
        ("jamba", jamba()),
        ("qwen2vl", qwen2vl()),
        ("afmoe", afmoe()),
        ("exaone-moe", exaone_moe()),
        ("hy_v3", hy_v3()),
        ("smallthinker", smallthinker()),
        ("llama4", llama4()),
        ("mimo2", mimo2()),
        ("step35", step35()),
        ("laguna", laguna()),
        ("mellum", mellum()),
        ("deci", deci()),
        ("bitnet", bitnet()),
        ("minicpm3", minicpm3()),
    ]
}

//! Metadata of real models of the families whose architectures are a line or two each, as
//! [`models`](crate::models) has it.

use crate::models::{Model, decoder};

/// The same with layer norms.
fn layered(arch: &'static str, name: &str, sizes: [u32; 5], eps: f32) -> Model {
    decoder(arch, name, sizes, 0.0)
        .without("attention.layer_norm_rms_epsilon")
        .with("attention.layer_norm_epsilon", eps)
}

fn width(model: Model, n: u32) -> Model {
    model.with("feed_forward_length", n)
}

fn head_dim(model: Model, n: u32) -> Model {
    model.with("attention.key_length", n).with("attention.value_length", n)
}

fn factors(model: Model, [embedding, residual, attention, logits]: [f32; 4]) -> Model {
    model
        .with("embedding_scale", embedding)
        .with("residual_scale", residual)
        .with("attention.scale", attention)
        .with("logit_scale", logits)
}

fn experts(model: Model, [n, used]: [u32; 2]) -> Model {
    model.with("expert_count", n).with("expert_used_count", used)
}

pub fn granite() -> Model {
    let model = width(decoder("granite", "Granite 3.3 8b Instruct", [40, 131_072, 4096, 32, 8], 1e-5), 12_800);
    factors(model, [12.0, 0.22, 0.007_812_5, 16.0]).with("rope.freq_base", 1e7f32)
}

pub fn granitemoe() -> Model {
    let model = width(decoder("granitemoe", "Granite 3.1 3b A800m Instruct", [32, 131_072, 1536, 24, 8], 1e-6), 512);
    experts(factors(model, [12.0, 0.22, 0.015_625, 6.0]), [40, 8]).with("rope.freq_base", 1e7f32)
}

/// Of before there were keys for the factors.
pub fn minicpm() -> Model {
    width(decoder("minicpm", "MiniCPM 2B", [40, 4096, 2304, 36, 36], 1e-5), 5760)
}

pub fn cohere2() -> Model {
    width(layered("cohere2", "C4ai Command R7b 12 2024", [32, 8192, 4096, 32, 8], 1e-5), 14_336)
        .with("attention.sliding_window", 4096u32)
        .with("rope.freq_base", 5e4f32)
        .with("rope.scaling.type", "none")
        .with("logit_scale", 0.25f32)
}

pub fn glm4() -> Model {
    let model = width(decoder("glm4", "GLM 4 9B 0414", [40, 32_768, 4096, 32, 2], 1e-5), 13_696);
    head_dim(model, 128).with("rope.dimension_count", 64u32).with("rope.freq_base", 1e4f32)
}

pub fn chatglm() -> Model {
    width(decoder("chatglm", "Glm 4 9b Chat", [40, 131_072, 4096, 32, 2], 1.5625e-7), 13_696)
        .with("rope.dimension_count", 64u32)
        .with("rope.freq_base", 5e6f32)
}

pub fn exaone4() -> Model {
    head_dim(width(decoder("exaone4", "EXAONE 4.0 32B", [64, 131_072, 5120, 40, 8], 1e-5), 27_392), 128)
        .with("attention.sliding_window", 4096u32)
        .with("rope.freq_base", 1e6f32)
}

pub fn exaone() -> Model {
    width(decoder("exaone", "EXAONE 3.5 2.4B Instruct", [30, 32_768, 2560, 32, 8], 1e-5), 7168)
        .with("rope.freq_base", 1e6f32)
}

pub fn mistral3() -> Model {
    let model = width(decoder("mistral3", "Ministral 3 8B Instruct 2512", [34, 262_144, 4096, 32, 8], 1e-5), 14_336);
    head_dim(model, 128)
        .with("rope.freq_base", 1e6f32)
        .with("rope.scaling.type", "yarn")
        .with("rope.scaling.factor", 16f32)
        .with("rope.scaling.original_context_length", 16_384u32)
        .with("rope.scaling.yarn_beta_fast", 32f32)
        .with("rope.scaling.yarn_beta_slow", 1f32)
        .with("rope.scaling.yarn_log_multiplier", 1f32)
        .with("attention.temperature_scale", 0.1f32)
}

pub fn hunyuan_dense() -> Model {
    head_dim(width(decoder("hunyuan-dense", "Hunyuan 4B Instruct", [36, 262_144, 3072, 32, 8], 1e-5), 8192), 128)
        .with("rope.freq_base", 11_158_840f32)
}

pub fn smollm3() -> Model {
    width(decoder("smollm3", "SmolLM3 3B", [36, 65_536, 2048, 16, 4], 1e-6), 11_008).with("rope.freq_base", 5e6f32)
}

pub fn ernie4_5() -> Model {
    head_dim(width(decoder("ernie4_5", "ERNIE 4.5 0.3B PT", [18, 131_072, 1024, 16, 2], 1e-5), 3072), 128)
        .with("rope.freq_base", 5e5f32)
}

pub fn internlm2() -> Model {
    width(decoder("internlm2", "Internlm2_5 7b Chat", [32, 32_768, 4096, 32, 8], 1e-5), 14_336)
        .with("rope.freq_base", 1e6f32)
}

pub fn xverse() -> Model {
    width(decoder("xverse", "XVERSE 7B Chat", [32, 8192, 4096, 32, 32], 1e-6), 10_944)
}

pub fn arcee() -> Model {
    head_dim(width(decoder("arcee", "AFM 4.5B", [36, 65_536, 2560, 20, 4], 1e-5), 18_432), 128)
        .with("rope.freq_base", 1e4f32)
        .with("rope.scaling.type", "yarn")
        .with("rope.scaling.factor", 20f32)
        .with("rope.scaling.original_context_length", 4096u32)
}

pub fn seed_oss() -> Model {
    head_dim(width(decoder("seed_oss", "Seed OSS 36B Instruct", [64, 524_288, 5120, 80, 8], 1e-6), 27_648), 128)
        .with("rope.freq_base", 1e7f32)
}

pub fn plamo() -> Model {
    width(decoder("plamo", "Plamo 13b", [40, 4096, 5120, 40, 5], 1e-6), 13_824)
}

pub fn qwen() -> Model {
    width(decoder("qwen", "Qwen 7B Chat", [32, 8192, 4096, 32, 32], 1e-6), 22_016).with("rope.dimension_count", 128u32)
}

pub fn gemma() -> Model {
    head_dim(width(decoder("gemma", "Gemma 1.1 2b It", [18, 8192, 2048, 8, 1], 1e-6), 16_384), 256)
}

pub fn olmo() -> Model {
    width(layered("olmo", "OLMo 7B 0424 Hf", [32, 4096, 4096, 32, 32], 1e-5), 11_008).with("attention.clamp_kqv", 8f32)
}

pub fn gpt2() -> Model {
    width(layered("gpt2", "Gpt2", [12, 1024, 768, 12, 12], 1e-5), 3072)
}

pub fn gptneox() -> Model {
    width(layered("gptneox", "Pythia 1.4b", [24, 2048, 2048, 16, 16], 1e-5), 8192)
        .with("rope.dimension_count", 32u32)
        .with("use_parallel_residual", true)
}

pub fn starcoder() -> Model {
    width(layered("starcoder", "Starcoder", [40, 8192, 6144, 48, 1], 1e-5), 24_576)
}

pub fn starcoder2() -> Model {
    width(layered("starcoder2", "Starcoder2 3b", [30, 16_384, 3072, 24, 2], 1e-5), 12_288)
        .with("rope.freq_base", 999_999.44f32)
}

pub fn codeshell() -> Model {
    width(layered("codeshell", "CodeShell 7B Chat", [42, 8192, 4096, 32, 8], 1e-5), 16_384)
}

pub fn phi2() -> Model {
    width(layered("phi2", "Phi 2", [32, 2048, 2560, 32, 32], 1e-5), 10_240).with("rope.dimension_count", 32u32)
}

pub fn falcon() -> Model {
    width(layered("falcon", "Falcon 40b Instruct", [60, 2048, 8192, 128, 8], 1e-5), 32_768)
}

pub fn orion() -> Model {
    width(layered("orion", "Orion 14B Chat", [40, 4096, 5120, 40, 40], 1e-5), 15_360)
}

pub fn stablelm() -> Model {
    width(layered("stablelm", "Stablelm 2 12b Chat", [40, 4096, 5120, 32, 8], 1e-5), 13_824)
        .with("rope.dimension_count", 40u32)
        .with("use_parallel_residual", true)
}

pub fn nemotron() -> Model {
    head_dim(width(layered("nemotron", "Minitron 4B Base", [32, 4096, 3072, 24, 8], 1e-5), 9216), 128)
        .with("rope.dimension_count", 64u32)
}

pub fn jais2() -> Model {
    width(layered("jais2", "Jais 2 8B Chat", [32, 8192, 3328, 26, 26], 1e-5), 26_624).with("rope.freq_base", 5e5f32)
}

/// With 112 heads, of which 48 are beyond the largest power of two.
pub fn bloom() -> Model {
    width(layered("bloom", "Bloom", [70, 2048, 14_336, 112, 112], 1e-5), 57_344)
}

pub fn mpt() -> Model {
    width(layered("mpt", "Mpt 7b Instruct", [32, 2048, 4096, 32, 32], 1e-5), 16_384)
        .with("attention.max_alibi_bias", 8f32)
}

pub fn jais() -> Model {
    width(layered("jais", "Jais 13b Chat", [40, 2048, 5120, 40, 40], 1e-5), 13_653)
        .with("attention.max_alibi_bias", 8f32)
}

pub fn refact() -> Model {
    width(decoder("refact", "Refact 1_6B Fim", [32, 4096, 2048, 32, 1], 1e-5), 5632)
}

pub fn baichuan() -> Model {
    width(decoder("baichuan", "Baichuan2 13B Chat", [40, 4096, 5120, 40, 40], 1e-6), 13_696)
}

/// Each layer has learned its own activation; here all have learned the same.
pub fn apertus() -> Model {
    head_dim(width(decoder("apertus", "Apertus 8B Instruct 2509", [32, 65_536, 4096, 32, 8], 1e-5), 21_504), 128)
        .with("rope.freq_base", 12e6f32)
        .with_global("xielu.alpha_p", vec![0f32; 32])
        .with_global("xielu.alpha_n", vec![0f32; 32])
        .with_global("xielu.beta", vec![0.5f32; 32])
        .with_global("xielu.eps", vec![-1e-6f32; 32])
}

pub fn openelm() -> Model {
    let heads: Vec<u32> = vec![12, 12, 12, 12, 12, 16, 16, 16, 16, 16, 16, 16, 20, 20, 20, 20];
    let widths: Vec<u32> = (0..16).map(|il| 768 + 256 * il).collect();
    head_dim(decoder("openelm", "OpenELM 270M Instruct", [16, 2048, 1280, 0, 0], 1e-6), 64)
        .with("attention.head_count_kv", heads.iter().map(|n| n / 4).collect::<Vec<u32>>())
        .with("attention.head_count", heads)
        .with("feed_forward_length", widths)
}

pub fn pangu_embedded() -> Model {
    width(decoder("pangu-embedded", "OpenPangu Embedded 7B", [34, 32_768, 4096, 32, 8], 1e-5), 12_800)
        .with("rope.freq_base", 16e6f32)
}

pub fn maincoder() -> Model {
    head_dim(width(decoder("maincoder", "Maincoder 1B", [32, 2048, 1536, 16, 4], 1e-5), 4096), 96)
}

pub fn bailingmoe() -> Model {
    let model = width(decoder("bailingmoe", "Ling Lite 1.5", [28, 131_072, 2048, 16, 4], 1e-6), 5632);
    experts(head_dim(model, 128), [64, 6])
        .with("expert_feed_forward_length", 1408u32)
        .with("expert_shared_count", 2u32)
        .with("expert_weights_scale", 1f32)
        .with("expert_weights_norm", true)
        .with("leading_dense_block_count", 0u32)
        .with("rope.freq_base", 6e5f32)
}

/// With the layer that predicts one further token.
pub fn glm4moe() -> Model {
    let model = width(decoder("glm4moe", "GLM 4.5 Air", [47, 131_072, 4096, 96, 8], 1e-5), 10_944);
    experts(head_dim(model, 128), [128, 8])
        .with("expert_feed_forward_length", 1408u32)
        .with("expert_shared_count", 1u32)
        .with("expert_weights_scale", 1f32)
        .with("expert_weights_norm", true)
        .with("expert_gating_func", 2u32)
        .with("leading_dense_block_count", 1u32)
        .with("nextn_predict_layers", 1u32)
        .with("rope.dimension_count", 64u32)
        .with("rope.freq_base", 1e6f32)
}

pub fn hunyuan_moe() -> Model {
    let model = width(decoder("hunyuan-moe", "Hunyuan A13B Instruct", [32, 262_144, 4096, 32, 8], 1e-5), 3072);
    experts(head_dim(model, 128), [64, 8])
        .with("expert_feed_forward_length", 3072u32)
        .with("expert_shared_feed_forward_length", 3072u32)
        .with("rope.freq_base", 11_158_840f32)
}

pub fn dbrx() -> Model {
    experts(width(layered("dbrx", "Dbrx Instruct", [40, 32_768, 6144, 48, 8], 1e-5), 10_752), [16, 4])
        .with("attention.clamp_kqv", 8f32)
        .with("rope.freq_base", 5e5f32)
}

pub fn phimoe() -> Model {
    experts(width(decoder("phimoe", "Phi 3.5 MoE Instruct", [32, 131_072, 4096, 32, 8], 1e-5), 6400), [16, 2])
        .with("rope.scaling.original_context_length", 4096u32)
        .with("rope.scaling.attn_factor", 1.190_238_1f32)
        .with("attention.sliding_window", 131_072u32)
}

/// All of them: each one's golden has its architecture's name.
pub fn all() -> Vec<Model> {
    vec![
        granite(),
        granitemoe(),
        minicpm(),
        cohere2(),
        glm4(),
        chatglm(),
        exaone4(),
        exaone(),
        mistral3(),
        hunyuan_dense(),
        smollm3(),
        ernie4_5(),
        internlm2(),
        xverse(),
        arcee(),
        seed_oss(),
        plamo(),
        qwen(),
        gemma(),
        olmo(),
        gpt2(),
        gptneox(),
        starcoder(),
        starcoder2(),
        codeshell(),
        phi2(),
        falcon(),
        orion(),
        stablelm(),
        nemotron(),
        jais2(),
        bloom(),
        mpt(),
        jais(),
        refact(),
        baichuan(),
        apertus(),
        openelm(),
        pangu_embedded(),
        maincoder(),
        bailingmoe(),
        glm4moe(),
        hunyuan_moe(),
        dbrx(),
        phimoe(),
    ]
}

//! Files as llama.cpp's own saver writes them: every key that it knows is there, with what it holds
//! where the model's file had nothing.

use modelembed_gguf::GgufValue;

use crate::models;

/// What stands for nothing, for architectures that have no use for the key.
fn nothing() -> Vec<(&'static str, GgufValue)> {
    const ZEROS: &[&str] = &[
        "leading_dense_block_count",
        "expert_feed_forward_length",
        "expert_latent_length",
        "expert_shared_feed_forward_length",
        "expert_chunk_feed_forward_length",
        "expert_count",
        "expert_used_count",
        "expert_shared_count",
        "expert_group_count",
        "expert_group_used_count",
        "expert_gating_func",
        "experts_per_group",
        "moe_every_n_layers",
        "nextn_predict_layers",
        "n_deepstack_layers",
        "decoder_block_count",
        "rescale_every_n_layers",
        "interleave_moe_layer_step",
        "attention.sliding_window",
        "attention.q_lora_rank",
        "attention.kv_lora_rank",
        "attention.relative_buckets_count",
        "attention.temperature_length",
        "attention.key_length_mla",
        "attention.value_length_mla",
        "attention.indexer.head_count",
        "attention.indexer.key_length",
        "attention.indexer.top_k",
        "attention.indexer.types",
        "attention.recurrent_layers",
        "attention.compress_ratios",
        "hyper_connection.count",
        "hash_layer_count",
        "ssm.inner_size",
        "ssm.conv_kernel",
        "ssm.state_size",
        "ssm.time_step_rank",
        "ssm.group_count",
        "shortconv.l_cache",
        "wkv.head_size",
    ];
    const FRACTIONS: &[&str] = &[
        "expert_weights_scale",
        "logit_scale",
        "residual_scale",
        "embedding_scale",
        "attention.max_alibi_bias",
        "attention.clamp_kqv",
        "attention.layer_norm_epsilon",
        "attention.group_norm_epsilon",
        "attention.scale",
        "attention.output_scale",
        "attention.value_scale",
        "attention.temperature_scale",
        "rope.scaling.factor",
        "rope.scaling.yarn_log_multiplier",
    ];
    const FLAGS: &[&str] = &["use_parallel_residual", "expert_weights_norm", "swin_norm", "rope.scaling.finetuned"];
    let mut out: Vec<(&str, GgufValue)> = ZEROS.iter().map(|key| (*key, 0u32.into())).collect();
    out.extend(FRACTIONS.iter().map(|key| (*key, 0f32.into())));
    out.extend(FLAGS.iter().map(|key| (*key, false.into())));
    out.extend([
        ("pooling_type", u32::MAX.into()),
        ("attn_logit_softcapping", 50f32.into()),
        ("router_logit_softcapping", 30f32.into()),
        ("final_logit_softcapping", 30f32.into()),
        ("attention.causal", true.into()),
        ("rope.scaling.type", "linear".into()),
        ("rope.scaling.attn_factor", 1f32.into()),
        ("rope.scaling.yarn_ext_factor", (-1f32).into()),
        ("rope.scaling.yarn_attn_factor", 1f32.into()),
        ("rope.scaling.yarn_beta_fast", 32f32.into()),
        ("rope.scaling.yarn_beta_slow", 1f32.into()),
    ]);
    out
}

/// Architectures that read one of these keys: it says something there, and the saver writes what.
const READ: &[(&str, &str)] = &[
    ("gemma3", "final_logit_softcapping"),
    ("qwen35", "attention.recurrent_layers"),
    ("qwen3next", "attention.recurrent_layers"),
    ("llama4", "attention.sliding_window"),
    ("granite", "rope.scaling.finetuned"),
];

#[test]
fn keys_that_hold_nothing_say_nothing() {
    let mut failures = Vec::new();
    for (name, model) in models::all() {
        let want = model.read().unwrap_or_else(|e| panic!("{name}: {e}")).to_string();
        for (key, value) in nothing() {
            let Some(saved) = model.clone().with_new(key, value).filter(|_| !READ.contains(&(name, key))) else {
                continue;
            };
            match saved.read() {
                Ok(spec) if spec.to_string() == want => {}
                Ok(spec) => failures.push(format!("{name}: {key} changes it to\n{spec}")),
                Err(e) => failures.push(format!("{name}: {e}")),
            }
        }
    }
    assert!(failures.is_empty(), "{} fail:\n{}", failures.len(), failures.join("\n"));
}

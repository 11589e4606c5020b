//! Metadata that cannot be read: one clear error each.

use modelembed_spec::{Error, ModelSpec};

use crate::families;
use crate::models::{self, Model};

#[track_caller]
fn refused(model: &Model) -> String {
    model.read().map(|_| ()).unwrap_err().to_string()
}

#[test]
fn each_key_that_a_model_needs_is_named_when_it_is_missing() {
    type Case = (fn() -> Model, &'static [&'static str]);
    let cases: &[Case] = &[
        (models::llama, &["block_count", "embedding_length", "context_length", "feed_forward_length"]),
        (models::qwen3moe, &["expert_count", "expert_used_count", "attention.layer_norm_rms_epsilon"]),
        (models::qwen35, &["rope.dimension_sections", "ssm.inner_size", "ssm.conv_kernel", "feed_forward_length"]),
        (models::qwen35moe, &["ssm.state_size", "ssm.group_count", "ssm.time_step_rank", "expert_feed_forward_length"]),
        (models::gpt_oss, &["attention.sliding_window", "expert_count"]),
        (models::falcon_h1, &["ssm.conv_kernel", "attention.head_count"]),
        (models::gemma3n, &["attention.sliding_window"]),
        (models::gemma4, &["attention.sliding_window", "feed_forward_length"]),
        (models::gemma4_moe, &["expert_used_count", "attention.layer_norm_rms_epsilon"]),
        (models::deepseek2, &["attention.kv_lora_rank", "expert_used_count"]),
        (models::deepseek4, &["attention.compress_ratios", "swiglu_clamp_exp", "hyper_connection.epsilon"]),
        (models::deepseek4, &["attention.output_group_count", "attention.compress_rope_freq_base"]),
        (models::nemotron_h, &["feed_forward_length", "attention.head_count_kv", "attention.key_length"]),
        (families::cohere2, &["attention.sliding_window", "attention.layer_norm_epsilon"]),
        (families::mpt, &["attention.max_alibi_bias"]),
        (families::glm4moe, &["expert_count", "expert_used_count"]),
        (models::bert, &["attention.layer_norm_epsilon"]),
        (models::t5, &["attention.relative_buckets_count"]),
    ];
    for (model, keys) in cases {
        for key in *keys {
            let model = model();
            assert_eq!(refused(&model.clone().without(key)), format!("metadata {}.{key}: is missing", model.arch));
        }
    }
}

#[test]
fn arrays_have_one_element_a_layer() {
    let wanted = |n: usize| format!("wanted one number or an array of {n}, one a layer");
    let cases = [
        (models::qwen3moe().with("expert_used_count", vec![8u32; 47]), "expert_used_count", 47, 48),
        (models::qwen35moe().with("attention.recurrent_layers", vec![true; 40]), "attention.recurrent_layers", 40, 41),
        (models::gemma3n().with("activation_sparsity_scale", vec![1f32; 31]), "activation_sparsity_scale", 31, 30),
        (models::deepseek4().with("swiglu_clamp_exp", vec![1f32; 44]), "swiglu_clamp_exp", 44, 43),
        (models::nemotron_h().with("feed_forward_length", vec![0u32; 5]), "feed_forward_length", 5, 56),
    ];
    for (model, key, seen, n) in cases {
        let message = format!("metadata {}.{key}: is an array of {seen}, {}", model.arch, wanted(n));
        assert_eq!(refused(&model), message);
    }
    let ratios = models::deepseek4().with("attention.compress_ratios", vec![0u32; 42]);
    assert_eq!(
        refused(&ratios),
        "metadata deepseek4.attention.compress_ratios: is an array of 42, wanted an array of at least 43 numbers, one a layer"
    );
    let sections = models::qwen35().with("rope.dimension_sections", vec![11u32; 3]);
    assert!(refused(&sections).starts_with("metadata qwen35.rope.dimension_sections: wanted an array of 4"));
}

#[test]
fn unknown_ids_are_refused_with_those_that_are_known() {
    let cases = [
        (
            models::qwen3moe().with("expert_gating_func", 9u32),
            "unsupported: qwen3moe.expert_gating_func is 9, wanted 1 to 4: softmax, sigmoid, softmax of the chosen, sqrt-softplus",
        ),
        (
            models::gpt_oss().with("rope.scaling.type", "spiral"),
            "unsupported: gpt-oss.rope.scaling.type is \"spiral\", wanted none, linear or yarn",
        ),
        (
            models::bert().with("pooling_type", 7u32),
            "unsupported: bert.pooling_type is 7, wanted 0 to 4: none, mean, first, last, rank",
        ),
        (
            models::deepseek4().with("attention.compress_ratios", vec![8u32; 43]),
            "unsupported: deepseek4.attention.compress_ratios is 8 in a layer, wanted 0, 4 or 128",
        ),
    ];
    for (model, message) in cases {
        assert_eq!(refused(&model), message);
    }
}

#[test]
fn numbers_that_do_not_fit_each_other_are_refused() {
    let cases = [
        (
            models::qwen3moe().with("expert_used_count", 129u32),
            "expert_used_count",
            "is 129, wanted at most the 128 experts",
        ),
        (
            models::deepseek2().with("expert_group_count", 7u32),
            "expert_group_count",
            "7 does not divide the 256 experts",
        ),
        (
            models::deepseek2().with("expert_group_used_count", 9u32),
            "expert_group_used_count",
            "is 9, wanted at most the 8 groups",
        ),
        (
            models::deepseek2().without("expert_group_used_count"),
            "expert_group_used_count",
            "is missing beside expert_group_count",
        ),
        (
            models::deepseek2().with("attention.key_length_mla", 64u32),
            "rope.dimension_count",
            "is 64, wanted less than the head's 64 elements",
        ),
        (models::qwen35().with("ssm.group_count", 5u32), "ssm.group_count", "5 does not divide the 48 heads"),
        (
            models::falcon_h1().with("ssm.inner_size", 1537u32),
            "ssm.time_step_rank",
            "24 does not divide the inner size 1537",
        ),
        (
            models::qwen35moe().with("nextn_predict_layers", 41u32),
            "nextn_predict_layers",
            "is 41, wanted less than the 41 blocks",
        ),
        (models::gemma3n().with("altup.active_idx", 4u32), "altup.active_idx", "is 4, wanted less than the 4 streams"),
        (
            models::gemma3n().with("attention.shared_kv_layers", 29u32),
            "attention.shared_kv_layers",
            "is 29, wanted at most 28 of the 30 layers",
        ),
        (
            models::gemma4().with("attention.shared_kv_layers", 34u32),
            "attention.shared_kv_layers",
            "is 34, wanted at most 33 of the 35 layers",
        ),
        (
            models::gemma4().with("attention.shared_kv_layers", 19u32),
            "attention.shared_kv_layers",
            "is 19, but layers 14 and 16 do not see the same positions",
        ),
        (
            models::gemma4_moe().with("attention.shared_kv_layers", 6u32).with("attention.head_count_kv", {
                (0..30).map(|il| if il == 29 { 4 } else { 8 }).collect::<Vec<u32>>()
            }),
            "attention.head_count_kv",
            "has 4 for layer 29, which reads the 8 of layer 23",
        ),
        (
            models::gemma4().with("attention.value_length_swa", 128u32),
            "attention.value_length_swa",
            "is 128, wanted the 256 elements of a key",
        ),
        (
            models::gemma4().with("rope.dimension_count_swa", 258u32),
            "rope.dimension_count_swa",
            "is 258, wanted an even number up to the head's 256 elements",
        ),
        (
            models::gemma4().with("attention.sliding_window_pattern", 5u32),
            "attention.sliding_window_pattern",
            "is no array, wanted one that says for each layer whether it has a window",
        ),
    ];
    for (model, key, problem) in cases {
        assert_eq!(refused(&model), format!("metadata {}.{key}: {problem}", model.arch));
    }
}

#[test]
fn baichuan_of_another_size_is_refused() {
    let message = "unsupported: baichuan.block_count is 36, wanted 32 or 40, by which Baichuan's positions are told";
    assert_eq!(refused(&families::baichuan().with("block_count", 36u32)), message);
}

#[test]
fn what_activations_have_learned_must_be_there_for_each_layer() {
    let cases = [
        (
            families::apertus().with("block_count", 31u32),
            "xielu.alpha_p: is an array of 32, wanted a number or an array of 31, one a layer",
        ),
        (
            families::apertus().with_global("xielu.beta", "much"),
            "xielu.beta: holds no numbers, wanted a number or an array of 32, one a layer",
        ),
        (families::apertus().with_global("xielu.eps", f32::NAN), "xielu.eps: holds a number that is not finite"),
    ];
    for (model, message) in cases {
        assert_eq!(refused(&model), format!("metadata {message}"));
    }
    let bare = width_only();
    assert_eq!(refused(&bare), "metadata xielu.alpha_p: is missing");
}

/// An Apertus without what its activations have learned.
fn width_only() -> Model {
    models::decoder("apertus", "Apertus", [2, 1024, 64, 4, 2], 1e-5).with("feed_forward_length", 128u32)
}

#[test]
fn an_unknown_architecture_hears_which_ones_run() {
    let error = Model::new("gpt9", "Tomorrow").read().map(|_: ModelSpec| ()).unwrap_err();
    let Error::UnknownArchitecture { name, known, .. } = &error else { panic!("{error}") };
    assert_eq!(name, "gpt9");
    let known: Vec<&str> = known.split(", ").collect();
    for name in ["llama", "qwen2", "qwen3", "gemma3"] {
        assert!(known.contains(&name), "{error}");
    }
    assert!(!known.contains(&"deepseek4"), "{error}");
}

#[test]
fn keys_of_other_mathematics_are_refused_where_they_are_not_read() {
    let cases = [
        (models::qwen2().with("expert_count", 8u32), "experts"),
        (models::qwen3().with("nextn_predict_layers", 1u32), "layers that predict further tokens"),
        (models::qwen3moe().with("attention.kv_lora_rank", 512u32), "latent attention"),
        (models::llama().with("attention.clamp_kqv", 8f32), "limits of queries, keys and values"),
        (families::granite().with("attention.temperature_scale", 0.1f32), "a temperature of attention"),
        (families::smollm3().with("attention.max_alibi_bias", 8f32), "ALiBi"),
        (families::bloom().with("attention.max_alibi_bias", 4f32), "another bias of ALiBi"),
        (families::phi2().with("use_parallel_residual", true), "attention beside the feed-forward network"),
        (models::gpt_oss().with("attention.causal", false), "attention to later tokens, which encoders have"),
        (models::qwen3moe().with("swiglu_clamp_exp", vec![7f32; 48]), "limits in the feed-forward network"),
    ];
    for (model, what) in cases {
        let (seen, end) = (refused(&model), format!("architecture {} runs here without {what}", model.arch));
        assert!(seen.ends_with(&end), "{seen}");
    }
}

//! Values of metadata that mean the same in several ways, and those that would change what is
//! computed and are not read.

use modelembed::{LoadOptions, TokenId};
use modelembed_testkit::{GgufValue, tiny_prompt, tiny_spec};

use crate::common::{Parts, TinyModels, all_logits, load};

/// The logits' bits of every position of a prompt longer than the tiny window, or the error.
fn outcome(dir: &TinyModels, parts: &Parts) -> Result<Vec<u32>, String> {
    match parts.outcome(dir) {
        loaded if loaded == "loaded" => {
            let model = load(&dir.write("same", &parts.build()), &LoadOptions::default());
            let ids: Vec<TokenId> = tiny_prompt(40).into_iter().map(TokenId).collect();
            Ok(all_logits(&model, &ids, 40).into_iter().map(f32::to_bits).collect())
        }
        error => Err(error),
    }
}

/// Sets each key of a model in turn and wants the logits of the model as it was.
fn changes_nothing(model: &str, rows: Vec<(&str, GgufValue)>) {
    let dir = TinyModels::new();
    let whole = Parts::of(&tiny_spec(model));
    let prefix = tiny_spec(model).arch.name();
    let wanted = outcome(&dir, &whole).expect("a tiny model");
    let mut failures = Vec::new();
    for (key, value) in rows {
        let mut parts = whole.clone();
        let shown = format!("{model} {key} {value:?}");
        parts.set(&format!("{prefix}.{key}"), value);
        match outcome(&dir, &parts) {
            Ok(seen) if seen == wanted => {}
            Ok(_) => failures.push(format!("{shown}: other logits")),
            Err(e) => failures.push(format!("{shown}: {e}")),
        }
    }
    assert!(failures.is_empty(), "{} rows fail:\n{}", failures.len(), failures.join("\n"));
}

/// Sets each key of a model in turn and wants an error with these words.
fn is_refused(model: &str, rows: Vec<(&str, GgufValue, &[&str])>) {
    let dir = TinyModels::new();
    let prefix = tiny_spec(model).arch.name();
    let mut failures = Vec::new();
    for (key, value, words) in rows {
        let mut parts = Parts::of(&tiny_spec(model));
        let shown = format!("{model} {key} {value:?}");
        let key = format!("{prefix}.{key}");
        parts.set(&key, value);
        let outcome = parts.outcome(&dir);
        if !outcome.contains(&key) || !words.iter().all(|word| outcome.contains(word)) {
            failures.push(format!("{shown}: {outcome:?} lacks the key or one of {words:?}"));
        }
    }
    assert!(failures.is_empty(), "{} rows fail:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn arrays_with_the_same_number_for_each_layer_are_that_number() {
    for model in ["llama", "qwen2", "qwen3", "gemma3"] {
        let spec = tiny_spec(model);
        let of_layers = |n: usize| GgufValue::from(vec![n as u32; spec.n_layer]);
        let signed = vec![spec.n_head_kv as i32; spec.n_layer];
        changes_nothing(
            model,
            vec![
                ("attention.head_count", of_layers(spec.n_head)),
                ("attention.head_count_kv", of_layers(spec.n_head_kv)),
                ("attention.head_count_kv", signed.into()),
                ("feed_forward_length", of_layers(spec.n_ff)),
            ],
        );
    }
}

#[test]
fn arrays_that_are_no_number_are_named_for_what_they_are() {
    let n_layer = tiny_spec("llama").n_layer as u32;
    for key in ["attention.head_count", "attention.head_count_kv", "feed_forward_length"] {
        let wanted_length = format!("array of {n_layer}");
        is_refused(
            "llama",
            vec![
                (key, Vec::<u32>::new().into(), &["an empty array", &wanted_length]),
                (key, vec![2u32; n_layer as usize + 1].into(), &["is an array of 4", &wanted_length]),
                (key, vec!["2"; n_layer as usize].into(), &["3 string", "integer"]),
                (key, vec![-2i32; n_layer as usize].into(), &["4294967294"]),
            ],
        );
    }
    is_refused("llama", vec![("embedding_length", vec![64u32; 3].into(), &["an array of 3 u32", "integer"])]);
}

#[test]
fn a_pattern_of_windows_is_a_period_or_a_flag_for_each_layer() {
    let spec = tiny_spec("gemma3");
    let flags = |period: usize| (1..=spec.n_layer).map(|il| !il.is_multiple_of(period)).collect::<Vec<bool>>();
    let numbers = |period: usize| flags(period).into_iter().map(u32::from).collect::<Vec<u32>>();
    let key = "attention.sliding_window_pattern";
    changes_nothing("gemma3", vec![(key, 6u32.into()), (key, flags(6).into()), (key, numbers(6).into())]);

    let dir = TinyModels::new();
    let with = |value: GgufValue| {
        let mut parts = Parts::of(&spec);
        parts.set(&format!("gemma3.{key}"), value);
        outcome(&dir, &parts).expect("loads")
    };
    let never_whole = spec.n_layer + 1;
    for period in [1, 2, 3] {
        assert_eq!(with((period as u32).into()), with(flags(period).into()), "period {period}");
    }
    assert_eq!(with(0u32.into()), with(flags(never_whole).into()), "no layer sees everything");
    assert_ne!(with(0u32.into()), with(1u32.into()), "the prompt is longer than the window");
    // Windows are a layer's own: any pattern will do.
    let mut odd = vec![true; spec.n_layer];
    odd[..2].fill(false);
    assert_ne!(with(odd.into()), with(0u32.into()), "two layers see everything");
    is_refused(
        "gemma3",
        vec![(key, Vec::<bool>::new().into(), &["an empty array"]), (key, vec![true].into(), &["is an array of 1"])],
    );
}

#[test]
fn values_that_mean_absent_change_nothing() {
    // The values that llama.cpp's own saver writes for what a model does not have.
    let absent = || -> Vec<(&str, GgufValue)> {
        vec![
            ("attention.scale", 0f32.into()),
            ("attention.key_length", u32::MAX.into()),
            ("attention.value_length", 0u32.into()),
            ("expert_count", 0u32.into()),
            ("expert_count", u32::MAX.into()),
            ("rope.scaling.type", "".into()),
            ("rope.scaling.type", "linear".into()),
            ("rope.scaling.factor", 0f32.into()),
            ("rope.scaling.factor", (-0f32).into()),
            ("rope.scale_linear", 0f32.into()),
            ("rope.scaling.original_context_length", 0u32.into()),
            ("rope.scaling.original_context_length", u32::MAX.into()),
            ("rope.scaling.attn_factor", 0f32.into()),
            ("rope.scaling.yarn_beta_fast", 0f32.into()),
            ("rope.scaling.yarn_beta_slow", 0f32.into()),
            ("rope.freq_base_swa", 0f32.into()),
        ]
    };
    changes_nothing("llama", absent());
    changes_nothing(
        "llama",
        vec![("attention.sliding_window", 0u32.into()), ("attention.sliding_window", u32::MAX.into())],
    );
    changes_nothing(
        "gemma3",
        absent().into_iter().filter(|(key, _)| !key.contains("_length") || key.contains("rope")).collect(),
    );
    // What YaRN reads, beside a factor that is given.
    let of_yarn = ["rope.scaling.attn_factor", "rope.scaling.yarn_beta_fast", "rope.scaling.yarn_beta_slow"];
    changes_nothing("qwen2-yarn", of_yarn.map(|key| (key, 0f32.into())).into());
}

#[test]
fn a_base_of_0_is_the_usual_one_and_an_empty_name_is_none() {
    let dir = TinyModels::new();
    let mut parts = Parts::of(&tiny_spec("llama"));
    parts.set("llama.rope.freq_base", 10_000f32);
    let usual = outcome(&dir, &parts).expect("loads");
    parts.set("llama.rope.freq_base", 0f32);
    assert_eq!(outcome(&dir, &parts).expect("loads"), usual);
    parts.set("general.name", "");
    let model = load(&dir.write("nameless", &parts.build()), &LoadOptions::default());
    assert_eq!(model.spec().name, None);
    parts.set("general.architecture", "");
    assert!(parts.outcome(&dir).contains("general.architecture: is missing"), "{}", parts.outcome(&dir));
}

/// Keys that are not read, each with values that change nothing.
fn usual_values() -> Vec<(&'static str, GgufValue)> {
    let zeros = [
        "expert_used_count",
        "expert_shared_count",
        "nextn_predict_layers",
        "full_attention_interval",
        "embedding_length_out",
        "embedding_length_per_layer_input",
        "attention.relative_buckets_count",
        "attention.q_lora_rank",
        "attention.kv_lora_rank",
        "attention.key_length_mla",
        "attention.value_length_mla",
        "attention.shared_kv_layers",
        "attention.indexer.top_k",
        "attention.key_length_swa",
        "attention.value_length_swa",
        "rope.dimension_count_swa",
    ];
    let float_zeros = [
        "swiglu_clamp_exp",
        "swiglu_clamp_shexp",
        "embedding_scale",
        "residual_scale",
        "logit_scale",
        "attn_logit_softcapping",
        "final_logit_softcapping",
        "attention.clamp_kqv",
        "attention.max_alibi_bias",
        "attention.output_scale",
        "attention.value_scale",
        "attention.temperature_scale",
        "rope.scaling.alpha",
        "rope.scaling.yarn_log_multiplier",
        "rope.scaling.yarn_ext_factor",
        "rope.scaling.yarn_attn_factor",
    ];
    let mut rows: Vec<(&str, GgufValue)> = Vec::new();
    rows.extend(zeros.map(|key| (key, 0u32.into())));
    rows.extend(zeros.map(|key| (key, u32::MAX.into())));
    rows.extend(zeros.map(|key| (key, (-1i32).into())));
    rows.extend(float_zeros.map(|key| (key, 0f32.into())));
    for key in
        ["residual_scale", "logit_scale", "attention.output_scale", "attention.value_scale", "rope.scaling.alpha"]
    {
        rows.push((key, 1f32.into()));
    }
    rows.extend([
        ("attn_logit_softcapping", 50f32.into()),
        ("swiglu_clamp_shexp", vec![0f32; 3].into()),
        ("rope.dimension_sections", vec![0i32; 4].into()),
        ("rope.dimension_sections", Vec::<i32>::new().into()),
        ("rope.scaling.yarn_ext_factor", (-1f32).into()),
        ("rope.scaling.yarn_attn_factor", 1f32.into()),
        ("attention.causal", true.into()),
        ("use_parallel_residual", false.into()),
        ("swin_norm", false.into()),
    ]);
    rows
}

#[test]
fn keys_that_are_not_read_may_have_their_usual_values() {
    for model in ["llama", "qwen2", "qwen3", "gemma3"] {
        changes_nothing(model, usual_values());
    }
    let head = tiny_spec("llama").head_dim as u32;
    changes_nothing(
        "llama",
        vec![
            ("final_logit_softcapping", 30f32.into()),
            ("embedding_scale", 1f32.into()),
            ("embedding_length_out", (tiny_spec("llama").n_embd as u32).into()),
            ("attention.key_length_swa", head.into()),
            ("rope.dimension_count_swa", (tiny_spec("llama").rope_dims as u32).into()),
            // A window that holds the whole context of 1,024 tokens.
            ("attention.sliding_window", 1024u32.into()),
        ],
    );
    changes_nothing("gemma3", vec![("embedding_scale", (tiny_spec("gemma3").n_embd as f32).sqrt().into())]);
}

#[test]
fn other_mathematics_is_refused_with_key_value_and_what_is_wanted() {
    for model in ["llama", "qwen2", "qwen3", "gemma3"] {
        let not_usual: std::collections::BTreeSet<&str> = usual_values().into_iter().map(|(key, _)| key).collect();
        // Which architecture reads which of them is its own business.
        let unread = not_usual.into_iter().filter(|key| !(model == "gemma3" && *key == "final_logit_softcapping"));
        let rows = unread.map(|key| -> (&str, GgufValue, &[&str]) {
            match key {
                "attention.causal" => (key, false.into(), &["is false", "wanted true"]),
                "use_parallel_residual" | "swin_norm" => (key, true.into(), &["is true", "wanted false"]),
                "rope.dimension_sections" => (key, vec![16, 24, 24, 0i32].into(), &["[16.0, 24.0", "wanted 0"]),
                _ => (key, 7f32.into(), &["is 7", "wanted 0"]),
            }
        });
        is_refused(model, rows.collect());
    }
    is_refused(
        "llama",
        vec![
            ("attention.sliding_window", 512u32.into(), &["is 512", "1024 tokens", "llama"]),
            ("pooling_type", 5u32.into(), &["is 5", "wanted 0 to 4"]),
            ("pooling_type", 4u32.into(), &["ranking"]),
            ("pooling_type", "mean".into(), &["mean", "pooling_type"]),
            ("logit_scale", f32::NAN.into(), &["is NaN", "wanted 0 or 1"]),
            ("attention.causal", 1u32.into(), &["is 1", "wanted true"]),
        ],
    );
}

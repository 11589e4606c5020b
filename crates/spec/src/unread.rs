//! Keys that change the mathematics. An architecture reads some of them; the others must have
//! values that change nothing.

/// A key, the numbers beside 0 (absent) with which it changes nothing, and what others would ask
/// for.
pub(crate) type Unread = (&'static str, &'static [f64], &'static str);

/// Keys of numbers.
pub(crate) const NUMBERS: &[Unread] = &[
    ("expert_count", &[], "experts"),
    ("expert_used_count", &[], "experts"),
    ("expert_shared_count", &[], "experts"),
    ("nextn_predict_layers", &[], "layers that predict further tokens"),
    ("full_attention_interval", &[1.0], "layers of other kinds than attention"),
    ("swiglu_clamp_exp", &[], "limits in the feed-forward network"),
    ("swiglu_clamp_shexp", &[], "limits in the feed-forward network"),
    ("embedding_length_per_layer_input", &[], "embeddings for each layer"),
    ("embedding_scale", &[1.0], "a scale of the embedding"),
    ("residual_scale", &[1.0], "a scale of the residual"),
    ("logit_scale", &[1.0], "a scale of the logits"),
    // llama.cpp writes its defaults of 50 and 30 into files of architectures that it caps nothing
    // in.
    ("attn_logit_softcapping", &[50.0], "a soft cap of attention"),
    ("final_logit_softcapping", &[30.0], "a soft cap of the logits"),
    ("attention.clamp_kqv", &[], "limits of queries, keys and values"),
    ("attention.max_alibi_bias", &[], "ALiBi"),
    ("attention.output_scale", &[1.0], "a scale of attention's output"),
    ("attention.value_scale", &[1.0], "a scale of the values"),
    ("attention.temperature_scale", &[], "a temperature of attention"),
    ("attention.relative_buckets_count", &[], "a bias by distance"),
    ("attention.q_lora_rank", &[], "latent attention"),
    ("attention.kv_lora_rank", &[], "latent attention"),
    ("attention.key_length_mla", &[], "latent attention"),
    ("attention.value_length_mla", &[], "latent attention"),
    ("attention.shared_kv_layers", &[], "keys and values that layers share"),
    ("attention.indexer.top_k", &[], "sparse attention"),
    ("rope.dimension_sections", &[], "RoPE in sections"),
    ("rope.scaling.alpha", &[1.0], "a RoPE base scaled by alpha"),
    ("rope.scaling.yarn_log_multiplier", &[], "another magnitude in YaRN"),
    ("rope.scaling.yarn_ext_factor", &[-1.0, 1.0], "another mix in YaRN"),
    ("rope.scaling.yarn_attn_factor", &[1.0], "another magnitude in YaRN"),
];

/// A flag and the only value that changes nothing.
pub(crate) const FLAGS: &[(&str, bool, &str)] = &[
    ("attention.causal", true, "attention to later tokens, which encoders have"),
    ("use_parallel_residual", false, "attention beside the feed-forward network"),
    ("swin_norm", false, "the norms of Swin transformers"),
];

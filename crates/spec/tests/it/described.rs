//! What is printed of each model, against goldens; and what goldens do not show.

use modelembed_spec::{
    ARCHITECTURES, AttentionSpec, Choice, FeedForward, Gating, KvSource, LatentExpansion, LayerSpec, Mixer, Need,
    Position, RopeFactors, RopeId, Visible,
};

use crate::families;
use crate::models::{self, Model};

#[test]
fn models_are_described_as_they_are_known() {
    for (name, model) in models::all() {
        let spec = model.read().unwrap_or_else(|e| panic!("{name}: {e}"));
        crate::assert_golden(name, &spec.to_string());
    }
}

#[test]
fn every_architecture_has_a_model() {
    let seen: Vec<&str> = models::all().iter().map(|(_, model)| model.arch).collect();
    let missing: Vec<&str> = ARCHITECTURES.iter().map(|arch| arch.name).filter(|name| !seen.contains(name)).collect();
    assert!(missing.is_empty(), "no model of {missing:?}");
}

/// The attention of a model's last layer.
fn attention(model: &Model) -> AttentionSpec {
    match model.read().unwrap().layers.pop().unwrap().mixer {
        Mixer::Attention(attention) => attention,
        other => panic!("{other:?}"),
    }
}

#[test]
fn the_largest_gemmas_scale_by_the_embeddings_share_of_a_head() {
    let scale = |model: Model| attention(&model).scale;
    for (model, usual, n_layer, share) in [(models::gemma2(), 256, 46, 2304 / 8), (models::gemma3(), 256, 62, 640 / 4)]
    {
        assert_eq!(scale(model.clone()), 1.0 / (usual as f32).sqrt());
        assert_eq!(scale(model.with("block_count", n_layer)), 1.0 / (share as f32).sqrt());
    }
}

#[test]
fn gemma2_has_its_window_and_caps_where_a_file_is_silent() {
    let keys = ["attention.sliding_window", "attn_logit_softcapping", "final_logit_softcapping"];
    let silent = keys.iter().fold(models::gemma2(), |model, key| model.without(key)).read().unwrap();
    let full = models::gemma2().read().unwrap();
    assert_eq!((silent.layers, silent.output), (full.layers, full.output));
}

#[test]
fn window_layers_take_a_base_of_their_own_from_the_file_only() {
    for model in [models::gemma2(), models::olmo2()] {
        let bases = |model: &Model| model.read().unwrap().ropes.iter().map(|rope| rope.base).collect::<Vec<_>>();
        let base = bases(&model)[0];
        assert_eq!(bases(&model), [base, base]);
        assert_eq!(bases(&model.with("rope.freq_base_swa", 777f32)), [base, 777.0]);
    }
}

#[test]
fn rotations_take_their_magnitude_from_the_file_whatever_their_scaling() {
    let magnitudes = |model: Model| model.read().unwrap().ropes.iter().map(|rope| rope.magnitude).collect::<Vec<_>>();
    let with = |model: Model, kind: &str| model.with("rope.scaling.type", kind).with("rope.scaling.factor", 8f32);
    let wide = |model: Model| model.with("rope.scaling.attn_factor", 1.25f32);
    let of_yarn = 1.0 + 0.1 * 8f32.ln();
    let rows = [
        ("none", wide(models::llama()), vec![1.25]),
        ("linear", wide(with(models::llama(), "linear")), vec![1.25]),
        ("yarn", wide(with(models::llama(), "yarn")), vec![1.25 * of_yarn]),
        ("yarn alone", with(models::llama(), "yarn"), vec![of_yarn]),
        ("0 is absent", models::llama().with("rope.scaling.attn_factor", 0f32), vec![1.0]),
        ("LongRoPE and YaRN", wide(with(models::phi3(), "yarn")), vec![1.25 * of_yarn]),
        // Layers with a window are not scaled; OLMo's stay as they are altogether.
        ("a window in gemma3", wide(with(models::gemma3(), "yarn")), vec![1.25 * of_yarn, 1.25]),
        ("a window in gemma2", wide(models::gemma2()), vec![1.25, 1.25]),
        ("a window in olmo2", wide(models::olmo2()), vec![1.25 * of_yarn, 1.0]),
        ("deepseek4 reads none", wide(models::deepseek4()), vec![1.0, 1.0]),
    ];
    let seen = rows.map(|(name, model, wanted)| (name, magnitudes(model), wanted));
    let is_near = |seen: &[f32], wanted: &[f32]| {
        seen.len() == wanted.len() && seen.iter().zip(wanted).all(|(a, b)| (a - b).abs() < 1e-6)
    };
    let failed: Vec<_> = seen.iter().filter(|(_, seen, wanted)| !is_near(seen, wanted)).collect();
    assert!(failed.is_empty(), "{failed:?}");
    let negative = models::llama().with("rope.scaling.attn_factor", -1f32).read().unwrap_err().to_string();
    assert!(negative.contains("rope.scaling.attn_factor"), "{negative}");
    let printed = wide(models::llama()).read().unwrap().to_string();
    assert!(printed.contains("base 500000, magnitude 1.25"), "{printed}");
}

#[test]
fn olmo2_without_a_window_sees_everything() {
    let model = models::olmo2().without("attention.sliding_window");
    assert_eq!((attention(&model).visible, model.read().unwrap().ropes.len()), (Visible::Causal, 1));
}

/// The mixture of a model's last layer.
fn experts(model: &Model) -> modelembed_spec::MoeSpec {
    match model.read().unwrap().layers.pop().unwrap().ffn {
        FeedForward::Moe(moe) => moe,
        other => panic!("{other:?}"),
    }
}

#[test]
fn experts_without_a_width_share_the_dense_one() {
    let model = models::qwen3moe().without("expert_feed_forward_length");
    assert_eq!(experts(&model).expert.width, 6144 / 8);
}

#[test]
fn experts_may_differ_from_layer_to_layer() {
    let used: Vec<u32> = (0..48).map(|il| 1 + il % 8).collect();
    let widths: Vec<u32> = (0..48).map(|il| 256 + 16 * il).collect();
    let model = models::qwen3moe().with("expert_used_count", used).with("expert_feed_forward_length", widths);
    let layers = model.read().unwrap().layers;
    let of = |il: usize| match &layers[il].ffn {
        FeedForward::Moe(moe) => (moe.n_used, moe.expert.width),
        other => panic!("{other:?}"),
    };
    assert_eq!([of(0), of(1), of(47)], [(1, 256), (2, 272), (8, 256 + 16 * 47)]);
}

#[test]
fn gating_ids_are_known_and_none_means_the_usual_one() {
    let gating = |model: Model| experts(&model).gating;
    let cases = [
        (1, Gating::Softmax),
        (2, Gating::Sigmoid),
        (3, Gating::SoftmaxOfChosen),
        (4, Gating::SqrtSoftplus),
        (0, Gating::Softmax),
    ];
    for (id, wanted) in cases {
        assert_eq!(gating(models::qwen3moe().with("expert_gating_func", id)), wanted, "id {id}");
    }
    assert_eq!(gating(models::deepseek2().without("expert_gating_func")), Gating::Softmax);
    // Only its sizes tell GLM 4.7 Flash.
    let glm = models::deepseek2_lite().with("block_count", 47u32).with("vocab_size", 154_880u32);
    assert_eq!(gating(glm), Gating::Sigmoid);
}

#[test]
fn a_latent_model_without_experts_has_dense_layers_only() {
    let mut model = models::deepseek2_lite().with("leading_dense_block_count", 27u32);
    for key in ["expert_count", "expert_used_count", "expert_group_count", "expert_group_used_count"] {
        model = model.without(key);
    }
    let layers = model.with("expert_shared_count", 0u32).read().unwrap().layers;
    assert!(layers.iter().all(|layer| matches!(layer.ffn, FeedForward::Gated(_))));
}

#[test]
fn a_latent_model_scales_and_heats_its_scores() {
    let latent = |model: Model| match model.read().unwrap().layers.remove(0).mixer {
        Mixer::Latent(latent) => latent,
        other => panic!("{other:?}"),
    };
    // Without YaRN nothing but the length of a head counts.
    let plain = models::deepseek2().with("rope.scaling.type", "none");
    assert!((latent(plain).scale - 1.0 / 192f32.sqrt()).abs() < 1e-8);
    // Without a multiplier the magnitude of the rotated part, which is squared in a product, holds
    // for the whole.
    let magnitude = 1.0 + 0.1 * 40f32.ln();
    let seen = latent(models::deepseek2().without("rope.scaling.yarn_log_multiplier")).scale;
    assert!((seen - magnitude * magnitude / 192f32.sqrt()).abs() < 1e-6, "{seen}");
    let hot =
        models::deepseek2().with("attention.temperature_scale", 0.1f32).with("attention.temperature_length", 8192u32);
    let temperature = latent(hot).temperature.unwrap();
    assert_eq!((temperature.scale, temperature.length_tokens, temperature.offset), (0.1, 8192, 0));
    assert_eq!(latent(models::deepseek2_lite()).expansion, LatentExpansion::Joined);
}

#[test]
fn gemma3n_without_its_newer_keys_is_as_llama_cpp_has_it() {
    let mut model = models::gemma3n();
    for key in ["activation_sparsity_scale", "attention.shared_kv_layers", "attention.sliding_window_pattern"] {
        model = model.without(key);
    }
    crate::assert_golden("gemma3n", &model.read().unwrap().to_string());
}

#[test]
fn layers_that_share_keys_and_values_read_the_last_of_their_kind() {
    // The 35 layers of the E4B.
    let model = models::gemma3n()
        .with("block_count", 35u32)
        .with("feed_forward_length", 16_384u32)
        .with("attention.shared_kv_layers", 15u32)
        .with("attention.sliding_window_pattern", 5u32)
        .without("activation_sparsity_scale");
    let layers = model.read().unwrap().layers;
    let kv = |il: usize| match &layers[il].mixer {
        Mixer::Attention(attention) => attention.kv,
        other => panic!("{other:?}"),
    };
    assert_eq!(
        [kv(19), kv(20), kv(24), kv(33)],
        [KvSource::Own, KvSource::Layer(18), KvSource::Layer(19), KvSource::Layer(18)]
    );
}

#[test]
fn gemma4_caps_its_logits_unless_a_file_says_0() {
    let cap = |model: Model| model.read().unwrap().output.soft_cap;
    let silent = models::gemma4().without("final_logit_softcapping");
    let with = |cap: f32| models::gemma4().with("final_logit_softcapping", cap);
    assert_eq!([cap(silent), cap(with(0.0)), cap(with(12.0))], [Some(30.0), None, Some(12.0)]);
}

#[test]
fn a_norm_of_falcon_h1_has_a_bare_name() {
    let norms = models::falcon_h1().read().unwrap().layers[0].norms;
    assert!(norms.before_ffn.unwrap().is_bare && !norms.before_mixer.unwrap().is_bare);
}

#[test]
fn shared_limits_follow_those_of_experts() {
    let limits = |model: Model| {
        let moe = experts(&model);
        (moe.expert.clamp.is_some(), moe.shared.unwrap().clamp == moe.expert.clamp, moe.choice)
    };
    assert_eq!(limits(models::deepseek4().without("swiglu_clamp_shexp")), (true, true, Choice::Biased(Need::Always)));
    assert!(!limits(models::deepseek4().with("swiglu_clamp_exp", vec![0f32; 43])).0);
}

#[test]
fn a_latent_mixture_reads_a_compressed_input() {
    assert_eq!(experts(&models::nemotron_h_moe().with("moe_latent_size", 1024u32)).latent, Some(1024));
}

#[test]
fn an_encoder_may_have_more_layers_than_its_decoder() {
    let spec = models::t5().with("decoder_block_count", 3u32).read().unwrap();
    assert_eq!((spec.layers.len(), spec.encoder.unwrap().layers.len()), (3, 8));
}

#[test]
fn the_number_of_layers_tells_which_exaone_and_baichuan_it_is() {
    let layers = |model: &Model| model.read().unwrap().layers;
    let windowed = |model: &Model| layers(model).iter().filter(|layer| is_windowed(layer)).count();
    let small = families::exaone4().with("block_count", 30u32).without("attention.sliding_window");
    assert_eq!((windowed(&families::exaone4()), windowed(&small)), (48, 0));
    assert_eq!(windowed(&families::exaone4().without("attention.sliding_window")), 48);
    assert_eq!(attention(&small).position, Position::Rope(RopeId(0)));
    let seven = families::baichuan().with("block_count", 32u32);
    assert_eq!(attention(&seven).position, Position::Rope(RopeId(0)));
    assert_eq!(attention(&families::baichuan()).position, Position::Alibi { max_bias: 8.0 });
}

fn is_windowed(layer: &LayerSpec) -> bool {
    matches!(&layer.mixer, Mixer::Attention(attention) if matches!(attention.visible, Visible::Window(_)))
}

#[test]
fn granites_rotate_unless_the_file_says_that_they_do_not() {
    let still = families::granite().with("rope.scaling.finetuned", false);
    let positions = [families::granite(), still].map(|model| attention(&model).position);
    assert_eq!(positions, [Position::Rope(RopeId(0)), Position::None]);
}

#[test]
fn long_rope_takes_the_trained_context_where_a_file_is_silent() {
    let factors = |model: Model| model.read().unwrap().ropes.remove(0).factors;
    let long = families::minicpm().with("rope.scaling.type", "longrope");
    assert_eq!(factors(families::minicpm()), RopeFactors::Fixed);
    assert_eq!(factors(long.clone()), RopeFactors::LongOrShort { original_ctx_tokens: 4096 });
    let original = long.with("rope.scaling.original_context_length", 1024u32);
    assert_eq!(factors(original), RopeFactors::LongOrShort { original_ctx_tokens: 1024 });
}

#[test]
fn a_base_grows_with_alpha_and_a_magnitude_shrinks_with_its_multiplier() {
    let rope = |model: Model| model.read().unwrap().ropes.remove(0);
    let base = rope(families::hunyuan_dense().with("rope.freq_base", 1e4f32).with("rope.scaling.alpha", 1000f32)).base;
    assert!((base / 11_158_840.0 - 1.0).abs() < 1e-4, "{base}");
    let magnitude = rope(families::mistral3().with("rope.scaling.yarn_log_multiplier", 0f32)).magnitude;
    assert!((magnitude - (1.0 + 0.1 * 16f32.ln())).abs() < 1e-6, "{magnitude}");
}

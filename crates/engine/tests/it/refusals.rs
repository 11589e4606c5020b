//! Models that cannot run: each is refused with an error that names the key or tensor, and nothing
//! panics.

use modelembed::{Error, LoadOptions, Model, TokenId};
use modelembed_gguf::TensorType;
use modelembed_testkit::{TinySpec, TinyTensor, sha256_hex, tiny, tiny_prompt, tiny_spec, tiny_tensors};

use crate::common::{Parts, TinyModels, load, session};

/// A change of a tiny model and words that the error must hold.
type Row = (&'static str, fn(&mut Parts), &'static [&'static str]);

/// Applies each change to a model of its own; reports every row whose error lacks a word.
fn check(model: &str, rows: &[Row]) {
    let dir = TinyModels::new();
    let mut failures = Vec::new();
    for (what, change, words) in rows {
        let mut parts = Parts::of(&tiny_spec(model));
        change(&mut parts);
        let outcome = parts.outcome(&dir);
        if !words.iter().all(|word| outcome.contains(word)) {
            failures.push(format!("{what}: {outcome:?} lacks one of {words:?}"));
        }
    }
    assert!(failures.is_empty(), "{} rows fail:\n{}", failures.len(), failures.join("\n"));
}

#[test]
#[cfg(not(feature = "gpu"))]
fn a_build_without_gpus_says_so_where_layers_must_be_on_one() {
    use modelembed::{GpuError, GpuLayers};

    let dir = TinyModels::new();
    let path = dir.write("on-a-gpu", &tiny(&tiny_spec("llama")));
    let with = |gpu_layers| {
        let options = LoadOptions::default().gpu_layers(gpu_layers);
        Model::load(&path, &options)
    };
    for must in [GpuLayers::Count(1), GpuLayers::All] {
        assert!(matches!(with(must), Err(Error::Gpu(GpuError::NotBuilt))), "{must:?}");
    }
    for may in [GpuLayers::Count(0), GpuLayers::Auto] {
        assert!(with(may).is_ok(), "{may:?}");
    }
}

#[test]
fn unchanged_parts_are_the_model() {
    let spec = tiny_spec("llama");
    assert_eq!(sha256_hex(&Parts::of(&spec).build()), sha256_hex(&tiny(&spec)));
}

#[test]
fn metadata_that_cannot_be_used_is_named() {
    check(
        "llama",
        &[
            ("no architecture", |p| p.unset("general.architecture"), &["general.architecture"]),
            (
                "unknown one",
                |p| p.set("general.architecture", "rwkv7"),
                &["rwkv7", "llama", "qwen2", "qwen3", "gemma3"],
            ),
            ("no layers key", |p| p.unset("llama.block_count"), &["llama.block_count"]),
            ("no layers", |p| p.set("llama.block_count", 0u32), &["llama.block_count"]),
            ("layers without end", |p| p.set("llama.block_count", u32::MAX), &["llama.block_count", "4294967295"]),
            ("layers as text", |p| p.set("llama.block_count", "3"), &["llama.block_count"]),
            ("no width", |p| p.set("llama.embedding_length", 0u32), &["llama.embedding_length"]),
            ("width without end", |p| p.set("llama.embedding_length", u32::MAX), &["llama.embedding_length"]),
            ("no hidden width", |p| p.set("llama.feed_forward_length", 0u32), &["llama.feed_forward_length"]),
            ("no context", |p| p.set("llama.context_length", 0u32), &["llama.context_length"]),
            ("no heads", |p| p.set("llama.attention.head_count", 0u32), &["llama.attention.head_count"]),
            ("no key heads", |p| p.set("llama.attention.head_count_kv", 0u32), &["llama.attention.head_count_kv"]),
            ("uneven groups", |p| p.set("llama.attention.head_count_kv", 3u32), &["head_count_kv", "3"]),
            ("uneven heads", |p| p.set("llama.attention.head_count", 5u32), &["head_count"]),
            ("odd heads", |p| p.set("llama.attention.key_length", 15u32), &["llama.attention.key_length", "15"]),
            ("other values", |p| p.set("llama.attention.value_length", 32u32), &["blk.0.attn_v.weight", "[64, 64]"]),
            ("no epsilon", |p| p.unset("llama.attention.layer_norm_rms_epsilon"), &["layer_norm_rms_epsilon"]),
            ("NaN epsilon", |p| p.set("llama.attention.layer_norm_rms_epsilon", f32::NAN), &["rms_epsilon", "NaN"]),
            ("negative epsilon", |p| p.set("llama.attention.layer_norm_rms_epsilon", -1f32), &["rms_epsilon", "-1"]),
            ("base below 0", |p| p.set("llama.rope.freq_base", -1f32), &["llama.rope.freq_base", "-1"]),
            ("endless base", |p| p.set("llama.rope.freq_base", f32::INFINITY), &["llama.rope.freq_base", "inf"]),
            ("odd rotation", |p| p.set("llama.rope.dimension_count", 7u32), &["llama.rope.dimension_count", "7"]),
            ("rotation beyond a head", |p| p.set("llama.rope.dimension_count", 18u32), &["dimension_count", "18"]),
            (
                "unknown scaling",
                |p| {
                    p.set("llama.rope.scaling.type", "spiral");
                    p.set("llama.rope.scaling.factor", 2f32);
                },
                &["spiral", "llama.rope.scaling.type", "linear", "yarn"],
            ),
            ("scaling backwards", |p| p.set("llama.rope.scaling.factor", -2f32), &["llama.rope.scaling.factor", "-2"]),
            ("no rotation", |p| p.set("llama.rope.dimension_count", 0u32), &["llama.rope.dimension_count", "0"]),
            ("experts", |p| p.set("llama.expert_count", 8u32), &["llama.expert_used_count", "is missing"]),
        ],
    );
}

#[test]
fn an_unknown_architecture_hears_which_one_its_parts_are_like() {
    let dir = TinyModels::new();
    for (name, like) in
        [("llama", "llama"), ("qwen3", "qwen3"), ("gpt-oss", "gpt-oss"), ("nemotron-h", "nemotron_h"), ("lfm2", "lfm2")]
    {
        let mut parts = Parts::of(&tiny_spec(name));
        let arch = format!("{}.", tiny_spec(name).arch.name());
        for (key, _) in &mut parts.metadata {
            if let Some(rest) = key.strip_prefix(&arch) {
                *key = format!("unheard-of.{rest}");
            }
        }
        parts.set("general.architecture", "unheard-of");
        let said = parts.outcome(&dir);
        let wanted = format!("\"unheard-of\", whose keys and tensors are like those of {like}; known");
        assert!(said.contains(&wanted), "{name}: {said}");
        // With a tensor that nobody knows it is like none.
        let strange = TinyTensor { name: "blk.0.attn_strange.weight".into(), ..parts.tensors[0].clone() };
        parts.tensors.push(strange);
        let said = parts.outcome(&dir);
        assert!(said.contains("\"unheard-of\"; known are"), "{name}: {said}");
    }
}

#[test]
fn blocks_that_predict_further_tokens_are_skipped() {
    let dir = TinyModels::new();
    let mut parts = Parts::of(&tiny_spec("qwen35"));
    let block = TinyTensor { name: "blk.5.nextn.eh_proj.weight".into(), ..parts.tensor("token_embd.weight").clone() };
    parts.tensors.push(block);
    assert!(parts.outcome(&dir).contains("blk.5.nextn.eh_proj.weight"), "{}", parts.outcome(&dir));
    parts.set("qwen35.block_count", 6u32);
    parts.set("qwen35.nextn_predict_layers", 1u32);
    assert_eq!(parts.outcome(&dir), "loaded");
}

#[test]
fn tensors_that_cannot_be_used_are_named() {
    check(
        "llama-rope-factors",
        &[
            (
                "swapped shape",
                |p| p.tensor("blk.1.attn_k.weight").dims.reverse(),
                &["blk.1.attn_k.weight", "[32, 128]"],
            ),
            ("wide norm", |p| p.tensor("blk.0.attn_norm.weight").dims = vec![64, 2], &["blk.0.attn_norm.weight", "64"]),
            ("more layers than tensors", |p| p.set("llama.block_count", 4u32), &["blk.3.", "missing"]),
            ("fewer layers than tensors", |p| p.set("llama.block_count", 2u32), &["blk.2."]),
            (
                "norm in f16",
                |p| {
                    p.tensor("output_norm.weight").ty = TensorType::F16;
                    p.tensor("output_norm.weight").data.truncate(256);
                },
                &["output_norm.weight", "F16", "F32"],
            ),
            (
                "matrix that nothing multiplies",
                |p| {
                    p.tensor("blk.0.attn_q.weight").ty = TensorType::I32;
                },
                &["blk.0.attn_q.weight", "I32"],
            ),
            (
                "extra tensor",
                |p| {
                    let bias = p.tensor("blk.0.attn_norm.weight").clone();
                    p.tensors.push(TinyTensor { name: "blk.0.attn_sinks.weight".into(), ..bias });
                },
                &["blk.0.attn_sinks.weight"],
            ),
            ("angles divided by 0", |p| p.tensor("rope_freqs.weight").data.fill(0), &["rope_freqs.weight"]),
            (
                "fewer tokens than rows of the embedding",
                |p| p.set("tokenizer.ggml.tokens", vec!["<unk>", "<s>", "</s>"]),
                &["tokenizer.ggml.tokens", "3 tokens", "320 rows"],
            ),
            (
                "more tokens than rows of the embedding",
                |p| {
                    p.set("tokenizer.ggml.tokens", (0..400).map(|i| format!("t{i}")).collect::<Vec<_>>());
                    p.unset("tokenizer.ggml.scores");
                    p.unset("tokenizer.ggml.token_type");
                },
                &["tokenizer.ggml.tokens", "400 tokens", "320 rows"],
            ),
            (
                "vocabulary of another size",
                |p| {
                    let output = p.tensor("output.weight");
                    output.dims[1] -= 1;
                    let row = output.data.len() / 320;
                    output.data.truncate(319 * row);
                },
                &["output.weight", "319"],
            ),
        ],
    );
}

#[test]
fn every_tensor_is_missed() {
    let dir = TinyModels::new();
    let mut failures = Vec::new();
    for name in ["llama", "qwen2", "qwen3", "gemma3"] {
        let spec = TinySpec { n_layer: 1, ..tiny_spec(name) };
        for i in 0..tiny_tensors(&spec).len() {
            let mut parts = Parts::of(&spec);
            let tensor = parts.tensors.remove(i).name;
            // Without it the embedding is the output matrix: that is how tied models are written.
            let wanted = if tensor == "output.weight" { "loaded" } else { &tensor };
            let outcome = parts.outcome(&dir);
            if !outcome.contains(wanted) {
                failures.push(format!("{name} without {tensor}: {outcome:?}"));
            }
        }
    }
    assert!(failures.is_empty(), "{} rows fail:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn a_file_cut_anywhere_is_refused() {
    let dir = TinyModels::new();
    let bytes = tiny(&TinySpec { n_layer: 1, ..tiny_spec("llama") });
    // Every place in the first 64 bytes and each 997th one after; padding at the very end may be
    // missing.
    let end = bytes.len() - 256;
    for len in (0..64).chain((64..end).step_by(997)) {
        let path = dir.write("cut", &bytes[..len]);
        let loaded = Model::load(&path, &LoadOptions::default());
        assert!(loaded.is_err(), "{len} of {} bytes load", bytes.len());
    }
}

#[test]
fn weights_of_nan_and_infinity_end_in_numbers_or_an_error_not_panics() {
    let dir = TinyModels::new();
    for (name, byte) in [("llama", 0xff), ("q4_k", 0xff), ("q6_k", 0x7c), ("f16", 0x7c), ("gemma3", 0x7f)] {
        let mut parts = Parts::of(&tiny_spec(name));
        parts.tensor("blk.0.ffn_down.weight").data.fill(byte);
        for exact in [false, true] {
            let options = LoadOptions::default().exact(exact);
            let model = load(&dir.write("strange", &parts.build()), &options);
            let ids: Vec<TokenId> = tiny_prompt(20).into_iter().map(TokenId).collect();
            let mut session = session(&model, 20);
            match session.eval(&ids) {
                Ok(logits) => assert_eq!(logits.len(), model.n_vocab(), "{name}"),
                Err(Error::NoLogitIsANumber { n_vocab: 320, n_tokens: 20 }) => {}
                Err(error) => panic!("{name}: {error}"),
            }
        }
    }
}

//! A KV cache in Q8_0 blocks: the same bits however it is computed, half the memory, and how much
//! it costs.

use std::sync::Arc;

use modelembed::{CacheType, LoadMode, LoadOptions, Model, Session, SessionOptions, TokenId};
use modelembed_testkit::{
    TinyArch, TinySpec, diff, first_bit_difference, log_prob, real_model, tiny, tiny_prompt, tiny_spec,
};

use crate::common::{TinyModels, golden_json, ids, load};

fn session(model: &Arc<Model>, ctx_tokens: usize, cache_type: CacheType) -> Session {
    let options = SessionOptions::default().ctx_tokens(ctx_tokens).cache_type(cache_type);
    Session::new(model, options).expect("a session")
}

fn logits(model: &Arc<Model>, ids: &[TokenId], chunk: usize, cache_type: CacheType) -> Vec<f32> {
    let mut session = session(model, ids.len(), cache_type);
    let mut out = Vec::new();
    for part in ids.chunks(chunk) {
        session.eval_each(part, |_, logits| out.extend_from_slice(logits)).expect("evaluates");
    }
    out
}

/// Tiny models whose heads are whole blocks.
const MODELS: [&str; 3] = ["qwen3", "gemma3", "q4_k"];

#[test]
fn load_modes_and_threads_give_the_same_bits_and_chunks_nearly() {
    let dir = TinyModels::new();
    // More than one span of attention.
    let ids: Vec<TokenId> = tiny_prompt(40).into_iter().cycle().take(300).map(TokenId).collect();
    for name in MODELS {
        let path = dir.write(name, &tiny(&tiny_spec(name)));
        let with = |mode, n| load(&path, &LoadOptions::default().mode(mode).threads(n));
        for cache_type in [CacheType::I16, CacheType::F16, CacheType::Q8] {
            let want = logits(&with(LoadMode::Map, 1), &ids, 64, cache_type);
            for (mode, n) in [(LoadMode::Buffer, 2), (LoadMode::File, 3), (LoadMode::Map, 7)] {
                let got = logits(&with(mode, n), &ids, 64, cache_type);
                assert_eq!(first_bit_difference(&got, &want), None, "{name}, {cache_type:?}, {mode:?}, {n} threads");
            }
        }
    }
}

#[test]
fn it_takes_half_the_memory_and_refuses_heads_that_are_no_blocks() {
    let dir = TinyModels::new();
    let model = load(&dir.write("q4_k", &tiny(&tiny_spec("q4_k"))), &LoadOptions::default());
    let used = |cache_type| {
        let mut session = session(&model, 64, cache_type);
        session.eval(&[TokenId(7)]).expect("evaluates");
        session.kv_bytes_used()
    };
    assert_eq!(used(CacheType::Q8) * 32, used(CacheType::F16) * 17);
    assert_eq!(used(CacheType::F16) * 2, used(CacheType::F32));
    // A scale to a row.
    let head_dim = model.program().caches()[0].key_dim as u64;
    assert_eq!(used(CacheType::I16) * 2 * head_dim, used(CacheType::F16) * (2 * head_dim + 4));
    let odd = load(&dir.write("llama", &tiny(&tiny_spec("llama"))), &LoadOptions::default());
    let options = SessionOptions::default().cache_type(CacheType::Q8);
    let refused = Session::new(&odd, options).err().expect("heads of 16 elements").to_string();
    assert!(refused.contains("q8_0") && refused.contains("16"), "{refused}");
}

#[test]
fn moved_keys_are_turned() {
    // As the test of the same kind in tiny.rs; a second rounding to 8 bits is larger than one to
    // f16.
    let dir = TinyModels::new();
    for arch in [TinyArch::Qwen3, TinyArch::Gemma3] {
        let spec = TinySpec { n_layer: 1, ..TinySpec::new("one-layer", arch) };
        let model = load(&dir.write(spec.name, &tiny(&spec)), &LoadOptions::default());
        let ids: Vec<TokenId> = tiny_prompt(40).into_iter().map(TokenId).collect();
        let (first, last) = ids.split_at(39);
        let mut moved = session(&model, 64, CacheType::Q8);
        moved.eval(first).expect("evaluates");
        moved.remove(4..20).expect("moves");
        let got = moved.eval(last).expect("evaluates").to_vec();
        let short: Vec<TokenId> = ids[..4].iter().chain(&ids[20..]).copied().collect();
        let mut fresh = session(&model, 64, CacheType::Q8);
        let d = diff(&got, fresh.eval(&short).expect("evaluates"));
        assert!(d.rms < 0.06, "{arch:?}: {d}"); // logits have a standard deviation of 3
    }
}

/// Mean |difference| of the log-probability from the exact run.
fn distance(model: &Arc<Model>, golden: &serde_json::Value, cache_type: CacheType) -> f64 {
    let text = ids(&golden["ids"]);
    let n = text.len() - 1;
    let mut sum = 0.0;
    session(model, text.len(), cache_type)
        .eval_each(&text[..n], |i, logits| {
            let want = golden["logprob"][i + 1].as_f64().expect("a log-probability");
            sum += (log_prob(logits, text[i + 1].0 as usize) - want).abs();
        })
        .expect("evaluates");
    sum / n as f64
}

#[test]
fn real_models_stay_close_to_the_exact_run() {
    for name in ["smollm2", "gemma3"] {
        let golden = golden_json(&format!("score-{name}.json"));
        let Some(path) = real_model(golden["model"].as_str().expect("a file name")) else { continue };
        let model = load(&path, &LoadOptions::default());
        let [half, q8, i16] = [CacheType::F16, CacheType::Q8, CacheType::I16].map(|ty| distance(&model, &golden, ty));
        println!("{name}: f16 {half:.4}, q8_0 {q8:.4}, i16 {i16:.4}");
        assert!(i16 <= half * 1.02, "{name}: a cache of integers is {i16} from the exact run, an f16 one {half}");
        assert!(q8 <= half * 1.25, "{name}: a q8_0 cache is {q8} from the exact run, an f16 one {half}");
    }
}

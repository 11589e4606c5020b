//! Layers on a GPU give what the CPU gives, for any split: tiny models of every architecture and type, and both real models.
#![cfg(feature = "gpu")]

mod common;

use std::sync::Arc;

use common::{TinyModels, all_logits, golden_json, ids, known, load, session, tiny_goldens};
use modelembed::{
    GenerateOptions, GpuLayers, Job, LoadOptions, Model, Sampler, SamplerOptions, Session, SessionOptions, TokenId,
    generate, gpu_adapters,
};
use modelembed_testkit::{GEMMA3, SMOLLM2, diff, log_prob, real_model, tiny, tiny_prompt, tiny_spec};

/// The first adapter, software or not. `None` where there is none.
///
/// # Panics
/// Where there is none and `MODELEMBED_REQUIRE_GPU` is set.
fn device() -> Option<String> {
    if let Ok(name) = std::env::var("MODELEMBED_TEST_GPU") {
        return Some(name);
    }
    if !gpu_adapters().is_empty() {
        return Some("0".to_owned());
    }
    assert!(std::env::var_os("MODELEMBED_REQUIRE_GPU").is_none(), "no GPU adapter, and MODELEMBED_REQUIRE_GPU is set");
    eprintln!("skipped: no GPU adapter");
    None
}

fn options(device: &str, gpu_layers: GpuLayers) -> LoadOptions {
    LoadOptions {
        exact: true,
        threads: Some(2),
        gpu_layers,
        gpu_device: Some(device.to_owned()),
        ..LoadOptions::default()
    }
}

fn report(failures: Vec<String>) {
    assert!(failures.is_empty(), "{} rows fail:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn every_split_of_every_tiny_model_equals_the_goldens() {
    let Some(device) = device() else { return };
    let dir = TinyModels::new();
    let mut failures = Vec::new();
    for golden in tiny_goldens() {
        let path = dir.of(&golden);
        let n_layer = tiny_spec(&golden.model).n_layer;
        // Kernels are compiled anew for each model: where models differ in their products or angles only, one split is enough.
        let splits = [GpuLayers::All, GpuLayers::Count(n_layer / 2 + 1), GpuLayers::Count(1)];
        let n_splits = if ["llama", "gemma3", "qwen2", "qwen3"].contains(&golden.name.as_str()) { 3 } else { 1 };
        for gpu_layers in splits.into_iter().take(n_splits) {
            let model = load(&path, &options(&device, gpu_layers));
            let placement = model.gpu_placement().expect("layers on the GPU");
            assert_eq!(placement.has_head, gpu_layers == GpuLayers::All);
            // As a prompt, and in pieces: both products and every position of a chunk.
            for chunk in [golden.ids.len(), 7] {
                if chunk == 7 && golden.ids.len() > 64 {
                    continue;
                }
                let logits = all_logits(&model, &golden.ids, chunk);
                let d = diff(&known(&golden, &logits), &golden.logits);
                println!("{:20} {gpu_layers:?}, chunks of {chunk}: {d}", golden.name);
                if d.max_abs > 5e-4 || d.max_abs.is_nan() {
                    failures.push(format!("{:20} {gpu_layers:?}, chunks of {chunk}: {d}", golden.name));
                }
            }
        }
    }
    report(failures);
}

#[test]
fn half_precision_keys_and_values_are_as_close_as_on_the_cpu() {
    let Some(device) = device() else { return };
    let dir = TinyModels::new();
    let mut failures = Vec::new();
    for golden in tiny_goldens().iter().filter(|g| ["llama", "gemma3", "qwen2", "q4_k"].contains(&g.name.as_str())) {
        let options = LoadOptions { exact: false, ..options(&device, GpuLayers::All) };
        let logits = all_logits(&load(&dir.of(golden), &options), &golden.ids, golden.ids.len());
        let d = diff(&known(golden, &logits), &golden.logits);
        if d.rms.is_nan() || d.rms > golden.llama_cpp_rms * 1.1 {
            failures.push(format!("{:20} {d}; llama.cpp's default run: rms {:.3e}", golden.name, golden.llama_cpp_rms));
        }
    }
    report(failures);
}

#[test]
fn contexts_are_truncated_and_shifted_on_both_sides() {
    let Some(device) = device() else { return };
    let dir = TinyModels::new();
    let mut failures = Vec::new();
    for name in ["llama", "llama-odd", "qwen3", "gemma3", "q4_k"] {
        let path = dir.write(name, &tiny(&tiny_spec(name)));
        let ids: Vec<TokenId> = tiny_prompt(40).into_iter().map(TokenId).collect();
        let run = |model: &Arc<Model>| {
            let mut session = session(model, 64);
            session.eval(&ids).expect("evaluates");
            session.truncate(30);
            session.remove(4..13);
            session.eval(&ids[..3]).expect("evaluates").to_vec()
        };
        let want = run(&load(&path, &options(&device, GpuLayers::Count(0))));
        for gpu_layers in [GpuLayers::Count(1), GpuLayers::All] {
            let d = diff(&run(&load(&path, &options(&device, gpu_layers))), &want);
            if d.max_abs > 5e-4 || d.max_abs.is_nan() {
                failures.push(format!("{name} {gpu_layers:?}: {d}"));
            }
        }
    }
    report(failures);
}

/// Text that a model goes on with, its tokens' logits found where the head is.
fn text_of(model: &Arc<Model>, sampler: SamplerOptions, lookup_tokens: usize) -> String {
    let mut session = session(model, 64);
    let mut sampler = Sampler::new(sampler).expect("valid options");
    let prompt: Vec<TokenId> = tiny_prompt(20).into_iter().map(TokenId).collect();
    let options = GenerateOptions { max_tokens: 20, lookup_tokens, ..GenerateOptions::default() };
    let mut text = String::new();
    let on_text = |piece: &str| {
        text.push_str(piece);
        std::ops::ControlFlow::Continue(())
    };
    generate(&mut session, &mut sampler, &prompt, &options, on_text).expect("generates");
    text
}

#[test]
fn tokens_are_the_same_whether_all_logits_cross_or_the_best() {
    let Some(device) = device() else { return };
    let dir = TinyModels::new();
    let path = dir.write("llama", &tiny(&tiny_spec("llama")));
    // With every layer and the head there only the best cross, without the head all do.
    let n_layer = tiny_spec("llama").n_layer;
    let [best, all] = [GpuLayers::All, GpuLayers::Count(n_layer)].map(|n| load(&path, &options(&device, n)));
    let base = SamplerOptions { repeat_last_n: 12, ..SamplerOptions::default() };
    let samplers = [
        SamplerOptions { temp: 0.0, ..base },
        SamplerOptions { temp: 0.0, repeat_penalty: 1.4, ..base },
        SamplerOptions { temp: 1.5, min_p: 0.0, repeat_penalty: 1.2, ..base },
        SamplerOptions { temp: 1.0, top_k: 100, ..base },
        // More than is found there, and no cut at all: all logits cross.
        SamplerOptions { temp: 1.0, top_k: 200, ..base },
        SamplerOptions { temp: 1.0, top_k: 0, ..base },
    ];
    for sampler in samplers {
        for lookup_tokens in [0, 4] {
            let (a, b) = (text_of(&best, sampler, lookup_tokens), text_of(&all, sampler, lookup_tokens));
            assert_eq!(a, b, "{sampler:?}, {lookup_tokens} guesses");
            assert!(!a.is_empty());
        }
    }
}

#[test]
fn a_device_that_is_lost_is_an_error_and_no_panic() {
    let Some(device) = device() else { return };
    let dir = TinyModels::new();
    let path = dir.write("llama", &tiny(&tiny_spec("llama")));
    let model = load(&path, &options(&device, GpuLayers::All));
    let mut session = session(&model, 32);
    let ids: Vec<TokenId> = tiny_prompt(8).into_iter().map(TokenId).collect();
    session.eval(&ids).expect("evaluates");
    model.give_up_gpu();
    let error = session.eval(&ids[..1]).expect_err("lost").to_string();
    assert!(error.contains("lost"), "{error}");
    session.remove(0..2);
    assert!(session.eval(&ids[..1]).is_err());
    assert_eq!(session.len(), 6, "the context is as it was");
    assert!(Session::new(&model, SessionOptions::default()).is_err());
}

#[test]
fn the_device_tells_how_long_it_computed() {
    let Some(device) = device() else { return };
    let dir = TinyModels::new();
    let model = load(&dir.write("llama", &tiny(&tiny_spec("llama"))), &options(&device, GpuLayers::All));
    let timed = SessionOptions { ctx_tokens: Some(32), timing: true, ..SessionOptions::default() };
    let mut session = Session::new(&model, timed).expect("a session");
    let ids: Vec<TokenId> = tiny_prompt(8).into_iter().map(TokenId).collect();
    session.eval(&ids).expect("evaluates");
    session.eval(&ids[..1]).expect("evaluates");
    let timing = session.timing().expect("times");
    for (phase, name) in [(&timing.prompt, "prompt"), (&timing.decode, "decode")] {
        for job in [Job::Gpu, Job::Head] {
            let time = phase.of(job);
            // Software has a clock too; where a device has none there is nothing to compare.
            assert!(time.on_gpu <= time.elapsed, "{name} {job:?}: {time:?}");
        }
        assert!(phase.total().on_gpu > std::time::Duration::ZERO, "{name}: {phase:?}");
    }
}

#[test]
fn auto_takes_what_the_memory_holds() {
    let Some(device) = device() else { return };
    let dir = TinyModels::new();
    let path = dir.write("gemma3", &tiny(&tiny_spec("gemma3")));
    let auto = |gpu_memory_bytes| load(&path, &LoadOptions { gpu_memory_bytes, ..options(&device, GpuLayers::Auto) });
    assert!(auto(None).gpu_placement().is_some_and(|p| p.n_layers == 7 && p.has_head));
    // The margin and some of the layers, of which each takes about 0.2 MB with its part of the cache.
    let some = auto(Some((256 << 20) + 600_000));
    let n_layers = some.gpu_placement().expect("some layers").n_layers;
    assert!((1..7).contains(&n_layers), "{n_layers} layers");
    let none = auto(Some(1 << 20));
    assert!(none.gpu_placement().is_none());
    assert!(none.load_stats().warnings.iter().any(|w| w.contains("CPU")), "{:?}", none.load_stats().warnings);
    let ids: Vec<TokenId> = tiny_prompt(10).into_iter().map(TokenId).collect();
    let d = diff(&all_logits(&some, &ids, 10), &all_logits(&none, &ids, 10));
    assert!(d.max_abs < 5e-4, "{d}");
}

#[test]
fn too_little_memory_is_an_error_that_says_so() {
    let Some(device) = device() else { return };
    let dir = TinyModels::new();
    let path = dir.write("llama", &tiny(&tiny_spec("llama")));
    let options = LoadOptions { gpu_memory_bytes: Some(10_000), ..options(&device, GpuLayers::All) };
    let error = Model::load(&path, &options, &mut |_| std::ops::ControlFlow::Continue(())).expect_err("no memory");
    assert!(error.to_string().contains("out of memory"), "{error}");
}

/// Mean difference in log-probability from the CPU's exact run, over a short text.
fn faithfulness(file: &str, golden: &str, n: usize) {
    let (Some(device), Some(path)) = (device(), real_model(file)) else { return };
    let text = ids(&golden_json(golden)["ids"]);
    let text = &text[..=n];
    let run = |gpu_layers| {
        let model = load(&path, &options(&device, gpu_layers));
        let mut session = session(&model, n);
        let mut out = Vec::new();
        // A prompt, then single tokens.
        let (prompt, rest) = text[..n].split_at(n - 3);
        for part in std::iter::once(prompt).chain(rest.chunks(1)) {
            session
                .eval_each(part, |_, logits| out.push(log_prob(logits, text[out.len() + 1].0 as usize)))
                .expect("evaluates");
        }
        (out, model.config().n_layer)
    };
    let (want, n_layer) = run(GpuLayers::Count(0));
    for gpu_layers in [GpuLayers::Count(n_layer / 2), GpuLayers::All] {
        let (got, _) = run(gpu_layers);
        let mean = got.iter().zip(&want).map(|(a, b)| (a - b).abs()).sum::<f64>() / n as f64;
        println!("{file} {gpu_layers:?}: mean |log-probability difference| {mean:.2e}");
        assert!(mean <= 0.01, "{file} {gpu_layers:?}: {mean}");
    }
}

#[test]
fn smollm2_is_faithful_for_any_split() {
    faithfulness(SMOLLM2, "score-smollm2.json", 24);
}

#[test]
fn gemma3_is_faithful_for_any_split() {
    faithfulness(GEMMA3, "score-gemma3.json", 24);
}

//! Layers on a GPU give what the CPU gives, for any split: tiny models of every architecture and
//! type, and both real models.

use std::sync::Arc;

use modelembed::{
    CacheType, Error, GenerateOptions, GpuDeviceError, GpuError, GpuFaults, GpuLayers, GpuLimits, LoadOptions, Model,
    ModelFiles, Sampler, SamplerOptions, Session, SessionOptions, Stage, TokenId, generate,
};
use modelembed_testkit::{GEMMA3, SMOLLM2, TinyArch, diff, log_prob, real_model, tiny, tiny_prompt, tiny_spec};

use crate::common::{
    TinyGolden, TinyModels, all_logits, golden_json, gpu_device, gpu_options, ids, known, load, report, session,
    tiny_goldens,
};

/// Architectures of which devices must have all steps. Of the others they take what they have steps
/// for, from the last layer on: those with layer norms, soft caps of scores, recurrences or experts
/// stay on the CPU.
const THERE: [TinyArch; 6] =
    [TinyArch::Llama, TinyArch::Qwen2, TinyArch::Qwen3, TinyArch::Gemma3, TinyArch::Phi3, TinyArch::Olmo2];

#[test]
fn every_split_of_every_tiny_model_equals_the_goldens() {
    let Some(device) = gpu_device() else { return };
    let dir = TinyModels::new();
    let mut failures = Vec::new();
    // Of long prompts these two have all there is: attention over more than a block, in and without
    // a window.
    let is_tested = |g: &TinyGolden| g.ids.len() <= 64 || ["llama-long", "gemma3-long"].contains(&g.name.as_str());
    for golden in tiny_goldens().into_iter().filter(is_tested) {
        let path = dir.of(&golden);
        let spec = tiny_spec(&golden.model);
        let n_layer = spec.n_layer;
        // Kernels are compiled anew for each model: where models differ in their products or angles
        // only, one split is enough.
        let splits = [GpuLayers::All, GpuLayers::Count(n_layer / 2 + 1), GpuLayers::Count(1)];
        let n_splits = if ["llama", "gemma3", "qwen2", "qwen3"].contains(&golden.name.as_str()) { 3 } else { 1 };
        for gpu_layers in splits.into_iter().take(n_splits) {
            let model = load(&path, &gpu_options(&device, gpu_layers));
            let is_there = THERE.contains(&spec.arch) && modelembed_gpu::supports(spec.ty);
            let Some(placement) = model.gpu_placement() else {
                assert!(!is_there, "{}: no layers on the GPU", golden.name);
                continue;
            };
            assert!(modelembed_gpu::supports(spec.ty), "{}", golden.name);
            assert!(!is_there || placement.has_head == (gpu_layers == GpuLayers::All), "{}", golden.name);
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
fn half_precision_is_as_close_as_on_the_cpu() {
    let Some(device) = gpu_device() else { return };
    let dir = TinyModels::new();
    let mut failures = Vec::new();
    for golden in tiny_goldens().iter().filter(|g| ["llama", "gemma3", "qwen2", "q4_k"].contains(&g.name.as_str())) {
        let run = |int8, f16, matrix| {
            let gpu_limits = GpuLimits::default().int8(int8).f16(f16).matrix(matrix);
            let options = gpu_options(&device, GpuLayers::All).exact(false).gpu_limits(gpu_limits);
            all_logits(&load(&dir.of(golden), &options), &golden.ids, golden.ids.len())
        };
        let (floats, integers) = (run(false, false, false), run(true, false, false));
        let (halves, units) = (run(false, true, false), run(true, false, true));
        // Not all software has matrix units. Weights of the other models are F32, which no halves
        // are for.
        let has_units = std::env::var_os("MODELEMBED_REQUIRE_MATRIX").is_some();
        if golden.name == "q4_k" {
            assert!(halves != floats && (units != integers || !has_units), "{}: halves were switched off", golden.name);
        }
        for (what, logits) in [("floats", floats), ("halves", halves), ("matrix units", units)] {
            let d = diff(&known(golden, &logits), &golden.logits);
            if d.rms.is_nan() || d.rms > golden.llama_cpp_rms * 1.1 {
                let usual = golden.llama_cpp_rms;
                failures.push(format!("{:20} {what}: {d}; llama.cpp's default run: rms {usual:.3e}", golden.name));
            }
        }
    }
    report(failures);
}

#[test]
fn contexts_are_truncated_and_shifted_on_both_sides() {
    let Some(device) = gpu_device() else { return };
    let dir = TinyModels::new();
    let mut failures = Vec::new();
    for name in ["llama", "llama-odd", "qwen3", "gemma3", "q4_k"] {
        let path = dir.write(name, &tiny(&tiny_spec(name)));
        let ids: Vec<TokenId> = tiny_prompt(40).into_iter().map(TokenId).collect();
        let run = |model: &Arc<Model>| {
            let mut session = session(model, 64);
            session.eval(&ids).expect("evaluates");
            session.truncate(30).expect("goes back");
            session.remove(4..13).expect("moves");
            session.eval(&ids[..3]).expect("evaluates").to_vec()
        };
        let want = run(&load(&path, &gpu_options(&device, GpuLayers::Count(0))));
        for gpu_layers in [GpuLayers::Count(1), GpuLayers::All] {
            let d = diff(&run(&load(&path, &gpu_options(&device, gpu_layers))), &want);
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
    let options = GenerateOptions::default().max_tokens(20).lookup_tokens(lookup_tokens);
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
    let Some(device) = gpu_device() else { return };
    let dir = TinyModels::new();
    let path = dir.write("llama", &tiny(&tiny_spec("llama")));
    // With every layer and the head there only the best cross, without the head all do.
    let n_layer = tiny_spec("llama").n_layer;
    let [best, all] = [GpuLayers::All, GpuLayers::Count(n_layer)].map(|n| load(&path, &gpu_options(&device, n)));
    let base = SamplerOptions::default().repeat_last_n(12);
    let samplers = [
        base.temp(0.0),
        base.temp(0.0).repeat_penalty(1.4),
        base.temp(1.5).min_p(0.0).repeat_penalty(1.2),
        base.temp(1.0).top_k(100),
        // More than is found there, and no cut at all: all logits cross.
        base.temp(1.0).top_k(200),
        base.temp(1.0).top_k(0),
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
    let Some(device) = gpu_device() else { return };
    let dir = TinyModels::new();
    let path = dir.write("llama", &tiny(&tiny_spec("llama")));
    let model = load(&path, &gpu_options(&device, GpuLayers::All));
    let mut session = session(&model, 32);
    let ids: Vec<TokenId> = tiny_prompt(8).into_iter().map(TokenId).collect();
    session.eval(&ids).expect("evaluates");
    model.give_up_gpu();
    let error = session.eval(&ids[..1]).expect_err("lost").to_string();
    assert!(error.contains("lost"), "{error}");
    session.remove(0..2).expect("moves");
    assert!(session.eval(&ids[..1]).is_err());
    assert_eq!(session.len(), 6, "the context is as it was");
    assert!(Session::new(&model, SessionOptions::default()).is_err());
}

#[test]
fn the_device_tells_how_long_it_computed() {
    let Some(device) = gpu_device() else { return };
    let dir = TinyModels::new();
    let model = load(&dir.write("llama", &tiny(&tiny_spec("llama"))), &gpu_options(&device, GpuLayers::All));
    let timed = SessionOptions::default().ctx_tokens(32).timing(true);
    let mut session = Session::new(&model, timed).expect("a session");
    let ids: Vec<TokenId> = tiny_prompt(8).into_iter().map(TokenId).collect();
    session.eval(&ids).expect("evaluates");
    session.eval(&ids[..1]).expect("evaluates");
    let timing = session.timing().expect("times");
    for (phase, name) in [(&timing.prompt, "prompt"), (&timing.decode, "decode")] {
        for stage in [Stage::Gpu, Stage::Head] {
            let time = phase.of(stage);
            // Every device that these tests are meant for has a clock, software included.
            assert!(time.on_gpu <= time.elapsed, "{name} {stage:?}: {time:?}");
        }
        assert!(phase.total().on_gpu > std::time::Duration::ZERO, "{name}: {phase:?}");
    }
}

#[test]
fn auto_takes_what_the_memory_holds() {
    let Some(device) = gpu_device() else { return };
    let dir = TinyModels::new();
    let path = dir.write("gemma3", &tiny(&tiny_spec("gemma3")));
    let auto = |memory_bytes| {
        let gpu_limits = GpuLimits::default().memory_bytes(memory_bytes);
        load(&path, &gpu_options(&device, GpuLayers::Auto).gpu_limits(gpu_limits).ctx_tokens(64))
    };
    assert!(auto(None).gpu_placement().is_some_and(|p| p.n_layers == 7 && p.has_head));
    // The margin and some of the layers, of which each takes about 0.2 MB with its part of the
    // cache.
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
fn auto_takes_fewer_layers_where_memory_that_was_promised_is_missing() {
    let Some(device) = gpu_device() else { return };
    let dir = TinyModels::new();
    let path = dir.write("gemma3", &tiny(&tiny_spec("gemma3")));
    let with = |gpu_layers, filled_bytes| {
        let gpu_limits = GpuLimits::default().faults(GpuFaults { filled_bytes, ..GpuFaults::default() });
        let options = gpu_options(&device, gpu_layers).gpu_limits(gpu_limits).ctx_tokens(64);
        // How often it was begun, and how far the last time.
        let (mut begun, mut done) = (0, u64::MAX);
        let mut progress = |p: modelembed_storage::Progress| {
            begun += usize::from(p.done_bytes <= done);
            done = p.done_bytes;
            std::ops::ControlFlow::Continue(())
        };
        let model = Model::load_with_progress(&path, &options, &mut progress);
        (model, begun)
    };
    let placed = |model: &Arc<Model>| model.gpu_placement().map(|p| (p.n_layers, p.has_head, p.weight_bytes));
    let (whole, begun) = with(GpuLayers::Auto, None);
    let whole = whole.expect("loads");
    let (n_layers, has_head, all_bytes) = placed(&whole).expect("all layers");
    assert_eq!((n_layers, has_head, begun), (7, true, 1));
    // First the head is left out, then layers.
    let ids: Vec<TokenId> = tiny_prompt(10).into_iter().map(TokenId).collect();
    let want = all_logits(&whole, &ids, 10);
    let mut n_layers_before = 8;
    for filled_bytes in [all_bytes - 1, all_bytes / 3] {
        let (model, begun) = with(GpuLayers::Auto, Some(filled_bytes));
        let model = model.expect("loads with less");
        let (n_layers, has_head, weight_bytes) = placed(&model).expect("some layers");
        assert!(begun > 1 && !has_head && (1..n_layers_before).contains(&n_layers), "{n_layers}, begun {begun} times");
        assert!(weight_bytes <= filled_bytes, "{weight_bytes} of {filled_bytes}");
        n_layers_before = n_layers;
        let d = diff(&all_logits(&model, &ids, 10), &want);
        assert!(d.max_abs < 5e-4, "{n_layers} layers: {d}");
        // Who asks for a number gets it, or is told.
        let (told, _) = with(GpuLayers::All, Some(filled_bytes));
        assert!(matches!(told, Err(Error::Gpu(GpuError::Device(GpuDeviceError::OutOfMemory { .. })))));
    }
    let (none, _) = with(GpuLayers::Auto, Some(0));
    let none = none.expect("loads on the CPU");
    assert!(none.gpu_placement().is_none());
    assert!(none.load_stats().warnings.iter().any(|w| w.contains("CPU")), "{:?}", none.load_stats().warnings);
}

#[test]
fn auto_goes_on_with_less_where_the_device_is_lost_and_without_where_it_cannot_be_used() {
    let Some(device) = gpu_device() else { return };
    let dir = TinyModels::new();
    let path = dir.write("gemma3", &tiny(&tiny_spec("gemma3")));
    let with = |gpu_layers, gpu_limits| {
        let options = gpu_options(&device, gpu_layers).gpu_limits(gpu_limits).ctx_tokens(64);
        Model::load(&path, &options)
    };
    let (none, no_faults) = (GpuLimits::default(), GpuFaults::default());
    let whole = with(GpuLayers::Auto, none).expect("loads");
    assert!(whole.load_stats().warnings.is_empty(), "{:?}", whole.load_stats().warnings);
    let weight_bytes = whole.gpu_placement().expect("all layers").weight_bytes;
    let ids: Vec<TokenId> = tiny_prompt(10).into_iter().map(TokenId).collect();
    let want = all_logits(&whole, &ids, 10);
    // Half of the weights fit into what the second device takes, if the first was lost in the
    // middle of the copy.
    let rows = [
        (
            "lost while weights are copied",
            none.faults(GpuFaults { lost_after_bytes: Some(weight_bytes - 1), ..no_faults }),
            4,
            "lost",
        ),
        ("lost at once", none.faults(GpuFaults { lost_after_bytes: Some(1), ..no_faults }), 0, "lost"),
        ("lost in the first pass", none.faults(GpuFaults { lost_after_runs: Some(0), ..no_faults }), 0, "lost"),
        ("too little shared memory", none.workgroup_bytes(1000), 0, "workgroup"),
        (
            "no room for a first pass",
            none.faults(GpuFaults { filled_bytes: Some(weight_bytes + 8), ..no_faults }),
            7,
            "out of memory",
        ),
    ];
    let mut failures = Vec::new();
    for (name, limits, n_layers, why) in rows {
        let model = with(GpuLayers::Auto, limits).unwrap_or_else(|e| panic!("{name}: {e}"));
        let placed = model.gpu_placement().map_or(0, |p| p.n_layers);
        let warnings = &model.load_stats().warnings;
        let is_told =
            warnings.len() == 1 && warnings[0].contains(why) && warnings[0].contains("CPU") == (n_layers == 0);
        if placed != n_layers || !is_told || warnings.iter().any(|w| w.contains('\n')) {
            failures.push(format!("{name}: {placed} layers, {warnings:?}"));
        }
        // A device that is lost in a pass again and again is no part of it.
        let d = diff(&all_logits(&model, &ids, 10), &want);
        if d.max_abs > 5e-4 || d.max_abs.is_nan() {
            failures.push(format!("{name}: {d}"));
        }
        // Who asks for a number is told why it cannot be had.
        if name != "lost in the first pass" && name != "no room for a first pass" {
            let error = with(GpuLayers::All, limits).expect_err(name).to_string();
            assert!(error.contains(why), "{name}: {error}");
        }
    }
    report(failures);
    // A plan says the same of what it can know.
    let options = gpu_options(&device, GpuLayers::Auto).gpu_limits(rows[3].1).ctx_tokens(64);
    let planned = ModelFiles::open(&path).expect("opens").plan_devices(&options).expect("plans");
    assert!(planned.devices.len() == 1 && planned.warnings.iter().all(|w| w.contains("workgroup")), "{planned:?}");
    assert_eq!(planned.warnings.len(), 1);
}

#[test]
fn a_plan_places_what_loading_places() {
    let Some(device) = gpu_device() else { return };
    let dir = TinyModels::new();
    let path = dir.write("gemma3", &tiny(&tiny_spec("gemma3")));
    let mib = 1u64 << 20;
    for (gpu_layers, memory_bytes) in [
        (GpuLayers::Count(3), None),
        (GpuLayers::All, None),
        (GpuLayers::Auto, None),
        (GpuLayers::Auto, Some(256 * mib + 600_000)),
        (GpuLayers::Auto, Some(mib)),
    ] {
        let gpu_limits = GpuLimits::default().memory_bytes(memory_bytes);
        let options = gpu_options(&device, gpu_layers).gpu_limits(gpu_limits).ctx_tokens(64);
        let planned = ModelFiles::open(&path).expect("opens").plan_devices(&options).expect("plans");
        let model = load(&path, &options);
        let on_gpu = planned.devices.get(1);
        let facts = on_gpu.map(|share| (share.layers.len(), share.has_head, share.weight_bytes, share.kv_bytes));
        let placed = model.gpu_placement().map(|p| (p.n_layers, p.has_head, p.weight_bytes, p.kv_bytes));
        assert_eq!(facts, placed, "{gpu_layers:?} in {memory_bytes:?}");
        assert_eq!(planned.plan.weight_bytes, model.plan().weight_bytes, "{gpu_layers:?} in {memory_bytes:?}");
        assert_eq!(planned.warnings.is_empty(), placed.is_some(), "{:?}", planned.warnings);
    }
    // Room for keys and values is part of the plan: told before anything is copied.
    let gpu_limits = GpuLimits::default().memory_bytes(40 * mib);
    let long = gpu_options(&device, GpuLayers::All).gpu_limits(gpu_limits).ctx_tokens(200_000);
    let error = ModelFiles::open(&path).expect("opens").plan_devices(&long).expect_err("no memory").to_string();
    assert!(error.contains("out of memory") && error.contains("keys"), "{error}");
    let mut is_copied = false;
    let mut progress = |_| {
        is_copied = true;
        std::ops::ControlFlow::Continue(())
    };
    let error = Model::load_with_progress(&path, &long, &mut progress).expect_err("no memory").to_string();
    assert!(error.contains("keys") && !is_copied, "{error}, copied: {is_copied}");
}

#[test]
fn too_little_memory_is_an_error_that_says_so() {
    let Some(device) = gpu_device() else { return };
    let dir = TinyModels::new();
    let path = dir.write("llama", &tiny(&tiny_spec("llama")));
    let gpu_limits = GpuLimits::default().memory_bytes(10_000);
    let options = gpu_options(&device, GpuLayers::All).gpu_limits(gpu_limits);
    let error = Model::load(&path, &options).expect_err("no memory");
    assert!(error.to_string().contains("out of memory"), "{error}");
    assert!(matches!(error, Error::Gpu(GpuError::Device(GpuDeviceError::OutOfMemory { .. }))), "{error:?}");
}

#[test]
fn a_device_that_is_not_there_is_an_error_under_auto_too() {
    let Some(_) = gpu_device() else { return };
    let dir = TinyModels::new();
    let path = dir.write("llama", &tiny(&tiny_spec("llama")));
    for gpu_layers in [GpuLayers::Count(1), GpuLayers::Auto] {
        let options = gpu_options("no such device", gpu_layers);
        let error = Model::load(&path, &options).expect_err("not there");
        let Error::Gpu(GpuError::Device(GpuDeviceError::NotNamed { name, found })) = &error else {
            panic!("{error:?}");
        };
        assert!(name == "no such device" && !found.is_empty(), "{error}");
    }
}

#[test]
fn weak_devices_give_what_strong_ones_give() {
    let Some(device) = gpu_device() else { return };
    let dir = TinyModels::new();
    let path = dir.write("gemma3", &tiny(&tiny_spec("gemma3")));
    let ids: Vec<TokenId> = tiny_prompt(40).into_iter().map(TokenId).collect();
    let run = |gpu_limits| {
        let model = load(&path, &gpu_options(&device, GpuLayers::All).gpu_limits(gpu_limits));
        all_logits(&model, &ids, 40)
    };
    let none = GpuLimits::default();
    let want = run(none);
    // The head in several buffers, and matrices in several bindings.
    let weak = none.buffer_bytes(60_000).binding_bytes(60_000).subgroups(false);
    for limits in [weak, none.subgroups(true)] {
        let d = diff(&run(limits), &want);
        assert!(d.max_abs < 5e-4, "{limits:?}: {d}");
    }
}

#[test]
fn a_cache_in_q8_0_is_as_on_the_cpu() {
    let Some(device) = gpu_device() else { return };
    let dir = TinyModels::new();
    let mut failures = Vec::new();
    // Heads of one block and of two; in and without a window.
    for name in ["qwen3", "gemma3", "q4_k"] {
        let spec = tiny_spec(name);
        let path = dir.write(name, &tiny(&spec));
        let ids: Vec<TokenId> = tiny_prompt(90).into_iter().map(TokenId).collect();
        let run = |gpu_layers, cache_type| {
            let model = load(&path, &gpu_options(&device, gpu_layers).cache_type(cache_type));
            let cache = SessionOptions::default().cache_type(cache_type).ctx_tokens(100);
            let mut session = Session::new(&model, cache).expect("a session");
            let mut out = Vec::new();
            for part in [&ids[..70], &ids[70..80], &ids[80..81]] {
                session.eval_each(part, |_, logits| out.extend_from_slice(logits)).expect("evaluates");
            }
            // Values move as they are, keys are turned and rounded again.
            session.remove(5..30).expect("moves");
            session.eval_each(&ids[81..], |_, logits| out.extend_from_slice(logits)).expect("evaluates");
            (out, session.kv_bytes_used())
        };
        let (want, want_bytes) = run(GpuLayers::Count(0), CacheType::Q8);
        let (exact, exact_bytes) = run(GpuLayers::Count(0), CacheType::F32);
        let rounding = diff(&want, &exact);
        for gpu_layers in [GpuLayers::Count(1), GpuLayers::All] {
            let (got, bytes) = run(gpu_layers, CacheType::Q8);
            let d = diff(&got, &want);
            println!("{name} {gpu_layers:?}: {d}; what rounding costs: {rounding}");
            // A quotient halfway between two integers may go to either. Layers behind feel that,
            // but far less than the rounding; one layer has none behind it.
            let is_close = match gpu_layers {
                GpuLayers::All => d.rms * 10.0 <= rounding.rms && d.max_abs * 5.0 <= rounding.max_abs,
                _ => d.max_abs <= 5e-4,
            };
            if !is_close {
                failures.push(format!("{name} {gpu_layers:?}: {d}; what rounding costs: {rounding}"));
            }
            // Scales of an odd number of blocks are filled up to a word.
            assert!((want_bytes..exact_bytes / 3).contains(&bytes), "{bytes} bytes, {want_bytes} on the CPU");
        }
    }
    report(failures);
}

#[test]
fn heads_that_no_cache_in_q8_0_holds_are_refused() {
    let Some(device) = gpu_device() else { return };
    let dir = TinyModels::new();
    // Heads of 16 elements.
    let path = dir.write("llama", &tiny(&tiny_spec("llama")));
    let load_it = |n| {
        let options = gpu_options(&device, n).cache_type(CacheType::Q8);
        Model::load(&path, &options)
    };
    let error = load_it(GpuLayers::Count(1)).expect_err("refused").to_string();
    assert!(error.contains("q8_0") && error.contains("16"), "{error}");
    let auto = load_it(GpuLayers::Auto).expect("loads");
    assert!(auto.gpu_placement().is_none());
    assert!(auto.load_stats().warnings.iter().any(|w| w.contains("q8_0")), "{:?}", auto.load_stats().warnings);
}

/// Mean difference in log-probability from the CPU's exact run, over a short text: with layers on
/// the GPU, and of packed 8-bit products there against those of the CPU.
fn faithfulness(file: &str, golden: &str, n: usize) {
    let (Some(device), Some(path)) = (gpu_device(), real_model(file)) else { return };
    let text = ids(&golden_json(golden)["ids"]);
    let text = &text[..=n];
    // In pieces: a prompt, then few tokens at a time, which other kernels compute.
    let run = |options: &LoadOptions, pieces: &[usize]| {
        let model = load(&path, options);
        let mut session = session(&model, n);
        let mut out = Vec::new();
        let mut rest = &text[..n];
        for len in pieces.iter().copied().cycle() {
            let (part, after) = rest.split_at(len.min(rest.len()));
            session
                .eval_each(part, |_, logits| out.push(log_prob(logits, text[out.len() + 1].0 as usize)))
                .expect("evaluates");
            rest = after;
            if rest.is_empty() {
                return (out, model.spec().n_layer());
            }
        }
        unreachable!("a cycle does not end")
    };
    let (want, n_layer) = run(&gpu_options(&device, GpuLayers::Count(0)), &[n]);
    let mean = |got: &[f64]| got.iter().zip(&want).map(|(a, b)| (a - b).abs()).sum::<f64>() / n as f64;
    // The last run on a device that sees 16 MiB of a matrix at a time.
    let small = GpuLimits::default().binding_bytes(16 << 20);
    for (gpu_layers, gpu_limits) in [(GpuLayers::Count(n_layer / 2), GpuLimits::default()), (GpuLayers::All, small)] {
        let (got, _) = run(&gpu_options(&device, gpu_layers).gpu_limits(gpu_limits), &[n - 3, 1]);
        println!("{file} {gpu_layers:?}: mean |log-probability difference| {:.2e}", mean(&got));
        assert!(mean(&got) <= 0.01, "{file} {gpu_layers:?}: {}", mean(&got));
    }
    let with = |gpu_layers, gpu_limits| gpu_options(&device, gpu_layers).exact(false).gpu_limits(gpu_limits);
    let none = GpuLimits::default().int8(false).f16(false).matrix(false);
    let usual = |gpu_layers, int8| with(gpu_layers, none.int8(int8));
    let (cpu, _) = run(&usual(GpuLayers::Count(0), false), &[n]);
    let (floats, _) = run(&usual(GpuLayers::All, false), &[n]);
    // By the kernel for few columns, and by the one for prompts.
    let mut integers = Vec::new();
    for piece in [8, n] {
        let (gpu, _) = run(&usual(GpuLayers::All, true), &[piece]);
        println!("{file}: with 8-bit integers {:.4} on the GPU, {:.4} on the CPU", mean(&gpu), mean(&cpu));
        assert!(mean(&gpu) <= mean(&cpu), "{file}: {} on the GPU, {} on the CPU", mean(&gpu), mean(&cpu));
        assert_ne!(gpu, floats, "{file}: 8-bit integers were switched off");
        integers = gpu;
    }
    // Prompts with halves, in tiles and by matrix units where the device has them.
    for (name, limits) in [("halves", none.f16(true)), ("matrix units", none.matrix(true).int8(true))] {
        let (gpu, _) = run(&with(GpuLayers::All, limits), &[n]);
        println!("{file}: with {name} {:.4} on the GPU, {:.4} on the CPU", mean(&gpu), mean(&cpu));
        assert!(mean(&gpu) <= mean(&cpu), "{file}: {} with {name} on the GPU, {} on the CPU", mean(&gpu), mean(&cpu));
        // All software has halves, but not all has units.
        let is_required = name == "halves" || std::env::var_os("MODELEMBED_REQUIRE_MATRIX").is_some();
        assert!(!is_required || (gpu != floats && gpu != integers), "{file}: {name} were switched off");
    }
}

#[test]
fn smollm2_is_faithful_for_any_split() {
    faithfulness(SMOLLM2, "score-smollm2.json", 12);
}

#[test]
fn gemma3_is_faithful_for_any_split() {
    faithfulness(GEMMA3, "score-gemma3.json", 10);
}

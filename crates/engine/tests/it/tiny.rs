//! Every architecture and every tensor type, on tiny models whose logits are known.

use modelembed::{Engine, EngineOptions, LoadMode, LoadOptions, TokenId};
use modelembed_kernels::Kernels;
use modelembed_testkit::{Diff, TinyArch, TinySpec, diff, first_bit_difference, tiny, tiny_prompt, tiny_spec};

use crate::common::{TinyGolden, TinyModels, all_logits, known, load, report, session, tiny_goldens};

fn exact() -> LoadOptions {
    LoadOptions::default().exact(true).threads(2)
}

/// Difference of each golden from our logits under some options, for `check` to judge.
fn compare(options: &LoadOptions, check: impl Fn(&TinyGolden, &Diff) -> bool) {
    let dir = TinyModels::new();
    let mut failures = Vec::new();
    for golden in tiny_goldens() {
        let model = load(&dir.of(&golden), options);
        let logits = all_logits(&model, &golden.ids, golden.ids.len());
        let d = diff(&known(&golden, &logits), &golden.logits);
        println!("{:20} {d}; llama.cpp's default run: rms {:.3e}", golden.name, golden.llama_cpp_rms);
        if !check(&golden, &d) {
            failures.push(format!("{:20} {d}; llama.cpp's default run: rms {:.3e}", golden.name, golden.llama_cpp_rms));
        }
    }
    report(failures);
}

#[test]
fn exact_activations_equal_the_goldens() {
    // Logits have a standard deviation of 3. The quantised models' random weights amplify rounding
    // more than the F32 ones' do: llama.cpp itself is up to 1e-4 away from the f64 reference there.
    compare(&exact(), |golden, d| {
        let is_f32 = tiny_spec(&golden.model).ty == modelembed_gguf::TensorType::F32;
        d.max_abs <= if is_f32 { 1.2e-4 } else { 3e-4 }
    });
}

/// Whether a run with the default activations is as close as llama.cpp's, equal but for chance. Where
/// nothing is rounded, as without a cache of keys, both are exact runs.
fn is_as_close(golden: &TinyGolden, d: &Diff) -> bool {
    let nothing_is_rounded = golden.llama_cpp_rms < 1e-5;
    d.rms <= golden.llama_cpp_rms * 1.1 || nothing_is_rounded && d.max_abs <= 1e-4
}

#[test]
fn default_activations_are_as_close_as_llama_cpp() {
    // Where weights are floats only the f16 KV cache rounds, as in llama.cpp.
    let options = LoadOptions::default().threads(2);
    compare(&options, is_as_close);
}

#[test]
fn every_instruction_set_gives_the_goldens() {
    // The best one is what the other tests run on.
    let best = Kernels::best().isa();
    for isa in Kernels::all().map(Kernels::isa).filter(|&isa| isa != best) {
        println!("{}", isa.name());
        compare(&exact().isa(isa), |_, d| d.max_abs <= 3e-4);
        let options = LoadOptions::default().isa(isa);
        compare(&options, is_as_close);
    }
}

/// Runs each tiny model as `base` and as each of `variants`; all logits must have the same bits.
fn same_bits(base: &LoadOptions, variants: &[(&str, LoadOptions)]) {
    let dir = TinyModels::new();
    let mut failures = Vec::new();
    for golden in tiny_goldens() {
        let path = dir.of(&golden);
        let want = all_logits(&load(&path, base), &golden.ids, golden.ids.len());
        for (what, options) in variants {
            let got = all_logits(&load(&path, options), &golden.ids, golden.ids.len());
            if let Some((i, got, want)) = first_bit_difference(&got, &want) {
                failures.push(format!("{:20} {what}: logit {i} is {got}, not {want}", golden.name));
            }
        }
    }
    report(failures);
}

#[test]
fn load_modes_give_the_same_bits() {
    let mode = |mode| LoadOptions::default().mode(mode).threads(2);
    same_bits(&mode(LoadMode::Map), &[("buffer", mode(LoadMode::Buffer)), ("file", mode(LoadMode::File))]);
}

#[test]
fn thread_counts_give_the_same_bits() {
    let threads = |n| LoadOptions::default().threads(n);
    same_bits(&threads(1), &[("2 threads", threads(2)), ("3 threads", threads(3)), ("7 threads", threads(7))]);
}

/// What guessing ahead (`-lookup`) rests on. The head has each column twice: with 8 tokens it goes
/// through panels, the rest does not.
#[test]
fn few_tokens_at_once_give_the_bits_of_one_at_a_time() {
    let dir = TinyModels::new();
    let mut failures = Vec::new();
    for golden in tiny_goldens() {
        for isa in Kernels::all().map(Kernels::isa) {
            let model = load(&dir.of(&golden), &LoadOptions::default().isa(isa).threads(2));
            let want = all_logits(&model, &golden.ids, 1);
            for chunk in [2, 5, 8] {
                if let Some(difference) = first_bit_difference(&all_logits(&model, &golden.ids, chunk), &want) {
                    failures.push(format!("{:20} {isa}, chunks of {chunk}: {difference:?}", golden.name));
                }
            }
        }
    }
    report(failures);
}

#[test]
fn eval_gives_the_last_row_of_eval_each() {
    let dir = TinyModels::new();
    for golden in tiny_goldens() {
        let model = load(&dir.of(&golden), &LoadOptions::default());
        let all = all_logits(&model, &golden.ids, golden.ids.len());
        let mut session = session(&model, golden.ids.len());
        let last = session.eval(&golden.ids).expect("evaluates");
        assert_eq!(first_bit_difference(last, &all[all.len() - last.len()..]), None, "{}", golden.name);
    }
}

#[test]
fn a_truncated_session_goes_on_as_if_nothing_had_followed() {
    let dir = TinyModels::new();
    for name in ["llama", "gemma3", "gemma4", "q4_k"] {
        let model = load(&dir.write(name, &tiny(&tiny_spec(name))), &LoadOptions::default());
        let ids: Vec<TokenId> = tiny_prompt(40).into_iter().map(TokenId).collect();
        let mut session = session(&model, 64);
        let want = session.eval(&ids).expect("evaluates").to_vec();
        session.truncate(25).expect("goes back");
        session.eval(&ids[..15]).expect("evaluates");
        session.truncate(25).expect("goes back");
        assert_eq!(session.len(), 25);
        let got = session.eval(&ids[25..]).expect("evaluates");
        assert_eq!(first_bit_difference(got, &want), None, "{name}");
    }
}

#[test]
fn removed_tokens_leave_no_trace_in_a_model_of_one_layer() {
    // With one layer a key depends on nothing but its token and position, so moving keys down must
    // give what evaluating the shorter text gives, up to a second rounding of the moved keys to
    // f16.
    let dir = TinyModels::new();
    use TinyArch::{CommandR, Family, Gemma2, Gemma3, Gemma4Large, Llama, Olmo2, Phi3, Qwen2, Qwen3};
    let families = ["bloom", "mpt", "cohere2", "mistral3", "stablelm-12b"].map(Family);
    let own = [Llama, Qwen2, Qwen3, Gemma3, Phi3, Olmo2, CommandR, Gemma2, Gemma4Large];
    for arch in own.into_iter().chain(families) {
        let spec = TinySpec { n_layer: 1, ..TinySpec::new("one-layer", arch) };
        let model = load(&dir.write(spec.name, &tiny(&spec)), &LoadOptions::default());
        let ids: Vec<TokenId> = tiny_prompt(40).into_iter().map(TokenId).collect();
        let (first, last) = ids.split_at(39);

        let mut moved = session(&model, 64);
        moved.eval(first).expect("evaluates");
        moved.remove(4..20).expect("moves");
        assert_eq!(moved.len(), 23);
        let got = moved.eval(last).expect("evaluates").to_vec();

        let mut fresh = session(&model, 64);
        let short: Vec<TokenId> = ids[..4].iter().chain(&ids[20..]).copied().collect();
        let want = fresh.eval(&short).expect("evaluates");
        let d = diff(&got, want);
        assert!(d.max_abs < 0.03, "{arch:?}: {d}");
    }
}

#[test]
fn tokens_whose_keys_cannot_move_are_not_removed_before_others() {
    let dir = TinyModels::new();
    let ids: Vec<TokenId> = tiny_prompt(40).into_iter().map(TokenId).collect();
    for name in ["gpt2", "hunyuan-dense"] {
        let model = load(&dir.write(name, &tiny(&tiny_spec(name))), &LoadOptions::default());
        let mut moved = session(&model, 64);
        let want = moved.eval(&ids).expect("evaluates").to_vec();
        let error = moved.remove(4..20).expect_err("refuses").to_string();
        assert_eq!(
            error,
            "a context of 40 tokens cannot go on behind 4 of them: what its layers need there is forgotten"
        );
        // At the end nothing is moved.
        moved.remove(30..40).expect("removes");
        let got = moved.eval(&ids[30..]).expect("evaluates");
        assert_eq!(first_bit_difference(got, &want), None, "{name}");
    }
}

#[test]
fn a_context_ends_with_the_learned_positions() {
    let dir = TinyModels::new();
    let model = load(&dir.write("gpt2", &tiny(&tiny_spec("gpt2"))), &LoadOptions::default());
    let with = |ctx_tokens: usize| Engine::new(&model, &EngineOptions::default().ctx_tokens(ctx_tokens));
    assert!(with(1024).is_ok());
    let error = with(1025).map(|_| ()).expect_err("refuses").to_string();
    assert!(
        error.contains("ctx_tokens is 1025, wanted at most 1024, the positions that the model has learned"),
        "{error}"
    );
}

#[test]
fn two_sessions_of_one_model_do_not_meet() {
    let dir = TinyModels::new();
    let model = load(&dir.write("llama", &tiny(&tiny_spec("llama"))), &LoadOptions::default());
    let ids: Vec<TokenId> = tiny_prompt(40).into_iter().map(TokenId).collect();
    let want = all_logits(&model, &ids, 1);
    let (mut a, mut b) = (session(&model, 40), session(&model, 40));
    let mut got = Vec::new();
    for (i, id) in ids.iter().enumerate() {
        got.extend_from_slice(a.eval(&[*id]).expect("evaluates"));
        b.eval(&[ids[ids.len() - 1 - i]]).expect("evaluates");
    }
    assert_eq!(first_bit_difference(&got, &want), None);
}

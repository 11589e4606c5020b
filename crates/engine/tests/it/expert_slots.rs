//! Mixtures whose experts do not all stay in memory: the same numbers, each expert read when it is
//! chosen.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use modelembed::{LoadOptions, Model, RamBudget, SlotStats, StreamReader, TokenId, Verdict};
use modelembed_gguf::TensorType;
use modelembed_testkit::{TinyArch, TinySpec, first_bit_difference, tiny, tiny_prompt, tiny_spec};

use crate::common::{TinyModels, all_logits, load, session};

const CTX_TOKENS: usize = 64;

fn options(ram_budget: RamBudget) -> LoadOptions {
    LoadOptions::default().threads(2).ram_budget(ram_budget).ctx_tokens(CTX_TOKENS)
}

fn ids(n: usize) -> Vec<TokenId> {
    tiny_prompt(n).into_iter().map(TokenId).collect()
}

/// Gates and up projections apart and in one tensor, with biases, with weights on the inputs, with
/// routers that read the norm of the residual stream and one that does not; experts of one size and
/// of several.
fn specs() -> [TinySpec; 6] {
    let wide = |spec: TinySpec, n_layer| TinySpec { n_embd: 256, n_ff: 256, n_layer, ..spec };
    [
        wide(TinySpec::new("mixtral", TinyArch::Mixtral), 12),
        TinySpec { n_layer: 12, ..tiny_spec("qwen3moe-q4_k") },
        wide(TinySpec { ty: TensorType::Q8_0, ..TinySpec::new("gpt-oss", TinyArch::GptOss) }, 8),
        wide(TinySpec::new("gemma4-moe", TinyArch::Gemma4Moe), 6),
        TinySpec { n_layer: 8, n_ff: 256, ..tiny_spec("llama4") },
        wide(TinySpec::new("qwen35moe", TinyArch::Qwen35Moe), 5),
    ]
}

/// The model with room for what every token needs, and this share of what experts can take beyond
/// the least.
fn squeezed(path: &Path, share: f64, with: impl Fn(LoadOptions) -> LoadOptions) -> Arc<Model> {
    let roomy = load(path, &options(RamBudget::Bytes(1 << 40)));
    let plan = roomy.plan();
    let experts = plan.experts.expect("a mixture");
    assert_eq!(plan.verdict, Verdict::Fits);
    assert!(roomy.expert_stats().is_none());
    assert!(experts.least_bytes < experts.all_bytes, "{plan:?}");
    let of_experts = experts.least_bytes + ((experts.all_bytes - experts.least_bytes) as f64 * share) as u64;
    let budget = plan.other_bytes + plan.dense_bytes() + of_experts;
    let model = load(path, &with(options(RamBudget::Bytes(budget))));
    assert_eq!((model.plan().verdict, model.plan().slot_bytes), (Verdict::Streams, of_experts), "{}", model.plan());
    assert!(model.expert_stats().is_some() && model.stream_stats().is_none(), "{:?}", model.plan_note());
    model
}

fn stats(model: &Model) -> SlotStats {
    model.expert_stats().expect("experts are kept one by one")
}

#[test]
fn experts_in_slots_give_the_same_bits() {
    let dir = TinyModels::new();
    let ids = ids(40);
    for spec in specs() {
        let path = dir.write(spec.name, &tiny(&spec));
        let map = load(&path, &options(RamBudget::Off));
        for share in [0.0, 0.5, 0.95] {
            let model = squeezed(&path, share, |options| options);
            for chunk in [1, 3, 40] {
                let (want, got) = (all_logits(&map, &ids, chunk), all_logits(&model, &ids, chunk));
                assert_eq!(first_bit_difference(&got, &want), None, "{} {share} chunks of {chunk}", spec.name);
            }
            let (stats, plan) = (stats(&model), model.plan());
            assert!(stats.used_bytes <= plan.slot_bytes && stats.misses > 0 && stats.hits > 0, "{stats:?}");
            assert!(stats.passed > 0, "a chunk of 40 passes by: {stats:?}");
        }
    }
}

#[test]
fn every_reader_gives_the_same_bits() {
    let dir = TinyModels::new();
    let spec = specs()[0];
    let path = dir.write(spec.name, &tiny(&spec));
    let want = all_logits(&load(&path, &options(RamBudget::Off)), &ids(12), 5);
    let model = squeezed(&path, 0.3, |options| options.stream_reader(StreamReader::Threads));
    assert_eq!(first_bit_difference(&all_logits(&model, &ids(12), 5), &want), None);
    assert_eq!(stats(&model).reader, StreamReader::Threads);
}

/// A long prompt goes over the experts once, not once for every 512 tokens.
#[test]
fn long_prompts_go_in_wider_chunks() {
    const LONG: usize = 700;
    let dir = TinyModels::new();
    let spec = TinySpec { n_embd: 256, n_ff: 512, n_layer: 8, ..specs()[0] };
    let path = dir.write(spec.name, &tiny(&spec));
    let options = |budget: u64| options(RamBudget::Bytes(budget)).ctx_tokens(LONG);
    let map = load(&path, &options(1 << 40));
    let (experts, plan) = (map.plan().experts.expect("a mixture"), map.plan());
    let budget = plan.other_bytes + plan.dense_bytes() + experts.all_bytes / 10 * 9;
    let model = load(&path, &options(budget));
    assert_eq!(model.plan().chunk_tokens, Some(LONG), "{}", model.plan());
    assert_eq!(model.plan().other_bytes + model.plan().slot_bytes, budget - model.plan().dense_bytes());
    let last = |model| session(model, LONG).eval(&ids(LONG)).unwrap().to_vec();
    assert_eq!(first_bit_difference(&last(&model), &last(&map)), None);
    let stats = stats(&model);
    assert!(stats.passed > 0 && stats.passed <= experts.n_items, "{stats:?}");
}

/// Nothing of experts is read before a token wants them, and nothing ahead but what every token
/// needs.
#[test]
fn what_every_token_needs_is_read_ahead_and_experts_when_they_are_chosen() {
    let dir = TinyModels::new();
    let spec = specs()[0];
    let path = dir.write(spec.name, &tiny(&spec));
    let model = squeezed(&path, 0.9, |options| options);
    let plan = model.plan().clone();
    assert_eq!(model.prefetch_progress().map(|p| p.total_bytes), Some(plan.dense_bytes()));
    let before = stats(&model);
    assert_eq!((before.hits, before.misses), (0, 0), "the look at the disk does not count");
    let mut session = session(&model, CTX_TOKENS);
    session.eval(&ids(1)).unwrap();
    let after = stats(&model);
    let experts = plan.experts.unwrap();
    assert_eq!(after.hits + after.misses, 12 * 2, "two experts a layer: {after:?}");
    assert_eq!(after.missed_bytes, after.misses * (experts.all_bytes / experts.n_items));
    // The same token once more finds them all, in the order in which it wants them.
    session.truncate(0).unwrap();
    session.eval(&ids(1)).unwrap();
    assert_eq!(stats(&model).hits, after.hits + 24);
}

#[test]
fn the_disk_is_measured_without_a_trace_in_the_counts() {
    let dir = TinyModels::new();
    let spec = specs()[0];
    let path = dir.write(spec.name, &tiny(&spec));
    let model = squeezed(&path, 0.2, |options| options);
    assert!(model.plan().disk_bytes_per_second.is_some_and(|speed| speed > 0.0));
    assert!(model.plan().tokens_per_second_at(0.65).is_some_and(|speed| speed > 0.0));
    assert!(model.measure_expert_reads(Duration::from_millis(20)).is_some_and(|speed| speed > 0.0));
    let after = stats(&model);
    assert_eq!((after.hits, after.misses, after.passed), (0, 0, 0));
    let map = load(&path, &options(RamBudget::Off));
    assert!(map.measure_expert_reads(Duration::from_millis(20)).is_none());
}

#[test]
#[cfg(unix)]
fn a_file_that_is_cut_short_is_an_error_and_the_context_stays() {
    let dir = TinyModels::new();
    let spec = specs()[0];
    let bytes = tiny(&spec);
    let path = dir.write(spec.name, &bytes);
    let want = all_logits(&load(&path, &options(RamBudget::Off)), &ids(4), 1);
    let model = squeezed(&path, 0.0, |options| options);
    let mut session = session(&model, CTX_TOKENS);
    session.eval(&ids(4)[..1]).unwrap();
    // The dense part must not be lost, which would be a signal: only the direct reads see the cut.
    let dense_end = model.tensors().filter(|t| !t.name.contains("_exps")).map(|t| t.offset + t.n_bytes).max().unwrap();
    let end = model.tensors().map(|t| t.offset + t.n_bytes).max().unwrap();
    assert!(end > dense_end + (1 << 20), "experts lie behind all dense tensors");
    let file = std::fs::File::options().write(true).open(&path).unwrap();
    file.set_len(dense_end).unwrap();
    let failure = session.eval(&ids(4)[1..2]).unwrap_err().to_string();
    assert!(failure.contains("mixtral.gguf"), "{failure}");
    std::fs::write(&path, &bytes).unwrap();
    let got = session.eval(&ids(4)[1..2]).unwrap().to_vec();
    assert_eq!(first_bit_difference(&got, &want[got.len()..2 * got.len()]), None);
}

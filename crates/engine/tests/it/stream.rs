//! Models that may not use as much memory as they have weights: the same numbers, read from the
//! disk again and again.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use modelembed::{
    CacheType, Error, LoadMode, LoadOptions, Model, ModelFiles, RamBudget, Session, SessionOptions, TokenId, Verdict,
};
use modelembed_gguf::TensorType;
use modelembed_storage::StreamReader;
use modelembed_testkit::{
    GEMMA3, SMOLLM2, TINY_VOCAB, TinyArch, TinySpec, first_bit_difference, real_model, tiny, tiny_prompt, tiny_spec,
};

use crate::common::{TinyModels, all_logits, load, session};

const CTX_TOKENS: usize = 64;

fn options(ram_budget: RamBudget) -> LoadOptions {
    LoadOptions::default().threads(2).ram_budget(ram_budget).ctx_tokens(CTX_TOKENS)
}

/// The model with room for this share of its weights.
fn squeezed(path: &Path, share: f64) -> Arc<Model> {
    let roomy = load(path, &options(RamBudget::Bytes(1 << 40)));
    assert_eq!(roomy.plan().verdict, Verdict::Fits);
    assert!(roomy.stream_stats().is_none());
    let weights = roomy.plan().weight_bytes as f64 * share;
    let model = load(path, &options(RamBudget::Bytes(roomy.plan().other_bytes + weights as u64)));
    assert_eq!(model.plan().verdict, Verdict::Streams, "{}", model.plan());
    assert!(model.stream_stats().is_some(), "{:?}", model.plan_note());
    model
}

fn ids(n: usize) -> Vec<TokenId> {
    tiny_prompt(n).into_iter().map(TokenId).collect()
}

fn specs() -> [TinySpec; 4] {
    let deep = |name: &str| TinySpec { n_layer: 12, ..tiny_spec(name) };
    // Tied: the head's matrix is looked up as embedding, too, while other units are in the windows.
    let tied = TinySpec { ty: TensorType::Q8_0, tied: true, ..deep("q8_0") };
    [
        deep("q4_k"),
        deep("q6_k"),
        tied,
        TinySpec { n_embd: 256, n_ff: 512, n_layer: 9, ..TinySpec::new("g", TinyArch::Gemma3) },
    ]
}

#[test]
fn streaming_gives_the_same_bits() {
    let dir = TinyModels::new();
    let ids = ids(40);
    for spec in specs() {
        let path = dir.write(spec.name, &tiny(&spec));
        let map = load(&path, &options(RamBudget::Off));
        assert_eq!(map.plan().verdict, Verdict::Unplanned);
        for share in [0.5, 0.8, 0.95] {
            let model = squeezed(&path, share);
            let ahead = model.prefetch_progress().map(|p| p.total_bytes);
            assert_eq!(ahead, Some(model.plan().resident_bytes()), "what stays is read ahead, and nothing else");
            for chunk in [1, 7, 40] {
                let (want, got) = (all_logits(&map, &ids, chunk), all_logits(&model, &ids, chunk));
                assert_eq!(first_bit_difference(&got, &want), None, "{} {share} chunks of {chunk}", spec.name);
            }
            let (stats, plan) = (model.stream_stats().unwrap(), model.plan());
            // 40 + 6 + 1 chunks, each of which reads every unit once; the next ones' first units
            // are read ahead.
            let least = 47 * plan.streamed_per_token();
            assert!((least..least + 2 * plan.streamed_per_token()).contains(&stats.read_bytes), "{stats:?} {plan:?}");
        }
    }
}

/// A token reads one row of the layers' own embeddings; what surrounds it is neither counted nor
/// read ahead.
#[test]
fn embeddings_of_layers_are_looked_up_whatever_streams() {
    let dir = TinyModels::new();
    let spec = TinySpec { n_embd: 256, n_ff: 512, ..TinySpec::new("own", TinyArch::Gemma4) };
    let path = dir.write(spec.name, &tiny(&spec));
    let map = load(&path, &options(RamBudget::Off));
    let bytes_of = |name: &str| map.tensors().find(|t| t.name == name).unwrap().n_bytes;
    let all: u64 = map.tensors().map(|t| t.n_bytes).sum();
    let (table, head) = (bytes_of("per_layer_token_embd.weight"), bytes_of("token_embd.weight"));
    let rows = (table + head) / TINY_VOCAB as u64;
    assert_eq!(map.bytes_per_token(), all - table + rows);
    assert_eq!(map.embedding_bytes(), table + head);
    assert_eq!(map.prefetch_progress().map(|p| p.total_bytes), Some(all - table));
    let (ids, divisors) = (ids(40), bytes_of("rope_freqs.weight"));
    for share in [0.5, 0.8] {
        let model = squeezed(&path, share);
        let ahead = model.prefetch_progress().map_or(0, |p| p.total_bytes);
        // Of what lies between tensors nothing is read, but some of it streams.
        let (least, between) = (model.plan().resident_bytes() + divisors, 32 * spec.n_layer as u64);
        assert!((least..least + between).contains(&ahead), "{ahead} of {least}");
        for chunk in [1, 7, 40] {
            let (want, got) = (all_logits(&map, &ids, chunk), all_logits(&model, &ids, chunk));
            assert_eq!(first_bit_difference(&got, &want), None, "{share} chunks of {chunk}");
        }
    }
}

/// Whoever reads: the kind that the system allows is what `auto` takes.
#[test]
fn every_reader_gives_the_same_bits() {
    let dir = TinyModels::new();
    let path = dir.write("q4_k", &tiny(&specs()[0]));
    let want = all_logits(&load(&path, &options(RamBudget::Off)), &ids(12), 5);
    let auto = squeezed(&path, 0.5);
    let budget = RamBudget::Bytes(auto.plan().budget_bytes);
    for stream_reader in [StreamReader::Ring, StreamReader::Threads] {
        let options = options(budget).stream_reader(stream_reader);
        match Model::load(&path, &options) {
            Ok(model) => {
                assert_eq!(first_bit_difference(&all_logits(&model, &ids(12), 5), &want), None, "{stream_reader:?}");
                assert_eq!(model.stream_stats().map(|s| s.reader), Some(stream_reader));
            }
            Err(error) => {
                let text = error.to_string();
                assert!(stream_reader == StreamReader::Ring && text.contains("by io_uring was asked for"), "{text}");
                assert_eq!(auto.stream_stats().map(|s| s.reader), Some(StreamReader::Threads));
                assert!(auto.plan_note().is_some_and(|note| note.contains("io_uring is refused")));
            }
        }
    }
}

#[test]
fn the_plan_counts_the_cache_that_will_be_used() {
    let dir = TinyModels::new();
    let spec = TinySpec { n_layer: 12, ..tiny_spec("q4_k") };
    let path = dir.write("q4_k", &tiny(&spec));
    let files = ModelFiles::open(&path).unwrap();
    let others = |cache_type, exact| {
        let options = options(RamBudget::Bytes(1 << 40)).cache_type(cache_type).exact(exact).ctx_tokens(4096);
        let planned = files.plan(&options).unwrap().other_bytes;
        assert_eq!(load(&path, &options).plan().other_bytes, planned);
        planned
    };
    // Keys and values of 12 layers, in bytes for each 32 elements.
    let elements = (12 * spec.n_head_kv * spec.head_dim * 2 * 4096) as u64;
    let f16 = others(Some(CacheType::F16), false);
    let i16 = others(Some(CacheType::I16), false);
    assert_eq!(i16, others(None, false));
    assert_eq!(i16 - f16, elements / spec.head_dim as u64 * 4);
    assert_eq!(f16 - others(Some(CacheType::Q8), false), elements / 32 * (64 - 34));
    assert_eq!(others(Some(CacheType::F32), false) - f16, elements / 32 * (128 - 64));
    assert_eq!(others(None, true), others(Some(CacheType::F32), true));
}

#[test]
fn real_models_give_the_same_bits() {
    for name in [SMOLLM2, GEMMA3] {
        let Some(path) = real_model(name) else { return };
        let map = load(&path, &options(RamBudget::Off));
        let ids: Vec<TokenId> = (100..116).map(TokenId).collect();
        let model = squeezed(&path, 0.85);
        let (want, got) = (all_logits(&map, &ids, 8), all_logits(&model, &ids, 8));
        assert_eq!(first_bit_difference(&got, &want), None, "{name}");
    }
}

#[test]
fn sessions_of_one_model_take_turns() {
    let dir = TinyModels::new();
    let spec = specs()[0];
    let path = dir.write("q4_k", &tiny(&spec));
    let want = all_logits(&load(&path, &options(RamBudget::Off)), &ids(20), 1);
    let model = squeezed(&path, 0.5);
    std::thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| assert_eq!(first_bit_difference(&all_logits(&model, &ids(20), 1), &want), None));
        }
    });
}

#[test]
fn other_modes_and_models_that_fit_do_not_stream() {
    let dir = TinyModels::new();
    let path = dir.write("llama", &tiny(&tiny_spec("llama")));
    for mode in [LoadMode::Buffer, LoadMode::File] {
        let model = load(&path, &options(RamBudget::Bytes(1)).mode(mode));
        assert!(model.stream_stats().is_none() && model.plan().verdict == Verdict::Unplanned);
    }
    assert!(load(&path, &options(RamBudget::Auto)).stream_stats().is_none());
}

#[test]
fn a_budget_that_cannot_work_is_refused() {
    let dir = TinyModels::new();
    let path = dir.write("q4_k", &tiny(&specs()[0]));
    let result = Model::load(&path, &options(RamBudget::Bytes(1 << 20)));
    let message = result.expect_err("1 MB is too little").to_string();
    assert!(message.contains("impossible: 1.0 MB of memory"), "{message}");
}

#[test]
fn a_file_cut_short_is_an_error_that_names_it_and_the_place() {
    let dir = TinyModels::new();
    let spec = TinySpec { n_embd: 512, n_ff: 1024, ..specs()[0] };
    let bytes = tiny(&spec);
    let path = dir.write("cut", &bytes);
    let model = squeezed(&path, 0.3);
    let mut session = session(&model, CTX_TOKENS);
    session.eval(&ids(1)).expect("the file is whole");
    // Only what streams of the last block is cut off: lost pages of what stays would raise SIGBUS.
    let file = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    file.set_len(stays_up_to(&model)).unwrap();
    // What was read ahead is good for a part of a round only.
    let error = (0..3).find_map(|_| session.eval(&ids(1)).err()).expect("parts of the file are gone");
    let message = error.to_string();
    assert!(message.contains("cut.gguf") && message.contains("at byte") && message.contains("cut short"), "{message}");
    file.set_len(bytes.len() as u64).unwrap();
    drop(session);
}

/// Where the streamed part of the last block has begun: the middle of its last matrix in the file.
fn stays_up_to(model: &Model) -> u64 {
    let up = model.tensors().max_by_key(|t| t.offset).unwrap();
    assert_eq!(up.name, "blk.11.ffn_up.weight");
    up.offset + up.n_bytes / 2
}

#[test]
fn a_cancelled_evaluation_ends_and_the_next_one_is_right() {
    let dir = TinyModels::new();
    let path = dir.write("q4_k", &tiny(&specs()[0]));
    let want = all_logits(&load(&path, &options(RamBudget::Off)), &ids(8), 8);
    let model = squeezed(&path, 0.5);
    let cancel = Arc::new(AtomicBool::new(true));
    let own = SessionOptions::default().ctx_tokens(CTX_TOKENS).cancel(Arc::clone(&cancel));
    let mut session = Session::new(&model, own).unwrap();
    for round in 0..20 {
        cancel.store(round == 0, Ordering::Relaxed);
        let later = Arc::clone(&cancel);
        let key = std::thread::spawn(move || {
            std::thread::sleep(Duration::from_micros(200 * round));
            later.store(true, Ordering::Relaxed);
        });
        match session.eval(&ids(8)) {
            Ok(_) => session.clear(),
            Err(error) => assert!(matches!(error, Error::Cancelled), "{error}"),
        }
        key.join().unwrap();
        cancel.store(false, Ordering::Relaxed);
        let got = session.eval(&ids(8)).expect("nobody cancels").to_vec();
        assert_eq!(first_bit_difference(&got, &want[want.len() - got.len()..]), None);
        session.clear();
    }
}

#[test]
fn a_context_saved_in_one_mode_goes_on_in_every_other() {
    let dir = TinyModels::new();
    let folder = tempfile::tempdir().expect("a folder");
    // More than a header's worth of bytes, which modes without a map read at first.
    let spec = TinySpec { n_embd: 256, n_ff: 768, n_layer: 9, ..TinySpec::new("g", TinyArch::Gemma3) };
    let path = dir.write(spec.name, &tiny(&spec));
    assert!(std::fs::metadata(&path).expect("a file").len() > 4 << 20);
    let of_mode = |mode| load(&path, &options(RamBudget::Off).mode(mode));
    let models = [of_mode(LoadMode::Map), of_mode(LoadMode::Buffer), of_mode(LoadMode::File), squeezed(&path, 0.6)];
    let ids = ids(40);
    for (i, saver) in models.iter().enumerate() {
        let file = folder.path().join(format!("{i}"));
        let mut first = session(saver, CTX_TOKENS);
        first.eval(&ids[..30]).expect("evaluates");
        first.save(&file, b"").expect("saves");
        let want = first.eval(&ids[30..]).expect("evaluates").to_vec();
        for (j, model) in models.iter().enumerate() {
            let mut second = session(model, CTX_TOKENS);
            second.restore(&file).unwrap_or_else(|e| panic!("{i} to {j}: {e}"));
            let got = second.eval(&ids[30..]).expect("evaluates");
            assert_eq!(first_bit_difference(got, &want), None, "{i} to {j}");
        }
    }
    // The same header, and one matrix of others: what fine-tuning leaves.
    let mut bytes = tiny(&spec);
    let model = &models[0];
    let target = model.tensors().filter(|t| t.name.ends_with("attn_q.weight")).nth(4).expect("a matrix");
    let middle = (target.offset + target.n_bytes / 2) as usize;
    bytes[middle..middle + 64].iter_mut().for_each(|b| *b ^= 1);
    let tuned = load(&dir.write("tuned", &bytes), &options(RamBudget::Off));
    let refused = session(&tuned, CTX_TOKENS).restore(folder.path().join("0")).expect_err("other weights");
    assert!(refused.to_string().contains("another model"), "{refused}");
}

#[test]
fn a_model_can_be_dropped_while_it_reads() {
    let dir = TinyModels::new();
    let path = dir.write("q4_k", &tiny(&specs()[0]));
    for _ in 0..50 {
        drop(squeezed(&path, 0.5));
    }
}

//! Batches of many sequences: a row's bits depend neither on its company nor on its chunk, and
//! whatever goes wrong leaves every sequence as it was.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use modelembed::{
    Engine, EngineOptions, Error, LoadOptions, Model, Pooling, Row, Run, Runtime, RuntimeOptions, Sampler, SequenceId,
    TokenId, Wants,
};
use modelembed_kernels::Kernels;
use modelembed_testkit::{real_model, tiny, tiny_prompt, tiny_spec};

use crate::common::{TinyModels, load, report, tiny_goldens};

/// Around every width where a kernel, a tile, a page or a chunk changes.
const WIDTHS: [usize; 19] = [1, 2, 3, 5, 8, 9, 12, 13, 16, 24, 64, 127, 128, 255, 256, 257, 512, 513, 600];

/// What is left of the logits of a row: equal for equal bits.
fn digest(logits: &[f32]) -> u64 {
    logits.iter().fold(0xcbf2_9ce4_8422_2325, |hash, x| {
        (hash ^ u64::from(x.to_bits())).wrapping_mul(0x0000_0100_0000_01b3).rotate_left(17)
    })
}

fn engine(model: &Arc<Model>, sequences: usize, ctx_tokens: usize) -> Engine {
    Engine::new(model, &EngineOptions::default().sequences(sequences).ctx_tokens(ctx_tokens)).expect("an engine")
}

/// Digests of the logits of all tokens of each run.
fn step(engine: &mut Engine, runs: &[(SequenceId, &[TokenId])]) -> Vec<Vec<u64>> {
    let mut digests = vec![Vec::new(); runs.len()];
    let runs: Vec<Run> = runs.iter().map(|(id, tokens)| Run::new(*id, tokens).wants(Wants::All)).collect();
    let each = &mut |row: Row<'_>| {
        assert_eq!(digests[row.run].len(), row.token, "rows come in order");
        digests[row.run].push(digest(row.logits));
    };
    engine.step(&runs, each).expect("evaluates");
    digests
}

/// Tokens of a prompt that is no other one's.
fn prompt(n: usize, n_vocab: usize, seed: usize) -> Vec<TokenId> {
    let ids = tiny_prompt(n + seed).into_iter().skip(seed).enumerate();
    ids.map(|(i, id)| TokenId((id as usize + i * seed) as u32 % n_vocab as u32)).collect()
}

/// Rows that differ from those that each sequence has token by token.
fn check_widths(name: &str, model: &Arc<Model>, widths: &[usize], n_single: usize, failures: &mut Vec<String>) {
    let most = widths.iter().copied().max().unwrap_or(1);
    let ids = prompt(most, model.n_vocab(), 0);
    let mut engine = engine(model, 4, most + 8);
    // Alone, as a whole, and its beginning token by token.
    let alone = engine.add().expect("a sequence");
    let want = step(&mut engine, &[(alone, &ids)]).remove(0);
    engine.truncate(alone, 0).expect("goes back");
    for (i, id) in ids.iter().take(n_single).enumerate() {
        if step(&mut engine, &[(alone, std::slice::from_ref(id))])[0][0] != want[i] {
            failures.push(format!("{name}: token {i} alone"));
        }
    }
    engine.end(alone).expect("ends");
    // Others, at positions of their own.
    let other_ids = prompt(40, model.n_vocab(), 3);
    let others = [0, 37, 5].map(|n| (engine.add().expect("a sequence"), n));
    let other_want = step(&mut engine, &[(others[0].0, &other_ids)]).remove(0);
    for &width in widths {
        // Wide ones alone are what the whole is compared with.
        for company in [0, 3].into_iter().skip(usize::from(width > 64)) {
            for (id, n) in others {
                engine.truncate(id, 0).expect("goes back");
                if n > 0 {
                    step(&mut engine, &[(id, &other_ids[..n])]);
                }
            }
            let own = others[0].0;
            // Before and behind the others.
            let mut runs: Vec<(SequenceId, &[TokenId])> = vec![(own, &ids[..width])];
            if company > 0 {
                runs.insert(0, (others[1].0, &other_ids[37..38]));
                runs.push((others[2].0, &other_ids[5..12]));
            }
            let got = step(&mut engine, &runs);
            for ((id, _), got) in runs.iter().zip(got) {
                let (want, first) = match others.iter().find(|(other, n)| other == id && *n > 0) {
                    Some((_, n)) => (&other_want, *n),
                    None => (&want, 0),
                };
                if let Some(i) = (0..got.len()).find(|&i| got[i] != want[first + i]) {
                    failures.push(format!("{name}: {width} rows beside {company}: row {i} of a run from {first} on"));
                }
            }
        }
    }
}

#[test]
fn rows_of_tiny_models_have_the_same_bits_in_any_company() {
    let dir = TinyModels::new();
    let mut failures = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for golden in tiny_goldens().into_iter().filter(|golden| seen.insert(golden.model.clone())) {
        let path = dir.of(&golden);
        for exact in [false, true] {
            let model = load(&path, &LoadOptions::default().exact(exact).threads(3));
            check_widths(&format!("{}, exact {exact}", golden.model), &model, &WIDTHS, 40, &mut failures);
        }
    }
    report(failures);
}

#[test]
fn rows_of_each_instruction_set_have_the_same_bits_in_any_company() {
    let dir = TinyModels::new();
    let mut failures = Vec::new();
    for name in ["q4_k", "gemma3", "q4_1", "falcon-h1-odd"] {
        let path = dir.write(name, &tiny(&tiny_spec(name)));
        for isa in Kernels::all().map(Kernels::isa) {
            let model = load(&path, &LoadOptions::default().isa(isa).threads(2));
            check_widths(&format!("{name}, {isa}"), &model, &WIDTHS[..13], 24, &mut failures);
        }
    }
    report(failures);
}

#[test]
fn rows_of_real_models_have_the_same_bits_in_any_company() {
    let mut failures = Vec::new();
    for name in ["SmolLM2-135M-Instruct.Q4_1.gguf", "gemma-3-270m-q4_k_m.gguf"] {
        let Some(path) = real_model(name) else { continue };
        let model = load(&path, &LoadOptions::default().threads(2));
        check_widths(name, &model, &WIDTHS, 12, &mut failures);
    }
    report(failures);
}

/// A model whose sequences go through a few pages.
fn small(dir: &TinyModels, name: &str) -> Arc<Model> {
    load(&dir.write(name, &tiny(&tiny_spec(name))), &LoadOptions::default().threads(2))
}

#[test]
fn many_sequences_decode_as_each_would_alone() {
    let dir = TinyModels::new();
    let model = small(&dir, "gemma3");
    const N: usize = 40; // more than the head takes at once
    let mut engine = engine(&model, N, 320);
    let ids: Vec<SequenceId> = (0..N).map(|_| engine.add().expect("a sequence")).collect();
    let prompts: Vec<Vec<TokenId>> = (0..N).map(|i| prompt(1 + 7 * i, model.n_vocab(), i)).collect();
    let alone: Vec<u64> = ids
        .iter()
        .zip(&prompts)
        .map(|(&id, prompt)| *step(&mut engine, &[(id, prompt)])[0].last().expect("a row"))
        .collect();
    for (&id, prompt) in ids.iter().zip(&prompts) {
        engine.truncate(id, prompt.len() - 1).expect("goes back");
    }
    let runs: Vec<(SequenceId, &[TokenId])> =
        ids.iter().zip(&prompts).map(|(&id, prompt)| (id, &prompt[prompt.len() - 1..])).collect();
    let together: Vec<u64> = step(&mut engine, &runs).into_iter().map(|rows| rows[0]).collect();
    assert_eq!(together, alone);
    assert!(matches!(engine.add(), Err(Error::TooManySequences { capacity: N })));
}

#[test]
fn wishes_are_kept_and_refusals_come_before_anything_is_computed() {
    let dir = TinyModels::new();
    let model = small(&dir, "llama");
    let mut engine = engine(&model, 3, 20);
    let (a, b, c) = (engine.add().unwrap(), engine.add().unwrap(), engine.add().unwrap());
    let ids = prompt(20, model.n_vocab(), 0);
    let mut rows = Vec::new();
    let runs = [
        Run::new(a, &ids[..5]).wants(Wants::Nothing),
        Run::new(b, &ids[..4]),
        Run::new(c, &ids[..2]).wants(Wants::All),
    ];
    engine.step(&runs, &mut |row| rows.push((row.run, row.token, row.logits.len()))).expect("evaluates");
    let n_vocab = model.n_vocab();
    assert_eq!(rows, [(1, 3, n_vocab), (2, 0, n_vocab), (2, 1, n_vocab)]);
    let lens = |engine: &Engine| [a, b, c].map(|id| engine.tokens(id).expect("a sequence").len());
    assert_eq!(lens(&engine), [5, 4, 2]);

    let foreign = Engine::new(&model, &EngineOptions::default()).unwrap().add().unwrap();
    let outside = [TokenId(n_vocab as u32)];
    let refused: [(&[Run<'_>], &str); 7] = [
        (&[], "no tokens"),
        (&[Run::new(a, &ids[..1]), Run::new(b, &[])], "no tokens"),
        (&[Run::new(a, &ids[..1]), Run::new(a, &ids[..1])], "names the sequence of another run"),
        (&[Run::new(a, &ids[..1]), Run::new(b, &outside)], "outside the vocabulary"),
        (&[Run::new(a, &ids[..1]), Run::new(c, &ids[..19])], "the context is full"),
        (&[Run::new(foreign, &ids[..1])], "no such sequence"),
        (&[Run::new(a, &ids[..16])], "the context is full"),
    ];
    for (runs, wanted) in refused {
        let error = engine.step(runs, &mut |_| panic!("nothing is computed")).expect_err(wanted).to_string();
        assert!(error.contains(wanted), "{error}");
        assert_eq!(lens(&engine), [5, 4, 2], "{wanted}");
    }
    engine.end(b).expect("ends");
    assert!(matches!(engine.end(b), Err(Error::NoSuchSequence)));
    let next = engine.add().expect("room again");
    assert!(engine.tokens(next).expect("a sequence").is_empty());
    assert!(matches!(engine.tokens(b), Err(Error::NoSuchSequence)), "ids are not used again");
}

#[test]
fn a_cancelled_run_is_thrown_away_and_its_company_is_not() {
    let dir = TinyModels::new();
    let model = small(&dir, "qwen3");
    let mut engine = engine(&model, 2, 400);
    let (a, b) = (engine.add().unwrap(), engine.add().unwrap());
    let ids = prompt(300, model.n_vocab(), 0);
    let want = step(&mut engine, &[(a, &ids)]).remove(0);
    engine.truncate(a, 290).expect("goes back");
    let (set, unset) = (AtomicBool::new(true), AtomicBool::new(false));
    let runs = [
        Run { cancel: Some(&set), ..Run::new(b, &ids[..280]) },
        Run { cancel: Some(&unset), ..Run::new(a, &ids[290..]) },
    ];
    let mut got = Vec::new();
    engine.step(&runs, &mut |row| got.push((row.run, digest(row.logits)))).expect("one goes on");
    assert_eq!(got, [(1, want[299])]);
    assert_eq!((engine.was_cancelled(0), engine.was_cancelled(1)), (true, false));
    assert_eq!((engine.tokens(a).unwrap().len(), engine.tokens(b).unwrap().len()), (300, 0));
    // All of them: the step is over, and nothing has changed.
    unset.store(true, Ordering::Relaxed);
    let runs =
        [Run { cancel: Some(&set), ..Run::new(b, &ids) }, Run { cancel: Some(&unset), ..Run::new(a, &ids[..1]) }];
    assert!(matches!(engine.step(&runs, &mut |_| {}), Err(Error::Cancelled)));
    assert_eq!((engine.tokens(a).unwrap().len(), engine.tokens(b).unwrap().len()), (300, 0));
    assert_eq!(step(&mut engine, &[(b, &ids)])[0], want);
}

#[test]
fn models_of_one_runtime_share_workers_and_memory_for_contexts() {
    let dir = TinyModels::new();
    let runtime = Runtime::new(&RuntimeOptions::default().threads(2)).expect("a runtime");
    let options = LoadOptions::default().runtime(Arc::clone(&runtime));
    let paths = ["llama", "qwen3"].map(|name| dir.write(name, &tiny(&tiny_spec(name))));
    let models = paths.each_ref().map(|path| load(path, &options));
    let alone = paths.each_ref().map(|path| load(path, &LoadOptions::default().threads(1)));
    // Each on a thread of its own: they take turns.
    std::thread::scope(|scope| {
        for (model, alone) in models.iter().zip(&alone) {
            scope.spawn(move || {
                let ids = prompt(60, model.n_vocab(), 1);
                let digests = |model: &Arc<Model>| {
                    let mut engine = engine(model, 1, 60);
                    let id = engine.add().expect("a sequence");
                    ids.chunks(7).map(|part| step(&mut engine, &[(id, part)])).collect::<Vec<_>>()
                };
                assert_eq!(digests(model), digests(alone));
            });
        }
    });
    assert_eq!(runtime.kv_bytes(), 0, "every page came back");
    let twice = options.threads(1);
    let error = Model::load(&paths[0], &twice).expect_err("a refusal");
    assert!(error.to_string().contains("runtime"), "{error}");
}

#[test]
fn long_sequences_share_their_spans_whatever_their_numbers_of_rows_are() {
    let dir = TinyModels::new();
    // One more sequence than workers have units for, and less.
    for (name, threads) in [("llama", 1), ("gemma3", 8), ("q4_k", 3)] {
        let path = dir.write(name, &tiny(&tiny_spec(name)));
        let model = load(&path, &LoadOptions::default().threads(threads));
        let mut engine = engine(&model, 5, 1400);
        // Tokens that are there, and rows that are added together.
        let lens = [(1300, 1), (700, 3), (300, 7), (1290, 2), (5, 1)];
        let texts: Vec<Vec<TokenId>> =
            lens.iter().enumerate().map(|(i, (n, rows))| prompt(n + rows, model.n_vocab(), i)).collect();
        let ids: Vec<SequenceId> = lens.iter().map(|_| engine.add().expect("a sequence")).collect();
        let mut want = Vec::new();
        for ((&id, text), (n, rows)) in ids.iter().zip(&texts).zip(lens) {
            let all = step(&mut engine, &[(id, text)]).remove(0);
            want.push(all[n..].to_vec());
            assert_eq!(want.last().map(Vec::len), Some(rows));
            engine.truncate(id, n).expect("goes back");
        }
        let runs: Vec<(SequenceId, &[TokenId])> =
            ids.iter().zip(&texts).zip(lens).map(|((&id, text), (n, _))| (id, &text[n..])).collect();
        assert_eq!(step(&mut engine, &runs), want, "{name}, {threads} threads");
        // And token by token, far behind the beginning.
        engine.truncate(ids[0], 1280).expect("goes back");
        let text = texts[0].clone();
        engine.truncate(ids[1], 0).expect("goes back");
        let whole = step(&mut engine, &[(ids[1], &text)]).remove(0);
        for i in 1280..1301 {
            assert_eq!(step(&mut engine, &[(ids[0], &text[i..i + 1])])[0][0], whole[i], "{name}: token {i}");
        }
    }
}

#[test]
fn a_step_tells_for_which_run_it_was_refused() {
    let dir = TinyModels::new();
    let model = small(&dir, "llama");
    let mut engine = engine(&model, 2, 20);
    let (a, b) = (engine.add().unwrap(), engine.add().unwrap());
    let (ids, outside) = (prompt(21, model.n_vocab(), 0), [TokenId(u32::MAX)]);
    for (runs, failed) in [
        ([Run::new(a, &ids[..2]), Run::new(b, &outside)], Some(1)),
        ([Run::new(a, &ids), Run::new(b, &ids[..1])], Some(0)),
        ([Run::new(a, &ids[..2]), Run::new(b, &ids[..1])], None),
    ] {
        assert_eq!(engine.step(&runs, &mut |_| {}).is_err(), failed.is_some());
        assert_eq!(engine.failed_run(), failed);
    }
}

#[test]
#[should_panic(expected = "from inside of a step")]
fn a_step_within_a_step_of_one_runtime_is_a_mistake() {
    let dir = TinyModels::new();
    let model = small(&dir, "llama");
    let (mut first, mut second) = (engine(&model, 1, 20), engine(&model, 1, 20));
    let (a, b) = (first.add().unwrap(), second.add().unwrap());
    let ids = [TokenId(1)];
    let _ = first.step(&[Run::new(a, &ids)], &mut |_| {
        let _ = second.step(&[Run::new(b, &ids)], &mut |_| {});
    });
}

#[test]
fn engines_and_sessions_can_move_to_other_threads() {
    fn is_send<T: Send>() {}
    fn is_shared<T: Send + Sync>() {}
    is_send::<Engine>();
    is_send::<modelembed::Session>();
    is_shared::<Model>();
    is_shared::<Runtime>();
    is_shared::<modelembed::SealedPage>();
}

#[test]
fn rows_told_at_the_same_time_are_those_told_in_turn() {
    let dir = TinyModels::new();
    let model = small(&dir, "gemma3");
    const N: usize = 40; // more than the head takes at once
    let mut engine = engine(&model, N, 60);
    let ids: Vec<SequenceId> = (0..N).map(|_| engine.add().expect("a sequence")).collect();
    let prompts: Vec<Vec<TokenId>> = (0..N).map(|i| prompt(1 + i, model.n_vocab(), i)).collect();
    let wants = |i: usize| [Wants::Last, Wants::All, Wants::Nothing, Wants::Pooled(Pooling::Mean)][i % 4];
    let runs: Vec<Run> =
        ids.iter().zip(&prompts).enumerate().map(|(i, (&id, p))| Run::new(id, p).wants(wants(i))).collect();
    let mut want = Vec::new();
    let each = &mut |mut row: Row<'_>| {
        let bits = digest(row.logits);
        want.push((row.run, row.token, bits, row.sample(&mut Sampler::default())));
    };
    engine.step(&runs, each).expect("evaluates");
    let pooled = engine.pooled(3).expect("a vector").to_vec();
    ids.iter().for_each(|&id| engine.truncate(id, 0).expect("goes back"));
    let got = std::sync::Mutex::new(Vec::new());
    let each = &|mut row: Row<'_>| {
        let bits = digest(row.logits);
        let id = row.sample(&mut Sampler::default());
        got.lock().expect("whole").push((row.run, row.token, bits, id));
    };
    engine.step_shared(&runs, each).expect("evaluates");
    let mut got = got.into_inner().expect("whole");
    got.sort_by_key(|&(run, token, ..)| (run, token));
    assert_eq!(got, want);
    assert_eq!(engine.pooled(3), Some(&pooled[..]));
}

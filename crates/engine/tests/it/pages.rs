//! Keys and values in pages: shared, copied, given back, refused.

use std::sync::Arc;

use modelembed::{
    CacheType, Engine, EngineOptions, Error, LoadOptions, Model, Run, Runtime, RuntimeOptions, SealedPage, SequenceId,
    TokenId,
};
use modelembed_testkit::{TinyArch, TinySpec, tiny, tiny_prompt, tiny_spec};

use crate::common::{TinyModels, load};

fn ids(n: usize) -> Vec<TokenId> {
    tiny_prompt(n).into_iter().map(TokenId).collect()
}

/// The bits of the logits behind some tokens.
fn eval(engine: &mut Engine, id: SequenceId, tokens: &[TokenId]) -> Vec<u32> {
    let mut bits = Vec::new();
    let each = &mut |row: modelembed::Row<'_>| bits = row.logits.iter().map(|x| x.to_bits()).collect();
    engine.step(&[Run::new(id, tokens)], each).expect("evaluates");
    bits
}

/// The same in an engine of its own.
fn alone(model: &Arc<Model>, cache_type: CacheType, tokens: &[TokenId]) -> Vec<u32> {
    let options = EngineOptions::default().ctx_tokens(tokens.len()).cache_type(cache_type);
    let mut engine = Engine::new(model, &options).expect("an engine");
    let id = engine.add().expect("a sequence");
    eval(&mut engine, id, tokens)
}

fn model(dir: &TinyModels, name: &str) -> Arc<Model> {
    load(&dir.write(name, &tiny(&tiny_spec(name))), &LoadOptions::default().threads(2))
}

#[test]
fn forks_go_their_own_ways() {
    let dir = TinyModels::new();
    let (ids, other) = (ids(700), TokenId(9));
    for (name, cache_type) in
        [("llama", CacheType::I16), ("q4_k", CacheType::Q8), ("gemma3", CacheType::F16), ("qwen3", CacheType::F32)]
    {
        let model = model(&dir, name);
        let options = EngineOptions::default().sequences(3).ctx_tokens(700).cache_type(cache_type);
        let mut engine = Engine::new(&model, &options).expect("an engine");
        let first = engine.add().expect("a sequence");
        eval(&mut engine, first, &ids[..600]);
        // On a page's edge, within a page, and at the very end.
        for len in [256, 300, 512, 600, 1, 0] {
            let fork = engine.fork(first, len).expect("a fork");
            assert_eq!(engine.tokens(fork).unwrap(), &ids[..len]);
            let mut text = ids[..len].to_vec();
            for tokens in [&[other][..], &ids[300..360]] {
                text.extend_from_slice(tokens);
                let got = eval(&mut engine, fork, tokens);
                assert!(got == alone(&model, cache_type, &text), "{name}: {len} tokens and {}", text.len() - len);
            }
            // A fork of a fork, after which both lose their parents.
            let second = engine.fork(fork, len + 1).expect("a fork");
            engine.end(fork).expect("ends");
            let mut text = [&ids[..len], &[other]].concat();
            text.extend_from_slice(&ids[..3]);
            assert!(eval(&mut engine, second, &ids[..3]) == alone(&model, cache_type, &text), "{name}: {len}");
            engine.end(second).expect("ends");
        }
        // The first one is as it was, and goes on where a fork has been.
        let fork = engine.fork(first, 512).expect("a fork");
        engine.truncate(first, 400).expect("goes back");
        let got = eval(&mut engine, first, &ids[..200]);
        assert!(got == alone(&model, cache_type, &[&ids[..400], &ids[..200]].concat()), "{name}");
        let got = eval(&mut engine, fork, &ids[512..520]);
        assert!(got == alone(&model, cache_type, &ids[..520]), "{name}: what was shared did not change");
        assert!(engine.fork(first, 601).is_err());
    }
}

#[test]
fn sealed_pages_are_attached_and_travel_as_bytes() {
    let dir = TinyModels::new();
    let ids = ids(800);
    for name in ["llama", "gemma3", "q4_1"] {
        let model = model(&dir, name);
        let options = EngineOptions::default().sequences(2).ctx_tokens(800).kv_tokens(4096);
        let mut engine = Engine::new(&model, &options).expect("an engine");
        let first = engine.add().expect("a sequence");
        eval(&mut engine, first, &ids[..700]);
        let pages = engine.sealed(first).expect("pages");
        assert_eq!(pages.iter().map(SealedPage::number).collect::<Vec<_>>(), [0, 1]);
        engine.end(first).expect("ends");
        let want = alone(&model, engine.cache_type(), &ids[..640]);
        let second = engine.attach(&ids[..512], &pages).expect("attaches");
        assert!(eval(&mut engine, second, &ids[512..640]) == want, "{name}");

        let bytes: Vec<Vec<Option<Vec<u8>>>> =
            pages.iter().map(|page| page.bytes().map(|bytes| bytes.map(<[u8]>::to_vec)).collect()).collect();
        let mut fresh = Engine::new(&model, &options).expect("an engine");
        let import = |fresh: &Engine, number: usize, groups: &[Option<Vec<u8>>]| {
            let groups: Vec<Option<&[u8]>> = groups.iter().map(|bytes| bytes.as_deref()).collect();
            fresh.import(number, &groups)
        };
        let imported: Vec<SealedPage> =
            bytes.iter().enumerate().map(|(i, groups)| import(&fresh, i, groups).expect("a page")).collect();
        let third = fresh.attach(&ids[..512], &imported).expect("attaches");
        assert!(eval(&mut fresh, third, &ids[512..640]) == want, "{name}: through bytes");

        // What does not fit is refused.
        let refusals = [
            fresh.attach(&ids[..512], &pages).err(),
            fresh.attach(&ids[..256], &imported).err(),
            fresh.attach(&ids[..513], &imported).err(),
            fresh.attach(&ids[..512], &[imported[1].clone(), imported[0].clone()]).err(),
            fresh.attach(&[TokenId(u32::MAX); 256], &imported[..1]).err(),
            import(&fresh, 0, &[Some(vec![0; 7])]).err(),
            import(&fresh, 0, &[]).err(),
        ];
        for (i, refusal) in refusals.into_iter().enumerate() {
            assert!(refusal.is_some(), "{name}: {i}");
        }
    }
}

#[test]
fn a_prefix_is_attached_up_to_any_of_its_tokens() {
    let dir = TinyModels::new();
    let (ids, other) = (ids(700), TokenId(9));
    for name in ["llama", "gemma3", "q4_k"] {
        let model = model(&dir, name);
        let options = EngineOptions::default().sequences(2).ctx_tokens(700).kv_tokens(4096);
        let mut engine = Engine::new(&model, &options).expect("an engine");
        let first = engine.add().expect("a sequence");
        eval(&mut engine, first, &ids[..600]);
        let pages = engine.prefix(first, 590).expect("pages");
        let lens: Vec<usize> = pages.iter().map(SealedPage::n_tokens).collect();
        assert_eq!(lens, [256, 256, 78]);
        // The first one goes on as if nobody had its last page.
        let got = eval(&mut engine, first, &ids[600..620]);
        assert!(got == alone(&model, engine.cache_type(), &ids[..620]), "{name}");
        for len in [590, 560, 513, 512, 511, 300, 257, 256, 255, 3] {
            let second = engine.attach(&ids[..len], &pages[..len.div_ceil(256)]).expect("attaches");
            let want = alone(&model, engine.cache_type(), &[&ids[..len], &[other]].concat());
            assert!(eval(&mut engine, second, &[other]) == want, "{name}: {len}");
            engine.end(second).expect("ends");
        }
        assert!(matches!(engine.attach(&ids[..591], &pages), Err(Error::Page(_))), "{name}");
        assert!(matches!(engine.prefix(first, 621), Err(Error::NoSuchTokens { end: 621, used: 620, .. })), "{name}");
    }
}

#[test]
fn an_engine_keeps_to_bytes_of_its_own_and_counts_pages() {
    let dir = TinyModels::new();
    let model = model(&dir, "llama");
    let options = EngineOptions::default().sequences(2).ctx_tokens(1000);
    let free = Engine::new(&model, &options).expect("an engine").page_use();
    assert_eq!((free.used, free.free, free.total), (0, 10, 10));
    let page_bytes = {
        let mut engine = Engine::new(&model, &options).expect("an engine");
        let id = engine.add().expect("a sequence");
        eval(&mut engine, id, &ids(1));
        model.runtime().kv_bytes()
    };
    let mut engine = Engine::new(&model, &options.kv_bytes(3 * page_bytes + 1)).expect("an engine");
    let (a, b) = (engine.add().expect("a sequence"), engine.add().expect("a sequence"));
    eval(&mut engine, a, &ids(300));
    let seen = engine.page_use();
    assert_eq!((seen.used, seen.free, seen.total), (2, 1, 3));
    let long = ids(300);
    let error = engine.step(&[Run::new(b, &long)], &mut |_| {}).expect_err("four pages");
    let Error::OutOfPages { budget_bytes, .. } = error else { panic!("{error}") };
    assert_eq!(budget_bytes, 3 * page_bytes + 1);
    assert_eq!(model.runtime().kv_bytes(), 2 * page_bytes, "what was taken came back, to both");
    engine.end(a).expect("ends");
    eval(&mut engine, b, &long);
}

#[test]
fn drafts_are_not_sealed_before_they_are_accepted() {
    let dir = TinyModels::new();
    let model = model(&dir, "llama");
    let ids = ids(300);
    let mut engine = Engine::new(&model, &EngineOptions::default().sequences(2).ctx_tokens(300)).expect("an engine");
    let id = engine.add().expect("a sequence");
    eval(&mut engine, id, &ids[..254]);
    let drafted = Run { draft_tokens: 3, ..Run::new(id, &ids[254..258]) };
    engine.step(&[drafted], &mut |_| {}).expect("evaluates");
    assert!(engine.sealed(id).expect("pages").is_empty(), "255 tokens are certain");
    engine.truncate(id, 256).expect("two come true");
    assert_eq!(engine.sealed(id).expect("pages").len(), 1);
    // A page that was handed out does not change when its sequence goes back and on.
    let page = engine.sealed(id).expect("pages");
    let before: Vec<u8> = page[0].bytes().flatten().flatten().copied().collect();
    engine.truncate(id, 200).expect("goes back");
    eval(&mut engine, id, &ids[..100]);
    assert!(page[0].bytes().flatten().flatten().eq(&before));
}

#[test]
fn no_memory_left_is_said_before_anything_is_computed() {
    let dir = TinyModels::new();
    let path = dir.write("llama", &tiny(&tiny_spec("llama")));
    let unlimited = load(&path, &LoadOptions::default().threads(2));
    let page_bytes = {
        let mut engine = Engine::new(&unlimited, &EngineOptions::default().ctx_tokens(300)).expect("an engine");
        let id = engine.add().expect("a sequence");
        eval(&mut engine, id, &ids(1));
        unlimited.runtime().kv_bytes()
    };
    // Three pages for two models.
    let runtime =
        Runtime::new(&RuntimeOptions::default().threads(2).kv_budget_bytes(3 * page_bytes)).expect("a runtime");
    let options = LoadOptions::default().runtime(Arc::clone(&runtime));
    let models = [load(&path, &options), load(&path, &options)];
    let mut engines = models
        .each_ref()
        .map(|m| Engine::new(m, &EngineOptions::default().sequences(2).ctx_tokens(700)).expect("an engine"));
    let a = engines[0].add().expect("a sequence");
    let b = engines[1].add().expect("a sequence");
    eval(&mut engines[0], a, &ids(256));
    eval(&mut engines[1], b, &ids(200));
    let c = engines[1].add().expect("a sequence");
    let (short, long) = (ids(10), ids(300));
    let error = engines[1]
        .step(&[Run::new(b, &short), Run::new(c, &long)], &mut |_| panic!("nothing is computed"))
        .expect_err("four pages");
    let Error::OutOfPages { used_bytes, wanted_bytes, budget_bytes } = error else { panic!("{error}") };
    assert_eq!((used_bytes, wanted_bytes, budget_bytes), (3 * page_bytes, page_bytes, 3 * page_bytes));
    assert_eq!(runtime.kv_bytes(), 2 * page_bytes, "what was taken came back");
    assert_eq!((engines[1].tokens(b).unwrap().len(), engines[1].tokens(c).unwrap().len()), (200, 0));
    // With the other engine's page there is room.
    engines[0].end(a).expect("ends");
    assert!(eval(&mut engines[1], c, &long) == alone(&unlimited, CacheType::I16, &long));
    assert!(eval(&mut engines[1], b, &short) == alone(&unlimited, CacheType::I16, &[ids(200), short].concat()));
}

#[test]
fn windows_give_pages_back_and_say_where_they_cannot_return() {
    let dir = TinyModels::new();
    // One layer of seven sees everything, the others 16 tokens.
    let spec = TinySpec { sliding_window: Some(16), ..TinySpec::new("gemma3", TinyArch::Gemma3) };
    let model = load(&dir.write("gemma3", &tiny(&spec)), &LoadOptions::default().threads(2));
    let ids = ids(2200);
    let options = EngineOptions::default().sequences(2).ctx_tokens(2400);
    let mut engine = Engine::new(&model, &options).expect("an engine");
    let id = engine.add().expect("a sequence");
    for part in ids.chunks(300) {
        eval(&mut engine, id, part);
    }
    // 1024 tokens and the window are kept, in whole pages: from 1159 on, so from page 4 on.
    let pages = engine.sealed(id).expect("pages");
    let missing: Vec<usize> = pages.iter().map(|page| page.bytes().filter(Option::is_none).count()).collect();
    assert_eq!(missing, [1, 1, 1, 1, 0, 0, 0, 0]);
    for (len, can) in [(2200, true), (1100, true), (1039, true), (1038, false), (17, false), (0, true)] {
        assert_eq!(engine.can_return(id, len).expect("a sequence"), can, "{len}");
    }
    let error = engine.truncate(id, 500).expect_err("forgotten");
    assert!(matches!(error, Error::CannotReturn { len: 500, used: 2200 }), "{error}");
    assert!(matches!(engine.fork(id, 500), Err(Error::CannotReturn { .. })));
    assert_eq!(engine.tokens(id).unwrap().len(), 2200, "as it was");
    engine.truncate(id, 1100).expect("goes back");
    assert!(eval(&mut engine, id, &ids[..5]) == alone(&model, CacheType::I16, &[&ids[..1100], &ids[..5]].concat()));
    // From nothing it begins anew.
    engine.truncate(id, 0).expect("goes back");
    assert!(eval(&mut engine, id, &ids[..40]) == alone(&model, CacheType::I16, &ids[..40]));
}

#[test]
fn tokens_are_removed_over_pages_and_windows() {
    let dir = TinyModels::new();
    // With one layer a moved key is what it would have been, but for a second rounding.
    for (arch, cache_type) in [(TinyArch::Llama, CacheType::F32), (TinyArch::Gemma3, CacheType::F32)] {
        let spec = TinySpec { n_layer: 1, ..TinySpec::new("one-layer", arch) };
        let options = LoadOptions::default().exact(true).threads(2);
        let model = load(&dir.write(spec.name, &tiny(&spec)), &options);
        let ids = ids(1800);
        for (n, range) in
            [(700, 100..400), (700, 255..257), (600, 0..256), (1700, 10..1500), (1700, 3..1699), (300, 7..7)]
        {
            let options = EngineOptions::default().sequences(2).ctx_tokens(1800).cache_type(cache_type);
            let mut engine = Engine::new(&model, &options).expect("an engine");
            let id = engine.add().expect("a sequence");
            for part in ids[..n].chunks(256) {
                eval(&mut engine, id, part);
            }
            // What another sequence shares stays as it is.
            let fork = engine.fork(id, n).expect("a fork");
            let rest: Vec<TokenId> = ids[..range.start].iter().chain(&ids[range.end..n]).copied().collect();
            match engine.remove(id, range.clone()) {
                Ok(()) => {
                    assert_eq!(engine.tokens(id).unwrap(), rest);
                    let got = eval(&mut engine, id, &ids[n..n + 1]);
                    let want = alone(&model, cache_type, &[&rest[..], &ids[n..n + 1]].concat());
                    let far = got.iter().zip(&want).map(|(a, b)| (f32::from_bits(*a) - f32::from_bits(*b)).abs());
                    let far = far.fold(0.0, f32::max);
                    assert!(far < 2e-3, "{arch:?}: {n} without {range:?}: {far}");
                }
                Err(error) => {
                    // The window's tokens lie in what was given back.
                    assert!(matches!(error, Error::CannotReturn { .. }), "{error}");
                    assert!(arch == TinyArch::Gemma3 && range == (3..1699), "{arch:?}: {range:?}");
                    assert_eq!(engine.tokens(id).unwrap().len(), n);
                }
            }
            let got = eval(&mut engine, fork, &ids[n..n + 1]);
            assert!(got == alone(&model, cache_type, &ids[..=n]), "{arch:?}: the fork of {n}");
        }
        let mut engine = Engine::new(&model, &EngineOptions::default().ctx_tokens(10)).expect("an engine");
        let id = engine.add().expect("a sequence");
        assert!(engine.remove(id, 0..1).is_err());
    }
}

#[test]
fn windows_give_pages_back_at_once_where_no_page_is_left() {
    let dir = TinyModels::new();
    let path = dir.write("gemma3", &tiny(&tiny_spec("gemma3")));
    let unlimited = load(&path, &LoadOptions::default().threads(2));
    let ids = ids(1030);
    let run = |model: &Arc<Model>, n: usize| -> Result<u64, Error> {
        let mut engine = Engine::new(model, &EngineOptions::default().ctx_tokens(1100))?;
        let id = engine.add()?;
        for part in ids[..n].chunks(128) {
            engine.step(&[Run::new(id, part)], &mut |_| {})?;
        }
        let fork = engine.fork(id, n).err();
        assert!(matches!(fork, Some(Error::TooManySequences { .. })), "{fork:?}");
        Ok(model.runtime().kv_bytes())
    };
    let plenty = run(&unlimited, 1030).expect("evaluates");
    // Five pages of each group; a window of 16 needs one or two of its.
    let budget = plenty * 4 / 5;
    let runtime = Runtime::new(&RuntimeOptions::default().threads(2).kv_budget_bytes(budget)).expect("a runtime");
    let tight = load(&path, &LoadOptions::default().runtime(runtime));
    assert!(run(&tight, 1030).expect("windows give way") <= budget);
}

#[test]
fn pages_behind_removed_tokens_are_not_handed_out() {
    let dir = TinyModels::new();
    let model = model(&dir, "llama");
    let ids = ids(1000);
    let mut engine = Engine::new(&model, &EngineOptions::default().sequences(2).ctx_tokens(1000)).expect("an engine");
    let id = engine.add().expect("a sequence");
    eval(&mut engine, id, &ids);
    engine.remove(id, 300..310).expect("moves");
    let pages = |engine: &Engine, id| engine.sealed(id).expect("pages").len();
    assert_eq!(pages(&engine, id), 1, "the second one holds moved keys");
    let fork = engine.fork(id, 800).expect("a fork");
    assert_eq!(pages(&engine, fork), 1);
    // Nor after they were on disk.
    let mut file = Vec::new();
    engine.save(fork, None, b"", &mut file).expect("saves");
    engine.truncate(fork, 0).expect("goes back");
    engine.restore(fork, &mut &file[..]).expect("restores");
    assert_eq!(pages(&engine, fork), 1);
    // Back to where all is as it was computed.
    engine.truncate(id, 290).expect("goes back");
    eval(&mut engine, id, &ids[..400]);
    assert_eq!(pages(&engine, id), 2);
}

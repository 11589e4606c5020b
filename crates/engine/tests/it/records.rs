//! States of recurrences: they change at multiples of 64 positions, and every way to go on from
//! somewhere else gives the bits of a sequence that came there on its own.

use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use modelembed::{
    CacheType, Chat, ChatTemplate, Engine, EngineOptions, Error, GenerateOptions, LoadOptions, Model, Row, Run,
    Sampler, SamplerOptions, SequenceId, SpecialTokens, TokenId, Wants, generate,
};
use modelembed_testkit::{TINY_EOS, tiny, tiny_prompt, tiny_spec};

use crate::common::{TinyModels, load, session};

const NAMES: [&str; 5] = ["falcon-h1", "falcon-h1-odd", "nemotron-h", "qwen35", "lfm2"];

fn ids(n: usize) -> Vec<TokenId> {
    tiny_prompt(n).into_iter().map(TokenId).collect()
}

fn model(dir: &TinyModels, name: &str) -> Arc<Model> {
    load(&dir.write(name, &tiny(&tiny_spec(name))), &LoadOptions::default().threads(2))
}

fn engine(model: &Arc<Model>, sequences: usize) -> Engine {
    Engine::new(model, &EngineOptions::default().sequences(sequences).ctx_tokens(900)).expect("an engine")
}

/// The bits of the logits behind each token.
fn eval(engine: &mut Engine, id: SequenceId, tokens: &[TokenId]) -> Vec<Vec<u32>> {
    let mut bits = Vec::new();
    let each = &mut |row: Row<'_>| bits.push(row.logits.iter().map(|x| x.to_bits()).collect());
    engine.step(&[Run::new(id, tokens).wants(Wants::All)], each).expect("evaluates");
    bits
}

/// The same of a sequence of its own.
fn alone(model: &Arc<Model>, tokens: &[TokenId]) -> Vec<Vec<u32>> {
    let mut engine = engine(model, 1);
    let id = engine.add().expect("a sequence");
    eval(&mut engine, id, tokens)
}

#[test]
fn a_sequence_returns_to_where_its_record_begins_and_to_snapshots() {
    let dir = TinyModels::new();
    let ids = ids(420);
    for name in NAMES {
        let model = model(&dir, name);
        let want = alone(&model, &ids);
        let mut engine = engine(&model, 1);
        let id = engine.add().expect("a sequence");
        eval(&mut engine, id, &ids[..70]);
        engine.snapshot(id).expect("keeps the state");
        eval(&mut engine, id, &ids[70..75]);
        eval(&mut engine, id, &ids[75..330]);
        let can: Vec<usize> = (0..=330).filter(|&len| engine.can_return(id, len).unwrap()).collect();
        let expected: Vec<usize> = [0].into_iter().chain(64..=127).chain(320..=330).collect();
        assert_eq!(can, expected, "{name}");
        assert!(matches!(engine.truncate(id, 200), Err(Error::CannotReturn { len: 200, used: 330 })));
        assert!(eval(&mut engine, id, &ids[330..340]) == want[330..340], "{name}: a refusal changes nothing");
        for (len, n) in [(337, 40), (320, 63), (72, 170), (127, 200), (70, 9), (64, 300), (0, 140)] {
            engine.truncate(id, len).expect("returns");
            for part in ids[len..len + n].chunks(61) {
                let at = engine.tokens(id).unwrap().len();
                assert!(eval(&mut engine, id, part) == want[at..at + part.len()], "{name}: from {len} at {at}");
            }
        }
    }
}

#[test]
fn drafts_may_cross_a_boundary_and_be_taken_back() {
    let dir = TinyModels::new();
    let ids = ids(300);
    for name in NAMES {
        let model = model(&dir, name);
        let want = alone(&model, &ids);
        let mut engine = engine(&model, 1);
        let id = engine.add().expect("a sequence");
        for n_before in [50, 57, 60, 63, 64, 127, 191] {
            // One token and seven drafts, of which some are wrong.
            for n_right in [0, 3, 6, 7] {
                engine.truncate(id, 0).expect("begins anew");
                eval(&mut engine, id, &ids[..n_before]);
                let mut tokens = ids[n_before..n_before + 8].to_vec();
                tokens[1 + n_right..].fill(TokenId(11));
                let run = Run { draft_tokens: 7, ..Run::new(id, &tokens) };
                engine.step(&[run], &mut |_| {}).expect("evaluates");
                let len = n_before + 1 + n_right;
                engine.truncate(id, len).expect("takes drafts back");
                let got = eval(&mut engine, id, &ids[len..len + 60]);
                assert!(got == want[len..len + 60], "{name}: {n_before}, {n_right}");
            }
        }
    }
}

#[test]
fn a_step_that_is_thrown_away_leaves_every_state() {
    let dir = TinyModels::new();
    let (ids, other) = (ids(300), vec![TokenId(7); 300]);
    for name in NAMES {
        let model = model(&dir, name);
        let want = alone(&model, &ids);
        let mut engine = engine(&model, 2);
        let (a, b) = (engine.add().unwrap(), engine.add().unwrap());
        eval(&mut engine, a, &ids[..100]);
        let set = AtomicBool::new(true);
        for n in [1, 27, 28, 29, 92, 200] {
            // In company that goes on, and alone.
            let cancelled = Run { cancel: Some(&set), ..Run::new(a, &other[..n]) };
            engine.step(&[cancelled, Run::new(b, &ids[..n])], &mut |_| {}).expect("one goes on");
            assert!(matches!(engine.step(&[cancelled], &mut |_| {}), Err(Error::Cancelled)));
            engine.truncate(b, 0).expect("goes back");
            let fork = engine.can_return(a, 100).unwrap();
            assert!(fork && engine.tokens(a).unwrap().len() == 100, "{name}: {n}");
        }
        assert!(eval(&mut engine, a, &ids[100..]) == want[100..], "{name}");
    }
}

#[test]
fn forks_go_their_own_ways_and_states_travel() {
    let dir = TinyModels::new();
    let (ids, other) = (ids(700), vec![TokenId(7); 80]);
    for name in NAMES {
        let model = model(&dir, name);
        let want = alone(&model, &ids);
        let mut engine = engine(&model, 3);
        let first = engine.add().expect("a sequence");
        eval(&mut engine, first, &ids[..256]);
        engine.snapshot(first).expect("keeps the state");
        eval(&mut engine, first, &ids[256..512]);
        engine.snapshot(first).expect("keeps the state");
        eval(&mut engine, first, &ids[512..600]);
        for len in [600, 580, 512, 256, 0] {
            let fork = engine.fork(first, len).expect("a fork");
            let text = [&ids[..len], &other].concat();
            assert!(eval(&mut engine, fork, &other) == alone(&model, &text)[len..], "{name}: {len}");
            engine.end(fork).expect("ends");
        }
        assert!(matches!(engine.fork(first, 400), Err(Error::CannotReturn { .. })), "{name}");
        let pages = engine.sealed(first).expect("pages");
        assert!(eval(&mut engine, first, &ids[600..]) == want[600..], "{name}: the first one is as it was");
        for n in [1, 2] {
            let second = engine.attach(&ids[..n * 256], &pages[..n]).expect("attaches");
            assert!(eval(&mut engine, second, &ids[n * 256..700]) == want[n * 256..], "{name}: {n} pages");
            engine.end(second).expect("ends");
        }
        // Through bytes.
        let mut fresh = self::engine(&model, 2);
        let imported: Vec<_> = pages
            .iter()
            .map(|page| fresh.import(page.number(), &page.bytes().collect::<Vec<_>>()).expect("a page"))
            .collect();
        let third = fresh.attach(&ids[..512], &imported).expect("attaches");
        assert!(eval(&mut fresh, third, &ids[512..700]) == want[512..], "{name}: through bytes");
        // Without a state behind the page there is nothing to go on with.
        let parts: Vec<_> = pages[0].bytes().collect();
        let (last, rest) = parts.split_last().expect("parts");
        assert!(last.is_some());
        let bare = fresh.import(0, &[rest, &[None]].concat()).expect("a page");
        assert!(matches!(fresh.attach(&ids[..256], &[bare]), Err(Error::CannotReturn { .. })), "{name}");
    }
}

#[test]
fn a_prefix_has_the_state_behind_it() {
    let dir = TinyModels::new();
    let (ids, other) = (ids(500), vec![TokenId(7); 80]);
    for name in NAMES {
        let model = model(&dir, name);
        let mut engine = engine(&model, 3);
        let first = engine.add().expect("a sequence");
        eval(&mut engine, first, &ids[..300]);
        engine.snapshot(first).expect("keeps the state");
        eval(&mut engine, first, &ids[300..450]);
        for (len, back) in [(450, 449usize), (450, 448), (300, 300), (300, 256)] {
            let pages = engine.prefix(first, len).expect("pages");
            let pages = &pages[..back.div_ceil(256)];
            let second = engine.attach(&ids[..back], pages).expect("attaches");
            let text = [&ids[..back], &other].concat();
            assert!(eval(&mut engine, second, &other) == alone(&model, &text)[back..], "{name}: {back} of {len}");
            engine.end(second).expect("ends");
        }
        assert!(matches!(engine.prefix(first, 400), Err(Error::CannotReturn { .. })), "{name}");
        let pages = engine.prefix(first, 450).expect("pages");
        assert!(matches!(engine.attach(&ids[..440], &pages), Err(Error::CannotReturn { .. })), "{name}");
        assert!(eval(&mut engine, first, &ids[450..]) == alone(&model, &ids)[450..], "{name}: as it was");
    }
}

#[test]
fn a_saved_context_holds_its_states() {
    let dir = TinyModels::new();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("context");
    let ids = ids(400);
    for name in NAMES {
        for n in [1, 63, 64, 65, 300] {
            let model = model(&dir, name);
            let mut first = session(&model, 400);
            first.eval(&ids[..n]).expect("evaluates");
            first.save(&file, &[]).expect("saves");
            let want: Vec<u32> = first.eval(&ids[n..n + 70]).expect("evaluates").iter().map(|x| x.to_bits()).collect();
            let mut second = session(&model, 400);
            second.restore(&file).expect("restores");
            let got: Vec<u32> = second.eval(&ids[n..n + 70]).expect("evaluates").iter().map(|x| x.to_bits()).collect();
            assert!(got == want, "{name}: {n}");
            // A file whose last byte of a state was changed.
            let mut bytes = std::fs::read(&file).expect("a file");
            let at = bytes.iter().rposition(|&b| b != 0).expect("a byte");
            bytes[at] ^= 1;
            std::fs::write(&file, bytes).expect("written");
            second.clear();
            let error = second.restore(&file).expect_err("a refusal").to_string();
            assert!(error.contains("were changed"), "{error}");
        }
    }
}

#[test]
fn tokens_within_a_state_cannot_be_removed() {
    let dir = TinyModels::new();
    let ids = ids(100);
    let model = model(&dir, "nemotron-h");
    let want = alone(&model, &ids);
    let mut engine = engine(&model, 1);
    let id = engine.add().expect("a sequence");
    eval(&mut engine, id, &ids[..90]);
    assert!(matches!(engine.remove(id, 3..9), Err(Error::CannotReturn { len: 3, used: 90 })));
    assert!(eval(&mut engine, id, &ids[90..]) == want[90..]);
}

#[test]
fn states_count_as_memory_and_are_given_back() {
    let dir = TinyModels::new();
    let model = model(&dir, "falcon-h1");
    let options = EngineOptions::default().sequences(2).ctx_tokens(900).cache_type(CacheType::F32);
    let mut engine = Engine::new(&model, &options).expect("an engine");
    let runtime = Arc::clone(model.runtime());
    let (a, b) = (engine.add().unwrap(), engine.add().unwrap());
    eval(&mut engine, a, &ids(60));
    let one = runtime.kv_bytes();
    eval(&mut engine, b, &ids(60));
    assert_eq!(runtime.kv_bytes(), 2 * one);
    eval(&mut engine, b, &ids(180));
    assert_eq!(runtime.kv_bytes(), 2 * one, "the record of an earlier chunk was given back");
    engine.end(b).expect("ends");
    assert_eq!(runtime.kv_bytes(), one);
    drop(engine);
    assert_eq!(runtime.kv_bytes(), 0);
}

#[test]
fn a_chat_goes_on_where_a_question_ends_though_its_answer_is_written_otherwise() {
    let dir = TinyModels::new();
    // Of an answer the first letters come back only, as if the rest were reasoning.
    let template = "{% for m in messages %}{% if m.role == 'user' %}[{{ m.content }}]{% else %}{{ m.content[:2] }}|\
                    {% endif %}{% endfor %}{% if add_generation_prompt %}:{% endif %}";
    let greedy = SamplerOptions::default().temp(0.0);
    for name in NAMES {
        let model = model(&dir, name);
        let template = ChatTemplate::new(template, SpecialTokens::default()).expect("a template");
        let options = GenerateOptions::default().max_tokens(100);
        let mut sampler = Sampler::new(greedy).unwrap();
        sampler.set_logit_biases([(TokenId(TINY_EOS), f32::NEG_INFINITY)]); // long answers
        let mut chat = Chat::new(session(&model, 900), sampler.clone(), template, options.clone());
        let first = "a long question ".repeat(12);
        let asked = chat.send(&first, |_| std::ops::ControlFlow::Continue(())).expect("answers").stats.prompt_tokens;
        for question in ["and the next one", "the last"] {
            let before = chat.session().tokens().len();
            let turn = chat.send(question, |_| std::ops::ControlFlow::Continue(())).expect("answers");
            assert!(!turn.started_over && asked > 90 && before > asked + 64, "{name}: {asked}, {before}");
            let n_prompt = turn.stats.prompt_tokens;
            assert!(n_prompt < 40, "{name}: {n_prompt} tokens of {before} were evaluated for {question:?}");
            // The same as a context that was evaluated as a whole.
            let tokens = chat.session().tokens();
            let end = tokens.len() + usize::from(turn.stats.pending.is_some()) - turn.stats.generated_tokens;
            let mut other = session(&model, 900);
            let mut text = String::new();
            let add = |piece: &str| {
                text += piece;
                std::ops::ControlFlow::Continue(())
            };
            generate(&mut other, &mut sampler.clone(), &tokens[..end], &options, add).expect("generates");
            assert_eq!(text, turn.answer, "{name}: {question:?}");
        }
    }
}

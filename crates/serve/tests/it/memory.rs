//! Admission by pages: who gives way when they run out, and who does not.

use std::sync::Arc;

use modelembed::{Engine, EngineOptions, LoadMode, Model, Run, RuntimeOptions};
use modelembed_serve::{EndReason, Options, Request};

use crate::common::{Read, check_idle, greedy, load, model, options, prompt, read, serve, stop, tiny_file};

/// Bytes of a page of a model, with a record if it has some.
fn page_bytes(model: &Arc<Model>) -> u64 {
    let mut engine = Engine::new(model, &EngineOptions::default().ctx_tokens(1024)).expect("an engine");
    let id = engine.add().expect("a sequence");
    engine.step(&[Run::new(id, &prompt(1, 0))], &mut |_| {}).expect("evaluates");
    model.runtime().kv_bytes()
}

/// What each of some requests gets alone.
fn each_alone(model: &Arc<Model>, requests: &[Request]) -> Vec<Read> {
    let handle = serve(model, options());
    let all = requests.iter().map(|r| read(handle.submit(r.clone()).expect("taken")).without_usage()).collect();
    stop(&handle);
    all
}

#[test]
fn answers_that_go_back_to_the_queue_have_the_same_bits() {
    for name in ["llama", "gemma3", "falcon-h1"] {
        let model = model(name);
        // Each grows over some pages; some draw at random, and look back at what was said.
        let requests: Vec<Request> = (0..7)
            .map(|i| {
                let mut request = greedy(prompt(60 + 90 * (i % 5), i as u32), 320);
                if i % 2 == 1 {
                    let sampling = modelembed::SamplerOptions::NEUTRAL.temp(0.9).seed(i as u64);
                    request.sampling = sampling.repeat_penalty(1.2).repeat_last_n(300);
                }
                request
            })
            .collect();
        let want = each_alone(&model, &requests);
        // A page of the third one counts with its state.
        for n_pages in [6, 9] {
            let handle = serve(&model, options().kv_bytes(n_pages * page_bytes(&model)));
            assert!(handle.limits().ctx_tokens >= 740, "{name}: room for each alone");
            let answers: Vec<_> = requests.iter().map(|r| handle.submit(r.clone()).expect("taken")).collect();
            for (i, (answer, want)) in answers.into_iter().zip(&want).enumerate() {
                assert_eq!(&read(answer).without_usage(), want, "{name}: {i} of {n_pages} pages");
            }
            let totals = handle.status().totals;
            assert!(totals.preempted > 0, "{name}: {totals:?}");
            assert_eq!(totals.completion_tokens, 7 * 320, "{name}: nothing is written twice");
            check_idle(&handle);
            stop(&handle);
        }
    }
}

#[test]
fn memory_for_one_context_is_enough_for_any_number_of_requests() {
    let model = model("llama");
    let page = page_bytes(&model);
    let requests: Vec<Request> = (0..8).map(|i| greedy(prompt(200, i), 300)).collect();
    let want = each_alone(&model, &requests);
    // Two pages for a context, and one beside them.
    let handle = serve(&model, Options::default().kv_bytes(3 * page));
    assert_eq!(handle.limits().ctx_tokens, 512);
    let answers: Vec<_> = requests.iter().map(|r| handle.submit(r.clone()).expect("taken")).collect();
    for (answer, want) in answers.into_iter().zip(&want) {
        assert_eq!(&read(answer).without_usage(), want);
    }
    check_idle(&handle);
    stop(&handle);
}

#[test]
fn the_longest_request_fits_alone_and_among_others() {
    for name in ["llama", "gemma3", "falcon-h1", "nemotron-h"] {
        let model = model(name);
        // With recurrences a page counts with its state, which is as large as several pages.
        let n_pages = if model.program().records().is_empty() { 9 } else { 7 };
        let handle = serve(&model, Options::default().ctx_tokens(4000).kv_bytes(n_pages * page_bytes(&model)));
        let limit = handle.limits().ctx_tokens;
        assert!(limit >= 512, "{name}: {limit}");
        let requests: Vec<Request> = (0..3).map(|i| greedy(prompt(limit - 30, i), 30)).collect();
        for n in [1, 3] {
            let answers: Vec<_> = requests[..n].iter().map(|r| handle.submit(r.clone()).expect("taken")).collect();
            for answer in answers {
                assert_eq!(read(answer).end.reason, EndReason::Length, "{name}: of {limit}");
            }
        }
        check_idle(&handle);
        stop(&handle);
    }
}

#[test]
fn who_came_first_is_never_sent_back() {
    let model = model("llama");
    let page = page_bytes(&model);
    let handle = serve(&model, options().kv_bytes(7 * page));
    handle.allow_steps(Some(0));
    let first = handle.submit(greedy(prompt(300, 1), 700)).expect("taken");
    let second = handle.submit(greedy(prompt(300, 2), 700)).expect("taken");
    handle.allow_steps(None);
    // Tokens of the first come step by step, whatever the second does.
    let first = read(first);
    assert_eq!((first.tokens.len(), first.end.reason), (700, EndReason::Length));
    let at_first_end = handle.status().totals;
    assert!(at_first_end.preempted >= 1, "{at_first_end:?}");
    assert!(at_first_end.steps < 700 + 100, "a row in every step: {at_first_end:?}");
    assert_eq!(read(second).tokens.len(), 700);
    check_idle(&handle);
}

#[test]
fn kept_prefixes_give_way_to_answers() {
    let model = model("llama");
    let page = page_bytes(&model);
    let handle = serve(&model, options().kv_bytes(8 * page));
    for i in 0..6 {
        let answer = read(handle.submit(greedy(prompt(600, i), 20)).expect("taken"));
        assert_eq!(answer.tokens.len(), 20);
    }
    let totals = handle.status().totals;
    assert!(totals.evicted_pages > 0 && totals.preempted == 0, "{totals:?}");
    // The last one is still there, the first one not.
    assert_eq!(read(handle.submit(greedy(prompt(600, 5), 20)).expect("taken")).end.usage.cached, 599);
    assert_eq!(read(handle.submit(greedy(prompt(600, 0), 20)).expect("taken")).end.usage.cached, 0);
    check_idle(&handle);
}

#[test]
fn memory_that_another_engine_has_is_said_to_be_lacking() {
    let (_dir, path) = tiny_file("llama");
    let page = page_bytes(&load(&path, LoadMode::Map, RuntimeOptions::default().threads(2)));
    let runtime = RuntimeOptions::default().threads(2).kv_budget_bytes(4 * page);
    let model = load(&path, LoadMode::Map, runtime);
    let handle = serve(&model, options());
    let mut other = Engine::new(&model, &EngineOptions::default().ctx_tokens(1024)).expect("an engine");
    let id = other.add().expect("a sequence");
    other.step(&[Run::new(id, &prompt(600, 1))], &mut |_| {}).expect("evaluates");
    let answer = read(handle.submit(greedy(prompt(500, 1), 20)).expect("taken"));
    let EndReason::Failed(why) = answer.end.reason else { panic!("{:?}", answer.end) };
    assert!(why.contains("keys and values"), "{why}");
    other.end(id).expect("ends");
    let answer = read(handle.submit(greedy(prompt(500, 1), 20)).expect("taken"));
    assert_eq!(answer.end.reason, EndReason::Length);
    check_idle(&handle);
    stop(&handle);
}

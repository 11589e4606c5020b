//! The same bits alone and in company.

use std::sync::Arc;

use modelembed::{LoadMode, Model, RuntimeOptions, TokenId};
use modelembed_serve::{Options, Request};
use modelembed_testkit::{SMOLLM2, real_model};

use crate::common::{Read, check_idle, greedy, load, model, options, prompt, read, serve, stop, tiny_file};

/// Has every request answered with nothing beside it, then all of them together, twice: the second
/// time their prompts are there. Returns how often one went back to the queue.
fn check(name: &str, model: &Arc<Model>, options: Options, requests: &[Request]) -> u64 {
    let alone: Vec<Read> = requests
        .iter()
        .map(|request| {
            let handle = serve(model, options.clone().keeps_prefixes(false));
            let answer = read(handle.submit(request.clone()).expect("taken"));
            stop(&handle);
            answer.without_usage()
        })
        .collect();
    let handle = serve(model, options);
    for round in 0..2 {
        let answers: Vec<_> = requests.iter().map(|r| handle.submit(r.clone()).expect("taken")).collect();
        for (i, (answer, want)) in answers.into_iter().zip(&alone).enumerate() {
            assert_eq!(&read(answer).without_usage(), want, "{name}: {i}, round {round}");
        }
    }
    check_idle(&handle);
    let n_preempted = handle.status().totals.preempted;
    stop(&handle);
    n_preempted
}

#[test]
fn an_answer_has_the_same_bits_alone_and_among_others() {
    for name in ["llama", "gemma3", "q4_k", "falcon-h1"] {
        let requests: Vec<_> = (0..16).map(|i| greedy(prompt(20 + 33 * i, i as u32), 20 + i)).collect();
        check(name, &model(name), options(), &requests);
    }
    // With workers that share the work.
    let (_dir, path) = tiny_file("qwen3");
    let model = load(&path, LoadMode::Map, RuntimeOptions::default().threads(3));
    let requests: Vec<_> = (0..16).map(|i| greedy(prompt(10 + 20 * i, i as u32), 10)).collect();
    check("qwen3, 3 threads", &model, options(), &requests);
}

#[test]
fn answers_of_a_real_model_have_the_same_bits_alone_and_among_others() {
    let Some(path) = real_model(SMOLLM2) else { return };
    let model = load(&path, LoadMode::Map, RuntimeOptions::default().threads(2));
    let begin = "You are a helpful assistant. Answer in one sentence, and say nothing else. ";
    let questions = ["What is the capital of France?", "Why is the sky blue?", "Name a prime.", "Who wrote Faust?"];
    let requests: Vec<Request> = (0..16)
        .map(|i| {
            let text = format!("{}{} {}", begin.repeat(1 + i % 2), questions[i % 4], "Please. ".repeat(i / 2));
            let prompt: Vec<TokenId> = model.tokenizer().encode(text.as_bytes(), Default::default()).expect("tokens");
            let mut request = greedy(prompt, 8);
            request.logprobs = Some(5);
            request
        })
        .collect();
    check("SmolLM2", &model, Options::default().ctx_tokens(512), &requests);
    // Three pages of 6 MB: two that are at the end of their first one both want another.
    let mut prompt: Vec<TokenId> =
        model.tokenizer().encode(begin.repeat(20).as_bytes(), Default::default()).expect("tokens");
    prompt.truncate(250);
    let requests = vec![greedy(prompt, 12); 2];
    let tight = Options::default().ctx_tokens(512).kv_bytes(20 << 20);
    let n_preempted = check("SmolLM2 in little memory", &model, tight, &requests);
    assert!(n_preempted > 0, "nobody went back to the queue");
}

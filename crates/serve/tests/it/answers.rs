//! What one client gets: tokens, text, ends, log-probabilities, refusals.

use std::sync::Arc;

use modelembed::{Engine, EngineOptions, Model, Run, Sampler, SamplerOptions, TokenId, Wants};
use modelembed_serve::{EndReason, Handle, Usage};

use crate::common::{alone, check_idle, greedy, model, options, prompt, read, serve, stop};

#[test]
fn one_answer_is_what_an_engine_alone_gives() {
    for name in ["llama", "gemma3", "falcon-h1"] {
        let model = model(name);
        let handle = serve(&model, options());
        let prompt = prompt(300, 1);
        let want = alone(&model, &prompt, 40);
        let answer = read(handle.submit(greedy(prompt, 40)).expect("taken"));
        assert_eq!(answer.ids(), want.iter().map(|(id, _)| *id).collect::<Vec<_>>(), "{name}");
        for ((_, got), (_, want)) in answer.tokens.iter().zip(want) {
            let got = f64::from(f32::from_bits(got.expect("asked for")));
            assert!((got - want).abs() < 1e-4, "{name}: {got}, not {want}");
        }
        assert_eq!(answer.end.reason, EndReason::Length);
        assert_eq!(answer.end.usage, Usage { prompt: 300, cached: 0, completion: 40 });
        check_idle(&handle);
        stop(&handle);
    }
}

/// The greedy answer to a prompt of the tests, token by token, and its text.
fn known(handle: &Handle, n: usize) -> (Vec<TokenId>, String) {
    let answer = read(handle.submit(greedy(prompt(40, 2), n)).expect("taken"));
    (answer.ids(), answer.text)
}

#[test]
fn texts_and_tokens_end_an_answer_and_are_no_part_of_it() {
    let handle = serve(&model("qwen3"), options());
    let (ids, text) = known(&handle, 60);
    let chars: Vec<char> = text.chars().collect();
    // Wherever it begins, and over as many tokens as it goes.
    for (at, len) in [(0, 1), (3, 2), (10, 9), (20, 5)] {
        let stop: String = chars[at..at + len].iter().collect();
        let mut request = greedy(prompt(40, 2), 60);
        request.stop = vec!["never comes".to_owned(), stop.clone(), String::new()];
        let answer = read(handle.submit(request).expect("taken"));
        let before = text.find(&stop).expect("it comes");
        assert_eq!(answer.text, text[..before], "{stop:?}");
        assert_eq!(answer.end.reason, EndReason::StopString(stop));
        assert_eq!(answer.ids(), ids[..answer.tokens.len()]);
        assert_eq!(answer.end.usage.completion, answer.tokens.len());
    }
    // Text that could have become a stop text comes with the end.
    let mut request = greedy(prompt(40, 2), 60);
    request.stop = vec![format!("{}never", chars[chars.len() - 1])];
    let answer = read(handle.submit(request).expect("taken"));
    assert_eq!((answer.text, answer.end.reason), (text.clone(), EndReason::Length));
    let mut request = greedy(prompt(40, 2), 60);
    request.stop_tokens = vec![ids[7]];
    let answer = read(handle.submit(request.clone()).expect("taken"));
    let first = ids.iter().position(|id| *id == ids[7]).expect("it is there");
    assert_eq!(answer.ids(), ids[..first]);
    assert_eq!(answer.end.reason, EndReason::StopToken(ids[7]));
    assert_eq!(answer.end.usage.completion, first + 1, "the token that ends it counts");
    request.min_tokens = 20;
    let answer = read(handle.submit(request).expect("taken"));
    assert!(answer.tokens.len() >= 20 && !answer.ids()[..20].contains(&ids[7]));
    check_idle(&handle);
}

#[test]
fn the_end_of_a_generation_waits_for_as_many_tokens_as_are_wanted() {
    let model = model("llama");
    let eos = model.tokenizer().eos().expect("the tiny vocabulary has one");
    let handle = serve(&model, options());
    let mut request = greedy(prompt(30, 1), 12);
    request.ignore_eos = false;
    request.logit_bias = vec![(eos, 1000.0)];
    for (min_tokens, n) in [(0, 0), (1, 1), (5, 5), (12, 12), (500, 12)] {
        request.min_tokens = min_tokens;
        let answer = read(handle.submit(request.clone()).expect("taken"));
        assert_eq!(answer.tokens.len(), n, "{min_tokens}");
        let reason = if n == 12 { EndReason::Length } else { EndReason::Stop };
        assert_eq!(answer.end.reason, reason, "{min_tokens}");
        assert_eq!(answer.end.usage.completion, n + usize::from(n < 12));
    }
    request.min_tokens = 0;
    request.ignore_eos = true;
    request.logit_bias.clear();
    let answer = read(handle.submit(request).expect("taken"));
    assert!(answer.tokens.len() == 12 && !answer.ids().contains(&eos));
    // Without a number it ends where the context does.
    let mut request = greedy(prompt(1000, 1), 0);
    request.max_tokens = None;
    let answer = read(handle.submit(request).expect("taken"));
    assert_eq!((answer.tokens.len(), answer.end.reason), (24, EndReason::Length));
}

/// Log-probabilities of the model, behind each token of a text: (tokens, n_vocab).
fn all_logits(model: &Arc<Model>, tokens: &[TokenId]) -> Vec<Vec<f32>> {
    let mut engine = Engine::new(model, &EngineOptions::default().ctx_tokens(tokens.len())).expect("an engine");
    let id = engine.add().expect("a sequence");
    let mut all = Vec::new();
    let run = Run::new(id, tokens).wants(Wants::All);
    engine.step(&[run], &mut |row| all.push(row.logits.to_vec())).expect("evaluates");
    all
}

#[test]
fn log_probabilities_of_a_prompt_are_the_models() {
    let model = model("gemma3");
    let handle = serve(&model, options());
    let tokens = prompt(500, 4);
    let logits = all_logits(&model, &tokens);
    for max_tokens in [0, 3] {
        let mut request = greedy(tokens.clone(), max_tokens);
        request.prompt_logprobs = Some(2);
        for _ in 0..2 {
            let answer = read(handle.submit(request.clone()).expect("taken"));
            assert_eq!(answer.prompt.iter().map(|(id, _)| *id).collect::<Vec<_>>(), tokens);
            assert_eq!(answer.prompt[0].1, None, "nothing stands before the first one");
            for (i, (id, p)) in answer.prompt.iter().enumerate().skip(1) {
                let want = modelembed_testkit::log_prob(&logits[i - 1], id.index());
                assert!((f64::from(p.expect("told")) - want).abs() < 1e-4, "{i}");
            }
            assert_eq!(answer.tokens.len(), max_tokens);
            assert_eq!((answer.end.reason.clone(), answer.end.usage.cached), (EndReason::Length, 0));
        }
    }
    check_idle(&handle);
}

#[test]
fn log_probabilities_are_those_before_biases_and_penalties() {
    let model = model("llama");
    let handle = serve(&model, options());
    let tokens = prompt(50, 4);
    let logits = all_logits(&model, &tokens).pop().expect("a row");
    let wanted = TokenId(77);
    let mut request = greedy(tokens, 1);
    request.logit_bias = vec![(wanted, 500.0), (TokenId(5), -1.0)];
    request.sampling = request.sampling.repeat_penalty(1.3);
    request.logprobs = Some(5);
    let answer = read(handle.submit(request).expect("taken"));
    assert_eq!(answer.ids(), [wanted]);
    let got = f64::from(f32::from_bits(answer.tokens[0].1.expect("told")));
    assert!((got - modelembed_testkit::log_prob(&logits, wanted.index())).abs() < 1e-4);
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
    let top: Vec<usize> = answer.tops[0].iter().map(|(id, _)| id.index()).collect();
    assert_eq!(top, order[..5]);
}

#[test]
fn a_seed_gives_the_same_answer_whatever_goes_on_beside_it() {
    let handle = serve(&model("qwen3"), options());
    let request = |seed| {
        let mut request = greedy(prompt(60, 3), 40);
        request.sampling = SamplerOptions::NEUTRAL.temp(1.0).min_p(0.01).repeat_penalty(1.1).seed(seed);
        request
    };
    let answers = |seeds: &[u64]| -> Vec<Vec<TokenId>> {
        let all: Vec<_> = seeds.iter().map(|&seed| handle.submit(request(seed)).expect("taken")).collect();
        all.into_iter().map(|answer| read(answer).ids()).collect()
    };
    let first = answers(&[1, 2, 3, 4, 1]);
    assert_eq!(first[0], first[4]);
    assert!(first[0] != first[1] && first[1] != first[2]);
    assert_eq!(answers(&[3]), [first[2].clone()]);
    // The same draws as a sampler's of one's own.
    let model = handle.model();
    let mut sampler = Sampler::new(request(1).sampling).expect("valid");
    sampler.set_logit_biases(model.tokenizer().eog_tokens().map(|id| (id, f32::NEG_INFINITY)));
    let mut engine = Engine::new(model, &EngineOptions::default().ctx_tokens(200)).expect("an engine");
    let id = engine.add().expect("a sequence");
    let mut next = prompt(60, 3);
    next.iter().for_each(|&id| sampler.accept(id));
    for want in &first[0] {
        let mut chosen = None;
        let each = &mut |mut row: modelembed::Row<'_>| chosen = Some(row.sample(&mut sampler));
        engine.step(&[Run::new(id, &next)], each).expect("evaluates");
        let chosen = chosen.expect("a row");
        assert_eq!(chosen, *want);
        sampler.accept(chosen);
        next = vec![chosen];
    }
}

#[test]
fn control_tokens_have_text_where_they_are_asked_for() {
    let handle = serve(&model("llama"), options());
    for (shown, want) in [(vec![], ""), (vec![TokenId(1)], "<s><s><s>")] {
        let mut request = greedy(prompt(10, 2), 3);
        request.logit_bias = vec![(TokenId(1), 1e6)];
        request.shown_tokens = shown;
        assert_eq!(read(handle.submit(request).expect("taken")).text, want);
    }
    stop(&handle);
}

//! Clients that leave or do not read, failures, and the end of it all.

use std::time::{Duration, Instant};

use modelembed::TokenId;
use modelembed_serve::{EndReason, Event, Refused};
use modelembed_testkit::tiny_spec;

use crate::common::{check_idle, greedy, model, model_of, options, prompt, read, serve, stop, until};

#[test]
fn clients_leave_in_every_state_and_their_prefixes_stay() {
    let model = model("llama");
    let handle = serve(&model, options().sequences(2));
    let other = greedy(prompt(30, 8), 400);
    let want = read(handle.submit(other.clone()).expect("taken"));
    handle.forget_prefixes();
    handle.allow_steps(Some(0));
    let other = handle.submit(other).expect("taken");
    handle.allow_steps(Some(2));
    until(&handle, |status| status.totals.steps == 402);
    // In its prompt: of 900 tokens some are computed.
    let in_prompt = handle.submit(greedy(prompt(900, 3), 10)).expect("taken");
    let queued = handle.submit(greedy(prompt(950, 4), 10)).expect("taken");
    handle.allow_steps(Some(1));
    let status = until(&handle, |status| status.totals.steps >= 403);
    assert_eq!((status.running, status.prompts, status.queued), (1, 1, 1), "{status:?}");
    queued.cancel();
    drop(in_prompt);
    handle.allow_steps(Some(1));
    let status = until(&handle, |status| status.totals.cancelled == 2);
    assert_eq!((status.prompts, status.queued), (0, 0), "{status:?}");
    assert_eq!(read(queued).end.reason, EndReason::Cancelled);
    // What was computed for the one that left is there for the next one.
    handle.allow_steps(None);
    let next = read(handle.submit(greedy(prompt(900, 3), 10)).expect("taken"));
    assert!(next.end.usage.cached > 0, "{:?}", next.end.usage);
    assert_eq!(read(other).without_usage(), want.without_usage(), "whoever stayed saw nothing of it");
    // While it is written.
    let mut answer = handle.submit(greedy(prompt(30, 5), 900)).expect("taken");
    while !matches!(answer.blocking_next(), Some(Event::Token { .. })) {}
    answer.cancel();
    let answer = read_rest(answer);
    assert_eq!(answer.0, EndReason::Cancelled);
    assert!(answer.1 < 900);
    check_idle(&handle);
    stop(&handle);
}

/// Why an answer ended of which the prompt was read, and its tokens.
fn read_rest(mut answer: modelembed_serve::Answer) -> (EndReason, usize) {
    loop {
        if let Event::End(end) = answer.blocking_next().expect("an end") {
            assert!(answer.blocking_next().is_none());
            return (end.reason, end.usage.completion);
        }
    }
}

#[test]
fn a_client_that_does_not_read_is_dropped_and_learns_why() {
    let handle = serve(&model("llama"), options().events(8));
    let slow = handle.submit(greedy(prompt(30, 1), 500)).expect("taken");
    let reading = handle.submit(greedy(prompt(30, 2), 200)).expect("taken");
    until(&handle, |status| status.totals.slow >= 1);
    drop(reading);
    // What was sent before is still there, and the end behind it.
    let slow = read(slow);
    assert_eq!(slow.end.reason, EndReason::Slow);
    assert_eq!(slow.tokens.len(), 7, "the prompt and seven tokens fit");
    // Rows of a prompt come all at once, and have room.
    let mut request = greedy(prompt(700, 1), 3);
    request.prompt_logprobs = Some(1);
    let answer = handle.submit(request).expect("taken");
    until(&handle, |status| status.totals.finished >= 1);
    assert_eq!(read(answer).prompt.len(), 700);
    check_idle(&handle);
}

#[test]
fn a_failure_ends_one_answer_and_leaves_the_bits_of_the_others() {
    // Whoever has this token gets logits that are no numbers.
    let bad = TokenId(300);
    let spec = tiny_spec("llama");
    let model = model_of(&spec, |name, data| {
        if name == "token_embd.weight" {
            let row = data.len() / 320;
            data[row * bad.index()..row * (bad.index() + 1)].fill(0xff);
        }
    });
    let handle = serve(&model, options());
    let sampled = |seed: u32| {
        let clean = prompt(60, seed).into_iter().map(|id| if id == bad { TokenId(9) } else { id });
        let mut request = greedy(clean.collect(), 50);
        request.sampling = modelembed::SamplerOptions::NEUTRAL.temp(0.7).seed(u64::from(seed));
        request.logit_bias = vec![(bad, f32::NEG_INFINITY)];
        request
    };
    let want: Vec<_> = (1..5).map(|seed| read(handle.submit(sampled(seed)).expect("taken")).without_usage()).collect();
    handle.allow_steps(Some(0));
    let mut answers = Vec::new();
    for seed in 1..5 {
        answers.push(handle.submit(sampled(seed)).expect("taken"));
        // Before, between and behind them, at once and later.
        let mut prompt = prompt(40 + 100 * seed as usize, seed);
        prompt.push(bad);
        let failing = handle.submit(greedy(prompt, 5)).expect("taken");
        answers.push(failing);
    }
    handle.allow_steps(None);
    for (i, answer) in answers.into_iter().enumerate() {
        let answer = read(answer);
        if i % 2 == 0 {
            assert_eq!(answer.without_usage(), want[i / 2], "{i}");
        } else {
            let EndReason::Failed(why) = &answer.end.reason else { panic!("{i}: {:?}", answer.end) };
            assert!(why.contains("is a number"), "{why}");
        }
    }
    check_idle(&handle);
}

#[test]
fn after_a_panic_everything_is_refused_with_one_clear_error() {
    let handle = serve(&model("llama"), options());
    let running = handle.submit(greedy(prompt(30, 1), 900)).expect("taken");
    handle.allow_steps(Some(3));
    until(&handle, |status| status.totals.steps == 3);
    let waiting = handle.submit(greedy(prompt(30, 2), 900)).expect("taken");
    handle.panic();
    let status = until(&handle, |status| status.stopped.is_some());
    assert_eq!((status.running, status.queued), (0, 0), "{status:?}");
    for answer in [running, waiting] {
        let EndReason::Failed(why) = read(answer).end.reason else { panic!("it failed") };
        assert!(why.contains("stopped"), "{why}");
    }
    let Err(Refused::Stopped { why }) = handle.submit(greedy(prompt(30, 1), 9)) else { panic!("refused") };
    assert!(why.contains("a fault that was asked for"), "{why}");
    stop(&handle);
}

#[test]
fn draining_finishes_what_is_there_until_the_deadline() {
    let model = model("llama");
    let handle = serve(&model, options().sequences(1));
    handle.allow_steps(Some(0));
    let answers: Vec<_> = (0..3).map(|i| handle.submit(greedy(prompt(30, i), 20)).expect("taken")).collect();
    handle.drain(Instant::now() + Duration::from_secs(600));
    assert!(matches!(handle.submit(greedy(prompt(30, 1), 9)), Err(Refused::Draining)));
    assert!(handle.status().is_draining);
    handle.allow_steps(None);
    for answer in answers {
        assert_eq!(read(answer).end.reason, EndReason::Length);
    }
    stop(&handle);
    assert!(matches!(handle.submit(greedy(prompt(30, 1), 9)), Err(Refused::Stopped { .. })));
    // With a deadline that has passed nobody is waited for.
    let handle = serve(&model, options().sequences(1));
    handle.allow_steps(Some(2));
    let answers: Vec<_> = (0..3).map(|i| handle.submit(greedy(prompt(30, i), 900)).expect("taken")).collect();
    until(&handle, |status| status.totals.steps == 2);
    handle.drain(Instant::now());
    handle.allow_steps(None);
    for answer in answers {
        let EndReason::Failed(why) = read(answer).end.reason else { panic!("it was too late") };
        assert!(why.contains("the time to finish was over"), "{why}");
    }
    stop(&handle);
}

#[test]
fn stopping_ends_answers_and_waits_in_every_thread() {
    let handle = serve(&model("llama"), options());
    handle.allow_steps(Some(4));
    let answers: Vec<_> = (0..3).map(|i| handle.submit(greedy(prompt(30, i), 900)).expect("taken")).collect();
    std::thread::scope(|scope| {
        for _ in 0..3 {
            let handle = handle.clone();
            scope.spawn(move || stop(&handle));
        }
    });
    for answer in answers {
        let EndReason::Failed(why) = read(answer).end.reason else { panic!("it was stopped") };
        assert!(why.contains("stopped"), "{why}");
    }
}

#[test]
fn the_last_handle_ends_the_thread_once_answers_have_ended() {
    let model = model("llama");
    let handle = serve(&model, options());
    let answer = handle.clone().submit(greedy(prompt(30, 1), 50)).expect("taken");
    drop(handle);
    assert_eq!(read(answer).end.reason, EndReason::Length);
    let start = Instant::now();
    while model.runtime().kv_bytes() > 0 {
        assert!(start.elapsed().as_secs() < 600, "its memory comes back");
        std::thread::sleep(Duration::from_millis(1));
    }
}

#[test]
fn handles_and_answers_go_to_other_threads() {
    fn is_shared<T: Send + Sync + Clone + 'static>() {}
    fn moves<T: Send + 'static>() {}
    is_shared::<modelembed_serve::Handle>();
    is_shared::<modelembed_serve::Refused>();
    is_shared::<Event>();
    moves::<modelembed_serve::Answer>();
}

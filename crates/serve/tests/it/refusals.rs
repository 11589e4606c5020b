//! What is refused, and what is said then.

use modelembed::TokenId;
use modelembed_serve::{EndReason, Options, Refused, Request, start};

use crate::common::{check_idle, greedy, model, options, prompt, read, serve, until};

#[test]
fn values_that_cannot_be_are_named() {
    let handle = serve(&model("llama"), options());
    type Change = fn(&mut Request);
    let cases: [(Change, &str); 11] = [
        (|r| r.prompt.clear(), "prompt is empty, wanted at least one token"),
        (|r| r.prompt[3] = TokenId(320), "prompt is token 320, wanted tokens below 320"),
        (|r| r.stop_tokens = vec![TokenId(u32::MAX)], "stop_tokens is token 4294967295, wanted tokens below 320"),
        (|r| r.logit_bias = vec![(TokenId(400), 1.0)], "logit_bias is token 400, wanted tokens below 320"),
        (|r| r.logit_bias = vec![(TokenId(4), f32::NAN)], "logit_bias is NaN for token 4"),
        (|r| r.logit_bias = vec![(TokenId(4), f32::INFINITY)], "logit_bias is inf for token 4"),
        (|r| r.logprobs = Some(1000), "logprobs is 1000, wanted at most 256"),
        (|r| r.prompt_logprobs = Some(257), "prompt_logprobs is 257, wanted at most 256"),
        (|r| r.turn_ends = vec![3, 11], "turn_ends is 11, wanted at most the prompt's 10 tokens"),
        (|r| r.sampling = r.sampling.temp(-1.0), "temp is -1, wanted a finite number from 0"),
        (|r| r.sampling = r.sampling.top_p(f32::NAN), "top_p is NaN, wanted a number from 0 to 1"),
    ];
    for (change, wanted) in cases {
        let mut request = greedy(prompt(10, 1), 5);
        change(&mut request);
        let refused = handle.submit(request).expect_err(wanted);
        assert!(matches!(refused, Refused::Invalid { .. }) && refused.to_string().contains(wanted), "{refused}");
    }
    assert_eq!(handle.status().totals.refused, 11);
    check_idle(&handle);
}

#[test]
fn what_never_fits_is_refused_with_the_numbers() {
    let handle = serve(&model("llama"), options());
    assert_eq!(handle.limits().ctx_tokens, 1024);
    let too_long = |request: Request| match handle.submit(request) {
        Err(Refused::TooLong { prompt, wanted, limit }) => Some((prompt, wanted, limit)),
        Err(other) => panic!("{other}"),
        Ok(answer) => {
            read(answer);
            None
        }
    };
    assert_eq!(too_long(greedy(prompt(1024, 1), 5)), Some((1024, 1, 1024)));
    assert_eq!(too_long(greedy(prompt(1024, 1), 0)), None, "without an answer");
    assert_eq!(too_long(greedy(prompt(1023, 1), 5)), None, "an answer of one token");
    let mut request = greedy(prompt(1000, 1), usize::MAX);
    request.min_tokens = 30;
    assert_eq!(too_long(request.clone()), Some((1000, 30, 1024)));
    request.min_tokens = usize::MAX;
    assert_eq!(too_long(request), Some((1000, usize::MAX, 1024)));
    check_idle(&handle);
}

#[test]
fn a_full_queue_says_when_to_come_again() {
    let handle = serve(&model("llama"), options().sequences(2).queue(3));
    handle.allow_steps(Some(0));
    // Two that begin at once and three that wait.
    let mut answers: Vec<_> =
        (0..5).map(|i| handle.submit(greedy(prompt(20, i), 30)).expect("there is room")).collect();
    let Err(Refused::QueueFull { queued, retry_after }) = handle.submit(greedy(prompt(20, 9), 3)) else {
        panic!("three wait")
    };
    assert!(queued == 3 && (1..=60).contains(&retry_after.as_secs()), "{queued}, {retry_after:?}");
    // One that leaves makes room, once that was seen.
    answers.pop();
    handle.allow_steps(Some(1));
    until(&handle, |status| status.totals.cancelled == 1);
    answers.push(handle.submit(greedy(prompt(20, 9), 3)).expect("there is room again"));
    assert!(matches!(handle.submit(greedy(prompt(20, 9), 3)), Err(Refused::QueueFull { .. })));
    handle.allow_steps(None);
    for answer in answers {
        assert_eq!(read(answer).end.reason, EndReason::Length);
    }
    check_idle(&handle);
}

#[test]
fn options_that_cannot_be_are_named() {
    let model = model("llama");
    let cases: [(Options, &str); 5] = [
        (options().sequences(0), "sequences"),
        (options().ctx_tokens(0), "ctx_tokens"),
        (options().queue(0), "queue is 0, wanted at least 1"),
        (options().events(0), "events is 0, wanted at least 1"),
        (options().kv_bytes(1000), "kv_bytes is 1000, wanted memory for 2 pages of 256 positions"),
    ];
    for (options, wanted) in cases {
        let error = start(model.clone(), options).expect_err(wanted).to_string();
        assert!(error.contains(wanted), "{error}");
    }
}

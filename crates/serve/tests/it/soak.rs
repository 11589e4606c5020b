//! Many clients that come, leave and do not read, in little memory: nothing is lost, and nobody
//! else notices.

use std::sync::atomic::{AtomicUsize, Ordering};

use modelembed::{Engine, EngineOptions, Run, SamplerOptions};
use modelembed_serve::{EndReason, Event, Handle, Refused, Request};
use modelembed_testkit::Rng;

use crate::common::{check_idle, greedy, model, options, prompt, read, serve, stop};

/// A request of any kind.
fn any(rng: &mut Rng) -> Request {
    // Of few beginnings, which differ after a while.
    let mut tokens = prompt(500, rng.below(3) as u32);
    tokens.truncate(1 + rng.below(500));
    tokens.extend(prompt(1 + rng.below(120), 10 + rng.below(50) as u32));
    let mut request = greedy(tokens, rng.below(60));
    if rng.below(2) == 0 {
        request.sampling = SamplerOptions::default().temp(1.0).repeat_penalty(1.1).seed(rng.below(1000) as u64);
    }
    request.logprobs = [None, Some(0), Some(4)][rng.below(3)];
    request.prompt_logprobs = if rng.below(10) == 0 { Some(1) } else { None };
    request.ignore_eos = rng.below(4) > 0;
    request.min_tokens = rng.below(5);
    request.salt = [None, None, Some("a".to_owned())][rng.below(3)].clone();
    request.turn_ends = vec![rng.below(request.prompt.len() + 1)];
    request.stop = if rng.below(3) == 0 { vec!["e".to_owned(), " th".to_owned()] } else { Vec::new() };
    request
}

/// A client that does as it likes.
fn client(handle: &Handle, rng: &mut Rng) {
    let answer = match handle.submit(any(rng)) {
        Ok(answer) => answer,
        Err(Refused::QueueFull { .. }) => return std::thread::yield_now(),
        Err(other) => panic!("{other}"),
    };
    match rng.below(6) {
        // Gone before anything was computed, or whenever that is.
        0 => drop(answer),
        // Gone in the middle.
        1 | 2 => {
            let mut answer = answer;
            for _ in 0..rng.below(30) {
                if answer.blocking_next().is_none() {
                    break;
                }
            }
            if rng.below(2) == 0 {
                answer.cancel();
                assert!(std::iter::from_fn(|| answer.blocking_next()).all(|event| !matches!(
                    event,
                    Event::End(end) if matches!(end.reason, EndReason::Failed(_))
                )));
            }
        }
        // Reads only when all is over.
        3 => {
            std::thread::sleep(std::time::Duration::from_millis(rng.below(20) as u64));
            check(&read(answer).end.reason);
        }
        _ => check(&read(answer).end.reason),
    }
}

fn check(reason: &EndReason) {
    assert!(!matches!(reason, EndReason::Failed(_) | EndReason::Cancelled), "{reason:?}");
}

#[test]
fn clients_that_come_and_go_leave_nothing_behind() {
    for (name, n_pages) in [("llama", 14), ("gemma3", 11), ("falcon-h1", 16)] {
        let model = model(name);
        let page_bytes = {
            let mut engine = Engine::new(&model, &EngineOptions::default().ctx_tokens(900)).expect("an engine");
            let id = engine.add().expect("a sequence");
            engine.step(&[Run::new(id, &prompt(1, 0))], &mut |_| {}).expect("evaluates");
            model.runtime().kv_bytes()
        };
        let options = options().ctx_tokens(900).sequences(6).queue(12).events(40).kv_bytes(n_pages * page_bytes);
        let handle = serve(&model, options);
        let witness = greedy(prompt(330, 77), 38);
        let want = read(handle.submit(witness.clone()).expect("taken")).without_usage();
        let n_left = AtomicUsize::new(130);
        std::thread::scope(|scope| {
            for seed in 0..7 {
                let (handle, n_left) = (&handle, &n_left);
                scope.spawn(move || {
                    let mut rng = Rng::new(1000 + seed);
                    while n_left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |n| n.checked_sub(1)).is_ok() {
                        client(handle, &mut rng);
                    }
                });
            }
            scope.spawn(|| {
                while n_left.load(Ordering::Relaxed) > 0 {
                    if let Ok(answer) = handle.submit(witness.clone()) {
                        assert_eq!(read(answer).without_usage(), want, "{name}: somebody else's bits");
                    }
                }
            });
        });
        check_idle(&handle);
        stop(&handle);
    }
}

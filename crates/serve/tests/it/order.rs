//! In which order prompts are computed, and how much of them in a step.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use modelembed_serve::Event;

use crate::common::{check_idle, greedy, model, options, prompt, read, serve, until};

#[test]
fn a_long_prompt_does_not_stop_answers() {
    // Steps that are to last no longer than they must.
    let handle = serve(&model("llama"), options().step(Duration::ZERO));
    handle.allow_steps(Some(0));
    let running = handle.submit(greedy(prompt(30, 1), 100)).expect("taken");
    handle.allow_steps(Some(10));
    until(&handle, |status| status.totals.steps == 10);
    assert_eq!(handle.status().totals.completion_tokens, 10);
    let long = handle.submit(greedy(prompt(900, 2), 5)).expect("taken");
    handle.allow_steps(Some(20));
    let totals = until(&handle, |status| status.totals.steps == 30).totals;
    assert_eq!(totals.completion_tokens, 30, "a row in every step");
    let rows = totals.computed_tokens - 30;
    assert!((160..900).contains(&rows), "at least eight rows a step, and no more than fit: {rows}");
    handle.allow_steps(None);
    assert_eq!(read(running).tokens.len(), 100);
    assert_eq!(read(long).tokens.len(), 5);
    check_idle(&handle);
}

#[test]
fn slices_grow_with_what_is_known_up_to_their_most() {
    // Steps that may last as long as they like.
    let handle = serve(&model("llama"), options().step(Duration::from_secs(1000)).ctx_tokens(4096));
    handle.allow_steps(Some(0));
    let long = handle.submit(greedy(prompt(3000, 2), 1)).expect("taken");
    let mut rows = Vec::new();
    for step in 1..=6 {
        handle.allow_steps(Some(1));
        let totals = until(&handle, |status| status.totals.steps == step).totals;
        rows.push(totals.computed_tokens);
    }
    assert_eq!(rows, [32, 160, 672, 1696, 2720, 3000]);
    assert_eq!(read(long).tokens.len(), 1);
}

#[test]
fn prompts_that_take_as_long_come_in_their_order() {
    let handle = serve(&model("llama"), options().step(Duration::ZERO));
    handle.allow_steps(Some(0));
    let order = Arc::new(Mutex::new(Vec::new()));
    let readers: Vec<_> = (0..5)
        .map(|i| {
            let mut answer = handle.submit(greedy(prompt(64, i), 1)).expect("taken");
            let order = Arc::clone(&order);
            std::thread::spawn(move || {
                while let Some(event) = answer.blocking_next() {
                    if let Event::Prompt { .. } = event {
                        order.lock().expect("whole").push(answer.id());
                    }
                }
            })
        })
        .collect();
    let mut steps = 0;
    while handle.status().totals.finished < 5 {
        steps += 1;
        handle.allow_steps(Some(1));
        let totals = until(&handle, |status| status.totals.steps == steps).totals;
        until(&handle, |_| order.lock().expect("whole").len() as u64 == totals.finished);
    }
    readers.into_iter().for_each(|reader| reader.join().expect("reads"));
    assert_eq!(*order.lock().expect("whole"), [0, 1, 2, 3, 4]);
    assert!(steps > 5, "not all at once");
    check_idle(&handle);
}

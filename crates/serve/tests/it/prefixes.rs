//! Prefixes that several requests have in common are computed once, and change no bit.

use modelembed::TokenId;
use modelembed_serve::{Handle, Options, Request};

use crate::common::{Read, check_idle, greedy, model, options, prompt, read, serve, stop};

/// An answer, and how much of its prompt was there.
fn ask(handle: &Handle, request: &Request) -> (usize, Read) {
    let answer = read(handle.submit(request.clone()).expect("taken"));
    (answer.end.usage.cached, answer.without_usage())
}

/// The answer where nothing is kept.
fn afresh(name: &str, options: Options, request: &Request) -> Read {
    let handle = serve(&model(name), options.keeps_prefixes(false));
    let (cached, answer) = ask(&handle, request);
    assert_eq!(cached, 0);
    answer
}

#[test]
fn what_was_computed_is_gone_on_from_at_any_token() {
    for name in ["llama", "gemma3", "q4_k"] {
        let handle = serve(&model(name), options());
        let first = greedy(prompt(600, 1), 30);
        let (cached, answer) = ask(&handle, &first);
        assert_eq!(cached, 0);
        assert_eq!(ask(&handle, &first), (599, answer.clone()), "{name}: the same again");
        // The next turn: all but the last token of the answer is there.
        let next: Vec<TokenId> = [&first.prompt[..], &answer.ids(), &prompt(40, 9)].concat();
        let next = greedy(next, 20);
        assert_eq!(ask(&handle, &next), (629, afresh(name, options(), &next)), "{name}");
        // It leaves what is known within a page, on its edge, at the start.
        for at in [500, 512, 256, 255, 70, 1] {
            let other = greedy([&first.prompt[..at], &prompt(90, 3 + at as u32)].concat(), 10);
            assert_eq!(ask(&handle, &other), (at, afresh(name, options(), &other)), "{name}: {at}");
        }
        check_idle(&handle);
        stop(&handle);
    }
}

#[test]
fn recurrences_go_on_where_their_state_was_kept() {
    for name in ["falcon-h1", "nemotron-h"] {
        let handle = serve(&model(name), options());
        let mut first = greedy(prompt(700, 1), 30);
        first.turn_ends = vec![390, 0, 700];
        let (_, answer) = ask(&handle, &first);
        assert_eq!(ask(&handle, &first), (699, answer.clone()), "{name}: the same again");
        let next = greedy([&first.prompt[..], &answer.ids()[..29], &prompt(50, 7)].concat(), 12);
        assert_eq!(ask(&handle, &next), (729, afresh(name, options(), &next)), "{name}: the next turn");
        // Behind the turn's end, within what its state goes on from, and where nothing was kept.
        for (at, cached) in [(450, 390), (389, 389), (384, 384), (200, 0)] {
            let other = greedy([&first.prompt[..at], &prompt(90, 3 + at as u32)].concat(), 10);
            assert_eq!(ask(&handle, &other), (cached, afresh(name, options(), &other)), "{name}: {at}");
        }
        check_idle(&handle);
        stop(&handle);
    }
}

#[test]
fn windows_far_behind_are_kept_for_others() {
    let wide = || options().ctx_tokens(3000);
    let handle = serve(&model("gemma3"), wide());
    let first = greedy(prompt(2600, 1), 5);
    ask(&handle, &first);
    for at in [2599, 1500, 300, 256] {
        let other = greedy([&first.prompt[..at], &prompt(30, 3 + at as u32)].concat(), 10);
        assert_eq!(ask(&handle, &other), (at, afresh("gemma3", wide(), &other)), "{at}");
    }
    check_idle(&handle);
}

#[test]
fn who_comes_together_computes_together() {
    for name in ["llama", "falcon-h1"] {
        let handle = serve(&model(name), options());
        let mut request = greedy(prompt(700, 1), 20);
        request.turn_ends = vec![300];
        let want = afresh(name, options(), &request);
        handle.allow_steps(Some(0));
        let answers: Vec<_> = (0..12).map(|_| handle.submit(request.clone()).expect("taken")).collect();
        // And one that has a part in common only; with recurrences a state is kept there.
        let part = greedy([&request.prompt[..300], &prompt(200, 5)].concat(), 20);
        let other = handle.submit(part.clone()).expect("taken");
        handle.allow_steps(None);
        for answer in answers {
            assert_eq!(read(answer).without_usage(), want, "{name}");
        }
        assert_eq!(read(other).without_usage(), afresh(name, options(), &part), "{name}");
        let computed = handle.status().totals.computed_tokens;
        assert!(computed <= 700 + 11 + 200, "{name}: the prompt once, and then its last token: {computed}");
        check_idle(&handle);
        stop(&handle);
    }
}

#[test]
fn salts_separate_tenants() {
    let handle = serve(&model("llama"), options());
    let of = |salt: Option<&str>| {
        let mut request = greedy(prompt(500, 1), 10);
        request.salt = salt.map(str::to_owned);
        request
    };
    let want = afresh("llama", options(), &of(None));
    for salt in [None, Some("a"), Some("b"), Some("")] {
        assert_eq!(ask(&handle, &of(salt)), (0, want.clone()), "{salt:?} sees nobody else's");
        assert_eq!(ask(&handle, &of(salt)), (499, want.clone()), "{salt:?} sees its own");
    }
    // At the same time, too.
    handle.forget_prefixes();
    handle.allow_steps(Some(0));
    let answers: Vec<_> =
        [None, Some("a"), Some("b")].map(|salt| handle.submit(of(salt)).expect("taken")).into_iter().collect();
    handle.allow_steps(None);
    for answer in answers {
        let answer = read(answer);
        assert_eq!((answer.end.usage.cached, answer.without_usage()), (0, want.clone()));
    }
    check_idle(&handle);
}

//! What a session refuses, and that a refusal changes nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use modelembed::{Error, LoadOptions, Session, SessionOptions, TokenId};
use modelembed_testkit::{TINY_VOCAB, first_bit_difference, tiny, tiny_prompt, tiny_spec};

use crate::common::{TinyModels, load, session};

fn prompt(n: usize) -> Vec<TokenId> {
    tiny_prompt(n).into_iter().map(TokenId).collect()
}

#[test]
fn a_refused_evaluation_leaves_the_context_as_it_was() {
    let dir = TinyModels::new();
    let model = load(&dir.write("llama", &tiny(&tiny_spec("llama"))), &LoadOptions::default());
    let (first, rest) = (prompt(20), &prompt(40)[20..]);
    let want = {
        let mut session = session(&model, 40);
        session.eval(&first).expect("evaluates");
        session.eval(rest).expect("evaluates").to_vec()
    };

    let cancel = Arc::new(AtomicBool::new(false));
    let options = SessionOptions { ctx_tokens: Some(40), cancel: Some(Arc::clone(&cancel)), ..Default::default() };
    let mut session = Session::new(&model, options).expect("a session");
    session.eval(&first).expect("evaluates");
    assert!(matches!(session.eval(&[]), Err(Error::InvalidOption(_))));
    let outside = TokenId(TINY_VOCAB as u32);
    assert!(matches!(session.eval(&[first[0], outside]), Err(Error::TokenOutOfRange { id: 320, n_vocab: 320 })));
    let full = session.eval(&prompt(21));
    assert!(matches!(full, Err(Error::ContextFull { used: 20, wanted: 21, capacity: 40 })));
    cancel.store(true, Ordering::Relaxed);
    assert!(matches!(session.eval(rest), Err(Error::Cancelled)));
    cancel.store(false, Ordering::Relaxed);
    assert_eq!((session.len(), session.capacity()), (20, 40));
    let got = session.eval(rest).expect("evaluates");
    assert_eq!(first_bit_difference(got, &want), None);
}

#[test]
fn a_context_of_no_tokens_and_one_beyond_memory_are_refused() {
    let dir = TinyModels::new();
    let model = load(&dir.write("llama", &tiny(&tiny_spec("llama"))), &LoadOptions::default());
    for ctx_tokens in [0, usize::MAX, usize::MAX / 1024] {
        let options = SessionOptions { ctx_tokens: Some(ctx_tokens), ..SessionOptions::default() };
        assert!(Session::new(&model, options).is_err(), "{ctx_tokens} tokens");
    }
}

#[test]
fn options_that_nothing_can_meet_are_refused() {
    let dir = TinyModels::new();
    let path = dir.write("llama", &tiny(&tiny_spec("llama")));
    let options = LoadOptions { threads: Some(0), ..LoadOptions::default() };
    let loaded = modelembed::Model::load(&path, &options, &mut |_| std::ops::ControlFlow::Continue(()));
    assert!(matches!(loaded, Err(Error::InvalidOption(_))));
}

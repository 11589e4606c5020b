//! What a session refuses, and that a refusal changes nothing.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use modelembed::{
    ContextNeed, Error, EvalProgress, GenerateOptions, LoadOptions, Model, ModelFiles, RamBudget, Sampler,
    SamplerOptions, Session, SessionOptions, TokenId, generate,
};
use modelembed_testkit::{TINY_VOCAB, first_bit_difference, tiny, tiny_prompt, tiny_spec};

use crate::common::{TinyModels, load, session};

fn prompt(n: usize) -> Vec<TokenId> {
    tiny_prompt(n).into_iter().map(TokenId).collect()
}

#[test]
fn a_session_of_what_one_answer_needs_gives_the_same_and_is_what_was_planned_for() {
    let dir = TinyModels::new();
    let path = dir.write("gemma3", &tiny(&tiny_spec("gemma3")));
    let options = LoadOptions::default().ram_budget(RamBudget::Bytes(1 << 30));
    let whole = load(&path, &options);
    let ids = prompt(50);
    let wanted = session(&whole, 200).eval(&ids).expect("evaluates").to_vec();

    let need = ContextNeed { ctx_tokens: 60, chunk_tokens: 50 };
    let mut asked = 0;
    let mut ask = |gguf: &modelembed_gguf::Gguf, tokenizer: &modelembed_text::Tokenizer| {
        asked += 1;
        assert!(gguf.get("general.architecture").is_some() && tokenizer.n_vocab() == TINY_VOCAB);
        Some(need)
    };
    let model = Model::load_for(&path, &options, &mut ask, &mut |_| ControlFlow::Continue(())).expect("loads");
    assert_eq!(asked, 1);
    let by_hand = options.clone().ctx_tokens(60).chunk_tokens(50);
    assert_eq!(model.plan().other_bytes, load(&path, &by_hand).plan().other_bytes);
    assert!(model.plan().other_bytes < whole.plan().other_bytes);
    // A context that was asked for, and the model's own, are bounds.
    let bounded = options.clone().ctx_tokens(40);
    let planned = |options: &LoadOptions, need| {
        ModelFiles::open(&path)
            .and_then(|files| files.plan_devices_for(options, need))
            .expect("a plan")
            .plan
            .other_bytes
    };
    assert_eq!(planned(&bounded, Some(need)), planned(&bounded.clone().chunk_tokens(50), None));
    let endless = ContextNeed { ctx_tokens: usize::MAX, chunk_tokens: usize::MAX };
    assert_eq!(planned(&options, Some(endless)), planned(&options, None));

    // Chunks of fewer columns than the prompt has are computed in turns; not even guesses need more
    // than eight.
    for chunk_tokens in [50, 13, 1] {
        let options = SessionOptions::default().ctx_tokens(60).chunk_tokens(chunk_tokens);
        let mut session = Session::new(&model, options).expect("a session");
        let seen = session.eval(&ids).expect("evaluates").to_vec();
        assert_eq!(first_bit_difference(&seen, &wanted), None, "{chunk_tokens} tokens at once");
        let texts = [0, 7].map(|lookup_tokens| {
            session.clear();
            let mut sampler = Sampler::new(SamplerOptions::default().temp(0.0)).expect("options");
            let options = GenerateOptions::default().max_tokens(10).lookup_tokens(lookup_tokens);
            let mut text = String::new();
            generate(&mut session, &mut sampler, &ids, &options, |piece| {
                text += piece;
                ControlFlow::Continue(())
            })
            .expect("generates");
            text
        });
        assert_eq!(texts[0], texts[1], "{chunk_tokens} tokens at once");
    }
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
    let options = SessionOptions::default().ctx_tokens(40).cancel(Arc::clone(&cancel));
    let mut session = Session::new(&model, options).expect("a session");
    session.eval(&first).expect("evaluates");
    assert!(matches!(session.eval(&[]), Err(Error::NoTokens)));
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
        let options = SessionOptions::default().ctx_tokens(ctx_tokens);
        assert!(Session::new(&model, options).is_err(), "{ctx_tokens} tokens");
    }
}

#[test]
fn options_that_nothing_can_meet_are_refused() {
    let dir = TinyModels::new();
    let path = dir.write("llama", &tiny(&tiny_spec("llama")));
    let options = LoadOptions::default().threads(0);
    let loaded = modelembed::Model::load(&path, &options);
    assert!(matches!(loaded, Err(Error::InvalidOption { option: "threads", .. })));
}

#[test]
fn experts_are_read_ahead_once_a_token_was_computed() {
    let dir = TinyModels::new();
    let model = load(&dir.write("olmoe", &tiny(&tiny_spec("olmoe"))), &LoadOptions::default().threads(2));
    let all: u64 = model.tensors().map(|tensor| tensor.n_bytes).sum();
    let of_experts: u64 = model.tensors().filter(|t| t.name.contains("_exps.")).map(|tensor| tensor.n_bytes).sum();
    let progress = || model.prefetch_progress().expect("a mapped model is read ahead");
    assert!(of_experts > 0);
    assert_eq!(progress().total_bytes, all - of_experts);
    session(&model, 64).eval(&[TokenId(3)]).expect("evaluates");
    assert_eq!(progress().total_bytes, all);
    let end = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while progress().done_bytes < all {
        assert!(std::time::Instant::now() < end, "{:?}", progress());
        std::thread::sleep(std::time::Duration::from_millis(1));
    }
}

#[test]
fn progress_goes_up_to_the_number_of_tokens() {
    let dir = TinyModels::new();
    let model = load(&dir.write("llama", &tiny(&tiny_spec("llama"))), &LoadOptions::default());
    let (progress, cancel) = (Arc::new(EvalProgress::default()), Arc::new(AtomicBool::new(false)));
    let options = SessionOptions::default().ctx_tokens(700).cancel(Arc::clone(&cancel)).progress(Arc::clone(&progress));
    let mut session = Session::new(&model, options).expect("a session");
    assert_eq!(progress.tokens(), (0, 0));
    let mut seen = vec![0];
    session
        .eval_each(&prompt(600), |_, _| {
            let (done, total) = progress.tokens();
            assert!(done < total && total == 600, "{done} of {total}");
            seen.push(done);
        })
        .expect("evaluates");
    assert!(seen.is_sorted(), "{seen:?}");
    seen.dedup();
    // More than one chunk, each of them more than a layer.
    assert!(seen.len() > 2, "{seen:?}");
    assert_eq!(progress.tokens(), (600, 600));
    session.eval(&prompt(7)).expect("evaluates");
    assert_eq!(progress.tokens(), (7, 7));
    cancel.store(true, Ordering::Relaxed);
    assert!(matches!(session.eval(&prompt(9)), Err(Error::Cancelled)));
    assert_eq!(progress.tokens(), (0, 9));
}

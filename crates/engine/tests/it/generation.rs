//! Text as an iterator: the same text as through the callback, however it is asked for, and a
//! session that goes on from wherever it was left.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use modelembed::{
    Chat, Error, GenerateOptions, LoadOptions, Model, Piece, Result, Sampler, SamplerOptions, SessionOptions,
    StopReason, TemplateWanted, TokenId, generate,
};
use modelembed_testkit::{TINY_BOS, TINY_VOCAB, tiny, tiny_prompt, tiny_spec};

use crate::common::{TinyModels, load, session};

fn model(dir: &TinyModels) -> Arc<Model> {
    load(&dir.write("llama", &tiny(&tiny_spec("llama"))), &LoadOptions::default().threads(2))
}

fn prompt() -> Vec<TokenId> {
    tiny_prompt(20).into_iter().map(TokenId).collect()
}

/// A text that repeats itself, so that drafts come true, and some that do not.
fn repeating() -> Vec<TokenId> {
    prompt()[..6].repeat(4)
}

/// What the callback gives: the text, the tokens of the context and the token behind it.
fn by_callback(
    model: &Arc<Model>,
    prompt: &[TokenId],
    options: &GenerateOptions,
    most: usize,
) -> (String, Vec<TokenId>, Option<TokenId>, Option<StopReason>) {
    let (mut session, mut text, mut n) = (session(model, 64), String::new(), 0);
    let mut sampler = Sampler::new(options.sampler).expect("valid options");
    let stats = generate(&mut session, &mut sampler, prompt, options, |piece| {
        text += piece;
        n += 1;
        if n == most { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    let stats = stats.expect("generates");
    assert_eq!(session.pending(), stats.pending);
    (text, session.tokens().to_vec(), stats.pending, stats.stop)
}

#[test]
fn pieces_make_the_text_of_the_callback_wherever_one_stops() {
    let dir = TinyModels::new();
    let model = model(&dir);
    let greedy = SamplerOptions::default().temp(0.0);
    let options = |sampler, lookup_tokens| {
        GenerateOptions::default().max_tokens(24).sampler(sampler).lookup_tokens(lookup_tokens)
    };
    let warm = SamplerOptions::default().repeat_penalty(1.2).seed(7);
    let mut failures = Vec::new();
    for (name, prompt, options) in [
        ("greedy", prompt(), options(greedy, 0)),
        ("greedy with drafts", repeating(), options(greedy, 7)),
        ("drawn", prompt(), options(warm, 0)),
        ("drawn with drafts", repeating(), options(warm, 7)),
        ("up to a stop text", prompt(), options(greedy, 3).stop(["a text that never comes", "e"])),
    ] {
        for most in [1, 2, 5, usize::MAX] {
            let want = by_callback(&model, &prompt, &options, most);
            let mut session = session(&model, 64);
            let mut generation = session.generate(&prompt, options.clone()).expect("begins");
            assert_eq!(generation.stats().stop, None);
            let text: String = generation.by_ref().take(most).collect::<Result<_>>().expect("generates");
            let stats = generation.stats();
            assert!(stats.generated_tokens > 0 && stats.decode_steps < stats.generated_tokens, "{name}");
            drop(generation);
            let got = (text, session.tokens().to_vec(), session.pending());
            if got != (want.0.clone(), want.1.clone(), want.2) {
                failures.push(format!("{name}, {most} pieces: {got:?}, wanted {want:?}"));
            }
        }
    }
    crate::common::report(failures);
}

#[test]
fn a_text_that_was_left_half_way_goes_on_as_if_it_had_not_been() {
    let dir = TinyModels::new();
    let model = model(&dir);
    let options = |max_tokens| {
        GenerateOptions::default().max_tokens(max_tokens).sampler(SamplerOptions::default().temp(0.0)).lookup_tokens(4)
    };
    let mut whole = session(&model, 64);
    let want: String = whole.generate(&repeating(), options(20)).unwrap().collect::<Result<_>>().unwrap();
    let mut parts = session(&model, 64);
    let mut text = String::new();
    for piece in parts.generate(&repeating(), options(20)).unwrap().take(3) {
        text += &piece.unwrap();
    }
    let left = parts.tokens().len() + 1 - repeating().len();
    let behind = [parts.pending().expect("the last token")];
    text.extend(parts.generate(&behind, options(20 - left)).unwrap().map(|piece| piece.unwrap()));
    assert_eq!(text, want);
    assert_eq!((parts.tokens(), parts.pending()), (whole.tokens(), whole.pending()));
    // A text as a prompt takes the pending token along; what is appended by hand does not.
    let before = whole.pending().expect("the last token");
    let n = whole.len();
    drop(whole.generate("the cat", options(0)).unwrap());
    assert_eq!((whole.tokens()[n], whole.pending()), (before, None));
    parts.eval(&prompt()[..1]).unwrap();
    assert_eq!(parts.pending(), None);
}

#[test]
fn it_ends_once_and_says_why() {
    let dir = TinyModels::new();
    let model = model(&dir);
    let mut short = session(&model, 24);
    let mut generation = short.generate(&prompt(), GenerateOptions::default()).unwrap();
    let pieces: Vec<Piece> = generation.by_ref().collect::<Result<_>>().unwrap();
    assert!(!pieces.is_empty() && pieces.iter().all(|piece| !piece.is_empty()));
    let at_end = generation.stats();
    assert!(generation.next().is_none());
    assert_eq!(at_end.stop, Some(StopReason::ContextFull));
    assert_eq!(generation.stats().decode_time, at_end.decode_time);
    // Behind the prompt a cancelled session ends the text, in the prompt it is an error.
    let cancel = Arc::new(AtomicBool::new(false));
    let mut own = model.session(SessionOptions::default().ctx_tokens(64).cancel(Arc::clone(&cancel))).unwrap();
    let mut generation = own.generate(&prompt(), GenerateOptions::default()).unwrap();
    generation.next().expect("a piece").unwrap();
    cancel.store(true, Ordering::Relaxed);
    assert!(generation.next().is_none());
    assert_eq!(generation.stats().stop, Some(StopReason::Caller));
    drop(generation);
    assert!(matches!(own.generate(&prompt(), GenerateOptions::default()).map(|_| ()), Err(Error::Cancelled)));
}

#[test]
fn a_function_of_ones_own_chooses() {
    let dir = TinyModels::new();
    let model = model(&dir);
    let options = GenerateOptions::default().max_tokens(12);
    let mut likeliest = |logits: &mut [f32]| {
        let best = (0..logits.len()).max_by(|&a, &b| logits[a].total_cmp(&logits[b]).then(b.cmp(&a)));
        TokenId(best.expect("logits") as u32)
    };
    let mut own = session(&model, 64);
    let got: String =
        own.generate_with(&mut likeliest, &prompt(), options.clone()).unwrap().collect::<Result<_>>().unwrap();
    let greedy = options.clone().sampler(SamplerOptions::default().temp(0.0));
    let mut other = session(&model, 64);
    let want: String = other.generate(&prompt(), greedy).unwrap().collect::<Result<_>>().unwrap();
    assert_eq!((got, own.tokens()), (want, other.tokens()));
    // A token that there is not ends it, and the session is as it was behind the prompt.
    let mut wrong = |_: &mut [f32]| TokenId(TINY_VOCAB as u32);
    own.clear();
    let mut generation = own.generate_with(&mut wrong, &prompt(), options).unwrap();
    assert!(matches!(generation.next(), Some(Err(Error::TokenOutOfRange { id: 320, n_vocab: 320 }))));
    assert!(generation.next().is_none() && generation.stats().stop.is_none());
    drop(generation);
    assert_eq!((own.tokens(), own.pending()), (&prompt()[..], None));
}

#[test]
fn control_tokens_have_text_where_they_are_asked_for() {
    let dir = TinyModels::new();
    let model = model(&dir);
    let letter = model.tokenizer().find(b"q").expect("a letter");
    for (shown, want) in [(&[][..], "q"), (&["<s>", "no such token"][..], "<s>q<s>")] {
        let mut tokens = [TokenId(TINY_BOS), letter, TokenId(TINY_BOS)].into_iter();
        let mut next = |_: &mut [f32]| tokens.next().expect("as many as are asked for");
        let options = GenerateOptions::default().max_tokens(3).shown_tokens(shown.iter().copied());
        let mut session = session(&model, 64);
        let text: String =
            session.generate_with(&mut next, &prompt(), options).unwrap().map(|piece| piece.unwrap()).collect();
        assert_eq!(text, want);
    }
}

#[test]
fn penalties_look_at_what_the_session_holds() {
    let dir = TinyModels::new();
    let model = model(&dir);
    let sampler = SamplerOptions::default().temp(0.0).presence_penalty(1e6).repeat_last_n(usize::MAX);
    let mut own = session(&model, 64);
    own.eval(&prompt()).unwrap();
    let first = prompt()[0];
    let generation = own.generate(&[first], GenerateOptions::default().max_tokens(20).sampler(sampler)).unwrap();
    generation.map(|piece| piece.unwrap()).for_each(drop);
    let (asked, answer) = own.tokens().split_at(prompt().len() + 1);
    assert!(!answer.is_empty() && answer.iter().all(|id| !asked.contains(id)), "{asked:?} {answer:?}");
}

#[test]
fn options_that_the_sampler_refuses_and_texts_without_tokens_are_errors() {
    let dir = TinyModels::new();
    let model = model(&dir);
    let mut own = session(&model, 64);
    let cold = GenerateOptions::default().sampler(SamplerOptions::default().temp(-1.0));
    assert!(matches!(own.generate("a", cold).map(|_| ()), Err(Error::Sampler(e)) if e.option == "temp"));
    let none: [TokenId; 0] = [];
    assert!(matches!(own.generate(&none, GenerateOptions::default()).map(|_| ()), Err(Error::NoTokens)));
    assert!(own.is_empty());
}

#[test]
fn answers_as_iterators_leave_the_chat_that_the_callback_leaves() {
    let dir = TinyModels::new();
    let model = model(&dir);
    let options = GenerateOptions::default().max_tokens(12).lookup_tokens(3);
    let template = model.chat_template(Some(TemplateWanted::Named("chatml"))).expect("a template").template;
    let chat = || {
        let sampler = Sampler::new(SamplerOptions::default().temp(0.0)).expect("valid options");
        Chat::new(session(&model, 160), sampler, template.clone(), options.clone())
    };
    // Three turns, of which the second is left after so many pieces, and the fourth finds the
    // context full.
    for most in [1, 3, usize::MAX] {
        let (mut asked, mut sent) = (chat(), chat());
        for (question, most) in [("the cat", usize::MAX), ("sat on", most), ("the mat", usize::MAX), ("the cat", 2)] {
            let mut answer = asked.ask(question).expect("begins");
            let text: String = answer.by_ref().take(most).collect::<Result<_>>().expect("answers");
            let turn = answer.finish();
            let mut n = 0;
            let wanted = sent.send(question, |_| {
                n += 1;
                if n == most { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
            });
            let wanted = wanted.expect("answers");
            assert_eq!((&text, &turn.answer), (&wanted.answer, &wanted.answer), "{question}, {most} pieces");
            assert_eq!(
                (turn.dropped_turns, turn.stats.pending, turn.stats.generated_tokens),
                (wanted.dropped_turns, wanted.stats.pending, wanted.stats.generated_tokens)
            );
            assert_eq!(asked.session().tokens(), sent.session().tokens(), "{question}, {most} pieces");
        }
        assert_eq!(asked.messages(), sent.messages());
        assert_eq!(asked.messages().len(), 8);
        // An answer that is only dropped is kept as far as it came.
        drop(asked.ask("the cat").expect("begins"));
        assert_eq!(asked.messages().len(), 10);
        assert_eq!(asked.messages()[9].content, "");
        // A question that fails is no part of the chat.
        assert!(matches!(asked.ask(&"the cat ".repeat(200)).map(drop), Err(Error::ContextFull { .. })));
        assert_eq!(asked.messages().len(), 10);
    }
}

#[test]
fn a_model_makes_its_chat() {
    let dir = TinyModels::new();
    let model = model(&dir);
    let sampler = SamplerOptions::default().temp(0.0);
    let options = GenerateOptions::default().max_tokens(6).sampler(sampler);
    let mut made = model.chat(SessionOptions::default().ctx_tokens(200), options.clone()).expect("a chat");
    let template = model.chat_template(None).expect("a template").template;
    let mut by_hand = Chat::new(session(&model, 200), Sampler::new(sampler).unwrap(), template, options);
    let go_on = |_: &str| ControlFlow::Continue(());
    assert_eq!(made.send("the cat", go_on).unwrap().answer, by_hand.send("the cat", go_on).unwrap().answer);
    assert_eq!(made.session().tokens(), by_hand.session().tokens());
    let cold = GenerateOptions::default().sampler(sampler.top_p(2.0));
    assert!(matches!(model.chat(SessionOptions::default(), cold).map(drop), Err(Error::Sampler(_))));
}

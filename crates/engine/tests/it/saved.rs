//! Contexts on disk: what is restored goes on with the same bits, and what does not fit is refused
//! with the reason.

use std::path::Path;
use std::sync::Arc;

use modelembed::{
    CacheType, Chat, Engine, EngineOptions, Error, GenerateOptions, LoadOptions, Model, Run, Sampler, SavedError,
    Session, SessionOptions, TokenId,
};
use modelembed_kernels::Kernels;
use modelembed_testkit::{TinyArch, TinySpec, first_bit_difference, tiny, tiny_prompt, tiny_spec};
use modelembed_text::chat::{ChatTemplate, SpecialTokens};

use crate::common::{TinyModels, load};

fn ids(n: usize) -> Vec<TokenId> {
    tiny_prompt(n).into_iter().map(TokenId).collect()
}

fn model(dir: &TinyModels, name: &str) -> Arc<Model> {
    load(&dir.write(name, &tiny(&tiny_spec(name))), &LoadOptions::default().threads(2))
}

fn session(model: &Arc<Model>, ctx_tokens: usize, cache_type: CacheType) -> Session {
    let options = SessionOptions::default().ctx_tokens(ctx_tokens).cache_type(cache_type);
    Session::new(model, options).expect("a session")
}

#[test]
fn a_restored_context_goes_on_with_the_same_bits() {
    let dir = TinyModels::new();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("context");
    let ids = ids(2000);
    for (name, cache_type, n) in [
        ("llama", CacheType::I16, 300),
        ("q4_k", CacheType::Q8, 256),
        ("qwen3", CacheType::F32, 1),
        ("gemma3", CacheType::F16, 700),
        // The window has given pages back.
        ("gemma3", CacheType::I16, 1900),
        ("llama", CacheType::I16, 0),
    ] {
        let model = model(&dir, name);
        let mut first = session(&model, 2000, cache_type);
        for part in ids[..n].chunks(200) {
            let mut three = |_: &mut [f32]| TokenId(3);
            let one = GenerateOptions::default().max_tokens(1);
            first.generate_with(&mut three, part, one).expect("begins").for_each(drop);
        }
        let (pending, note) = ((n > 0).then_some(TokenId(3)), vec![7; n % 100]);
        first.save(&file, &note).expect("saves");
        let want = first.eval(&ids[n..n + 20]).expect("evaluates").to_vec();

        let mut second = session(&model, 2000, cache_type);
        let restored = second.restore(&file).expect("restores");
        assert_eq!((restored.pending, restored.note), (pending, note), "{name}");
        assert_eq!(second.pending(), pending, "{name}");
        assert_eq!(second.tokens(), &ids[..n]);
        assert_eq!(second.can_return(n / 3), n < 1900, "{name}");
        let got = second.eval(&ids[n..n + 20]).expect("evaluates");
        assert_eq!(first_bit_difference(got, &want), None, "{name}, {n} tokens");
        // Only into an empty context, which it then is again.
        assert!(second.restore(&file).is_err());
        second.clear();
        second.restore(&file).expect("restores again");
    }
    let left: Vec<_> = std::fs::read_dir(folder.path()).expect("a folder").collect();
    assert_eq!(left.len(), 1, "no other name is left: {left:?}");
}

/// Why a file is refused.
fn refusal(session: &mut Session, file: &Path) -> String {
    let error = session.restore(file).expect_err("a refusal");
    assert!(matches!(error, Error::Saved { .. } | Error::TokenOutOfRange { .. }), "{error:?}");
    assert!(session.is_empty(), "{error}");
    error.to_string()
}

#[test]
fn what_does_not_fit_is_refused_with_the_reason() {
    let dir = TinyModels::new();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("context");
    let path = dir.write("qwen3", &tiny(&tiny_spec("qwen3")));
    let model = load(&path, &LoadOptions::default().threads(2));
    let mut first = session(&model, 600, CacheType::I16);
    first.eval(&ids(400)).expect("evaluates");
    first.save(&file, b"note").expect("saves");

    let finetuned = TinySpec { seed: 43, ..tiny_spec("qwen3") };
    let other = load(&dir.write("other", &tiny(&finetuned)), &LoadOptions::default());
    assert!(refusal(&mut session(&other, 600, CacheType::I16), &file).contains("another model"));
    let seen = refusal(&mut session(&model, 600, CacheType::F16), &file);
    assert!(seen.contains("cache type is i16, here it is f16"), "{seen}");
    let seen = refusal(&mut session(&model, 399, CacheType::I16), &file);
    assert!(seen.contains("400 tokens, the context holds 399"), "{seen}");
    let exact = load(&path, &LoadOptions::default().exact(true));
    let seen = refusal(&mut session(&exact, 600, CacheType::I16), &file);
    assert!(seen.contains("activations is q8, here it is f32"), "{seen}");
    if let Some(isa) = Kernels::all().map(Kernels::isa).find(|&isa| isa != Kernels::best().isa()) {
        let slow = load(&path, &LoadOptions::default().isa(isa));
        let seen = refusal(&mut session(&slow, 600, CacheType::I16), &file);
        assert!(seen.contains("instruction set"), "{seen}");
    }
    // Angles of long contexts.
    let long = model_of(&dir, &TinySpec::new("phi3", TinyArch::Phi3));
    let mut short_ctx = session(&long, 200, CacheType::I16);
    short_ctx.eval(&ids(3)).expect("evaluates");
    short_ctx.save(&file, b"").expect("saves");
    let seen = refusal(&mut session(&long, 400, CacheType::I16), &file);
    assert!(seen.contains("rotary embedding"), "{seen}");

    let mut empty = session(&model, 600, CacheType::I16);
    assert!(refusal(&mut empty, &path).contains("no saved session"));
    let missing = folder.path().join("missing");
    assert!(refusal(&mut empty, &missing).contains("missing"));
    // A failed write leaves the old file.
    let before = std::fs::read(&file).expect("a file");
    assert!(first.save(&file, &vec![0; (64 << 20) + 1]).is_err());
    assert!(first.save(missing.join("context"), b"").is_err());
    assert_eq!(std::fs::read(&file).expect("a file"), before);
}

fn model_of(dir: &TinyModels, spec: &TinySpec) -> Arc<Model> {
    load(&dir.write(spec.name, &tiny(spec)), &LoadOptions::default().threads(2))
}

#[test]
fn no_damage_goes_unseen() {
    let dir = TinyModels::new();
    let model = model(&dir, "llama");
    let mut engine = Engine::new(&model, &EngineOptions::default().ctx_tokens(400)).expect("an engine");
    let id = engine.add().expect("a sequence");
    engine.step(&[Run::new(id, &ids(300))], &mut |_| {}).expect("evaluates");
    let mut file = Vec::new();
    engine.save(id, Some(TokenId(5)), b"a note", &mut file).expect("saves");
    let mut restore = |bytes: &[u8]| {
        engine.truncate(id, 0).expect("goes back");
        let result = engine.restore(id, &mut &bytes[..]);
        assert_eq!(result.is_ok(), !engine.tokens(id).expect("a sequence").is_empty());
        result
    };
    restore(&file).expect("whole");
    const BLOCK: usize = 64 << 10;
    assert!(file.len().is_multiple_of(BLOCK) && file.len() / BLOCK >= 4, "{}", file.len());
    // In the header, among the tokens, in the note, in a hash, in the first and in the last page.
    for at in [0, 9, 40, 100, BLOCK, BLOCK + 1199, BLOCK + 1203, BLOCK + 1206, 2 * BLOCK, file.len() - BLOCK] {
        let mut damaged = file.clone();
        damaged[at] ^= 1;
        assert!(restore(&damaged).is_err(), "byte {at}");
    }
    for len in [0, 5, BLOCK - 1, BLOCK, BLOCK + 7, 2 * BLOCK, file.len() - BLOCK, file.len() - 1] {
        let error = restore(&file[..len]).expect_err("cut off").to_string();
        assert!(error.contains("damaged") || error.contains("no saved session"), "{len}: {error}");
    }
    let error = restore(&[&file[..], &[0]].concat()).expect_err("longer").to_string();
    assert!(error.contains("behind its end"), "{error}");
    restore(&file).expect("still whole");
}

#[test]
fn a_chat_goes_on_where_it_was_saved() {
    let dir = TinyModels::new();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("chat");
    let model = model(&dir, "llama");
    let chat = || {
        let source = "{% for m in messages %}<{{ m.role }}>{{ m.content }}</s>{% endfor %}<assistant>";
        let template = ChatTemplate::new(source, SpecialTokens::default()).expect("a template");
        let options = GenerateOptions::default().max_tokens(12);
        Chat::new(session(&model, 900, CacheType::I16), Sampler::default(), template, options)
    };
    let say = |chat: &mut Chat, text: &str| {
        let turn = chat.send(text, |_| std::ops::ControlFlow::Continue(())).expect("an answer");
        (turn.answer, turn.stats.prompt_tokens)
    };
    let mut first = chat();
    first.set_system(Some("Be brief.".into()));
    say(&mut first, "one");
    say(&mut first, "two");
    first.save(&file).expect("saves");
    let mut second = chat();
    second.restore(&file).expect("restores");
    assert_eq!(second.messages(), first.messages());
    assert!(second.restore(&file).is_err(), "it has begun");
    // Seeds begin anew; the counts of tokens do not depend on them.
    let ((_, whole), (_, again)) = (say(&mut first, "three"), say(&mut second, "three"));
    assert_eq!(whole, again, "nothing that was computed is computed again");
    // What is no chat.
    let mut plain = session(&model, 900, CacheType::I16);
    plain.eval(&ids(5)).expect("evaluates");
    plain.save(&file, b"{}").expect("saves");
    let error = chat().restore(&file).expect_err("a text");
    assert!(matches!(error, Error::Saved { source: SavedError::NotAChat, .. }), "{error}");
}

//! Any bytes as a saved context, and in the place of fields of one whose hash is right again.
#![no_main]

use std::cell::RefCell;

use libfuzzer_sys::fuzz_target;
use modelembed::{Engine, EngineOptions, LoadOptions, Model, Run, SequenceId, TokenId};
use modelembed_packed::sha256_hex;
use modelembed_testkit::{tiny, tiny_spec};

/// An engine over a tiny model, with an empty sequence.
fn engine() -> (Engine, SequenceId) {
    let path = std::env::temp_dir().join(format!("modelembed-fuzz-{}.gguf", std::process::id()));
    std::fs::write(&path, tiny(&tiny_spec("falcon-h1"))).expect("a temporary folder");
    let options = LoadOptions::default().threads(1);
    let model = Model::load(&path, &options).expect("a model");
    let _ = std::fs::remove_file(&path);
    let mut engine = Engine::new(&model, &EngineOptions::default().ctx_tokens(600)).expect("an engine");
    let id = engine.add().expect("a sequence");
    (engine, id)
}

/// A file that was saved, as it is written for 300 tokens.
fn saved(engine: &mut Engine, id: SequenceId) -> Vec<u8> {
    let tokens: Vec<TokenId> = (0..300).map(|i| TokenId(i % 200 + 3)).collect();
    engine.step(&[Run::new(id, &tokens)], &mut |_| {}).expect("evaluates");
    let mut file = Vec::new();
    engine.save(id, Some(TokenId(3)), b"a note", &mut file).expect("saves");
    engine.truncate(id, 0).expect("goes back");
    file
}

/// The same with the bytes in the place of some of its fields behind the fingerprint, and a hash
/// that is right again: the numbers and hashes that describe what follows.
fn respelt(file: &[u8], bytes: &[u8]) -> Vec<u8> {
    let mut file = file.to_vec();
    let len = u32::from_le_bytes(file[12..16].try_into().expect("four bytes")) as usize;
    let [at, bytes @ ..] = bytes else { return file };
    let start = 16 + 32 + usize::from(*at) % (len - 32);
    let end = (start + bytes.len()).min(16 + len);
    file[start..end].copy_from_slice(&bytes[..end - start]);
    let hash = sha256_hex(&file[..16 + len]);
    for (i, byte) in file[16 + len..16 + len + 32].iter_mut().enumerate() {
        *byte = u8::from_str_radix(&hash[2 * i..2 * i + 2], 16).unwrap_or(0);
    }
    file
}

thread_local! {
    static ENGINE: RefCell<(Engine, SequenceId, Vec<u8>)> = {
        let (mut engine, id) = engine();
        let file = saved(&mut engine, id);
        RefCell::new((engine, id, file))
    };
}

fuzz_target!(|bytes: &[u8]| {
    ENGINE.with_borrow_mut(|(engine, id, file)| {
        for file in [bytes.to_vec(), respelt(file, bytes)] {
            if engine.restore(*id, &mut &file[..]).is_ok() {
                engine.truncate(*id, 0).expect("goes back to nothing");
            }
            assert!(engine.tokens(*id).expect("a sequence").is_empty());
            assert_eq!(engine.model().runtime().kv_bytes(), 0, "every page came back");
        }
    });
});

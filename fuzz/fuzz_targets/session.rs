//! Any bytes as a saved session, and as the fields of one whose header has the right hash, read as
//! `-session` reads them.
#![no_main]

use std::cell::RefCell;
use std::ops::ControlFlow::Continue;

use libfuzzer_sys::fuzz_target;
use modelembed::{Engine, EngineOptions, LoadOptions, Model, SequenceId};
use modelembed_packed::sha256_hex;
use modelembed_testkit::{tiny, tiny_spec};

/// An engine over a tiny model, with an empty sequence.
fn engine() -> (Engine, SequenceId) {
    let path = std::env::temp_dir().join(format!("modelembed-fuzz-{}.gguf", std::process::id()));
    std::fs::write(&path, tiny(&tiny_spec("llama"))).expect("a temporary folder");
    let options = LoadOptions { threads: Some(1), ..LoadOptions::default() };
    let model = Model::load(&path, &options, &mut |_| Continue(())).expect("a model");
    let _ = std::fs::remove_file(&path);
    let mut engine = Engine::new(&model, &EngineOptions::default().ctx_tokens(600)).expect("an engine");
    let id = engine.add().expect("a sequence");
    (engine, id)
}

/// The fields as the header of a file, with nothing behind it.
fn sealed(fields: &[u8]) -> Vec<u8> {
    let mut block = b"MEMBSESS".to_vec();
    block.extend(1u32.to_le_bytes());
    block.extend((fields.len() as u32).to_le_bytes());
    block.extend(fields);
    let hash = sha256_hex(&block);
    block.extend((0..32).map(|i| u8::from_str_radix(&hash[2 * i..2 * i + 2], 16).unwrap_or(0)));
    block.resize(block.len().max(64 << 10), 0);
    block
}

thread_local! {
    static ENGINE: RefCell<(Engine, SequenceId)> = RefCell::new(engine());
}

fuzz_target!(|bytes: &[u8]| {
    ENGINE.with_borrow_mut(|(engine, id)| {
        for file in [bytes.to_vec(), sealed(bytes)] {
            if engine.restore(*id, &mut &file[..]).is_ok() {
                engine.truncate(*id, 0).expect("goes back to nothing");
            }
            assert!(engine.tokens(*id).expect("a sequence").is_empty());
            assert_eq!(engine.model().runtime().kv_bytes(), 0, "every page came back");
        }
    });
});

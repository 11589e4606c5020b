//! Any vocabulary and any text: ids are below the vocabulary's size, pieces can be asked for, the
//! stream is UTF-8.
#![no_main]

use std::sync::Arc;

use libfuzzer_sys::fuzz_target;
use modelembed_gguf::{Gguf, SharedBytes};
use modelembed_text::{EncodeOptions, TokenId, Tokenizer};

const MODELS: [&str; 3] = ["gpt2", "llama", "gemma4"];
const PRE: [&str; 12] = [
    "default",
    "gpt-2",
    "smollm",
    "llama-bpe",
    "qwen35",
    "deepseek-llm",
    "tekken",
    "kimi-k2",
    "superbpe",
    "jais-2",
    "afmoe",
    "unknown",
];

/// Takes the input apart.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn byte(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        *first
    }

    fn bytes(&mut self) -> &'a [u8] {
        let len = usize::from(self.byte() & 15).min(self.0.len());
        let (now, later) = self.0.split_at(len);
        self.0 = later;
        now
    }
}

#[derive(Default)]
struct Header {
    body: Vec<u8>,
    entries: u64,
}

impl Header {
    fn string(&mut self, text: &[u8]) {
        self.body.extend((text.len() as u64).to_le_bytes());
        self.body.extend(text);
    }

    fn entry(&mut self, key: &str, kind: u32) {
        self.string(key.as_bytes());
        self.body.extend(kind.to_le_bytes());
        self.entries += 1;
    }

    fn array(&mut self, key: &str, item: u32, len: usize) {
        self.entry(key, 9);
        self.body.extend(item.to_le_bytes());
        self.body.extend((len as u64).to_le_bytes());
    }

    fn finish(self) -> Vec<u8> {
        let mut file = b"GGUF\x03\0\0\0\0\0\0\0\0\0\0\0".to_vec();
        file.extend(self.entries.to_le_bytes());
        file.extend(self.body);
        file
    }
}

fn header(input: &mut Input) -> Vec<u8> {
    let mut header = Header::default();
    header.entry("tokenizer.ggml.model", 8);
    header.string(MODELS[usize::from(input.byte()) % MODELS.len()].as_bytes());
    header.entry("tokenizer.ggml.pre", 8);
    header.string(PRE[usize::from(input.byte()) % PRE.len()].as_bytes());
    for key in ["tokenizer.ggml.tokens", "tokenizer.ggml.merges"] {
        let strings: Vec<&[u8]> = (0..input.byte() & 31).map(|_| input.bytes()).collect();
        header.array(key, 8, strings.len());
        strings.into_iter().for_each(|string| header.string(string));
    }
    let flags = input.byte();
    if flags & 1 != 0 {
        header.array("tokenizer.ggml.token_type", 5, 32);
        (0..32).for_each(|_| header.body.extend(i32::from(input.byte() % 8).to_le_bytes()));
    }
    if flags & 2 != 0 {
        header.array("tokenizer.ggml.scores", 6, 32);
        (0..32).for_each(|_| header.body.extend(f32::from_bits(u32::from(input.byte()) << 24).to_le_bytes()));
    }
    for key in ["bos", "eos", "eot", "unknown", "fim_pad"] {
        if input.byte() & 1 != 0 {
            header.entry(&format!("tokenizer.ggml.{key}_token_id"), 4);
            header.body.extend(u32::from(input.byte() % 40).to_le_bytes());
        }
    }
    for (bit, key) in [(4, "add_bos_token"), (8, "add_eos_token"), (16, "add_space_prefix")] {
        header.entry(&format!("tokenizer.ggml.{key}"), 7);
        header.body.push(u8::from(flags & bit != 0));
    }
    header.finish()
}

fn check(file: Vec<u8>, text: &[u8]) {
    let Ok(gguf) = Gguf::parse(&file, file.len() as u64) else { return };
    let shared: SharedBytes = Arc::new(file);
    let Ok(tokenizer) = Tokenizer::from_gguf(&gguf, shared) else { return };
    let mut stream = tokenizer.detokenizer();
    for (add_special, parse_special) in [(false, false), (true, true)] {
        let Ok(ids) = tokenizer.encode(text, EncodeOptions::default().add_special(add_special).parse_special(parse_special)) else { continue };
        for id in ids {
            assert!(id.index() < tokenizer.n_vocab());
            stream.push(id, true);
        }
    }
    stream.push(TokenId(u32::MAX), true);
    stream.finish();
}

fuzz_target!(|bytes: &[u8]| {
    check(bytes.to_vec(), b"any text <0x41>");
    let mut input = Input(bytes);
    let file = header(&mut input);
    check(file, input.0);
});

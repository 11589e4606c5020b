//! GGUF headers for tests: built from nothing, or a real model's with some values replaced.

use std::path::PathBuf;
use std::sync::Arc;

use modelembed_gguf::{Gguf, SharedBytes};
use modelembed_text::{TextError, Tokenizer};

/// A metadata value to write.
#[derive(Clone, Debug)]
pub enum Meta {
    U32(u32),
    Bool(bool),
    Str(Vec<u8>),
    Strs(Vec<Vec<u8>>),
    F32s(Vec<f32>),
    I32s(Vec<i32>),
    U8s(Vec<u8>),
}

impl Meta {
    pub fn str(text: &str) -> Meta {
        Meta::Str(text.into())
    }

    pub fn strs(texts: &[&str]) -> Meta {
        Meta::Strs(texts.iter().map(|text| text.as_bytes().to_vec()).collect())
    }

    fn write(&self, out: &mut Vec<u8>) {
        fn string(text: &[u8], out: &mut Vec<u8>) {
            out.extend((text.len() as u64).to_le_bytes());
            out.extend(text);
        }
        fn array(item: u32, len: usize, out: &mut Vec<u8>) {
            out.extend(9u32.to_le_bytes());
            out.extend(item.to_le_bytes());
            out.extend((len as u64).to_le_bytes());
        }
        match self {
            Meta::U32(v) => {
                out.extend(4u32.to_le_bytes());
                out.extend(v.to_le_bytes());
            }
            Meta::Bool(v) => {
                out.extend(7u32.to_le_bytes());
                out.push((*v).into());
            }
            Meta::Str(v) => {
                out.extend(8u32.to_le_bytes());
                string(v, out);
            }
            Meta::Strs(v) => {
                array(8, v.len(), out);
                v.iter().for_each(|text| string(text, out));
            }
            Meta::F32s(v) => {
                array(6, v.len(), out);
                v.iter().for_each(|x| out.extend(x.to_le_bytes()));
            }
            Meta::I32s(v) => {
                array(5, v.len(), out);
                v.iter().for_each(|x| out.extend(x.to_le_bytes()));
            }
            Meta::U8s(v) => {
                array(0, v.len(), out);
                out.extend(v);
            }
        }
    }
}

/// A header without tensors.
pub fn header(entries: &[(&str, Meta)]) -> Vec<u8> {
    let mut body = Vec::new();
    for (key, value) in entries {
        body.extend((key.len() as u64).to_le_bytes());
        body.extend(key.as_bytes());
        value.write(&mut body);
    }
    with_start(entries.len(), &body)
}

fn with_start(n_kv: usize, body: &[u8]) -> Vec<u8> {
    let mut out = b"GGUF".to_vec();
    out.extend(3u32.to_le_bytes());
    out.extend(0u64.to_le_bytes());
    out.extend((n_kv as u64).to_le_bytes());
    out.extend(body);
    out
}

/// The metadata of a valid file with some entries replaced or added, and without its tensors.
pub fn patched(file: &[u8], changes: &[(&str, Meta)]) -> Vec<u8> {
    let u64_at = |at: usize| u64::from_le_bytes(file[at..at + 8].try_into().unwrap()) as usize;
    let u32_at = |at: usize| u32::from_le_bytes(file[at..at + 4].try_into().unwrap());
    let (mut at, mut body, mut n) = (24, Vec::new(), 0);
    for _ in 0..u64_at(16) {
        let start = at;
        let key = &file[at + 8..at + 8 + u64_at(at)];
        at += 8 + key.len() + 4;
        let size = |ty: u32| [1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8][ty as usize];
        match u32_at(at - 4) {
            8 => at += 8 + u64_at(at),
            9 => {
                let (item, len) = (u32_at(at), u64_at(at + 4));
                at += 12;
                match item {
                    8 => (0..len).for_each(|_| at += 8 + u64_at(at)),
                    item => at += len * size(item),
                }
            }
            ty => at += size(ty),
        }
        if !changes.iter().any(|(changed, _)| changed.as_bytes() == key) {
            body.extend(&file[start..at]);
            n += 1;
        }
    }
    let added = header(changes);
    body.extend(&added[24..]);
    with_start(n + changes.len(), &body)
}

pub fn tokenizer(header: Vec<u8>) -> Result<Tokenizer, TextError> {
    let gguf = Gguf::parse(&header, header.len() as u64).expect("the header is valid");
    let shared: SharedBytes = Arc::new(header);
    Tokenizer::from_gguf(&gguf, shared)
}

/// A file of the folder that an environment variable names (or of `fallback` in the workspace);
/// `None`, with a note, if it is not there and need not be.
pub fn file(variable: &str, fallback: &str, name: &str) -> Option<Vec<u8>> {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../..");
    let folder = std::env::var_os(variable).map_or(root.join(fallback), PathBuf::from);
    let path = folder.join(name);
    match std::fs::read(&path) {
        Ok(bytes) => Some(bytes),
        Err(error) => {
            let required = variable == "MODELEMBED_MODELS" && std::env::var_os("MODELEMBED_REQUIRE_MODELS").is_some();
            assert!(!required, "{}: {error}", path.display());
            eprintln!("skipped: {}: {error}", path.display());
            None
        }
    }
}

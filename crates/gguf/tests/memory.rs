//! The parser's memory is bounded by the header that it was given, whatever the header says: one
//! test in a binary of its own, since the counter counts the whole process.

#[path = "it/raw.rs"]
mod raw;

use modelembed_gguf::{Gguf, split};
use modelembed_storage::CountingAllocator;
use modelembed_testkit::{GEMMA3, GgufWriter, SMOLLM2, real_model};
use raw::{Raw, file, types};

#[global_allocator]
static ALLOCATOR: CountingAllocator = CountingAllocator;

/// `n` names that are as short as different names can be.
fn short_names(n: usize) -> impl Iterator<Item = String> {
    let letters: Vec<char> = (0x21u8..0x7f).map(char::from).collect();
    (0..n).map(move |mut i| {
        let mut name = String::new();
        loop {
            name.push(letters[i % letters.len()]);
            i /= letters.len();
            if i == 0 {
                return name;
            }
            i -= 1;
        }
    })
}

/// Files whose table entries cost most for the fewest bytes, and files that promise what they do
/// not hold.
fn worst_cases() -> Vec<(&'static str, Vec<u8>, u64)> {
    const N: usize = 65_536;
    let far = 1 << 50;
    let pairs = |each: &dyn Fn(Raw, &str) -> Raw| short_names(N).fold(file(0, N as u64), |raw, key| each(raw, &key)).0;
    let whole = |bytes: Vec<u8>| (bytes.len() as u64, bytes);
    let mut out = Vec::new();
    let mut add = |name, (file_bytes, bytes)| out.push((name, bytes, file_bytes));
    add("pairs of one byte", whole(pairs(&|raw, key| raw.key(key, types::U8).bytes(&[1]))));
    add("empty strings", whole(pairs(&|raw, key| raw.key(key, types::STRING).string(b""))));
    add("empty arrays", whole(pairs(&|raw, key| raw.array(key, types::U8, 0))));
    add("arrays of no strings", whole(pairs(&|raw, key| raw.array(key, types::STRING, 0))));
    add("arrays of one string", whole(pairs(&|raw, key| raw.array(key, types::STRING, 1).string(b""))));
    let n = 1 << 20;
    add("empty strings of one array", whole(file(0, 1).array("k", types::STRING, n).zeros(8 * n as usize).0));
    // The cheapest entries: one dimension, and offset 0 until the check of the extents refuses
    // them.
    let tensors = short_names(300_000).fold(file(300_000, 0), |raw, name| raw.tensor(&name, &[1], 24, 0));
    add("tensors of one byte", whole(tensors.0));
    let tensors = short_names(100_000).fold(file(100_000, 0), |raw, name| raw.tensor(&name, &[1; 4], 24, 0));
    add("tensors of four dimensions", whole(tensors.0));
    add("promised pairs", (far, file(0, 65_536).pair("k", 1).0));
    add("promised tensors", (far, file(1 << 31, 0).string(b"t").u32(1).u64(1).0));
    add("promised strings", (far, file(0, 1).array("k", types::STRING, 1 << 45).zeros(8 << 20).0));
    add("promised numbers", (far, file(0, 1).array("k", types::F32, 1 << 45).zeros(100).0));
    add("a long string", whole(file(0, 1).key("k", types::STRING).string(&vec![b'x'; 4 << 20]).0));
    add("a string that is no text", whole(file(0, 1).key("k", types::STRING).string(&vec![0xff; 4 << 20]).0));
    let tokens: Vec<String> = (0..262_144).map(|i| format!("token{i}")).collect();
    add("a large vocabulary", whole(GgufWriter::new().pair("tokenizer.ggml.tokens", tokens).build()));
    out
}

/// Headers of three files of one model, with the cheapest tensors that can be accepted.
fn split_model() -> Vec<Vec<u8>> {
    const N: u64 = 100_000;
    let mut names = short_names(3 * N as usize);
    let header = |index: u32| {
        let raw = file(N, 2).pair("split.no", index).pair("split.count", 3);
        (0..N).zip(&mut names).fold(raw, |raw, (i, name)| raw.tensor(&name, &[1], 24, 32 * i)).0
    };
    (0..3).map(header).collect()
}

fn read_split(headers: &[Vec<u8>]) -> Result<(), modelembed_gguf::Error> {
    let read: Result<Vec<Gguf>, _> = headers.iter().map(|header| Gguf::parse(header, 1 << 50)).collect();
    split::join(&mut read?.iter_mut().collect::<Vec<_>>())
}

#[test]
fn memory_is_bounded_by_the_header() {
    let mut cases = worst_cases();
    for model in [SMOLLM2, GEMMA3] {
        if let Some(path) = real_model(model) {
            let bytes = std::fs::read(path).unwrap();
            let header = Gguf::parse(&bytes, bytes.len() as u64).unwrap().data_offset() as usize;
            cases.push((model, bytes[..header].to_vec(), bytes.len() as u64));
        }
    }
    let mut wrong = Vec::new();
    for (name, bytes, file_bytes) in &cases {
        let before = CountingAllocator::total_bytes();
        let parsed = Gguf::parse(bytes, *file_bytes);
        // All that was handed out, given back or not: no less than the most that was held at a
        // time.
        let used = CountingAllocator::total_bytes() - before;
        let bound = 4 * bytes.len() as u64 + (1 << 20);
        let outcome = parsed.map(|_| ()).map_err(|e| e.to_string());
        eprintln!("{name}: {used} bytes for a header of {}, {outcome:?}", bytes.len());
        if used > bound {
            wrong.push((name, bytes.len(), used, bound));
        }
    }
    let headers = split_model();
    let n_bytes: usize = headers.iter().map(Vec::len).sum();
    let before = CountingAllocator::total_bytes();
    assert_eq!(read_split(&headers), Ok(()));
    let (used, bound) = (CountingAllocator::total_bytes() - before, 4 * n_bytes as u64 + (1 << 20));
    eprintln!("a split model: {used} bytes for headers of {n_bytes}");
    if used > bound {
        wrong.push((&"a split model", n_bytes, used, bound));
    }
    assert!(wrong.is_empty(), "(case, header, used, bound) {wrong:#?}");
}

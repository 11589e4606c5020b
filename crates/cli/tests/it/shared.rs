//! What processes that run the same model cost together, by the kernel's own accounts.

use crate::util::*;
use std::io::{BufRead, BufReader, Write};
use std::process::{Child, Stdio};

const MIB: u64 = 1 << 20;

/// The sum of a value over all mappings of a process, in bytes.
fn sum(pid: u32, key: &str) -> u64 {
    let smaps = std::fs::read(format!("/proc/{pid}/smaps_rollup")).expect("smaps_rollup of our own child");
    let smaps = String::from_utf8_lossy(&smaps).into_owned();
    let line = smaps.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':')).expect(key);
    line.trim().trim_end_matches("kB").trim().parse::<u64>().expect(key) * 1024
}

/// A chat that has answered once and waits for the next turn, with the length of its context in
/// bytes of keys and values.
fn chat(model: &str, home: &std::path::Path) -> Child {
    let mut command = binary(home);
    command.args(["-model", model, "-i", "-quiet", "-temp", "0", "-n", "8", "-threads", "1", "-format", "json"]);
    let mut chat = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    chat.stdin.as_mut().unwrap().write_all(b"What is the capital of France?\n").unwrap();
    let mut answer = String::new();
    BufReader::new(chat.stdout.as_mut().unwrap()).read_line(&mut answer).unwrap();
    assert!(answer.contains("\"response\""), "{answer}");
    chat
}

#[test]
fn four_processes_share_one_model() {
    for (name, kv_bytes_per_token) in [(SMOLLM2, 30 * 2 * 192 * 2), (GEMMA3, 18 * 2 * 256 * 2)] {
        let Some(model) = real_model(name) else { continue };
        let model_bytes = std::fs::metadata(&model).unwrap().len();
        let home = tempfile::tempdir().unwrap();
        let mut chats: Vec<Child> = (0..4).map(|_| chat(&model, home.path())).collect();
        let pss: u64 = chats.iter().map(|chat| sum(chat.id(), "Pss")).sum();
        let private: Vec<u64> = chats.iter().map(|chat| sum(chat.id(), "Anonymous")).collect();
        chats.iter_mut().for_each(|chat| drop(chat.stdin.take()));
        for mut chat in chats {
            chat.wait().unwrap();
        }
        eprintln!("{name}: proportional {:.1} MB together, private {private:?}", pss as f64 / MIB as f64);
        assert!(pss <= model_bytes + 4 * 40 * MIB, "{name}: {pss} bytes for a model of {model_bytes}");
        // A question and an answer of 8 tokens, with the template's own, are far less than this.
        let kv_bytes = 128 * kv_bytes_per_token;
        assert!(private.iter().all(|bytes| *bytes <= kv_bytes + 30 * MIB), "{name}: {private:?}");
    }
}

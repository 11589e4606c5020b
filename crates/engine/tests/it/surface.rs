//! What the library promises beside what it does: which values other threads may have, and that
//! its examples run.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use modelembed::{Chat, Engine, Error, Model, ModelFiles, Runtime, Sampler, Session, Tokenizer};
use modelembed_testkit::{SMOLLM2, real_model, tiny, tiny_spec};

use crate::common::TinyModels;

#[test]
fn models_are_shared_between_threads_and_sessions_move() {
    fn is_shared<T: Send + Sync + 'static>() {}
    fn moves<T: Send + 'static>() {}
    is_shared::<Model>();
    is_shared::<ModelFiles>();
    is_shared::<Runtime>();
    is_shared::<Tokenizer>();
    is_shared::<Error>();
    moves::<Session>();
    moves::<Engine>();
    moves::<Chat>();
    moves::<Sampler>();
}

/// The binary of an example, which is built with the tests.
fn example(name: &str) -> Command {
    // target/PROFILE/deps/TEST
    let test = std::env::current_exe().expect("a path");
    let profile = test.ancestors().nth(2).expect("a folder").to_owned();
    let binary = profile.join("examples").join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
    assert!(binary.is_file(), "{} is not built", binary.display());
    Command::new(binary)
}

/// What it prints for a model, further arguments and an input.
fn printed(name: &str, model: &Path, args: &[&str], input: &str) -> String {
    let mut command = example(name);
    command.arg(model).args(args).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("starts");
    child.stdin.take().expect("a pipe").write_all(input.as_bytes()).expect("is read");
    let output = child.wait_with_output().expect("ends");
    let told = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name}: {told}");
    String::from_utf8(output.stdout).expect("text")
}

fn models() -> (TinyModels, Vec<PathBuf>) {
    let dir = TinyModels::new();
    let tiny = dir.write("tiny", &tiny(&tiny_spec("llama")));
    (dir, [Some(tiny), real_model(SMOLLM2)].into_iter().flatten().collect())
}

#[test]
fn the_examples_run() {
    let (_dir, models) = models();
    for (i, model) in models.iter().enumerate() {
        let is_real = i == 1;
        let text = printed("generate", model, &["The capital of France is"], "");
        assert!(!text.trim().is_empty(), "{text:?}");
        let answers = printed("chat", model, &[], "What is the capital of France?\nAnd of Italy?\n");
        // What so small a model answers hangs on roundings, which differ between instruction sets.
        assert!(answers.lines().filter(|line| !is_real || !line.is_empty()).count() >= 2, "{answers:?}");
        let batch = printed("batch", model, &[], "");
        assert!(batch.starts_with("One, two, three,") && batch.contains("\nThe sky is"), "{batch:?}");
        assert!(!is_real || batch.contains("four, five, six"), "{batch}");
        let chosen = printed("sampler", model, &["Hi"], "");
        assert!(chosen.chars().any(|c| c.is_ascii_alphabetic()) || !is_real, "{chosen:?}");
        assert!(!chosen.contains(|c: char| ('n'..='z').contains(&c)), "{chosen:?}");
    }
}

#[test]
fn examples_are_short() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples");
    for name in ["generate", "chat", "batch", "sampler"] {
        let text = std::fs::read_to_string(folder.join(name).with_extension("rs")).expect("an example");
        let n_code = text.lines().filter(|line| !line.trim().is_empty() && !line.starts_with("//!")).count();
        assert!((10..=30).contains(&n_code), "{name} has {n_code} lines of code");
    }
}

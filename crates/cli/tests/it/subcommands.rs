//! tokenize, inspect, score, bench, completions.

use crate::util::*;
use modelembed_testkit::{GgufWriter, tiny_metadata, tiny_spec};
use serde_json::Value;

fn ids(run: &Run) -> Vec<u64> {
    run.json()["tokens"].as_array().unwrap().iter().map(|token| token["id"].as_u64().unwrap()).collect()
}

#[test]
fn tokenize_gives_ids_and_pieces() {
    let tiny = tiny_model();
    let command = ["tokenize", "-model", &tiny.model, "-format", "json"];
    let json = run(&[&command[..], &["-p", "the cat"]].concat()).ok();
    let pieces: String =
        json.json()["tokens"].as_array().unwrap().iter().map(|token| token["piece"].as_str().unwrap()).collect();
    assert!(pieces.replace("<s>", "").trim_start() == "the cat", "{}", json.stdout);
    assert_eq!(ids(&json)[0], 1);
    assert_eq!(json.stderr, "");
    // Special tokens: added and read, or not.
    let special = run(&[&command[..], &["-p", "a</s>"]].concat()).ok();
    let plain = run(&[&command[..], &["-p", "a</s>", "-no-special"]].concat()).ok();
    assert!(ids(&special).starts_with(&[1]) && ids(&special).contains(&2), "{}", special.stdout);
    assert!(!ids(&plain).contains(&1) && !ids(&plain).contains(&2), "{}", plain.stdout);
    // One line a token for people.
    let text = run(&["tokenize", "-model", &tiny.model, "-p", "the cat"]).ok();
    assert_eq!(text.stdout.lines().count(), ids(&json).len());
}

#[test]
fn tokenize_reads_standard_input_byte_for_byte() {
    let tiny = tiny_model();
    let command = ["tokenize", "-model", &tiny.model, "-format", "json", "-p"];
    let tokens = |input: &[u8]| ids(&run_in(tiny.folder.path(), &[&command[..], &["-"]].concat(), Some(input)).ok());
    assert_eq!(tokens(b"the cat"), ids(&run(&[&command[..], &["the cat"]].concat()).ok()));
    let with_line_end = tokens(b"the cat\n");
    assert_eq!(with_line_end.len(), tokens(b"the cat").len() + 1);
    assert!(tokens(b"\xff\xfe\x00").len() >= 3);
    assert!(tokens(b"").len() <= 1);
}

#[test]
fn a_file_with_a_vocabulary_only_is_enough_to_tokenize_and_inspect() {
    let folder = tempfile::tempdir().unwrap();
    let writer =
        tiny_metadata(&tiny_spec("llama")).into_iter().fold(GgufWriter::new(), |w, (key, value)| w.pair(&key, value));
    std::fs::write(folder.path().join("vocab.gguf"), writer.build()).unwrap();
    let tokens = run_in(folder.path(), &["tokenize", "-model", "vocab.gguf", "-p", "the", "-format=json"], None).ok();
    assert!(ids(&tokens).len() >= 2);
    let inspected = run_in(folder.path(), &["inspect", "-model", "vocab.gguf"], None).ok();
    assert!(inspected.stdout.contains("Tensors: 0"), "{}", inspected.stdout);
    let run = run_in(folder.path(), &["-model", "vocab.gguf", "-p", "the"], None);
    assert_eq!(run.code, 1);
    assert!(run.stderr.contains("token_embd.weight"), "{}", run.stderr);
}

#[test]
fn inspect_shows_metadata_tensors_and_types() {
    let tiny = tiny_model();
    let text = run(&["inspect", "-model", &tiny.model]).ok();
    for part in ["GGUF v3", "general.architecture", "\"llama\"", "token_embd.weight", "F32", "Parameters: "] {
        assert!(text.stdout.contains(part), "{part}: {}", text.stdout);
    }
    let json = run(&["inspect", "-model", &tiny.model, "-format", "json"]).ok();
    let object: Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(object["metadata"]["general.architecture"], "llama");
    assert_eq!(object["bytes"].as_u64().unwrap(), std::fs::metadata(&tiny.model).unwrap().len());
    let tensors = object["tensors"].as_array().unwrap();
    let of_types: u64 = object["types"].as_object().unwrap().values().map(|ty| ty["tensors"].as_u64().unwrap()).sum();
    assert_eq!(of_types, tensors.len() as u64);
    assert_eq!(object["metadata"]["tokenizer.ggml.tokens"]["length"], 320);
}

#[test]
fn score_judges_every_token_after_the_first() {
    let tiny = tiny_model();
    let score = run(&["score", "-model", &tiny.model, "-p", "the cat sat"]).ok();
    let lines: Vec<Value> = score.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let tokens = run(&["tokenize", "-model", &tiny.model, "-p", "the cat sat", "-format", "json"]).ok();
    let scored: Vec<u64> = lines.iter().map(|line| line["id"].as_u64().unwrap()).collect();
    assert_eq!(scored, ids(&tokens));
    assert!(lines[0]["logprob"].is_null() && lines[0]["top1"].is_null());
    for (i, line) in lines.iter().enumerate() {
        assert_eq!(line["pos"], i);
        let logprob = line["logprob"].as_f64();
        assert!(i == 0 || logprob.is_some_and(|p| p < 0.0 && p > -100.0), "{line}");
        assert!(i == 0 || line["top1"].as_u64().is_some_and(|id| id < 320), "{line}");
    }
    let empty = run_in(tiny.folder.path(), &["score", "-ctx", "3", "-p", "the cat sat on the mat"], None);
    assert_eq!(empty.code, 1);
    assert!(empty.stderr.contains("-ctx"), "{}", empty.stderr);
}

#[test]
fn bench_reports_speed() {
    let tiny = tiny_model();
    let command =
        ["bench", "-model", &tiny.model, "-prompt-tokens", "32", "-gen-tokens", "8", "-repeat", "2", "-threads", "2"];
    let object = run(&[&command[..], &["-format", "json"]].concat()).ok().json();
    let keys = [
        "prompt_tokens_per_second",
        "decode_tokens_per_second",
        "gb_per_second",
        "read_gb_per_second",
        "bandwidth_share",
        "load_ms",
        "first_token_ms",
        "load_to_first_token_ms",
    ];
    for key in keys {
        assert!(object[key].as_f64().is_some_and(|x| x > 0.0), "{key}: {object}");
    }
    assert!(object["private_bytes"].is_u64() || !cfg!(target_os = "linux"), "{object}");
    assert_eq!((&object["prompt_tokens"], &object["threads"]), (&32.into(), &2.into()));
    assert!(run(&command).ok().stdout.contains("tokens/s"));
}

#[test]
fn bench_takes_a_depth_lists_of_threads_and_of_short_prompts() {
    let tiny = tiny_model();
    let common = ["bench", "-model", &tiny.model, "-repeat", "3", "-no-bandwidth", "-format", "json"];
    let lists =
        ["-threads", "1,2", "-depth", "100", "-gen-tokens", "4", "-prompt-tokens", "0", "-short-prompts", "1,7"];
    let stdout = run(&[&common[..], &lists].concat()).ok().stdout;
    let lines: Vec<serde_json::Value> = stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.iter().map(|line| line["threads"].as_u64()).collect::<Vec<_>>(), [Some(1), Some(2)]);
    for line in &lines {
        assert_eq!((&line["depth"], line["decode_us"].as_array().map(Vec::len)), (&100.into(), Some(3)), "{line}");
        let short: Vec<_> = line["short_prompts"].as_array().unwrap().iter().map(|short| &short["tokens"]).collect();
        assert_eq!(short, [1, 7]);
        assert!(line["prompt_tokens_per_second"].is_null() && line["read_gb_per_second"].is_null(), "{line}");
    }
    let sequences = ["-sequences", "1,3", "-gen-tokens", "4", "-prompt-tokens", "9"];
    let stdout = run(&[&common[..], &["-threads", "2"], &sequences].concat()).ok().stdout;
    let object: serde_json::Value = serde_json::from_str(&stdout).unwrap();
    assert!(object["scored_tokens_per_second"].as_f64().is_some_and(|speed| speed > 0.0), "{object}");
    let measured: Vec<_> = object["sequences"].as_array().unwrap().iter().collect();
    assert_eq!(measured.iter().map(|found| &found["sequences"]).collect::<Vec<_>>(), [1, 3]);
    for found in measured {
        assert!(found["decode_tokens_per_second"].as_f64().is_some_and(|speed| speed > 0.0), "{object}");
        assert_eq!(found["us"].as_array().map(Vec::len), Some(3), "{object}");
    }
    assert_eq!(run(&[&common[..], &["-sequences", "2", "-gen-tokens", "0"]].concat()).code, 2);
    for (words, code) in [(&["-prompt-tokens", "0", "-gen-tokens", "0"][..], 2), (&["-depth", "2000"], 0)] {
        assert_eq!(run(&[&common[..], &["-threads", "1"], words].concat()).code, code, "{words:?}");
    }
    assert_eq!(run(&["-model", &tiny.model, "-threads", "1,2", "-n", "1"]).code, 2);
}

#[test]
fn bench_writes_a_synthetic_model_that_runs() {
    let tiny = tiny_model();
    let out = tiny.folder.path().join("made.gguf");
    let path = out.to_str().unwrap();
    let made = run(&["bench", "-synthetic", "smollm2-135m:q4_0", "-out", path, "-vocab", &tiny.model]).ok();
    assert!(made.stderr.contains("made.gguf"), "{}", made.stderr);
    let inspected = run(&["inspect", "-model", path, "-format", "json"]).ok().stdout;
    let object: serde_json::Value = serde_json::from_str(&inspected).unwrap();
    assert_eq!(object["tensors"].as_array().map(Vec::len), Some(272), "as the real model has");
    let bench = ["bench", "-model", path, "-prompt-tokens", "5", "-gen-tokens", "2", "-repeat", "1", "-no-bandwidth"];
    assert!(run(&bench).ok().stdout.contains("tokens/s"));
    let missing = tiny.folder.path().join("no/such/folder/made.gguf");
    let refused =
        run(&["bench", "-synthetic", "smollm2-135m:q4_0", "-out", missing.to_str().unwrap(), "-vocab", &tiny.model]);
    assert_eq!(refused.code, 1);
    assert!(refused.stderr.contains("cannot write"), "{}", refused.stderr);
    let unknown = run(&["bench", "-synthetic", "smollm9:q4_0", "-out", path, "-vocab", &tiny.model]);
    assert!(unknown.code == 1 && unknown.stderr.contains("llama-1.1b"), "{}", unknown.stderr);
    let left: Vec<_> = std::fs::read_dir(tiny.folder.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| !name.to_string_lossy().starts_with(".synthetic")), "{left:?}");
}

#[test]
fn completions_are_scripts() {
    for (shell, part) in [("bash", "complete"), ("zsh", "#compdef modelembed"), ("fish", "complete -c modelembed")] {
        assert!(run(&["completions", shell]).ok().stdout.contains(part), "{shell}");
    }
}

#[test]
fn a_program_is_printed_with_layers_that_are_alike_once() {
    let tiny = tiny_model();
    let text = run(&["inspect", "-program", "-model", &tiny.model]).ok().stdout;
    let (description, program) = text.split_once("\nProgram:\n").unwrap();
    for line in ["input", "layers 0-2", "  attend ", "  gate-up ", "head", "  logits "] {
        assert_eq!(program.lines().filter(|l| l.starts_with(line)).count(), 1, "{line:?} in {text}");
    }
    let json = run(&["inspect", "-program", "-format", "json", "-model", &tiny.model]).ok().stdout;
    let object: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!((object["program"].as_str(), object["problem"].is_null()), (Some(program), true));
    assert_eq!(object["description"].as_str(), Some(description));
    let both = run(&["inspect", "-program", "-plan", "-model", &tiny.model]);
    assert_eq!(both.code, 2, "{}", both.stderr);
}
